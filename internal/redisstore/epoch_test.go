package redisstore_test

import (
	"maps"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// Redis comes back empty, and the gateway that finds it so is the one that gave
// it its first epoch.
func TestLostDataIsANewEpochToItsOwnMaker(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL(), func(o *redisstore.Options) { o.Links = 1 })
	e := listen(s)
	epoch := func() string {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.epochs[0]
	}
	soon(t, 10*time.Second, "an epoch", func() bool { return epoch() != "" })
	first := epoch()
	r.Must(t, "FLUSHALL") // the links stay up
	soon(t, 10*time.Second, "another epoch", func() bool { return epoch() != first })
	second := epoch()
	// The schema was lost as well: the next who has anything to do writes it, before a
	// process with another number of partitions does.
	soon(t, 10*time.Second, "the schema again", func() bool {
		_, _, err := s.History(t.Context(), as("alice"), "r", nil, nil, 1)
		wantErr(t, err, chat.ErrNoRoom)
		n := r.Must(t, "EXISTS", "madang:schema")
		return n == int64(1)
	})
	if err := r.Restart(); err != nil {
		t.Fatal(err)
	}
	soon(t, 20*time.Second, "a third epoch", func() bool { return epoch() != second })
}

// A clock that leaps ahead has ended what has a time to live, and nobody else says so:
// who is online expires there although everybody is.
func TestAClockThatLeapsAheadIsANewEpoch(t *testing.T) {
	r := testkit.Mini(t)
	s := open(t, r.URL())
	e := listen(s)
	e.wantHealthy(t, 5*time.Second)
	epochs := func() map[int]string {
		e.mu.Lock()
		defer e.mu.Unlock()
		return maps.Clone(e.epochs)
	}
	soon(t, 5*time.Second, "all epochs", func() bool { return len(epochs()) == 16 })
	first := epochs()
	r.SetTime(time.Now().Add(time.Hour))
	soon(t, 10*time.Second, "new epochs in all partitions", func() bool {
		for part, is := range epochs() {
			if is == first[part] {
				return false
			}
		}
		return true
	})
}
