package sim

import (
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/protocol"
)

// queueFrames is how many frames a socket may have waiting before broadcasts are
// left out for it; twice that, and the connection goes.
const queueFrames = 5

// loop is an event loop as gateway/edge describes it: commands in order, events
// in order, and what a slow reader is left out of.
type loop struct {
	g      *gateway
	id     uint32
	slots  uint32
	conns  []*conn
	cmds   []edge.Cmd
	events []edge.Event
}

// conn is a socket: what the loop has queued for it, and the client at its end.
type conn struct {
	l        *loop
	id       edge.ConnID
	c        *client
	attached []edge.RoomNum
	wire     []*edge.Frame
	written  int
	marks    []int // written counts at which EvDrained is due
	closing  bool
	poll     *poll // nil: it lasts

	slow    bool // was behind once
	behind  bool
	leftOut map[edge.RoomNum]protocol.ID
	told    map[edge.RoomNum]bool
}

func (l *loop) open(c *client, how follow.Opening) *conn {
	l.slots++
	cn := &conn{l: l, id: edge.MakeConnID(l.id, l.slots, 1), c: c}
	l.conns = append(l.conns, cn)
	l.events = append(l.events, edge.Event{Kind: edge.EvOpened, Conn: cn.id, User: userNames[c.user], Via: how.Via, Resume: how.Resume, Since: how.Since})
	return cn
}

func (l *loop) close(cn *conn) {
	l.conns = slices.DeleteFunc(l.conns, func(o *conn) bool { return o == cn })
	l.events = append(l.events, edge.Event{Kind: edge.EvClosed, Conn: cn.id})
	cn.c.dropped()
}

func (l *loop) find(id edge.ConnID) *conn {
	for _, cn := range l.conns {
		if cn.id == id {
			return cn
		}
	}
	return nil
}

// handle lets the core take in the next event.
func (l *loop) handle() {
	ev := l.events[0]
	l.events = l.events[1:]
	g := l.g
	if g.w.trace != nil {
		g.w.logf("g%d event %d of %v: %v %v", g.id, ev.Kind, ev.Conn, ev.Positions, ev.Lag)
	}
	switch ev.Kind {
	case edge.EvOpened:
		g.users[ev.Conn] = indexOf(ev.User)
		g.core.Open(g.w.now, ev.Conn, ev.User, follow.Opening{Via: ev.Via, Resume: ev.Resume, Since: ev.Since, IssuedAt: ev.IssuedAt})
	case edge.EvClosed:
		delete(g.users, ev.Conn)
		for a := range g.attached {
			if a.conn == ev.Conn {
				delete(g.attached, a)
			}
		}
		g.core.Close(g.w.now, ev.Conn)
	case edge.EvPositions:
		g.core.Positions(ev.Conn, ev.Positions, ev.More)
	case edge.EvLagged:
		g.core.Lagged(ev.Conn, ev.Lag)
	case edge.EvDrained:
		g.core.Drained(ev.Conn)
	}
	g.turn()
}

// obey carries out the next command.
func (l *loop) obey() {
	cmd := l.cmds[0]
	l.cmds = l.cmds[1:]
	switch cmd.Kind {
	case edge.CmdBroadcast:
		for _, cn := range slices.Clone(l.conns) {
			if slices.Contains(cn.attached, cmd.Room) {
				cn.broadcast(cmd.Room, cmd.Frame)
			}
		}
		return
	case edge.CmdDropRoom:
		for _, cn := range l.conns {
			cn.detach(cmd.Room)
		}
		return
	}
	cn := l.find(cmd.Conn)
	if cn == nil {
		return
	}
	switch cmd.Kind {
	case edge.CmdUnicast:
		cn.unicast(cmd.Frame)
	case edge.CmdAttach:
		delete(cn.leftOut, cmd.Room)
		delete(cn.told, cmd.Room)
		if !slices.Contains(cn.attached, cmd.Room) {
			cn.attached = append(cn.attached, cmd.Room)
		}
	case edge.CmdDetach:
		cn.detach(cmd.Room)
	case edge.CmdMark:
		cn.marks = append(cn.marks, cn.written+len(cn.wire))
		cn.drained()
	case edge.CmdClose:
		cn.closing = true
		if len(cn.wire) == 0 {
			l.close(cn)
		}
	}
}

func (cn *conn) detach(room edge.RoomNum) {
	delete(cn.leftOut, room)
	delete(cn.told, room)
	cn.attached = slices.DeleteFunc(cn.attached, func(r edge.RoomNum) bool { return r == room })
}

// broadcast queues a frame, or leaves it out and remembers since when.
func (cn *conn) broadcast(room edge.RoomNum, f *edge.Frame) {
	if cn.poll != nil {
		cn.poll.collect(f)
		return
	}
	_, out := cn.leftOut[room]
	if !cn.behind && !out && !cn.told[room] {
		if len(cn.wire) < queueFrames {
			cn.enqueue(f)
			return
		}
		cn.behind, cn.slow = true, true
		cn.l.g.w.count.SlowReaders++
	}
	if f.ID.IsZero() {
		cn.unicast(f) // what is not in the log can't be caught up
		return
	}
	if !out && !cn.told[room] {
		if cn.leftOut == nil {
			cn.leftOut = map[edge.RoomNum]protocol.ID{}
		}
		cn.leftOut[room] = f.Prev
	}
}

// unicast queues a frame that can't be left out.
func (cn *conn) unicast(f *edge.Frame) {
	if cn.poll != nil {
		cn.poll.collect(f)
		return
	}
	if len(cn.wire) >= 3*queueFrames {
		cn.l.g.w.count.CutOff++
		cn.l.close(cn)
		return
	}
	cn.enqueue(f)
}

func (cn *conn) enqueue(f *edge.Frame) {
	if cn.closing {
		return
	}
	cn.wire = append(cn.wire, f)
}

// receive gives the client what its socket holds next.
func (cn *conn) receive() {
	f := cn.wire[0]
	cn.wire = cn.wire[1:]
	cn.written++
	cn.c.take(f)
	if cn.c.conn != cn {
		return
	}
	if len(cn.wire) == 0 {
		cn.caughtBreath()
		if cn.closing {
			cn.l.close(cn)
			return
		}
	}
	cn.drained()
}

func (cn *conn) caughtBreath() {
	if !cn.behind {
		return
	}
	cn.behind = false
	if len(cn.leftOut) == 0 {
		return
	}
	cn.l.events = append(cn.l.events, edge.Event{Kind: edge.EvLagged, Conn: cn.id, Lag: cn.leftOut})
	if cn.told == nil {
		cn.told = map[edge.RoomNum]bool{}
	}
	for r := range cn.leftOut {
		cn.told[r] = true
	}
	cn.leftOut = nil
}

func (cn *conn) drained() {
	for len(cn.marks) > 0 && cn.marks[0] <= cn.written {
		cn.marks = cn.marks[1:]
		cn.l.events = append(cn.l.events, edge.Event{Kind: edge.EvDrained, Conn: cn.id})
	}
}
