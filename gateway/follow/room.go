package follow

import (
	"encoding/json"
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// room is a room that a local user follows, or may.
type room struct {
	name string
	num  edge.RoomNum
	sub  subscription

	state    roomState
	audit    bool // the next answer is compared: the channel may have been silent
	recheck  bool // it was, and members changed: all are to be asked about
	inAsking bool
	inAudits bool // waits in Core.audits
	dropped  bool

	head  protocol.ID
	n     uint64
	loops uint64 // loops that have connections attached, or had
	// version of the membership at which every member here was checked, and since
	// when the channel has not been silent; 0: unknown.
	version uint64

	members []uint32 // memberships

	tail      []*edge.Frame
	tailBytes int

	*reading
}

// pending is a message that waits.
type pending struct {
	head    protocol.MessageHead
	payload []byte
}

type roomState uint8

const (
	roomNew      roomState = iota // head unknown
	roomLive                      // events whose prev is the head are delivered
	roomCatching                  // something is missing: the log is being read
)

func (r *room) channel() chat.Channel {
	return chat.Channel{Kind: chat.RoomChannel, Name: r.name}
}

// unchecked says whether someone may have been removed of whom the channel, silent,
// did not tell. Nothing is delivered until that is known (F2): what was sent since
// is not for them.
func (r *room) unchecked() bool { return r.audit || r.recheck }

// restingNums is how many room numbers rest before one is used again, so that
// what a loop still says about a room that was dropped is not taken for another.
const restingNums = 1024

func (c *Core) addRoom(name string) *room {
	r := &room{name: name, reading: c.atRest}
	r.sub = c.newSubscription(r.channel())
	r.num = edge.RoomNum(c.rooms.add(r))
	c.subscribe(&r.sub, r.channel())
	return r
}

func (c *Core) dropRoom(r *room) {
	r.dropped = true
	for _, m := range slices.Concat(r.checks, r.asked) { // all dead, and no answer will be taken
		c.members.give(m)
	}
	c.rooms.remove(uint32(r.num))
	c.out.DropRoom(r.num, r.loops)
	c.unsubscribe(&r.sub, r.channel())
}

// wantAsk has the room asked about at the end of the turn, if there is a
// question and its channel is confirmed.
func (c *Core) wantAsk(r *room) {
	if !r.inAsking {
		r.inAsking = true
		c.asking = append(c.asking, r)
	}
}

// askRoom asks a room's question, if there is one; asked says so.
func (c *Core) askRoom(r *room) (asked bool) {
	if r.dropped || !r.sub.confirmed || r.askTok != 0 || len(r.checks) == 0 && !r.audit {
		return false
	}
	c.wake(r)
	r.asked = c.questions(r)
	q := chat.RoomQuery{Room: r.name, Users: make([]string, len(r.asked))}
	for i, m := range r.asked {
		q.Users[i] = c.userOf(m).name
	}
	r.askTok = c.nextToken()
	r.askHead, r.askAll = r.head, r.recheck && len(r.checks) == 0
	if r.state == roomNew || r.audit {
		r.pendKnown = len(r.pend)
	}
	c.out.ReadRoom(r.askTok, q)
	return true
}

// RoomRead takes in a room's head and who of those asked about is a member.
func (c *Core) RoomRead(now int64, tok Token, name string, st chat.RoomState, err error) {
	r := c.rooms.named(name)
	if r == nil || r.askTok != tok {
		return
	}
	defer c.rest(r)
	r.failing = err != nil
	if err != nil {
		r.unask()
		r.askTok = tok // held until the retry, so that nobody asks meanwhile
		c.retries.Push(now+c.cfg.RetryMs, retry{retryRoom, name, tok})
		c.stuck(r)
		return
	}
	asked, all, held := r.asked, r.askAll, r.unchecked()
	if all {
		r.recheck = false
	}
	r.askTok, r.asked, r.askAll = 0, nil, false
	for _, m := range asked {
		m.asked, m.asking = false, false
		if m.dead {
			c.members.give(m)
		}
	}

	first, behind := r.state == roomNew, st.Head.Less(r.askHead)
	switch {
	case first:
		r.head, r.n, r.version, r.state = st.Head, st.N, st.Version, roomLive
		r.audit = false
	case r.audit || behind:
		// Whatever it was asked for: a head that is behind is a lost tail.
		c.auditRoom(r, st, behind)
	case st.Version != r.version:
		// The channel is not silent, so whoever else this concerns will be heard of,
		// unless the link breaks before.
		r.version = 0
	}
	for i, m := range asked {
		switch {
		case m.dead:
		case m.again:
			m.again = false
			r.recheck = r.recheck || all // of this one it is not known yet
			c.check(m)
		default:
			c.decide(now, m, st.Exists && st.Member[i])
		}
	}
	if r.dropped {
		return
	}
	switch {
	case r.unchecked():
	case held && r.state == roomCatching:
		c.readLog(r)
	case held, first:
		c.drainPend(r)
	}
	if len(r.checks) > 0 {
		c.wantAsk(r)
	}
}

// auditRoom compares what was read after a break, or is behind the head that was
// held when the read was sent, with what is held (L2, L3).
func (c *Core) auditRoom(r *room, st chat.RoomState, behind bool) {
	c.stats.Audits++
	r.audit = false
	if st.Version != r.version || !st.Exists {
		c.recheckAt(r, st.Version)
	}
	switch {
	case behind:
		c.loseTail(r, st.Head, st.N)
	case r.head.Less(st.Head) || r.state == roomCatching:
		c.catchUp(r)
	}
}

// roomEvent takes in a publication on a room's channel.
func (c *Core) roomEvent(r *room, payload []byte) {
	h, ok := protocol.ParseMessageHead(payload, r.name)
	if !ok {
		c.roomControl(r, payload)
		return
	}
	c.message(r, h, payload, false)
}

// message takes in a message that was published. inLog says that the log was read
// since: if it has not brought us up to the message, Redis has lost it.
func (c *Core) message(r *room, h protocol.MessageHead, payload []byte, inLog bool) {
	switch {
	case r.state != roomLive || r.unchecked():
		c.pend(r, h, payload)
	case !r.head.Less(h.ID):
		c.stats.Duplicates++
	case inLog:
	case h.Prev == r.head:
		f := edge.FrameOf(payload)
		f.ID, f.Prev, f.SentAtMs = h.ID, h.Prev, int64(h.ID.Ms)
		f.Time = c.timeOf(h.ID.Ms)
		if c.cfg.Trace != nil {
			f.Trace = c.cfg.Trace(r.name, h.ID)
		}
		c.accept(r, f, h.N)
	default:
		c.stats.GapsFilled++
		c.pend(r, h, payload)
		c.catchUp(r)
	}
}

// roomControl takes in what is not a message: members joining and leaving, and
// live events that are passed on as they are.
func (c *Core) roomControl(r *room, payload []byte) {
	var ev control
	if json.Unmarshal(payload, &ev) != nil {
		return
	}
	if u := c.people.named(ev.User); u != nil {
		if m := c.membership(u, r); m != nil {
			switch ev.Type {
			case "left":
				c.suspend(m)
			case "joined":
				if m.state != memberIn || m.asked {
					c.check(m)
				}
			}
		}
	}
	c.out.Broadcast(r.num, r.loops, edge.FrameOf(payload))
}

func (c *Core) pend(r *room, h protocol.MessageHead, payload []byte) {
	if r.pendOver {
		return
	}
	c.wake(r)
	if r.audit {
		c.wantAsk(r) // who waits here does not wait for the audits' budget
	}
	if r.pendBytes += len(payload); r.pendBytes > c.cfg.PendBytes {
		r.pend, r.pendBytes, r.pendOver = nil, 0, true
		return
	}
	r.pend = append(r.pend, pending{h, payload})
}

// drainPend delivers what waited behind a read. Messages that were dropped are
// found by reading on (L4).
func (c *Core) drainPend(r *room) {
	pend, known, over := r.pend, r.pendKnown, r.pendOver
	r.pend, r.pendBytes, r.pendKnown, r.pendOver = nil, 0, 0, false
	for i := range pend {
		c.message(r, pend[i].head, pend[i].payload, i < known)
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
// proven, and goes on from the head Redis has. The log is read from there: what
// came since and is older than the head that was lost was taken for known.
func (c *Core) loseTail(r *room, head protocol.ID, n uint64) {
	after := r.head
	r.tail, r.tailBytes = nil, 0
	r.head, r.n = head, n
	for m := range c.members.each(r.members) {
		if m.state != memberIn {
			continue
		}
		conns := c.userOf(m).conns
		for i := range conns {
			c.restart(&conns[i], r, after)
			if j := conns[i].job; j != nil {
				c.run(j) // it may have waited for nothing else
			}
		}
	}
	c.catchUp(r)
}

// restart tells a connection that gets a room's messages a gap, and lets it go on
// from the head. Between Detach and Attach its loop forgets what it has left out:
// a gap has told that, too.
func (c *Core) restart(ref *connRef, r *room, after protocol.ID) {
	if ref.state != connLive {
		return
	}
	if j := ref.job; j != nil {
		if p := j.pullOf(r); p != nil {
			if !p.lagged { // it gets nothing yet, and its position will be looked up
				if p.told {
					c.tellGap(ref.id, r, after)
					p.tells(r.head)
				}
				return
			}
			after = p.pos
			j.remove(p)
		}
	}
	c.detachFrom(ref, r)
	c.tellGap(ref.id, r, after)
	c.attach(ref.id, r)
}
