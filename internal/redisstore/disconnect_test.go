package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/redisstore"
)

func TestADisconnectionIsKeptAndTold(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u := name("u")
		room(t, s, u)
		e := listen(s)
		e.follow(t, userCh(u))
		state := func() (rev, disconnected uint64, rooms int) {
			t.Helper()
			states, errs := s.ReadUsers(t.Context(), []string{u})
			if errs != nil {
				t.Fatal(errs)
			}
			return states[0].Rev, states[0].Disconnected, len(states[0].Rooms)
		}
		rev0, never, _ := state()
		if never != 0 {
			t.Fatalf("disconnected at %d", never)
		}
		first, err := s.Disconnect(t.Context(), u)
		must(t, err)
		if d := time.Since(time.UnixMilli(int64(first))).Abs(); d > time.Minute {
			t.Errorf("disconnected %v from now", d)
		}
		rev1, at, rooms := state()
		if at != first || rev1 <= rev0 || rooms != 1 {
			t.Errorf("at %d, want %d; rev %d after %d; %d rooms", at, first, rev1, rev0, rooms)
		}
		second, err := s.Disconnect(t.Context(), u)
		must(t, err)
		if second <= first {
			t.Errorf("%d after %d", second, first)
		}
		rev2, _, _ := state()
		event := func(before, rev uint64) string {
			return fmt.Sprintf(`{"type":"disconnect","before_ms":%d,"rooms_rev":%d}`, before, rev)
		}
		e.wantEvents(t, userCh(u), event(first, rev1), event(second, rev2))

		// Who follows all of them sees the last one, and what is older no more than asked.
		seen := func(since uint64) (at uint64) {
			t.Helper()
			for more := true; more; {
				list, full, err := s.Revocations(t.Context(), since)
				must(t, err)
				for _, r := range list {
					if since = r.BeforeMs; r.User == u {
						at = r.BeforeMs
					}
				}
				more = full
			}
			return at
		}
		if got := seen(0); got != second {
			t.Errorf("the list says %d, want %d", got, second)
		}
		if got := seen(second + 1); got != 0 {
			t.Errorf("the list says %d to who asks for what is newer", got)
		}

		// Somebody who was never in a room.
		_, err = s.Disconnect(t.Context(), name("stranger"))
		must(t, err)
	})
}
