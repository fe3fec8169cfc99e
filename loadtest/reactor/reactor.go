// Package reactor is the tester's use of epoll: one set of descriptors, one
// goroutine that waits for it, and a mailbox through which others reach that
// goroutine. It knows nothing of what the descriptors are for.
//
// It is for Linux, as the figures are: elsewhere the program is built with it and
// New says that it can't.
package reactor

import (
	"errors"
	"time"
)

// ErrUnsupported is what New returns on a system without epoll.
var ErrUnsupported = errors.New("the load tester's clients need Linux (epoll): run it there, and aim it here with --gateway and --api")

// Ask runs f on the reactor's goroutine and returns its answer; ok is false when
// it has not come after patience.
func Ask[T any](r *Reactor, patience time.Duration, f func() T) (answer T, ok bool) {
	ch := make(chan T, 1)
	r.Post(func() { ch <- f() })
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case answer = <-ch:
		return answer, true
	case <-timer.C:
		return answer, false
	}
}

// Share is how a loop spent an interval. A loop that was not waiting for events
// most of the time is at its limit if it had the CPU, and starved if it had not.
type Share struct {
	Whole   time.Duration
	Working time.Duration // not waiting for events
	CPU     time.Duration // of its thread
}

// Add adds the interval that followed.
func (s *Share) Add(next Share) {
	s.Whole += next.Whole
	s.Working += next.Working
	s.CPU += next.CPU
}
