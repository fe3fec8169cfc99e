package sender

import (
	"container/heap"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/ledger"
)

// schedule prepares the next send of the schedule: its number, room, sender and
// the time it is due. Numbers of several processes interleave; so do their times.
func (s *Sender) schedule() {
	k := s.scheduled
	s.scheduled++
	number := uint64(s.cfg.First) + k*uint64(s.cfg.Stride)
	index := number - 1
	j := job{send: ledger.Send(number)}
	rooms := uint64(s.cfg.Crowd.Rooms())
	if s.cfg.BySize {
		seat := s.rng.IntN(s.cfg.Crowd.Seats())
		room, member := s.cfg.Crowd.Seat(seat)
		j.room, j.member = uint32(room), uint32(member)
	} else {
		j.room = uint32(index % rooms)
		j.member = uint32(index / rooms % uint64(s.cfg.Crowd.Size(int(j.room))))
	}
	j.carries = s.carries()
	s.unissued = j
	if s.rate <= 0 {
		return
	}
	switch {
	case !s.cfg.Poisson:
		nth := float64((k-s.beginAt)*uint64(s.cfg.Stride)) + float64(s.cfg.First-1)
		s.nextDue = clock.After(s.begin, nth/s.rate*1e9)
	case k == s.beginAt:
		s.nextDue = s.begin
	default:
		s.nextDue = clock.After(s.nextDue, s.rng.ExpFloat64()*float64(s.cfg.Stride)/s.rate*1e9)
	}
}

// issue gives idle connections what is due: first what was refused before, it
// has waited longest.
func (s *Sender) issue() {
	for len(s.idle) > 0 {
		if next, ok := s.held.next(); ok && next <= s.now {
			s.attempt(heap.Pop(&s.held).(heldSend).job)
			continue
		}
		if !s.due() {
			return
		}
		if s.rate > 0 {
			s.unissued.due = s.nextDue
			s.meters.lag.Record(s.now - max(s.nextDue, s.starved))
		} else {
			if len(s.held) >= len(s.idle) { // flat out means so many at once, those that are held back included
				return
			}
			s.unissued.due = s.now
		}
		j := s.unissued
		s.stats.Issued++
		s.schedule()
		s.attempt(j)
	}
	s.starved = s.now
}

// carryOver sees to it that what is due, and no connection was idle for, outlives
// its schedule: due when it was, it goes when there is one.
func (s *Sender) carryOver() {
	if s.rate <= 0 {
		return
	}
	for s.issue(); len(s.held) < maxHeld && s.due(); {
		j := s.unissued
		j.due = s.nextDue
		s.stats.Issued++
		s.schedule()
		s.hold(j, 0, "")
	}
	s.stats.Unsent += s.behind()
}

// due says whether the schedule has a send for now.
func (s *Sender) due() bool {
	if s.running && s.endAt < s.now && (s.rate <= 0 || s.nextDue > s.endAt) {
		s.running = false
		s.scheduled-- // the one that was prepared is not sent
	}
	return s.running && (s.rate <= 0 || s.nextDue <= s.now)
}

// behind is how many sends are due and not begun.
func (s *Sender) behind() uint64 {
	late := min(s.cfg.Clock.Now(), s.endAt) - s.nextDue
	if !s.running || s.rate <= 0 || late < 0 {
		return 0
	}
	return 1 + uint64(float64(late)/1e9*s.rate/float64(s.cfg.Stride))
}

// hold lets a send wait for its next attempt.
func (s *Sender) hold(j job, waitNs int64, reason string) {
	switch {
	case j.tries >= s.cfg.Tries:
		s.stats.Failed.Count("given up after all attempts, the last: " + reason)
	case len(s.held) >= maxHeld:
		s.stats.Failed.Count("given up, too many are waiting: " + reason)
	default:
		heap.Push(&s.held, heldSend{j, s.now + waitNs})
	}
}

// heldSend waits until at.
type heldSend struct {
	job
	at int64
}

// heldSends is a heap by time.
type heldSends []heldSend

func (h heldSends) next() (at int64, ok bool) {
	if len(h) == 0 {
		return 0, false
	}
	return h[0].at, true
}
func (h heldSends) Len() int           { return len(h) }
func (h heldSends) Less(i, j int) bool { return h[i].at < h[j].at }
func (h heldSends) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heldSends) Push(x any)        { *h = append(*h, x.(heldSend)) }

// Pop implements heap.Interface.
func (h *heldSends) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
