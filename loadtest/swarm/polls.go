package swarm

import (
	"time"

	"github.com/madang-chat/madang/loadtest/answer"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/target"
)

// polls are requests one after the other on a socket that is kept: each is
// answered when there is something or its wait is over, and the next follows at
// once (long poll), or each is answered at once and the next follows when it is
// due (plain polling).
//
// The client is the simplest there can be: it believes the positions of an answer
// and hands them back. Whatever an answer says too much of is lost by that, and
// the ledger tells.
type polls struct {
	*Swarm
	http  target.OverHTTP
	wait  time.Duration // of a long poll
	every time.Duration // of plain polling
}

// untold is the position of a reader that no answer has told one for: no room's
// log comes as far.
const untold = ^ledger.Pos(0)

func (polls) opens() string { return "poll" }

// begin asks without waiting: what was missed, or where the rooms are.
func (s polls) begin(i uint32) { s.ask(i, 0) }

// ask polls. What a client has not been told a position for, and has none of its
// own from before, begins where its room is.
func (s polls) ask(i uint32, wait time.Duration) {
	c := &s.clients[i]
	o := s.opening(i)
	s.positions = s.positions[:0]
	for id := s.firstReader[i]; id < s.firstReader[i+1]; id++ {
		pos := s.told[id]
		if pos == untold {
			if !c.resuming {
				continue
			}
			pos = s.book.Resume(ledger.ReaderID(id))
		}
		s.positions = append(s.positions, target.Position{Room: s.roomOf(ledger.ReaderID(id)), Pos: pos})
	}
	s.out = s.http.AppendPoll(s.out[:0], o, string(s.called[i]), s.positions, int(wait/time.Second))
	c.asking = true
	s.stats.Requests++
	s.write(i, s.out)
	s.wheel.set(i, s.ticks()+uint32((wait+s.cfg.Timeout)/tick))
}

func (s polls) take(i uint32, data []byte) []byte {
	c := &s.clients[i]
	for len(data) > 0 {
		if !c.asking {
			s.drop(i, "poll: an answer that nobody asked for")
			return nil
		}
		h, body, size, err := answer.Cut(data, readBufBytes)
		switch {
		case err != nil:
			s.drop(i, failure("poll", err))
			return nil
		case size == 0:
			return data
		}
		c.asking = false
		s.handleAnswer(i, &h, body)
		if c.fd < 0 {
			return nil
		}
		data = data[size:]
	}
	return nil
}

// handleAnswer takes what an answer brings and sees to the next poll.
func (s polls) handleAnswer(i uint32, h *answer.Head, body []byte) {
	c := &s.clients[i]
	if h.Status != 200 {
		s.refused(i, h)
		return
	}
	polled, ok := s.http.Polled(body)
	if !ok {
		s.drop(i, "poll: an answer that can't be read")
		return
	}
	s.stats.Frames++
	for event := polled.NextEvent(); event != nil; event = polled.NextEvent() {
		s.handlePayload(i, event)
	}
	for {
		room, pos, ok := polled.NextRoom()
		if !ok {
			break
		}
		if reader, ok := s.reader(i, room); ok {
			s.told[reader] = pos
		}
	}
	s.know(i, polled.Conn)
	arrived := c.state == upgrading
	if arrived {
		s.enliven(i)
	}
	spread := arrived && !c.reopened // who came together must not come back together ever after
	c.reopened = false
	switch {
	case c.lazilyMs > 0:
		s.drop(i, "asked to leave")
	case h.Close:
		s.disconnect(i)
		s.wheel.set(i, s.ticks()+1)
	case s.every > 0:
		s.rest(i, spread)
	case spread:
		s.ask(i, time.Second+time.Duration(s.rng.Int64N(int64(s.wait))))
	default:
		s.ask(i, s.wait)
	}
}

// rest waits until the next poll is due; spread: a random part of the interval.
func (s polls) rest(i uint32, spread bool) {
	c := &s.clients[i]
	every := uint32(max(1, s.every/tick))
	now := s.ticks()
	switch {
	case spread:
		c.nextPoll = now + 1 + s.rng.Uint32N(every)
	case int32(now-c.nextPoll) >= int32(every): // answered later than the next was due
		c.nextPoll = now + 1
	default:
		c.nextPoll += every
	}
	s.wheel.set(i, c.nextPoll)
}

// ended: a server need not keep a socket on which nothing is asked.
func (s polls) ended(i uint32) (string, bool) {
	return "closed by the server before it had answered", s.clients[i].asking
}

func (s polls) due(i uint32) {
	c := &s.clients[i]
	switch {
	case c.stalled:
		s.wheel.set(i, s.ticks()+uint32(max(s.every, time.Second/4)/tick)) // asks when it reads again
	case c.asking:
		s.drop(i, "poll: no answer in "+(s.wait+s.cfg.Timeout).String())
	case c.fd < 0:
		s.leave(i)
		c.since, c.reopened = s.now, true
		s.enqueue(i)
	default:
		s.ask(i, s.wait)
	}
}
