package probe

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// paceEvery is short against the spells that it is to find: hosts were seen to slow
	// a virtual machine's cores down to a twelfth for 50 ms and more, at once, with
	// nothing counted as stolen. Looking costs a quarter of a hundredth of a core.
	paceEvery = 20 * time.Millisecond
	// slowBy is beyond what a sibling hyper-thread or a lower clock rate makes of it.
	slowBy = 4
)

// Pace is how steadily this machine computes: a little work is timed again and again
// with the CPU clock of its thread, which does not count the wait for a core. What the
// host takes from a virtual machine is in no counter of its own, and in every figure.
type Pace struct {
	looks, slow atomic.Uint64
	least       time.Duration // for one piece of work
	sink        uint32        // what the work makes, so that it is done
	stop, done  chan struct{}
}

// WatchPace looks at the machine's pace until Stop.
func WatchPace() *Pace {
	p := &Pace{stop: make(chan struct{}), done: make(chan struct{})}
	go p.watch()
	return p
}

func (p *Pace) watch() {
	defer close(p.done)
	runtime.LockOSThread() // whose clock it is
	defer runtime.UnlockOSThread()
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		before := threadTime()
		work := p.sink
		for range 20_000 { // tens of µs
			work = work*1664525 + 1013904223
		}
		p.sink = work
		p.Saw(threadTime() - before)
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

// Saw counts one look at the time that the same work takes.
func (p *Pace) Saw(took time.Duration) {
	if took <= 0 { // the clock can't be read
		return
	}
	if p.least == 0 || took < p.least {
		p.least = took
	}
	p.looks.Add(1)
	if took > slowBy*p.least {
		p.slow.Add(1)
	}
}

// Counts are all looks so far, and those at which the machine was slower than a
// quarter of its best.
func (p *Pace) Counts() (looks, slow uint64) { return p.looks.Load(), p.slow.Load() }

// Stop ends the watch.
func (p *Pace) Stop() {
	close(p.stop)
	<-p.done
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
