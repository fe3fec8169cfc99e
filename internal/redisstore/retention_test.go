package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

func TestRetentionByCountAndAge(t *testing.T) {
	for _, a := range arrangements[:2] {
		t.Run(a, func(t *testing.T) {
			s := open(t, servers.url(t, a), func(o *redisstore.Options) { o.MaxLen = 10 })
			id := room(t, s, "alice")
			var last chat.Sent
			for range 300 {
				last = send(t, s, id, "alice", name("k"), "x")
			}
			pages, _ := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: id, Limit: 1000}})
			if n := len(pages[0].Entries); n < 10 || n > 210 || pages[0].Head != last.ID || pages[0].N != 300 {
				t.Errorf("%d entries, head %v", n, pages[0].Head)
			}

			s = open(t, servers.url(t, a), func(o *redisstore.Options) { o.MaxAge = 100 * time.Millisecond })
			id = room(t, s, "alice")
			last = send(t, s, id, "alice", "k", "x")
			soon(t, 5*time.Second, "an idle room's log gone", func() bool {
				pages, _ := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: id, Limit: 10}})
				return len(pages[0].Entries) == 0 && pages[0].Head == last.ID && pages[0].N == 1
			})
			must(t, s.MarkRead(t.Context(), "alice", id, last.ID)) // the head is proven by the room
			next := send(t, s, id, "alice", "k2", "x")
			if next.Prev != last.ID || next.N != 2 {
				t.Errorf("%+v after %+v", next, last)
			}
			again, err := s.Send(t.Context(), chat.Send{Room: id, By: as("alice"), Key: "k", Hash: "x", Tail: tail("x")})
			if err != nil || again.ID != last.ID || again.Tail != nil {
				t.Errorf("a retry of what aged out: %+v %v", again, err)
			}
		})
	}
}

// Redis gives up whole nodes of a stream, of a hundred messages: in a room where somebody
// says something once a day, an age of a week would be one of months.
func TestAQuietRoomKeepsNothingForMuchLongerThanItsAge(t *testing.T) {
	const age = 500 * time.Millisecond
	for _, a := range arrangements[:2] {
		t.Run(a, func(t *testing.T) {
			s := open(t, servers.url(t, a), func(o *redisstore.Options) { o.MaxAge = age })
			id := room(t, s, "alice")
			for range 10 {
				last := send(t, s, id, "alice", name("k"), "x")
				pages, _ := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: id, Limit: 1000}})
				if of := pages[0].Entries; len(of) > 0 && of[0].ID.Ms+uint64(age.Milliseconds()) < last.ID.Ms {
					t.Fatalf("%d messages are kept, back to %v before the newest", len(of), time.Duration(last.ID.Ms-of[0].ID.Ms)*time.Millisecond)
				}
				time.Sleep(age / 5)
			}
		})
	}
}

// A log that was to go by its age stays once that does not count any more: not
// only what is sent from then on.
func TestAnAgeThatCountsNoMoreDeletesNothing(t *testing.T) {
	r := testkit.Redis(t)
	aged := open(t, r.URL(), func(o *redisstore.Options) { o.MaxAge = time.Hour })
	ageless := open(t, r.URL())
	id := room(t, aged, "alice")
	ttl := func() int64 {
		t.Helper()
		v := r.Must(t, "PTTL", keysLike(t, r, "*:room:"+id+":log"))
		return v.(int64)
	}
	for range 2 { // also while processes with either setting run side by side
		send(t, aged, id, "alice", name("k"), "x")
		if ttl() <= 0 {
			t.Fatal("no age is set")
		}
		send(t, ageless, id, "alice", name("k"), "x")
		if left := ttl(); left != -1 {
			t.Fatalf("the log goes in %d ms", left)
		}
	}
}

// A room keeps what was said for it, by whatever measure; what goes is counted.
func TestRetentionOfOneRoom(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	big := strings.Repeat("x", 1000)
	for _, a := range arrangements[:2] {
		t.Run(a, func(t *testing.T) {
			trimmed, length := map[string]int{}, 0
			s := open(t, servers.url(t, a), func(o *redisstore.Options) {
				o.MaxBytes = 20_000
				o.Observer.LogLength = func(messages int) { length = messages }
				o.Observer.Trimmed = func(by string, messages int) { trimmed[by] += messages }
			})
			fill := func(r *chat.Retention) (kept int) {
				t.Helper()
				clear(trimmed)
				id := room(t, s, "alice")
				if r != nil {
					must(t, s.Retain(t.Context(), id, *r))
				}
				for range 160 {
					send(t, s, id, "alice", name("k"), big)
				}
				pages, _ := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: id, Limit: 1000}})
				if length != len(pages[0].Entries) {
					t.Errorf("%d messages are said to be in the log, which has %d", length, len(pages[0].Entries))
				}
				if pages[0].N != 160 || len(pages[0].Entries)+trimmed["count"]+trimmed["age"]+trimmed["bytes"] != 160 {
					t.Errorf("%d of %d messages are kept, %v were trimmed", len(pages[0].Entries), pages[0].N, trimmed)
				}
				return len(pages[0].Entries)
			}
			if kept := fill(nil); kept < 8 || kept > 50 || trimmed["bytes"] == 0 {
				t.Errorf("the deployment's 20,000 bytes: %d of 1,000 bytes kept, %v", kept, trimmed)
			}
			if kept := fill(&chat.Retention{Bytes: number(0)}); kept != 160 {
				t.Errorf("no limit by bytes: %d kept, %v", kept, trimmed)
			}
			if kept := fill(&chat.Retention{Bytes: number(60_000)}); kept < 30 || kept > 110 || trimmed["bytes"] == 0 {
				t.Errorf("60,000 bytes: %d of 1,000 bytes kept, %v", kept, trimmed)
			}
			if kept := fill(&chat.Retention{Bytes: number(0), Messages: number(32)}); kept < 32 || kept > 64 || trimmed["count"] == 0 {
				t.Errorf("32 messages: %d kept, %v", kept, trimmed)
			}

			id := room(t, s, "alice")
			must(t, s.Retain(t.Context(), id, chat.Retention{AgeMs: number(60)}))
			last := send(t, s, id, "alice", "k", "x")
			empty := func() bool {
				pages, _ := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: id, Limit: 10}})
				return len(pages[0].Entries) == 0 && pages[0].Head == last.ID
			}
			soon(t, 5*time.Second, "an idle room's log gone", empty)
			must(t, s.Retain(t.Context(), id, chat.Retention{AgeMs: number(1000)}))
			last = send(t, s, id, "alice", "k2", "x")
			must(t, s.Retain(t.Context(), id, chat.Retention{})) // the deployment's: for good
			time.Sleep(1300 * time.Millisecond)                  // past the age that the last send gave it
			if empty() {
				t.Error("the log went, though its age does not count any more")
			}
			wantErr(t, s.Retain(t.Context(), "no-such-room", chat.Retention{}), chat.ErrNoRoom)
		})
	}
}
