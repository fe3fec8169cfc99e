package swarm

import (
	"encoding/binary"

	"github.com/madang-chat/madang/loadtest/answer"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/target"
)

// webSocket is a connection that both sides speak on.
type webSocket struct{ *Swarm }

func (webSocket) opens() string { return "upgrade" }

func (s webSocket) begin(i uint32) {
	s.out = s.cfg.Dialect.AppendUpgrade(s.out[:0], s.opening(i))
	s.stats.Requests++
	s.write(i, s.out)
}

func (s webSocket) take(i uint32, data []byte) []byte {
	c := &s.clients[i]
	if c.state == upgrading {
		if data = s.handleUpgrade(i, data); c.fd < 0 {
			return nil
		}
	}
	if c.state >= greeting {
		data = s.handleFrames(i, data)
	}
	return data
}

func (webSocket) ended(uint32) (string, bool) {
	return "closed by the server without a close frame", true
}

// due sends a heartbeat.
func (s webSocket) due(i uint32) {
	if s.listen(i) && s.cfg.PingEvery > 0 {
		s.say(i, opText, s.cfg.Dialect.AppendPing(s.out[:0]))
	}
}

// handleUpgrade reads the answer to the upgrade and returns what follows it.
func (s webSocket) handleUpgrade(i uint32, data []byte) []byte {
	h, size, err := answer.CutHead(data)
	switch {
	case err != nil:
		s.fail(i, failure("upgrade", err))
		return nil
	case size == 0:
		return data
	case h.Status != 101:
		s.refused(i, &h)
		return nil
	case string(h.Value("sec-websocket-accept")) != s.wsAccept:
		s.fail(i, "upgrade: wrong Sec-WebSocket-Accept")
		return nil
	}
	s.greet(i)
	return data[size:]
}

// greet says what a client says after its upgrade.
func (s webSocket) greet(i uint32) {
	c := &s.clients[i]
	c.state = greeting
	if c.resuming {
		s.sendPositions(i)
		return
	}
	if !s.greets {
		return
	}
	s.names = s.names[:0]
	for id := s.firstReader[i]; id < s.firstReader[i+1]; id++ {
		s.names = append(s.names, s.roomOf(ledger.ReaderID(id)))
	}
	s.say(i, opText, s.cfg.Dialect.AppendGreeting(s.out[:0], s.opening(i), s.names))
}

// positionsPerFrame keeps a resume's frames well below the server's 256 KiB.
const positionsPerFrame = 1000

func (s webSocket) sendPositions(i uint32) {
	rest := s.resumeFrom(i)
	for {
		part := rest[:min(len(rest), positionsPerFrame)]
		rest = rest[len(part):]
		s.say(i, opText, s.cfg.Dialect.AppendResume(s.out[:0], part, len(rest) > 0))
		if len(rest) == 0 {
			return
		}
	}
}

// resumeFrom are the positions that a client resumes with.
func (s *Swarm) resumeFrom(i uint32) []target.Position {
	s.positions = s.positions[:0]
	for id := s.firstReader[i]; id < s.firstReader[i+1]; id++ {
		reader := ledger.ReaderID(id)
		s.positions = append(s.positions, target.Position{Room: s.roomOf(reader), Pos: s.book.Resume(reader)})
	}
	return s.positions
}

// roomOf is the ID of the room that a reader reads.
func (s *Swarm) roomOf(id ledger.ReaderID) string { return s.cfg.Crowd.Room(int(s.book.Room(id))) }

// handleFrames takes whole frames off data and returns the rest.
func (s webSocket) handleFrames(i uint32, data []byte) []byte {
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
			s.handlePayload(i, payload)
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

func (s webSocket) handleClose(i uint32, payload []byte) {
	code := 1005
	if len(payload) >= 2 {
		code = int(binary.BigEndian.Uint16(payload))
	}
	s.say(i, opClose, payload[:min(2, len(payload))])
	if code == 4001 || code == 4003 || code == 4009 { // coming back would not help
		s.stats.Drops.Count(closeCodeName(code))
		s.leave(i)
		s.giveUp(i)
		return
	}
	s.drop(i, closeCodeName(code))
}
