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
// more, step by step, until it is late again. What its readers can take is not
// known before, and lateness shows late: so a room whose deliveries are many begins
// with a pace that is surely kept (the slow start of TCP, RFC 5681 section 3.1),
// and has one for as long as it uses half of it.
package pace

import "math"

// Rates are in messages per second, times in milliseconds.
const (
	// targetMs is the lateness that is let be. Larger lets more be coalesced into
	// one write; smaller holds senders back for a hiccup.
	targetMs = 100
	// alarmMs is where draining the backlog comes before throughput: well within the
	// promised half a second.
	alarmMs = 200
	// firstCut is deep: how much too much was sent is not known yet, and what has
	// piled up meanwhile has to be read as well.
	firstCut = 0.3
	// minRate keeps a room alive however late it is.
	minRate = 5
	// startDeliveries per second is what a loop surely keeps up with, at one write
	// each (5–6 µs). A room that asks for half of it gets a pace.
	startDeliveries = 200_000
	// blindRate is what loops report for sure: of slower rooms nothing may be heard.
	blindRate = 100
	// What is added per 100 ms: far from the rate at which the room was late last, or
	// before it ever was, and near that (in the manner of CUBIC, RFC 9438).
	growth, nearGrowth = 0.04, 0.004
	// near is where that begins.
	near = 0.75
	// LeaseMs is how long a decision holds without being renewed: a gateway that
	// dies must not leave a room slow.
	LeaseMs = 2000
	// EveryMs is how often lateness is reported and decided on.
	EveryMs = 100
	// maxGrowMs bounds what is added after a while without a report.
	maxGrowMs = 300
	// A decision shows when what was sent before it has been read: about as late as
	// the room was.
	minCoolMs, maxCoolMs = 200, 1000
	// freeAfterMs without lateness, using less than half of what it might, a room is
	// let go.
	freeAfterMs = 3000
)

// Report is what one loop saw of a room since its last report.
type Report struct {
	LateMs  int64 // how far behind half of its connections are
	Events  int   // handed out since, in EveryMs
	Members int   // connections that each was handed out to
}

// Notable says whether a report of a room that has no pace is of interest.
func (r Report) Notable() bool {
	return r.LateMs > targetMs || r.Events*r.Members*1000/EveryMs > startDeliveries/2
}

// start is a pace that is surely kept.
func (r Report) start() float64 {
	return max(minRate, math.Floor(startDeliveries/float64(max(r.Members, 1))))
}

// Room is the pace of one room, zero to begin with.
type Room struct {
	rate     float64 // 0: not held back
	coolTill int64   // until when what was decided is given time to show
	usedAt   int64   // when it was late, or used half of its pace
	grewAt   int64
	brink    float64 // the rate at which it became late last; 0: it never did
	late     bool
	worst    Report // of the present period
	reported bool
	periodAt int64
}

// Report takes in what one loop saw. Over a period the latest loop counts.
func (r *Room) Report(rep Report) {
	r.worst.LateMs = max(r.worst.LateMs, rep.LateMs)
	r.worst.Events = max(r.worst.Events, rep.Events)
	r.worst.Members = max(r.worst.Members, rep.Members)
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
	rep, late := r.worst, r.reported && r.worst.LateMs > targetMs
	r.worst, r.reported = Report{}, false
	got := float64(rep.Events) * 1000 / float64(period)
	switch {
	case late:
		if !r.late {
			r.late, r.brink = true, r.rate
		}
		r.usedAt, r.grewAt = now, now
		if now < r.coolTill {
			break
		}
		factor := firstCut
		if r.rate == 0 {
			got = min(got, rep.start()/firstCut)
		} else {
			got, factor = min(max(got, r.rate/2), r.rate), 0.8
			if rep.LateMs > alarmMs {
				factor = 0.5
			}
		}
		r.rate = max(minRate, math.Floor(got*factor))
		r.coolTill = now + min(max(rep.LateMs, minCoolMs), maxCoolMs)
	case r.rate == 0 && !rep.Notable():
		return 0, true
	case r.rate == 0:
		r.rate = rep.start()
		r.usedAt, r.grewAt = now, now
	case got > r.rate/2, r.rate < blindRate:
		r.late = false
		step := growth
		if r.brink > 0 && r.rate > near*r.brink {
			step = nearGrowth
		}
		steps := float64(min(now-r.grewAt, maxGrowMs)) / EveryMs
		r.rate += (r.rate*step + 2) * steps
		r.grewAt = now
		if got > r.rate/2 {
			r.usedAt = now
		}
	case now-r.usedAt > freeAfterMs:
		return 0, true
	}
	return r.rate, false
}
