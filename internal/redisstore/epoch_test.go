package redisstore_test

import (
	"testing"
	"time"

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
	if _, err := r.Do("FLUSHALL"); err != nil { // the links stay up
		t.Fatal(err)
	}
	soon(t, 10*time.Second, "another epoch", func() bool { return epoch() != first })
	second := epoch()
	if err := r.Restart(); err != nil {
		t.Fatal(err)
	}
	soon(t, 20*time.Second, "a third epoch", func() bool { return epoch() != second })
}
