// Package clock is the run's time: nanoseconds on one monotonic line that all
// processes of the tester on one machine share, shaped like Unix time so that a
// message's age can also be told from its ID.
//
// The wall clock may step during a run; CLOCK_MONOTONIC does not, and it is the
// same for every process of a machine. Only its distance to the wall clock has to
// be agreed on: the coordinator takes it once and hands it to the workers. Those of
// another machine get what their CLOCK_MONOTONIC lacks to the same line, as far as
// a comparison over the network can tell (agents).
package clock

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Clock reads the run's time. It is a value: copy it freely.
type Clock struct {
	base  int64     // run time at start
	start time.Time // carries Go's monotonic reading, which the vDSO serves
}

// Offset is the distance from CLOCK_MONOTONIC to the wall clock, now.
func Offset() int64 {
	at, now := together(Monotonic)
	return now.UnixNano() - at
}

// New returns the clock of a run whose coordinator took offset.
func New(offset int64) Clock {
	at, now := together(Monotonic)
	return Clock{base: at + offset, start: now}
}

// together reads both clocks at one moment, to less than a microsecond: a process
// that is put aside between two readings would be wrong by so much for the whole
// run, and so would every latency.
func together(monotonic func() int64) (at int64, now time.Time) {
	closest := int64(math.MaxInt64)
	for range 10 {
		before := monotonic()
		then := time.Now()
		apart := monotonic() - before
		if apart < closest {
			closest, at, now = apart, before+apart/2, then
		}
	}
	return at, now
}

// Now returns the run's time in nanoseconds.
func (c Clock) Now() int64 { return c.base + int64(time.Since(c.start)) }

// After is the time so many nanoseconds after another. What is further away than time
// is counted is a lifetime away: it does not come.
func After(at int64, ns float64) int64 { return at + int64(min(ns, math.MaxInt64/4)) }

// Monotonic is CLOCK_MONOTONIC: one for all processes of a machine.
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("BUG: CLOCK_MONOTONIC: " + err.Error())
	}
	return ts.Nano()
}
