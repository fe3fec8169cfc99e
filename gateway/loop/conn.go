package loop

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/session"
)

// phase is where a connection is in its life.
type phase uint8

const (
	phaseFree    phase = iota // the slot is not in use
	phaseProxy                // accepted from a balancer: its PROXY header is awaited
	phaseTLS                  // its TLS handshake goes on
	phaseHead                 // its request is awaited
	phaseTicket               // its request is complete: its ticket is asked about
	phaseBody                 // its request's body is awaited
	phaseOpen                 // it receives
	phaseIdle                 // its long poll is answered: the next request is awaited
	phaseClosing              // the last bytes (a close frame, a refusal) are queued
	phaseLinger               // written: the peer's close frame is awaited, or, shut down, its end
)

// early says that a connection has no answer to its request yet.
func (p phase) early() bool { return phaseFree < p && p < phaseOpen }

// listens says that what a connection sends may mean something.
func (p phase) listens() bool { return phaseFree < p && p <= phaseIdle }

type connFlags uint16

const (
	flagDirty      connFlags = 1 << iota // in loop.dirty
	flagArmed                            // the socket is full: it is watched for writing
	flagPinged                           // a ping is out and nothing came since
	flagPongOwed                         // the pong to our last ping has not come
	flagCarry                            // loop.carries has the rest of what it sent
	flagSlow                             // loop.slow has what was left out
	flagManyRooms                        // its attachments are in loop.manyRooms
	flagDoomed                           // in loop.doomed
	flagPeerClosed                       // the peer has said good-bye: no need to wait for its end
	flagTLS                              // loop.tls has its TLS state
	flagSeated                           // it counts among those there are, also while it polls no longer or not yet
	flagReused                           // an earlier poll of it had its generation
	flagAnswer                           // its long poll is in loop.answers
	flagAnswered                         // no answer to our close frame is awaited, or any more
)

// conn is a connection: plain bytes without pointers, so that neither the garbage
// collector nor a hand-over to another process has to follow anything.
type conn struct {
	fd    int32
	gen   uint32
	phase phase
	why   CloseReason
	flags connFlags
	form  form // how it takes its events
	// windowBits is the size of the client's window for compressed messages; 0:
	// permessage-deflate was not negotiated. Nothing else is kept of it.
	windowBits uint8
	key        uint16 // auth.KeyTag.Short of the key that signed its token; 0: one that stays

	user uint32 // loop.g.users
	addr uint32 // loop.g.addrs, plus one; 0: not counted

	// The queue of what is to be written: nodes of loop.nodes.
	qhead, qtail uint32
	qoff         uint32 // bytes of the first one already written
	qbytes       uint32 // bytes in all, the written ones not counted

	// Attachments to rooms: a list in loop.atts.
	atts, natts uint32

	// The timing wheel's list, and the tick the connection is due at (0: not in
	// the wheel). wnext also links free slots.
	wnext, wprev, due uint32
	lastRead          uint32 // tick of the last sign of life: bytes that came, or went out while it was full
	pingedAt          uint32 // tick; of who lingers, that of our close frame
	deadline          uint32 // tick: of the head, of the positions, of the close, of the answer; 0: none

	expires int64 // Unix seconds; 0: never
	session session.Session
}

func (c *conn) has(f connFlags) bool { return c.flags&f != 0 }
func (c *conn) set(f connFlags)      { c.flags |= f }
func (c *conn) clear(f connFlags)    { c.flags &^= f }

// waits says whether bytes are queued that may wait for more.
func (c *conn) waits() bool { return c.qhead != 0 && c.flags&(flagArmed|flagDirty) == 0 }

// ended is why a connection ends whose peer has ended its side in order. Streams and polls
// have no other goodbye.
func (c *conn) ended() CloseReason {
	if c.form >= events {
		return ClosedByClient
	}
	return ClosedPeerGone
}

// owesClose says whether a closing connection's peer is to answer a close frame.
func (c *conn) owesClose() bool {
	return c.form < events && c.why != ClosedHandshake && c.flags&(flagPeerClosed|flagAnswered) == 0
}

// unwritten says whether there is more than the socket has taken: in the queue, or
// encrypted already.
func (c *conn) unwritten() bool { return c.qhead != 0 || c.has(flagArmed) }

const (
	chunkBits = 10
	chunkSize = 1 << chunkBits
	// maxSlots is what a ConnID has room for, less the slots that the poller's
	// tokens use for other things.
	maxSlots = 1<<24 - 16
)

// slab is a loop's table of connections. It grows by chunks, so that growing
// copies nothing and a *conn stays valid. Slot 0 is not used: it means none.
type slab struct {
	chunks []*[chunkSize]conn
	used   uint32 // slots that were ever used
	free   uint32 // first free one, linked by wnext
}

func (s *slab) at(slot uint32) *conn {
	return &s.chunks[slot>>chunkBits][slot&(chunkSize-1)]
}

// take gives out a slot with a new generation, or 0 when there is none left.
func (s *slab) take() (uint32, *conn) {
	slot := s.free
	if slot != 0 {
		s.free = s.at(slot).wnext
	} else {
		if s.used == 0 {
			s.used = 1
		}
		if s.used >= maxSlots {
			return 0, nil
		}
		slot = s.used
		s.used++
		if int(slot>>chunkBits) == len(s.chunks) || len(s.chunks) == 0 {
			s.chunks = append(s.chunks, new([chunkSize]conn))
		}
	}
	c := s.at(slot)
	*c = conn{gen: c.gen + 1, fd: -1}
	if c.gen == 0 {
		c.gen = 1 // 0 is never a generation, so the zero ConnID is never one either
	}
	return slot, c
}

func (s *slab) give(slot uint32) {
	c := s.at(slot)
	*c = conn{gen: c.gen, fd: -1, wnext: s.free}
	s.free = slot
}

// get returns the connection with this slot and generation, nil if it is gone.
func (s *slab) get(slot, gen uint32) *conn {
	if slot == 0 || slot >= s.used {
		return nil
	}
	c := s.at(slot)
	if c.gen != gen || c.phase == phaseFree {
		return nil
	}
	return c
}

// id is the connection's name for the hub and for clients.
func (l *loop) id(slot uint32, c *conn) edge.ConnID {
	return edge.MakeConnID(uint32(l.num), slot, c.gen)
}

// connOf returns the open connection a command is for.
func (l *loop) connOf(id edge.ConnID) (uint32, *conn) {
	slot := id.Slot()
	if id.Loop() != uint32(l.num) {
		return 0, nil
	}
	c := l.conns.get(slot, id.Gen())
	if c == nil || c.phase != phaseOpen {
		return 0, nil
	}
	return slot, c
}
