package fleet

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// Event is one event that came down a socket.
type Event struct {
	Type     string `json:"type"`
	Room     string `json:"room"`
	ID       string `json:"id"`
	Prev     string `json:"prev"`
	N        uint64 `json:"n"`
	From     string `json:"from"`
	Key      string `json:"key"`
	SentAt   string `json:"sent_at"`
	Body     Body   `json:"body"`
	User     string `json:"user"`
	Head     string `json:"head"`
	Conn     string `json:"conn"`
	RoomsRev uint64 `json:"rooms_rev"`
	Reason   string `json:"reason"`
	Code     string `json:"code"`
	Status   string `json:"status"`
	LastSeen string `json:"last_seen"`
	UntilMs  int    `json:"until_ms"`

	Raw json.RawMessage `json:"-"`
}

// Body is a message's content.
type Body struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// parseFrame splits a frame into its events.
func parseFrame(frame []byte) ([]Event, error) {
	var events []Event
	for line := range bytes.SplitSeq(frame, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		e := Event{Raw: bytes.Clone(line)}
		if err := json.Unmarshal(line, &e); err != nil {
			return events, err
		}
		events = append(events, e)
	}
	return events, nil
}

// Newer says whether message ID a is newer than b; "" is older than any. It is
// written anew here, so that a mistake in protocol.ID can't hide itself.
func Newer(a, b string) bool {
	aMs, aSeq := split(a)
	bMs, bSeq := split(b)
	return aMs > bMs || aMs == bMs && aSeq > bSeq
}

func split(id string) (ms, seq uint64) {
	left, right, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(left, 10, 64)
	seq, _ = strconv.ParseUint(right, 10, 64)
	return ms, seq
}
