package follow

import (
	"encoding/json"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// room is a room that a local user follows, or may.
type room struct {
	name string
	num  edge.RoomNum
	link int32

	state     roomState
	confirmed bool // the link carries the room's channel
	audit     bool // the next ask compares heads: the channel may have been silent
	lost      bool // a new epoch: the room's connections are to be told a gap
	inAsking  bool
	dropped   bool

	head    protocol.ID
	n       uint64
	version uint64 // of the membership, at the last audit
	loops   uint64 // loops that have connections attached, or had

	members []*membership
	checks  []check // to be asked
	asked   []check // in flight
	askTok  Token
	askHead protocol.ID // head when the question was sent (L3)

	tail      []*edge.Frame
	tailBytes int

	pend      [][]byte // events behind a read, in order
	pendBytes int
	pendOver  bool // some were dropped: what is missing shows by its prev

	logTok  Token
	logFrom protocol.ID
	logHead protocol.ID // head when the log was asked for (L3)
	parked  []*pull
}

type roomState uint8

const (
	roomNew      roomState = iota // head unknown
	roomLive                      // events whose prev is the head are delivered
	roomCatching                  // a prev did not match: the log is being read
)

// check is a question whether a user is a member.
type check struct {
	m      *membership
	anchor *protocol.ID // where connections that had their hello start; nil: at the head
}

func (r *room) channel() chat.Channel {
	return chat.Channel{Kind: chat.RoomChannel, Name: r.name}
}

// followRoom follows a room for a user once the members were checked. What came
// after anchor is delivered to the connections that had their hello.
func (c *Core) followRoom(u *user, name string, anchor *protocol.ID) {
	r := c.rooms[name]
	if r == nil {
		r = c.addRoom(name)
	} else if u.membership(r) != nil {
		return // told twice
	}
	m := &membership{u: u, r: r, iu: uint32(len(u.rooms)), ir: uint32(len(r.members))}
	u.rooms = append(u.rooms, m)
	r.members = append(r.members, m)
	u.undecided++
	r.checks = append(r.checks, check{m, anchor})
	c.wantAsk(r)
}

func (c *Core) addRoom(name string) *room {
	r := &room{name: name, link: int32(c.cfg.LinkOf(chat.Channel{Kind: chat.RoomChannel, Name: name}))}
	if n := len(c.freeRoom); n > 0 {
		r.num = c.freeRoom[n-1]
		c.freeRoom = c.freeRoom[:n-1]
		c.roomList[r.num] = r
	} else {
		r.num = edge.RoomNum(len(c.roomList))
		c.roomList = append(c.roomList, r)
	}
	c.rooms[name] = r
	c.subscribe(r.link, r.channel())
	return r
}

// leave ends a user's following of a room, on open sockets at once.
func (c *Core) leave(m *membership) {
	for i := range m.u.conns {
		c.out.Detach(m.u.conns[i].id, m.r.num)
	}
	c.unlink(m)
}

// unlink takes a membership out of both its lists; a room without any is
// dropped.
func (c *Core) unlink(m *membership) {
	u, r := m.u, m.r
	if !m.member {
		u.undecided--
	}
	m.dead = true
	last := u.rooms[len(u.rooms)-1]
	u.rooms[m.iu], last.iu = last, m.iu
	u.rooms[len(u.rooms)-1] = nil
	u.rooms = u.rooms[:len(u.rooms)-1]
	last = r.members[len(r.members)-1]
	r.members[m.ir], last.ir = last, m.ir
	r.members[len(r.members)-1] = nil
	r.members = r.members[:len(r.members)-1]
	if len(r.members) == 0 {
		c.dropRoom(r)
	}
}

func (c *Core) dropRoom(r *room) {
	r.dropped = true
	delete(c.rooms, r.name)
	c.roomList[r.num] = nil
	c.freeRoom = append(c.freeRoom, r.num)
	c.out.DropRoom(r.num, r.loops)
	c.unsubscribe(r.link, r.channel())
	for _, p := range r.parked {
		p.j.parked--
	}
	r.parked = nil
}

// wantAsk has the room asked about at the end of the turn, if there is a
// question and its channel is confirmed.
func (c *Core) wantAsk(r *room) {
	if !r.inAsking {
		r.inAsking = true
		c.asking = append(c.asking, r)
	}
}

func (c *Core) ask(r *room) {
	if r.dropped || !r.confirmed || r.askTok != 0 {
		return
	}
	if len(r.checks) == 0 && !r.audit {
		return
	}
	r.asked, r.checks = r.checks, nil
	q := chat.RoomQuery{Room: r.name, Users: make([]string, len(r.asked))}
	for i, ck := range r.asked {
		ck.m.again = false
		q.Users[i] = ck.m.u.name
	}
	r.askTok = c.nextToken()
	r.askHead = r.head
	c.out.ReadRoom(r.askTok, q)
}

// unask forgets a question in flight: it will be asked again.
func (c *Core) unask(r *room) {
	if r.askTok == 0 {
		return
	}
	r.askTok = 0
	r.checks = append(r.checks, r.asked...)
	r.asked = nil
}

// RoomRead takes in a room's head and who of those asked about is a member.
func (c *Core) RoomRead(now int64, tok Token, name string, st chat.RoomState, err error) {
	r := c.rooms[name]
	if r == nil || r.askTok != tok {
		return
	}
	if err != nil {
		c.unask(r)
		r.askTok = tok // held until the retry, so that nobody asks meanwhile
		c.retries.push(now+c.cfg.RetryMs, retry{retryRoom, name, tok})
		return
	}
	r.askTok = 0
	asked := r.asked
	r.asked = nil

	first := r.state == roomNew
	if first {
		r.head, r.n, r.version, r.state = st.Head, st.N, st.Version, roomLive
		r.audit, r.lost = false, false
	} else if r.audit {
		c.auditRoom(r, st)
	}
	for i, ck := range asked {
		if ck.m.dead {
			continue
		}
		if ck.m.again {
			r.checks = append(r.checks, ck)
			continue
		}
		c.decide(ck, st.Exists && st.Member[i])
	}
	if r.dropped {
		return
	}
	if first {
		c.drainPend(r)
	}
	if len(r.checks) > 0 {
		c.wantAsk(r)
	}
}

// auditRoom compares a head that was read after a break with the one that was
// held when the read was sent.
func (c *Core) auditRoom(r *room, st chat.RoomState) {
	c.stats.Audits++
	r.audit = false
	switch {
	case r.lost || !st.Exists || st.Head.Less(r.askHead):
		r.lost = false
		c.loseTail(r, st.Head, st.N)
	case r.head.Less(st.Head) && r.state == roomLive:
		c.catchUp(r)
	}
	if st.Version != r.version || !st.Exists {
		r.version = st.Version
		for _, m := range r.members {
			if m.member {
				c.recheck(m)
			}
		}
	}
}

// recheck asks again whether a user that is followed for is a member. It stays
// attached until the answer comes.
func (c *Core) recheck(m *membership) {
	m.r.checks = append(m.r.checks, check{m: m})
	c.wantAsk(m.r)
}

// decide takes in whether a user is a member.
func (c *Core) decide(ck check, isMember bool) {
	m, u, r := ck.m, ck.m.u, ck.m.r
	switch {
	case !isMember && m.member: // removed while its channel was silent
		c.leave(m)
		c.tell(u, edge.NewFrame(160, func(b []byte) []byte {
			return protocol.AppendLeft(b, r.name, u.name, u.rev)
		}))
	case !isMember:
		c.leave(m)
	case m.member: // still
	default:
		m.member = true
		u.undecided--
		for i := range u.conns {
			c.begin(&u.conns[i], r, ck.anchor)
		}
	}
	c.roomDecided(u)
}

// begin starts a room for a connection that may have had its hello before the
// room was known.
func (c *Core) begin(ref *connRef, r *room, anchor *protocol.ID) {
	from := r.head
	if anchor != nil {
		from = *anchor
	}
	switch ref.state {
	case connHeld:
		if _, ok := ref.job.start[r.name]; !ok {
			ref.job.start[r.name] = from
		}
	case connLive:
		if ref.job != nil {
			if p, ok := ref.job.positions[r.name]; ok {
				from = p
			}
		}
		c.enqueue(ref, r, from)
	}
}

// roomEvent takes in a publication on a room's channel; heard is when it came, 0
// when it has waited behind a read.
func (c *Core) roomEvent(heard int64, r *room, payload []byte) {
	h, ok := protocol.ParseMessageHead(payload, r.name)
	if !ok {
		c.roomControl(r, payload)
		return
	}
	if r.state != roomLive {
		c.pend(r, payload)
		return
	}
	switch {
	case !r.head.Less(h.ID):
		c.stats.Duplicates++
	case h.Prev == r.head:
		f := edge.FrameOf(payload)
		f.ID, f.Prev, f.SentAtMs, f.HeardMs = h.ID, h.Prev, int64(h.ID.Ms), heard
		c.accept(r, f, h.N)
	default:
		c.stats.GapsFilled++
		c.catchUp(r)
		c.pend(r, payload)
	}
}

// roomControl takes in what is not a message: members joining and leaving, and
// live events that are passed on as they are.
func (c *Core) roomControl(r *room, payload []byte) {
	var ev control
	if json.Unmarshal(payload, &ev) != nil {
		return
	}
	if ev.Type == "left" {
		if u := c.users[ev.User]; u != nil {
			if m := u.membership(r); m != nil {
				c.suspend(m)
			}
		}
	}
	if r.dropped {
		return
	}
	f := edge.FrameOf(payload)
	c.out.Broadcast(r.num, r.loops, f)
}

// suspend obeys a `left` at once: nothing more of the room reaches the user's
// sockets. Whether it was overtaken by a later `joined` is asked, and then what
// came meanwhile is caught up.
func (c *Core) suspend(m *membership) {
	u, r := m.u, m.r
	if !m.member {
		m.again = true
		return
	}
	for i := range u.conns {
		c.out.Detach(u.conns[i].id, r.num)
	}
	m.member = false
	u.undecided++
	from := r.head
	r.checks = append(r.checks, check{m, &from})
	c.wantAsk(r)
}

func (c *Core) pend(r *room, payload []byte) {
	if r.pendOver {
		return
	}
	if r.pendBytes += len(payload); r.pendBytes > c.cfg.PendBytes {
		r.pend, r.pendBytes, r.pendOver = nil, 0, true
		return
	}
	r.pend = append(r.pend, payload)
}

// drainPend delivers what waited behind a read. Events that were dropped are
// found missing by the prev of the next one, or, when there is none, by reading
// on at once.
func (c *Core) drainPend(r *room) {
	pend, over := r.pend, r.pendOver
	r.pend, r.pendBytes, r.pendOver = nil, 0, false
	for _, p := range pend {
		c.roomEvent(0, r, p)
	}
	if over && r.state == roomLive {
		c.catchUp(r)
	}
	if r.state == roomLive {
		c.unpark(r)
	}
}

// accept makes a message the head and delivers it.
func (c *Core) accept(r *room, f *edge.Frame, n uint64) {
	r.head, r.n = f.ID, n
	r.tail = append(r.tail, f)
	r.tailBytes += len(f.WS())
	for len(r.tail) > c.cfg.TailEntries || r.tailBytes > c.cfg.TailBytes {
		r.tailBytes -= len(r.tail[0].WS())
		r.tail[0] = nil
		r.tail = r.tail[1:]
	}
	if r.loops != 0 {
		c.out.Broadcast(r.num, r.loops, f)
	}
}

// loseTail tells a room's connections that what follows its head here cannot be
// proven, and goes on from the head Redis has.
func (c *Core) loseTail(r *room, head protocol.ID, n uint64) {
	c.stats.GapsTold++
	after := r.head
	c.out.Broadcast(r.num, r.loops, edge.NewFrame(160, func(b []byte) []byte {
		return protocol.AppendGap(b, r.name, after, head)
	}))
	r.tail, r.tailBytes = nil, 0
	r.head, r.n = head, n
	r.logTok = 0
	r.state = roomLive
	c.drainPend(r)
}
