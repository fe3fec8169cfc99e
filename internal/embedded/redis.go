// Package embedded is the Redis of `madang dev`, and of the tests that want what it
// runs on. It is kept in memory and forgets everything at its end.
package embedded

import (
	"time"

	"github.com/alicebob/miniredis/v2"
)

// agesEvery is how often time passes for it, and so by how much a key may live
// shorter than said. Each time it looks at all of its keys.
const agesEvery = 250 * time.Millisecond

// Redis is a miniredis whose keys age by the clock. It could let them do so itself
// (ClockTTL), but then it looks at all keys before each command, those in scripts
// too: a send took 40 ms once ten thousand of them were there.
type Redis struct {
	*miniredis.Miniredis

	end, ended chan struct{} // end is closed by Close, ended when no time passes any more
}

// New makes a Redis that Start starts.
func New() *Redis {
	return &Redis{miniredis.NewMiniRedis(), make(chan struct{}), make(chan struct{})}
}

// Start has it listen on a free port of the loopback.
func (r *Redis) Start() error {
	if err := r.StartAddr("127.0.0.1:0"); err != nil {
		return err
	}
	go r.age() // Close ends it, and waits for it
	return nil
}

func (r *Redis) age() {
	defer close(r.ended)
	ticker := time.NewTicker(agesEvery)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-r.end:
			return
		case <-ticker.C:
			now := time.Now()
			r.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Close ends it, once it was started.
func (r *Redis) Close() {
	close(r.end)
	<-r.ended
	r.Miniredis.Close()
}

// URL is what --redis takes.
func (r *Redis) URL() string { return "redis://" + r.Addr() + "/0" }
