// Package procs has a process use one processor while that is enough, and all of them
// when it is not.
//
// A goroutine that becomes ready makes Go's scheduler wake another processor to help,
// which looks for work, finds none and sleeps again. A process that handles some
// thousand small events a second, one after the other, spends as much on that as on
// the events: with GOMAXPROCS at 1 the API took 40 % less CPU for a send and a gateway
// 30 % less for a delivery, at 1,000 messages a second (`make bench`: 1,000 rooms × 10).
// With more to do it would be a bottleneck. So GOMAXPROCS goes to all at once when the
// one processor is busy, or when somebody has a crowd to serve, and back to one when
// it was idle for a while.
package procs

import (
	"os"
	"runtime"
	"time"
)

const (
	// lookEvery is how often a process's CPU time is looked at: how long it may be
	// short of processors before they come.
	lookEvery = 100 * time.Millisecond
	// busyShare is the share of the one processor's time beyond which all are used.
	// What comes then still waits less than it takes.
	busyShare = 0.6
	// idleShare is how little CPU, in processors, is to be used for one to be enough.
	// It is less than busyShare, because one processor takes less for the same.
	idleShare = 0.5
	// late is how late two looks in a row may be. A process that others on the machine
	// keep from running uses little, and has much to do all the same.
	late = 5 * time.Millisecond
	// calmFor is for how long one has to be enough.
	calmFor = 2 * time.Second
)

// Governor sets GOMAXPROCS. It is safe for concurrent use, and a nil one does nothing.
type Governor struct {
	all   int           // processors
	crowd chan struct{} // 1 deep: somebody has much to do
	quit  chan struct{}
	done  chan struct{}
}

// New returns a governor that has not started; nil where there is nothing to choose:
// on a single processor, where the environment sets GOMAXPROCS, or where a process
// can't tell its CPU time cheaply.
func New() *Governor {
	if runtime.GOMAXPROCS(0) < 2 || os.Getenv("GOMAXPROCS") != "" || cpuTime() == 0 {
		return nil
	}
	return &Governor{
		all:   runtime.GOMAXPROCS(0),
		crowd: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
}

// Start starts it. It must be called once.
func (g *Governor) Start() {
	if g != nil {
		go g.run() // until Stop, which waits for it
	}
}

// Stop ends it, with all processors in use. It must be called once, after Start.
func (g *Governor) Stop() {
	if g != nil {
		close(g.quit)
		<-g.done
	}
}

// Crowd says that there is much to do at once: all processors are wanted now. It does
// not wait, and costs next to nothing while they are in use.
func (g *Governor) Crowd() {
	if g == nil {
		return
	}
	select {
	case g.crowd <- struct{}{}:
	default:
	}
}

func (g *Governor) run() {
	defer close(g.done)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	s := state{all: true, calmSince: time.Now()}
	at, used := time.Now(), cpuTime()
	crowd := g.crowd
	for {
		was := s.all
		select {
		case <-g.quit:
			g.use(true)
			return
		case <-crowd:
			s.crowded(time.Now())
			crowd = nil // until the next look: the channel stays full, and Crowd costs nothing
		case due := <-ticker.C:
			now, cpu := time.Now(), cpuTime()
			s.look(now, float64(cpu-used)/float64(now.Sub(at)), now.Sub(due) > late)
			at, used, crowd = now, cpu, g.crowd
		}
		if s.all != was {
			g.use(s.all)
		}
	}
}

// use stops the world for some microseconds.
func (g *Governor) use(all bool) {
	if all {
		runtime.GOMAXPROCS(g.all)
	} else {
		runtime.GOMAXPROCS(1)
	}
}

// state is what the governor goes by.
type state struct {
	all       bool
	wasLate   bool
	calmSince time.Time // since when one processor would have been enough
}

// crowded: there is much to do at once.
func (s *state) crowded(now time.Time) { s.all, s.calmSince = true, now }

// look judges how many processors were used since the last look, and whether it came
// late.
func (s *state) look(now time.Time, share float64, late bool) {
	starved := late && s.wasLate
	s.wasLate = late
	switch {
	case !s.all && (share > busyShare || starved):
		s.all, s.calmSince = true, now
	case s.all && (share > idleShare || starved):
		s.calmSince = now
	case s.all && now.Sub(s.calmSince) >= calmFor:
		s.all = false
	}
}
