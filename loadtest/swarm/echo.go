package swarm

import (
	"time"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/loadtest/target"
)

// Echo is what clients of an echoing server send (target.Echoer). Numbers and
// times of several processes interleave.
type Echo struct {
	First     ledger.Send
	Stride    int
	TextBytes int
}

// echo is the state of the clients' own sends.
type echo struct {
	dialect target.Echoer // nil: the target has senders of its own
	text    []byte
	running bool
	rate    float64 // of the whole run; 0: each client has one message under way
	begin   int64
	sent    uint64 // this schedule's
	numbers uint64 // all schedules'
	next    uint32 // client whose turn it is
	last    []uint64
	acks    []ledger.Ack
	lag     meter.Meter
	key     []byte
}

func (e *echo) init(cfg Config) {
	dialect, ok := cfg.Dialect.(target.Echoer)
	if !ok {
		return
	}
	e.dialect, e.last, e.lag = dialect, make([]uint64, cfg.Count), meter.New()
	for i := range cfg.Echo.TextBytes {
		e.text = append(e.text, "the quick brown fox jumps over the lazy dog "[i%44])
	}
}

// EchoBegin begins a schedule of rate sends per second of the whole run, or, at
// 0, of one message under way per client.
func (s *Swarm) EchoBegin(rate float64) {
	s.poll.Post(func() {
		e := &s.echo
		if e.dialect == nil {
			return
		}
		e.running, e.rate, e.begin, e.sent = true, rate, s.cfg.Clock.Now(), 0
		if rate > 0 {
			return
		}
		for i := range s.clients {
			s.echoOne(uint32(i), s.cfg.Clock.Now())
		}
	})
}

// EchoEnd ends it; what is due by now is still sent.
func (s *Swarm) EchoEnd() {
	s.poll.Post(func() {
		if s.now = s.cfg.Clock.Now(); s.echo.rate > 0 {
			s.echoDue()
		}
		s.echo.running = false
	})
}

// nextEcho is when the next send of the schedule is due.
func (e *echo) nextEcho(cfg *Echo) int64 {
	nth := float64(e.sent*uint64(cfg.Stride)) + float64(cfg.First-1)
	return clock.After(e.begin, nth/e.rate*1e9)
}

// echoDue sends what is due, each time from the next client that is live.
func (s *Swarm) echoDue() {
	e := &s.echo
	if !e.running || e.rate <= 0 {
		return
	}
	for due := e.nextEcho(&s.cfg.Echo); due <= s.now; due = e.nextEcho(&s.cfg.Echo) {
		if s.stats.Live == 0 {
			return // they stay due: who comes back is that late
		}
		for s.clients[e.next].state != live {
			e.next = (e.next + 1) % uint32(len(s.clients))
		}
		e.lag.Record(s.now - due)
		s.echoOne(e.next, due)
		e.next = (e.next + 1) % uint32(len(s.clients))
		e.sent++
	}
}

// echoPatience is how long the loop may sleep before a send is due.
func (s *Swarm) echoPatience(patience time.Duration) time.Duration {
	if e := &s.echo; e.running && e.rate > 0 {
		return min(patience, time.Duration(max(0, e.nextEcho(&s.cfg.Echo)-s.cfg.Clock.Now())))
	}
	return patience
}

// echoOne sends a client's next message. It is owed from here on: an echo has
// nobody else who could acknowledge it.
func (s *Swarm) echoOne(i uint32, due int64) {
	e := &s.echo
	if s.clients[i].state != live || s.firstReader[i] == s.firstReader[i+1] {
		return
	}
	room := s.book.Room(ledger.ReaderID(s.firstReader[i]))
	send := s.cfg.Echo.First + ledger.Send(e.numbers*uint64(s.cfg.Echo.Stride))
	e.numbers++
	e.last[i]++
	pos := target.EchoPos(e.last[i])
	e.key = stamp.Append(e.key[:0], due, send)
	e.acks = append(e.acks, ledger.Ack{Room: room, Send: send, Pos: pos})
	s.say(i, opText, e.dialect.AppendEcho(s.out[:0], s.cfg.Crowd.Room(int(room)), pos, e.key, e.text))
}

// handleEcho is called when a client got its message back.
func (s *Swarm) handleEcho(i uint32) {
	if s.echo.running && s.echo.rate == 0 {
		s.echoOne(i, s.now)
	}
}
