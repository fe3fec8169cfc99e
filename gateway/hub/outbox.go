package hub

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// outbox collects a turn's decisions until they are carried out. It implements
// follow.Out.
type outbox struct {
	cmds  [][]edge.Cmd // by loop
	subs  [][]subOp    // by link
	users asks[userAsk]
	rooms asks[roomAsk]
	logs  asks[logAsk]
	wrong []chat.Membership // what indexes lack
	alive *alive            // hears what moves; may be nil
}

type subOp struct {
	on  bool
	gen uint64
	ch  chat.Channel
}

type (
	userAsk struct {
		tok  follow.Token
		name string
	}
	roomAsk struct {
		tok follow.Token
		q   chat.RoomQuery
	}
	logAsk struct {
		tok follow.Token
		q   chat.LogQuery
	}
)

func (o *outbox) Subscribe(link int, gen uint64, ch chat.Channel) {
	o.subs[link] = append(o.subs[link], subOp{true, gen, ch})
}

func (o *outbox) Unsubscribe(link int, gen uint64, ch chat.Channel) {
	o.subs[link] = append(o.subs[link], subOp{false, gen, ch})
}

func (o *outbox) ReadUser(tok follow.Token, user string) {
	o.users.next = append(o.users.next, userAsk{tok, user})
}

func (o *outbox) ReadRoom(tok follow.Token, q chat.RoomQuery) {
	o.rooms.next = append(o.rooms.next, roomAsk{tok, q})
}

func (o *outbox) ReadLog(tok follow.Token, q chat.LogQuery) {
	o.logs.next = append(o.logs.next, logAsk{tok, q})
}

func (o *outbox) Repair(m chat.Membership) { o.wrong = append(o.wrong, m) }

func (o *outbox) toConn(conn edge.ConnID, c edge.Cmd) {
	c.Conn = conn
	l := conn.Loop()
	o.cmds[l] = append(o.cmds[l], c)
}

func (o *outbox) toLoops(loops uint64, c edge.Cmd) {
	for i := range o.cmds {
		if loops&(1<<i) != 0 {
			o.cmds[i] = append(o.cmds[i], c)
		}
	}
}

func (o *outbox) Unicast(conn edge.ConnID, f *edge.Frame) {
	o.toConn(conn, edge.Cmd{Kind: edge.CmdUnicast, Room: edge.NoRoom, Frame: f})
}

func (o *outbox) Attach(conn edge.ConnID, room edge.RoomNum) {
	o.toConn(conn, edge.Cmd{Kind: edge.CmdAttach, Room: room})
}

func (o *outbox) Detach(conn edge.ConnID, room edge.RoomNum) {
	o.toConn(conn, edge.Cmd{Kind: edge.CmdDetach, Room: room})
	if o.alive != nil {
		o.alive.detached(edge.NowMs(), conn, room)
	}
}

func (o *outbox) Broadcast(room edge.RoomNum, loops uint64, f *edge.Frame) {
	o.toLoops(loops, edge.Cmd{Kind: edge.CmdBroadcast, Room: room, Frame: f})
	if o.alive != nil && !f.ID.IsZero() {
		o.alive.core.Moved(room)
	}
}

func (o *outbox) DropRoom(room edge.RoomNum, loops uint64) {
	o.toLoops(loops, edge.Cmd{Kind: edge.CmdDropRoom, Room: room})
	if o.alive != nil {
		o.alive.core.Dropped(edge.NowMs(), room)
	}
}

func (o *outbox) Mark(conn edge.ConnID) {
	o.toConn(conn, edge.Cmd{Kind: edge.CmdMark, Room: edge.NoRoom})
}

func (o *outbox) Close(conn edge.ConnID, code protocol.CloseCode) {
	o.toConn(conn, edge.Cmd{Kind: edge.CmdClose, Room: edge.NoRoom, Code: code})
}
