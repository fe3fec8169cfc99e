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
// a room that is late is given less than it got, so that the backlog drains; then
// more, step by step, until it is late again or gets all that is sent.
package pace

import "math"

// Rates are in messages per second, times in milliseconds.
const (
	// TargetMs is the lateness that is let be. Larger lets more be coalesced into
	// one write; smaller holds senders back for a hiccup.
	TargetMs = 200
	// alarmMs is where draining the backlog comes before throughput: well within the
	// promised half a second.
	alarmMs = 350
	// firstCut is deep: how much too much was sent is not known yet, and what has
	// piled up meanwhile has to be read as well.
	firstCut = 0.3
	// minRate keeps a room alive however late it is.
	minRate = 5
	// LeaseMs is how long a decision holds without being renewed: a gateway that
	// dies must not leave a room slow.
	LeaseMs = 2000
	// EveryMs is how often lateness is reported and decided on.
	EveryMs = 100
	// A decision shows when what was sent before it has been read: about as late as
	// the room was.
	minCoolMs, maxCoolMs = 200, 1000
	// freeAfterMs without lateness and with room to spare, a room is let go.
	freeAfterMs = 3000
)

// Report is what one loop saw of a room since its last report.
type Report struct {
	LateMs int64 // how far behind half of its connections are
	Events int   // handed out since
}

// Room is the pace of one room, zero to begin with.
type Room struct {
	rate     float64 // 0: not held back
	coolTill int64   // until when what was decided is given time to show
	calmFrom int64   // since when it has not been late; 0: it is
	worst    Report  // of the present period
	reported bool
	periodAt int64
}

// Report takes in what one loop saw. Over a period the latest loop counts.
func (r *Room) Report(rep Report) {
	r.worst.LateMs = max(r.worst.LateMs, rep.LateMs)
	r.worst.Events = max(r.worst.Events, rep.Events)
	r.reported = true
}

// Advance ends a period. rate is what to allow, 0 for no limit; done says that
// nothing needs to be remembered of the room.
func (r *Room) Advance(now int64) (rate float64, done bool) {
	period := now - r.periodAt
	if r.periodAt == 0 || period <= 0 || period > 10*EveryMs {
		period = EveryMs
	}
	r.periodAt = now
	rep, late := r.worst, r.reported && r.worst.LateMs > TargetMs
	r.worst, r.reported = Report{}, false
	switch {
	case late:
		r.calmFrom = 0
		if now < r.coolTill {
			break
		}
		base, factor := float64(rep.Events)*1000/float64(period), firstCut
		if r.rate > 0 {
			base, factor = min(max(base, r.rate/2), r.rate), 0.8
			if rep.LateMs > alarmMs {
				factor = 0.5
			}
		}
		r.rate = max(minRate, math.Floor(base*factor))
		r.coolTill = now + min(max(rep.LateMs, minCoolMs), maxCoolMs)
	case r.rate == 0:
		return 0, true
	default:
		if r.calmFrom == 0 {
			r.calmFrom = now
		}
		if now-r.calmFrom > freeAfterMs {
			return 0, true
		}
		r.rate = math.Ceil(r.rate*1.03 + 2)
	}
	return r.rate, false
}
