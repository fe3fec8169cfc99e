// Package pace decides how fast a room may be sent to while its deliveries fall
// behind as a whole. Senders are held back where sends are accepted, so that no
// reader is lost and nothing accepted is late for long; a single slow reader
// does not count (the loops report when half of a room's sockets have taken a
// message).
//
// It is pure: no clock, no I/O. The hub feeds it what the loops report and
// writes its decisions where the send script reads them.
//
// The rule is additive-increase/multiplicative-decrease (Chiu and Jain, 1989):
// a room that is late is given less than what its sockets were seen to take, so
// that the backlog drains; then more, step by step, until it is late again or
// takes all that is sent.
package pace

import "math"

// Rates are in messages per second, times in milliseconds.
const (
	// TargetMs is the lateness that is let be. Larger lets more be coalesced into
	// one write; smaller holds senders back for a hiccup.
	TargetMs = 100
	// alarmMs is where draining the backlog comes before throughput. Half of the
	// promise of half a second.
	alarmMs = 250
	// minRate keeps a room alive however late it is.
	minRate = 5
	// LeaseMs is how long a decision holds without being renewed: a gateway that
	// dies must not leave a room slow.
	LeaseMs = 2000
	// EveryMs is how often lateness is reported and decided on.
	EveryMs = 100
	// freeAfterMs without lateness and with room to spare, a room is let go.
	freeAfterMs = 3000
)

// Report is what one loop saw of a room since its last report.
type Report struct {
	LateMs int64 // age of the newest message that half of the sockets have taken, or of the oldest that they have not
	Took   int   // messages that half of the sockets took
}

// Room is the pace of one room, zero to begin with.
type Room struct {
	rate     float64 // 0: not held back
	service  float64 // smoothed: messages per second the sockets take
	calmFrom int64   // since when it has not been late; 0: it is
	worst    Report  // of the present period
	reported bool
	periodAt int64
}

// Report takes in what one loop saw. Over a period the latest loop counts.
func (r *Room) Report(rep Report) {
	if !r.reported || rep.LateMs > r.worst.LateMs {
		r.worst = rep
	}
	r.reported = true
}

// Advance ends a period. rate is what to allow, 0 for no limit; done says that
// nothing needs to be remembered of the room.
func (r *Room) Advance(now int64) (rate float64, done bool) {
	period := now - r.periodAt
	if r.periodAt == 0 || period <= 0 {
		period = EveryMs
	}
	r.periodAt = now
	rep, reported := r.worst, r.reported
	r.worst, r.reported = Report{}, false
	if reported {
		took := float64(rep.Took) * 1000 / float64(period)
		if r.service == 0 {
			r.service = took
		} else {
			r.service += (took - r.service) / 2
		}
	}
	if reported && rep.LateMs > TargetMs {
		r.calmFrom = 0
		base := r.service
		if r.rate > 0 {
			base = min(base, r.rate)
		}
		factor := 0.9
		if rep.LateMs > alarmMs {
			factor = 0.5
		}
		r.rate = max(minRate, math.Floor(base*factor))
		return r.rate, false
	}
	if r.calmFrom == 0 {
		r.calmFrom = now
	}
	if r.rate == 0 {
		return 0, true
	}
	if now-r.calmFrom > freeAfterMs {
		return 0, true
	}
	r.rate = math.Ceil(r.rate*1.05 + 5)
	return r.rate, false
}
