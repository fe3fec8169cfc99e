package session

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/protocol"
)

func TestAsks(t *testing.T) {
	for body, want := range map[string]struct {
		rooms int
		wait  time.Duration
	}{
		`{}`: {0, 25 * time.Second},
		` { "wait_s" : 0 , "rooms" : { "r" : "5-0" , "q" : "1-2" } } `: {2, 0},
		`{"wait_s":60}`:                  {0, time.Minute},
		`{"rooms":{"not a room":"1-0"}}`: {0, 25 * time.Second}, // one the user is not in
	} {
		ask, bad := ParseAsk([]byte(body), true)
		if bad != nil || len(ask.Positions) != want.rooms || ask.Wait != want.wait || ask.Conn != "" {
			t.Errorf("%s: got %+v, %v", body, ask, bad)
		}
	}
	if ask, bad := ParseAsk([]byte(`{"conn":"a1b2c3d4.0000000100000001","rooms":{}}`), true); bad != nil || ask.Conn != "a1b2c3d4.0000000100000001" {
		t.Errorf("got %+v, %v", ask, bad)
	}
	if ask, bad := ParseAsk([]byte(`{"conn":"x","rooms":{}}`), false); bad == nil {
		t.Errorf("events are nobody's poll: got %+v", ask)
	}
	for _, body := range []string{
		`{"conn":5}`, `{"conn":null}`, `{"conn":"x","conn":"x"}`, `{"conn":"` + strings.Repeat("x", 65) + `"}`,
		``, `{`, `null`, `[]`, `{}{}`, `{"rooms":}`, `{"rooms":{"r":5}}`, `{"rooms":{"r":"5"}}`, `{"wait_s":00}`, `{"wait_s":1e1}`, `{"wait_s":1.0}`,
		`{"wait_s":}`, `{"Rooms":{}}`, `{"rooms":{},}`, `{"rooms":{} "wait_s":1}`, "{\"rooms\":{}}\x00", "\xff", strings.Repeat("{", 100_000),
	} {
		if ask, bad := ParseAsk([]byte(body), true); bad == nil {
			t.Errorf("%.40q: got %+v", body, ask)
		}
	}
}

// FuzzAsk: nothing panics, and what is accepted is what encoding/json makes of it.
func FuzzAsk(f *testing.F) {
	f.Add([]byte(`{"rooms":{"r":"5-0"},"wait_s":25}`), true)
	f.Add([]byte(`{"wait_s":0}`), true)
	f.Add([]byte(`{"conn":"a.\u0031"}`), true)
	f.Add([]byte(`{"rooms":{}}`), false)
	f.Add([]byte(`{"rooms":{"\u0072":"5-0"}}`), true)
	f.Fuzz(func(t *testing.T, body []byte, poll bool) {
		ask, bad := ParseAsk(body, poll)
		if bad != nil {
			return
		}
		var std struct {
			Rooms map[string]protocol.ID `json:"rooms"`
			WaitS *float64               `json:"wait_s"`
			Conn  string                 `json:"conn"`
		}
		if err := json.Unmarshal(body, &std); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		for room, at := range std.Rooms {
			if protocol.ValidRoom(room) && ask.Positions[room] != at {
				t.Fatalf("%q: %s is at %v, want %v", body, room, ask.Positions[room], at)
			}
		}
		if ask.Conn != std.Conn {
			t.Fatalf("%q: conn %q, want %q", body, ask.Conn, std.Conn)
		}
		wait := defaultWait
		if std.WaitS != nil {
			wait = time.Duration(*std.WaitS) * time.Second
		}
		if ask.Wait != wait || wait > maxWait || wait < 0 || std.WaitS != nil && !poll {
			t.Fatalf("%q: waits %v, want %v", body, ask.Wait, wait)
		}
	})
}
