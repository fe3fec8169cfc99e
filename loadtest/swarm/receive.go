package swarm

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/target"
)

// handleEvent is told by epoll that something happened to a client's socket.
func (s *Swarm) handleEvent(i uint32, what uint32) {
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
		data := s.buf[:have+n]
		if c.state == upgrading {
			if data = s.handleUpgrade(i, data); c.fd < 0 {
				return
			}
		}
		if c.state >= greeting {
			data = s.handleFrames(i, data)
			if c.fd < 0 {
				return
			}
		}
		c.part = s.keep(data)
		if n < len(s.buf)-have {
			return // the socket is empty: asking again would only cost a call
		}
	}
}

// handleEnd is called when the other side has closed, or the network failed.
func (s *Swarm) handleEnd(i uint32, errno unix.Errno) {
	reason := "closed by the server without a close frame"
	if errno != 0 {
		reason = "read: " + errno.Error()
	}
	if s.clients[i].state == upgrading {
		reason = "upgrade: " + reason
	}
	s.drop(i, reason)
}

// handleUpgrade reads the answer to the upgrade and returns what follows it.
func (s *Swarm) handleUpgrade(i uint32, data []byte) []byte {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		if len(data) > 16<<10 {
			s.fail(i, "upgrade: an answer of more than 16 KiB")
		}
		return data
	}
	head, rest := data[:end+2], data[end+4:]
	if len(head) < 12 || !bytes.HasPrefix(head, []byte("HTTP/1.1 ")) {
		s.fail(i, "upgrade: the answer is not HTTP/1.1")
		return nil
	}
	if status := string(head[9:12]); status != "101" {
		s.refused(i, status, head)
		return nil
	}
	if string(headerValue(head, "sec-websocket-accept")) != s.wsAccept {
		s.fail(i, "upgrade: wrong Sec-WebSocket-Accept")
		return nil
	}
	s.greet(i)
	return rest
}

// refused is called for an answer other than 101.
func (s *Swarm) refused(i uint32, status string, head []byte) {
	c := &s.clients[i]
	s.stats.failed("upgrade: refused with " + status)
	s.leave(i)
	if c.attempts < math.MaxUint8 {
		c.attempts++
	}
	switch {
	case status == "401" || status == "403" || status == "404" || s.exhausted(c):
		s.giveUp(i) // trying again would not help
	default:
		wait := s.backoff(int(c.attempts))
		if seconds, err := strconv.Atoi(string(headerValue(head, "retry-after"))); err == nil && seconds >= 0 {
			wait += seconds32(seconds)
		}
		s.waitFor(i, wait)
	}
}

// headerValue finds a header by its lower-case name.
func headerValue(head []byte, name string) []byte {
	for len(head) > 0 {
		line := head
		if end := bytes.Index(head, []byte("\r\n")); end >= 0 {
			line, head = head[:end], head[end+2:]
		} else {
			head = nil
		}
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.TrimSpace(line[len(name)+1:])
		}
	}
	return nil
}

// greet says what a client says after its upgrade.
func (s *Swarm) greet(i uint32) {
	c := &s.clients[i]
	c.state = greeting
	first, end := s.firstReader[i], s.firstReader[i+1]
	if c.resuming {
		s.sendPositions(i)
		return
	}
	if !s.greets {
		return
	}
	s.names = s.names[:0]
	for id := first; id < end; id++ {
		s.names = append(s.names, s.cfg.Crowd.Room(int(s.book.Room(ledger.ReaderID(id)))))
	}
	s.say(i, opText, s.cfg.Dialect.AppendGreeting(s.out[:0], s.opening(i), s.names))
}

// positionsPerFrame keeps a resume's frames well below the server's 256 KiB.
const positionsPerFrame = 1000

func (s *Swarm) sendPositions(i uint32) {
	s.positions = s.positions[:0]
	for id := s.firstReader[i]; id < s.firstReader[i+1]; id++ {
		reader := ledger.ReaderID(id)
		s.positions = append(s.positions, target.Position{
			Room: s.cfg.Crowd.Room(int(s.book.Room(reader))),
			Pos:  s.book.Resume(reader),
		})
	}
	rest := s.positions
	for {
		part := rest[:min(len(rest), positionsPerFrame)]
		rest = rest[len(part):]
		s.say(i, opText, s.cfg.Dialect.AppendResume(s.out[:0], part, len(rest) > 0))
		if len(rest) == 0 {
			return
		}
	}
}

// handleFrames takes whole frames off data and returns the rest.
func (s *Swarm) handleFrames(i uint32, data []byte) []byte {
	c := &s.clients[i]
	for {
		op, payload, size, err := cutFrame(data)
		if err != nil {
			s.drop(i, err.Error())
			return nil
		}
		if size == 0 {
			return data
		}
		data = data[size:]
		s.stats.Frames++
		switch op {
		case opText, opBinary:
			for len(payload) > 0 {
				var ev target.Event
				ev, payload = s.cfg.Dialect.Next(payload)
				s.handleServerEvent(i, &ev)
			}
		case opPing:
			s.stats.Pings++
			s.say(i, opPong, payload)
		case opClose:
			s.handleClose(i, payload)
		}
		if c.fd < 0 {
			return nil
		}
	}
}

func (s *Swarm) handleClose(i uint32, payload []byte) {
	code := 1005
	if len(payload) >= 2 {
		code = int(binary.BigEndian.Uint16(payload))
	}
	s.say(i, opClose, payload[:min(2, len(payload))])
	if code == 4001 || code == 4003 || code == 4009 { // coming back would not help
		s.stats.dropped(closeCodeName(code))
		s.leave(i)
		s.giveUp(i)
		return
	}
	s.drop(i, closeCodeName(code))
}

// handleServerEvent acts on one event.
func (s *Swarm) handleServerEvent(i uint32, ev *target.Event) {
	c := &s.clients[i]
	switch ev.Kind {
	case target.Message, target.Foreign:
		s.handleMessage(i, ev)
	case target.Hello:
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
		s.stats.byes(string(ev.Code))
	case target.Error:
		s.stats.complained(string(ev.Code))
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
	s.meters.latency.Record(s.now - ev.Due)
	s.handleEcho(i)
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
