package swarm

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/target"
)

// handleEvent is told by epoll that something happened to a client's socket.
func (s *Swarm) handleEvent(i uint32, what uint32) {
	if int(i) >= len(s.clients) {
		s.aside.handleEvent(int(i)-len(s.clients), what)
		return
	}
	c := &s.clients[i]
	if c.fd < 0 {
		return // closed earlier in this turn
	}
	if c.state == connecting {
		s.handleConnected(i)
		if c.state != upgrading || what&reactor.In == 0 {
			return
		}
	} else if what&reactor.Out != 0 {
		s.handleWritable(i)
	}
	if what&(reactor.In|reactor.Hang) != 0 {
		s.handleReadable(i)
	}
}

// handleReadable reads what is there into the loop's one buffer, behind the part
// of a frame that an earlier read left, and parses it in place.
func (s *Swarm) handleReadable(i uint32) {
	c := &s.clients[i]
	for {
		have := copy(s.buf, c.part)
		s.free(c.part)
		c.part = nil
		n, errno := reactor.Read(int(c.fd), s.buf[have:])
		if n <= 0 {
			if errno == unix.EAGAIN || errno == unix.EINTR {
				c.part = s.keep(s.buf[:have])
				return
			}
			s.handleEnd(i, errno)
			return
		}
		s.now = s.cfg.Clock.Now()
		c.heard = s.ticks()
		s.stats.BytesRead += uint64(n)
		s.stats.Reads++
		data := s.wire.take(i, s.buf[:have+n])
		if c.fd < 0 {
			return
		}
		if len(data) == len(s.buf) {
			s.drop(i, s.wire.opens()+": more than 1 MiB in one piece")
			return
		}
		c.part = s.keep(data)
		if n < len(s.buf)-have {
			return // the socket is empty: asking again would only cost a call
		}
	}
}

// handleEnd is called when the other side has closed, or the network failed.
func (s *Swarm) handleEnd(i uint32, errno unix.Errno) {
	c := &s.clients[i]
	reason, lost := s.wire.ended(i)
	if c.state == live && !lost {
		s.disconnect(i)
		return
	}
	if errno != 0 {
		reason = "read: " + errno.Error()
	}
	if c.state == upgrading {
		reason = s.wire.opens() + ": " + reason
	}
	s.drop(i, reason)
}

// handlePayload acts on the events that came together.
func (s *Swarm) handlePayload(i uint32, payload []byte) {
	for len(payload) > 0 {
		var ev target.Event
		ev, payload = s.cfg.Dialect.Next(payload)
		s.handleServerEvent(i, &ev)
	}
}

// handleServerEvent acts on one event.
func (s *Swarm) handleServerEvent(i uint32, ev *target.Event) {
	c := &s.clients[i]
	switch ev.Kind {
	case target.Message, target.Foreign:
		s.handleMessage(i, ev)
	case target.Hello:
		s.know(i, ev.Conn)
		if c.state == greeting && !c.resuming {
			s.enliven(i)
		}
	case target.Resumed:
		if c.state == greeting {
			s.enliven(i)
		}
	case target.Gap:
		s.handleGap(i, ev)
	case target.Ping:
		s.stats.Pings++
		s.say(i, opText, s.cfg.Dialect.AppendPong(s.out[:0]))
	case target.Pong:
		s.stats.Pongs++
	case target.Bye:
		c.lazilyMs = uint32(min(max(ev.RetryMs, 1), 120_000))
		s.stats.Byes.Count(string(ev.Code))
	case target.Error:
		s.stats.Errors.Count(string(ev.Code))
	}
}

func (s *Swarm) handleMessage(i uint32, ev *target.Event) {
	reader, ok := s.reader(i, ev.Room)
	if !ok {
		s.stats.Strays++
		return
	}
	verdict := s.book.Arrive(reader, ev.Pos, ev.Prev, ev.Send)
	if verdict != ledger.New || ev.Kind != target.Message {
		return
	}
	s.meters.arrivals++
	if last := s.arrivedAt[reader]; last != 0 {
		s.stats.LongestSilence = max(s.stats.LongestSilence, time.Duration(s.ticks()-last)*tick)
	}
	s.arrivedAt[reader] = s.ticks()
	s.handleEcho(i)
	if s.clients[i].aside {
		return
	}
	s.meters.latency.Record(s.now - ev.Due)
	if age := s.now - int64(ev.Pos.ID().Ms)*1e6; age < 3600e9 { // positions of other targets are no times
		s.meters.sinceLog.Record(age)
	}
}

func (s *Swarm) handleGap(i uint32, ev *target.Event) {
	reader, ok := s.reader(i, ev.Room)
	if !ok {
		s.stats.Strays++
		return
	}
	after := s.book.Position(reader)
	s.book.Gap(reader, ev.Prev, ev.Pos)
	if s.cfg.OnGap != nil {
		s.cfg.OnGap(s.user(i), s.book.Room(reader), after, ev.Pos)
	}
}

// reader finds the reader of a client's room: rooms per client are few, and in
// ascending order.
func (s *Swarm) reader(i uint32, name []byte) (ledger.ReaderID, bool) {
	room, ok := s.cfg.Crowd.RoomNumber(name)
	if !ok {
		return 0, false
	}
	return s.readerOf(i, room)
}

func (s *Swarm) readerOf(i, room uint32) (ledger.ReaderID, bool) {
	low, high := s.firstReader[i], s.firstReader[i+1]
	for low < high {
		middle := (low + high) / 2
		switch r := s.book.Room(ledger.ReaderID(middle)); {
		case r == room:
			return ledger.ReaderID(middle), true
		case r < room:
			low = middle + 1
		default:
			high = middle
		}
	}
	return 0, false
}

// keep copies what is left of a read to a buffer of its own; free gives that
// back. Both are rare: a frame that arrived in two pieces.
func (s *Swarm) keep(rest []byte) []byte {
	if len(rest) == 0 {
		return nil
	}
	if n := len(s.spare); n > 0 && len(rest) <= spareBytes {
		b := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return append(b[:0], rest...)
	}
	return append(make([]byte, 0, max(len(rest), spareBytes)), rest...)
}

const (
	spareBytes = 2048
	maxSpares  = 1024
)

func (s *Swarm) free(b []byte) {
	if cap(b) == spareBytes && len(s.spare) < maxSpares {
		s.spare = append(s.spare, b)
	}
}
