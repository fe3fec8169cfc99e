package session_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/protocol"
)

// documented are the lines of docs/transports.md on WebSocket: events, and what a client
// says.
func documented(t *testing.T) (down, up []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/transports.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## WebSocket\n")
	section, _, _ = strings.Cut(section, "\n## ")
	parts := strings.Split(section, "```")
	if len(parts) != 5 {
		t.Fatalf("the section has %d parts", len(parts))
	}
	lines := func(block string) []string {
		return strings.Split(strings.TrimSpace(strings.TrimPrefix(block, "json")), "\n")
	}
	return lines(parts[1]), lines(parts[3])
}

func TestClientsMaySayWhatTheDocumentSays(t *testing.T) {
	_, up := documented(t)
	c := begin(true)
	said := map[string]bool{}
	for _, line := range up {
		if s := summary(c.says(line)); strings.HasPrefix(s, "kick ") || strings.HasPrefix(s, "refuse ") || strings.HasPrefix(s, "fail ") {
			t.Errorf("%s: %s", line, s)
		}
		said[protocol.TypeOf([]byte(line))] = true
	}
	all := []string{"auth", "delivered", "focus", "ping", "read", "resume", "typing", "watch"}
	if got := slices.Sorted(maps.Keys(said)); !slices.Equal(got, all) {
		t.Errorf("%v, want %v", got, all)
	}
}

func TestEventsAreAsTheDocumentSays(t *testing.T) {
	id, seen := protocol.ID{Ms: 1}, time.UnixMilli(1)
	want := map[string][]byte{
		"hello":     protocol.AppendHello(nil, "c", "u", 1, 25, "v"),
		"message":   protocol.AppendMessage(nil, "r", id, id, 1, []byte(`"from":"u","sent_at":"t","body":{},"key":"k"}`)),
		"resumed":   protocol.AppendResumed(nil, 1),
		"gap":       protocol.AppendGap(nil, "r", id, id),
		"joined":    protocol.AppendJoined(nil, "r", "u", id, 1),
		"left":      protocol.AppendLeft(nil, "r", "u", 1),
		"typing":    protocol.AppendTyping(nil, "r", "u", 1),
		"read":      protocol.AppendRead(nil, "r", "u", id),
		"delivered": protocol.AppendDelivered(nil, "r", "u", id),
		"presence":  protocol.AppendPresence(nil, "u", false, seen),
		"pong":      []byte(protocol.Pong),
		"bye":       protocol.AppendBye(nil, protocol.ByeDrain, 1),
		"error":     protocol.AppendError(nil, protocol.ErrInvalid, "d"),
	}
	fields := func(event []byte) []string {
		var all map[string]any
		if err := json.Unmarshal(event, &all); err != nil {
			t.Fatalf("%s: %v", event, err)
		}
		return slices.Sorted(maps.Keys(all))
	}
	down, _ := documented(t)
	for _, line := range down {
		kind := protocol.TypeOf([]byte(line))
		if event, ok := want[kind]; !ok {
			t.Errorf("no such event: %s", line)
		} else if got, want := fields([]byte(line)), fields(event); !slices.Equal(got, want) {
			t.Errorf("%s has %v, not %v", kind, want, got)
		}
		delete(want, kind)
	}
	for kind := range want {
		t.Errorf("%s is missing", kind)
	}
}
