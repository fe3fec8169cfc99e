package swarm

import (
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/target"
)

// Chatter is how much clients say besides heartbeats: per client and second, on
// the average.
type Chatter struct {
	Typing, Focus, Read float64
}

// Chat lets clients chatter from now on.
func (s *Swarm) Chat(c Chatter) {
	s.poll.Post(func() { s.chatter, s.chattered = c, s.cfg.Clock.Now() })
}

// chat says what is due by now: each time a client and one of its rooms by
// chance.
func (s *Swarm) chat() {
	perSecond := s.chatter.Typing + s.chatter.Focus + s.chatter.Read
	if perSecond == 0 || s.stats.Live == 0 {
		return
	}
	s.chatDue += perSecond * float64(s.stats.Live) * float64(s.now-s.chattered) / 1e9
	s.chattered = s.now
	s.chatDue = min(s.chatDue, float64(len(s.clients))) // after a stall of our own: no flood
	for ; s.chatDue >= 1; s.chatDue-- {
		i := s.rng.Uint32N(uint32(len(s.clients)))
		first, end := s.firstReader[i], s.firstReader[i+1]
		if c := &s.clients[i]; c.state != live || c.stalled || first == end {
			continue
		}
		id := ledger.ReaderID(first + s.rng.Uint32N(end-first))
		what := target.Read
		switch p := s.rng.Float64() * perSecond; {
		case p < s.chatter.Typing:
			what = target.Typing
		case p < s.chatter.Typing+s.chatter.Focus:
			what = target.Focus
		}
		if s.cfg.Transport != target.WebSocket {
			s.aside.say(i, what, id)
			continue
		}
		payload := s.cfg.Dialect.AppendChatter(s.out[:0], what, s.roomOf(id), s.book.Position(id))
		if len(payload) > 0 {
			s.stats.Chatter++
			s.say(i, opText, payload)
		}
	}
}
