package app

import (
	"time"

	"github.com/alicebob/miniredis/v2"
)

// agesEvery is how often time passes for the embedded Redis, and so by how much a
// key may live shorter than said. Each time it looks at all of its keys.
const agesEvery = 250 * time.Millisecond

// embedded is the Redis of `madang dev`. Its keys age by the clock. It could let
// them do so itself (ClockTTL), but then it looks at all keys before each command,
// those in scripts too: a send took 40 ms once ten thousand of them were there.
type embedded struct {
	*miniredis.Miniredis

	end, ended chan struct{} // end is closed by stop, ended when no time passes any more
}

func newEmbedded() *embedded {
	return &embedded{miniredis.NewMiniRedis(), make(chan struct{}), make(chan struct{})}
}

func (e *embedded) start() error {
	if err := e.StartAddr("127.0.0.1:0"); err != nil {
		return err
	}
	go e.age() // stop ends it, and waits for it
	return nil
}

func (e *embedded) age() {
	defer close(e.ended)
	ticker := time.NewTicker(agesEvery)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-e.end:
			return
		case <-ticker.C:
			now := time.Now()
			e.FastForward(now.Sub(last))
			last = now
		}
	}
}

func (e *embedded) stop() {
	close(e.end)
	<-e.ended
	e.Close()
}
