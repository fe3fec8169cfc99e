package target

import (
	"fmt"
	"strings"

	"github.com/madang-chat/madang/loadtest/ledger"
)

// Transport is the way by which a client gets what the server has for it.
type Transport uint8

// Transports.
const (
	WebSocket   Transport = iota
	EventStream           // server-sent events: one answer that does not end
	LongPoll              // a request is answered when there is something, or after a while; then comes the next
	Polling               // a request every so often, answered at once
)

var transportNames = [...]string{WebSocket: "ws", EventStream: "sse", LongPoll: "poll", Polling: "polling"}

// String is the transport's name on the command line and in reports.
func (t Transport) String() string { return transportNames[t] }

// Polls says whether clients ask again and again.
func (t Transport) Polls() bool { return t == LongPoll || t == Polling }

// AllTransports are their names.
func AllTransports() []string { return transportNames[:] }

// ParseTransport returns the transport of that name; the empty one is a WebSocket.
func ParseTransport(name string) (Transport, error) {
	if name == "" {
		return WebSocket, nil
	}
	for t, known := range transportNames {
		if name == known {
			return Transport(t), nil
		}
	}
	return 0, fmt.Errorf("transport %q is not known: give one of %s", name, strings.Join(transportNames[:], ", "))
}

// OverHTTP is a dialect whose clients can also receive without a WebSocket.
type OverHTTP interface {
	// AppendStream appends the request that opens an event stream. A client that
	// resumes hands over its positions with it.
	AppendStream(dst []byte, o Opening, positions []Position) []byte
	// AppendPoll appends a poll: what follows the positions, or what comes within
	// so many seconds. conn is what the last answer called the client's connection;
	// empty for the first poll.
	AppendPoll(dst []byte, o Opening, conn string, positions []Position, waitSeconds int) []byte
	// Polled takes the answer to a poll apart; false when it is none.
	Polled(body []byte) (Answer, bool)
	// AppendAside appends a request to the API that says what a WebSocket client
	// says on its socket; nothing where there is no such thing, or nothing to say.
	AppendAside(dst []byte, o Opening, conn string, what Chatter, room string, pos ledger.Pos) []byte
}
