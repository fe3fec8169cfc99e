package sim

import (
	"errors"
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// gateway is one gateway process: its core, its links, its reads under way and
// its loops.
type gateway struct {
	w     *world
	id    int
	core  *follow.Core
	links []*link
	view  []int // per shard, the node that its command client believes is the primary
	reads []*read
	loops []*loop
	// out are users that the core was told have left a room, by a publication
	// that no read has overruled since: nothing of the room may reach them.
	out [maxRooms][maxUsers]int // step of the publication plus one
	// attached and users are what the core has decided so far, before the loops
	// have carried it out.
	attached map[attachment]bool
	users    map[edge.ConnID]int
}

type attachment struct {
	conn edge.ConnID
	room edge.RoomNum
}

// link is a subscriber connection to one shard. What the server does with it and
// what the gateway knows of it are apart.
type link struct {
	gen  uint64
	up   bool // the gateway believes so
	node int
	// severed: nothing passes any more, and the gateway has not learned of it.
	severed bool
	// deaf: a canary did not come back: LinkDown is due.
	deaf bool
	subs map[chat.Channel]bool // at the server
	ups  []subscription        // on the way to the server
	down []item                // on the way to the gateway
}

type subscription struct {
	ch chat.Channel
	on bool
}

// item is what a link carries: a publication, or one of the others.
type item struct {
	ch        chat.Channel
	payload   []byte
	confirmed bool
	canary    bool
	epoch     int
	left      bool // a `left` on a room's channel, of user
	user      int
	step      int
}

type read struct {
	tok  follow.Token
	user string
	room *chat.RoomQuery
	log  *chat.LogQuery

	executed int // step plus one; 0: not yet
	userSt   chat.UserState
	roomSt   chat.RoomState
	page     chat.LogPage
}

func (w *world) newGateway(id int) *gateway {
	g := &gateway{w: w, id: id, attached: map[attachment]bool{}, users: map[edge.ConnID]int{}}
	cfg := w.cfg
	cfg.Links = len(w.shards)
	cfg.LinkOf = w.shardOf
	cfg.PartitionOf = w.shardOf
	g.core = w.newCore(cfg, g)
	for _, s := range w.shards {
		g.links = append(g.links, &link{})
		g.view = append(g.view, s.node)
	}
	for i := range w.loopsPerGateway {
		g.loops = append(g.loops, &loop{g: g, id: uint32(i)})
	}
	return g
}

// turn ends an input: often the driver flushes at once, sometimes it takes
// another input first.
func (g *gateway) turn() {
	if g.w.settling || g.w.pick(4) != 0 {
		g.flush()
	}
}

func (g *gateway) flush() {
	g.core.Tick(g.w.now)
	g.core.Flush()
}

// publish gives a publication to every link that is subscribed at that node.
func (w *world) publish(s *shard, node int, ch chat.Channel, it item) {
	it.ch, it.step = ch, w.step
	for _, g := range w.gateways {
		l := g.links[s.id]
		if l.up && !l.severed && l.node == node && l.subs[ch] {
			l.down = append(l.down, it)
		}
	}
}

// Links.

func (g *gateway) makeLink(n int) {
	l := g.links[n]
	*l = link{gen: l.gen + 1, up: true, node: g.view[n], subs: map[chat.Channel]bool{}}
	if g.w.trace != nil {
		g.w.logf("g%d link %d up, gen %d, to node %d", g.id, n, l.gen, l.node)
	}
	g.core.LinkUp(n, l.gen)
	g.turn()
}

func (g *gateway) breakLink(n int) {
	l := g.links[n]
	l.up, l.ups, l.down = false, nil, nil
	if g.w.trace != nil {
		g.w.logf("g%d link %d down", g.id, n)
	}
	g.core.LinkDown(n, l.gen)
	g.turn()
}

// takeUp lets the server see the next subscription that was asked for.
func (g *gateway) takeUp(n int) {
	l := g.links[n]
	sub := l.ups[0]
	l.ups = l.ups[1:]
	if l.severed {
		return
	}
	if !sub.on {
		delete(l.subs, sub.ch)
		return
	}
	l.subs[sub.ch] = true
	l.down = append(l.down, item{ch: sub.ch, confirmed: true})
}

// hear lets the core hear the next thing that a link carries.
func (g *gateway) hear(n int) {
	l := g.links[n]
	it := l.down[0]
	l.down = l.down[1:]
	switch {
	case it.canary:
		if g.w.trace != nil {
			g.w.logf("g%d link %d canary, epoch %d", g.id, n, it.epoch)
		}
		g.core.Canary(n, l.gen, n, epochNames[it.epoch%len(epochNames)])
	case it.confirmed:
		if g.w.trace != nil {
			g.w.logf("g%d link %d confirmed %s", g.id, n, it.ch.Name)
		}
		g.core.Confirmed(n, l.gen, it.ch)
	default:
		if g.w.trace != nil {
			g.w.logf("g%d hears %s", g.id, it.payload)
		}
		if it.left {
			g.out[indexOf(it.ch.Name)][it.user] = it.step + 1
		}
		g.core.Event(n, l.gen, it.ch, it.payload)
	}
	g.turn()
}

var epochNames = func() (names [64]string) {
	for i := range names {
		names[i] = string([]byte{'e', byte('0' + i/10), byte('0' + i%10)})
	}
	return names
}()

// canary goes the way of a send and comes back on the link, if that still leads
// to where sends go. One that does not come back is found, even if a later one
// does (DELIVERY L1).
func (g *gateway) canary(n int) {
	s := g.w.shards[n]
	l := g.links[n]
	node := s.reached(g.view[n])
	if s.on(node).epoch == 0 {
		g.w.epochs++
		epoch := g.w.epochs
		s.write(node, func(d *dataset) { d.epoch = epoch })
	}
	if !l.up {
		return
	}
	if l.severed || l.node != node {
		l.deaf = true
		return
	}
	l.down = append(l.down, item{canary: true, epoch: s.on(node).epoch})
}

// Reads.

func (g *gateway) execute(r *read) {
	w := g.w
	d := func(s *shard) *dataset { return s.on(s.reached(g.view[s.id])) }
	switch {
	case r.room != nil:
		r.roomSt = d(w.roomShard(indexOf(r.room.Room))).readRoom(*r.room)
	case r.log != nil:
		fit := r.log.Limit
		if !w.settling && w.pick(4) == 0 {
			fit = 2 + w.pick(2) // big messages; two at least, see chat.LogPage
		}
		r.page = d(w.roomShard(indexOf(r.log.Room))).readLog(*r.log, fit)
	default:
		r.userSt = d(w.userShard(indexOf(r.user))).readUser(indexOf(r.user))
	}
	r.executed = w.step + 1
}

var errNoAnswer = errors.New("no answer")

func (g *gateway) answer(i int, failed bool) {
	r := g.reads[i]
	g.reads = slices.Delete(g.reads, i, i+1)
	var err error
	if failed {
		err = errNoAnswer
	} else if r.executed == 0 {
		g.execute(r)
	}
	w := g.w
	switch {
	case r.room != nil:
		if err != nil {
			r.roomSt = chat.RoomState{}
		}
		for i, is := range r.roomSt.Member {
			out := &g.out[indexOf(r.room.Room)][indexOf(r.room.Users[i])]
			if is && r.executed >= *out {
				*out = 0
			}
		}
		if w.trace != nil {
			w.logf("g%d room read %d of %v: %+v %v", g.id, r.tok, *r.room, r.roomSt, err)
		}
		g.core.RoomRead(w.now, r.tok, r.room.Room, r.roomSt, err)
	case r.log != nil:
		if err != nil {
			r.page = chat.LogPage{}
		}
		if w.trace != nil {
			w.logf("g%d log read %d of %s from %v: head %v, %d entries, more %v, %v", g.id, r.tok, r.log.Room, r.log.From, r.page.Head, len(r.page.Entries), r.page.More, err)
		}
		g.core.LogRead(w.now, r.tok, r.log.Room, r.page, err)
	default:
		if err != nil {
			r.userSt = chat.UserState{}
		}
		if w.trace != nil {
			w.logf("g%d user read %d of %s: %+v %v", g.id, r.tok, r.user, r.userSt, err)
		}
		g.core.UserRead(w.now, r.tok, r.user, r.userSt, err)
	}
	g.turn()
}

// follow.Out.

func (g *gateway) Subscribe(n int, gen uint64, ch chat.Channel) {
	if l := g.links[n]; l.up && l.gen == gen {
		l.ups = append(l.ups, subscription{ch, true})
	}
}

func (g *gateway) Unsubscribe(n int, gen uint64, ch chat.Channel) {
	if l := g.links[n]; l.up && l.gen == gen {
		l.ups = append(l.ups, subscription{ch, false})
	}
}

func (g *gateway) ReadUser(tok follow.Token, user string) {
	g.reads = append(g.reads, &read{tok: tok, user: user})
}

func (g *gateway) ReadRoom(tok follow.Token, q chat.RoomQuery) {
	g.reads = append(g.reads, &read{tok: tok, room: &q})
}

func (g *gateway) ReadLog(tok follow.Token, q chat.LogQuery) {
	g.reads = append(g.reads, &read{tok: tok, log: &q})
}

func (g *gateway) Repair(m chat.Membership) { g.w.repair(indexOf(m.Room), indexOf(m.User)) }

func (g *gateway) toConn(id edge.ConnID, c edge.Cmd) {
	c.Conn = id
	l := g.loops[id.Loop()]
	l.cmds = append(l.cmds, c)
}

func (g *gateway) toLoops(loops uint64, c edge.Cmd) {
	for i, l := range g.loops {
		if loops&(1<<i) != 0 {
			l.cmds = append(l.cmds, c)
		}
	}
}

func (g *gateway) Unicast(conn edge.ConnID, f *edge.Frame) {
	g.mayGet(conn, f)
	g.toConn(conn, edge.Cmd{Kind: edge.CmdUnicast, Room: edge.NoRoom, Frame: f})
}

func (g *gateway) Attach(conn edge.ConnID, room edge.RoomNum) {
	g.attached[attachment{conn, room}] = true
	g.toConn(conn, edge.Cmd{Kind: edge.CmdAttach, Room: room})
}

func (g *gateway) Detach(conn edge.ConnID, room edge.RoomNum) {
	delete(g.attached, attachment{conn, room})
	g.toConn(conn, edge.Cmd{Kind: edge.CmdDetach, Room: room})
}

func (g *gateway) Broadcast(room edge.RoomNum, loops uint64, f *edge.Frame) {
	if !f.ID.IsZero() {
		for a := range g.attached {
			if a.room == room {
				g.mayGet(a.conn, f)
			}
		}
	}
	g.toLoops(loops, edge.Cmd{Kind: edge.CmdBroadcast, Room: room, Frame: f})
}

func (g *gateway) DropRoom(room edge.RoomNum, loops uint64) {
	for a := range g.attached {
		if a.room == room {
			delete(g.attached, a)
		}
	}
	g.toLoops(loops, edge.Cmd{Kind: edge.CmdDropRoom, Room: room})
}

// mayGet checks that a message is not for someone who the core knows has left.
func (g *gateway) mayGet(conn edge.ConnID, f *edge.Frame) {
	if f.ID.IsZero() {
		return
	}
	user, open := g.users[conn]
	if room := roomOf(f); open && g.out[room][user] != 0 {
		g.w.violate("leak", "g%d: %s of %s goes to %s after its `left`", g.id, f.ID, roomNames[room], userNames[user])
	}
}

func (g *gateway) Mark(conn edge.ConnID) {
	g.toConn(conn, edge.Cmd{Kind: edge.CmdMark, Room: edge.NoRoom})
}

func (g *gateway) Close(conn edge.ConnID, code protocol.CloseCode) {
	g.toConn(conn, edge.Cmd{Kind: edge.CmdClose, Room: edge.NoRoom, Code: code})
}

var _ follow.Out = (*gateway)(nil)
