package follow

import (
	"encoding/json"
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// user is someone who has connections here, or had one a moment ago.
type user struct {
	name      string
	num       uint32
	sub       subscription
	known     bool  // the index has been read
	undecided int32 // memberships that the members must still be asked about
	readTok   Token
	rev       uint64
	exact     bool   // nothing but a read has set rev: equal means the same rooms
	revoked   uint64 // tokens made before this time (ms) are no good any more
	opens     uint64 // how often a connection was opened: ends an earlier linger
	conns     []connRef
	rooms     []uint32 // memberships
}

// connRef is one connection of a user.
type connRef struct {
	id     edge.ConnID
	state  connState
	resume bool
	via    edge.Transport
	// unsure: its client may have another idea of its rooms than what it is told
	// follows from. Events say noRev then, because the client would take a true
	// revision for having missed nothing; `resumed` says that one.
	unsure   bool
	issuedAt uint32 // of its token, Unix seconds; 0: not told
	job      *job   // catching up; nil when there is nothing to catch up

	// marks and drained count the marks given to the loop and those that came
	// back: what the loop says after a mark came back, it says in the knowledge of
	// everything before the mark.
	marks, drained uint32
}

type connState uint8

const (
	connOpening connState = iota // hello not sent
	connHeld                     // hello sent, the positions have not all come
	connLive
)

func (u *user) channel() chat.Channel {
	return chat.Channel{Kind: chat.UserChannel, Name: u.name}
}

// decided says whether all rooms of the index are followed or refused.
func (u *user) decided() bool { return u.known && u.undecided == 0 }

// current says whether no room can be missing from what is known of the index: it has
// been read since the user's channel may have been silent.
func (u *user) current() bool { return u.known && u.sub.confirmed && u.readTok == 0 }

func (u *user) conn(id edge.ConnID) *connRef {
	for i := range u.conns {
		if u.conns[i].id == id {
			return &u.conns[i]
		}
	}
	return nil
}

// Open takes in a connection that is there and authenticated.
func (c *Core) Open(now int64, id edge.ConnID, name string, how Opening) {
	u := c.people.named(name)
	if u == nil {
		u = c.addUser(name)
	}
	u.opens++
	u.conns = append(u.conns, connRef{id: id, via: how.Via, resume: how.Resume || how.Since != 0, issuedAt: uint32(how.IssuedAt)})
	c.byConn[id] = u
	if how.Since != 0 {
		c.resumeSince(&u.conns[len(u.conns)-1], how.Since)
	}
	if how.Known != 0 {
		c.jobOf(&u.conns[len(u.conns)-1]).known = how.Known
	}
	c.closeRevoked(u.conns[len(u.conns)-1:], u.revoked, false)
	if u.decided() {
		c.hello(u, &u.conns[len(u.conns)-1])
		return
	}
	c.hellos.Push(now+c.cfg.HelloMs, id)
}

// Renew takes in that a connection has another token, and when that was made.
func (c *Core) Renew(id edge.ConnID, issuedAt int64) {
	u := c.byConn[id]
	if u == nil {
		return
	}
	i := slices.IndexFunc(u.conns, func(r connRef) bool { return r.id == id })
	u.conns[i].issuedAt = uint32(issuedAt)
	c.closeRevoked(u.conns[i:i+1], u.revoked, false)
}

// Close takes in that a connection is gone.
func (c *Core) Close(now int64, id edge.ConnID) {
	u := c.byConn[id]
	if u == nil {
		return
	}
	delete(c.byConn, id)
	delete(c.detached, id)
	i := slices.IndexFunc(u.conns, func(r connRef) bool { return r.id == id })
	if j := u.conns[i].job; j != nil {
		j.dead = true
	}
	u.conns = slices.Delete(u.conns, i, i+1)
	if len(u.conns) > 0 {
		return
	}
	if c.cfg.LingerMs > 0 {
		c.lingers.Push(now+c.cfg.LingerMs, linger{u.num, u.opens})
		return
	}
	c.dropUser(u)
}

func (c *Core) addUser(name string) *user {
	u := &user{name: name}
	u.sub = c.newSubscription(u.channel())
	u.num = c.people.add(u)
	c.subscribe(&u.sub, u.channel())
	return u
}

func (c *Core) dropUser(u *user) {
	for len(u.rooms) > 0 {
		c.unlink(c.members.at(u.rooms[len(u.rooms)-1]))
	}
	u.readTok = 0
	c.people.remove(u.num)
	delete(c.waiting, u)
	c.unsubscribe(&u.sub, u.channel())
}

func (c *Core) readUser(u *user) {
	u.readTok = c.nextToken()
	c.out.ReadUser(u.readTok, u.name)
}

// UserRead takes in a user's index, or that it could not be read. The first one
// says what to follow; a later one, after the link was re-made, is compared with
// what is followed.
func (c *Core) UserRead(now int64, tok Token, name string, st chat.UserState, err error) {
	u := c.people.named(name)
	if u == nil || u.readTok != tok {
		return
	}
	if err != nil {
		c.retries.Push(now+c.cfg.RetryMs, retry{retryUser, name, tok})
		return
	}
	u.readTok = 0
	if u.known {
		c.stats.Audits++
		more := st.Disconnected > u.revoked
		u.revoked = max(u.revoked, st.Disconnected)
		c.closeRevoked(u.conns, u.revoked, more)
		c.compareIndex(u, st)
	} else {
		u.revoked = max(u.revoked, st.Disconnected) // the event may be newer than the read
		c.closeRevoked(u.conns, u.revoked, false)
		u.known, u.rev, u.exact = true, st.Rev, true
		u.rooms = make([]uint32, 0, len(st.Rooms))
		for _, ir := range st.Rooms {
			c.follow(u, ir.Room)
		}
	}
	waiting := c.waiting[u]
	delete(c.waiting, u)
	for i := range waiting {
		c.roomsChanged(u, &waiting[i])
	}
	c.roomDecided(u)
}

// closeRevoked closes connections whose token was made before the user was
// disconnected (M4). The age of a token that does not tell it is unknown: its
// connections go when a disconnection is news.
func (c *Core) closeRevoked(conns []connRef, before uint64, news bool) {
	for i := range conns {
		made := uint64(conns[i].issuedAt) * 1000
		if made != 0 && made <= before || made == 0 && news {
			c.out.Close(conns[i].id, protocol.CloseTokenExpired)
		}
	}
}

// compareIndex brings what is followed for a user in line with an index that
// was read after its channel may have been silent for a while.
func (c *Core) compareIndex(u *user, st chat.UserState) {
	if u.exact && st.Rev == u.rev {
		return
	}
	u.rev, u.exact = st.Rev, true
	// What is told below is what differs from what is followed here; clients may
	// know more, or less, from HTTP. `resumed` tells them the revision to compare.
	for i := range u.conns {
		c.unsettle(&u.conns[i])
	}
	for m := range c.members.each(u.rooms) {
		m.seen = false
	}
	for _, ir := range st.Rooms {
		m := c.membershipIn(u, ir.Room)
		if m != nil && m.indexed {
			c.stillIndexed(m, ir.Head)
		} else {
			c.joined(u, ir.Room, ir.Head)
			m = c.membershipIn(u, ir.Room)
		}
		m.seen = true
	}
	for m := range c.members.each(slices.Clone(u.rooms)) {
		if !m.seen {
			c.unindexed(m)
		}
	}
}

// control is what is read of an event that is not a message.
type control struct {
	Type     string      `json:"type"`
	Room     string      `json:"room"`
	User     string      `json:"user"`
	Head     protocol.ID `json:"head"`
	RoomsRev uint64      `json:"rooms_rev"`
	BeforeMs uint64      `json:"before_ms"` // disconnect: what was issued before is revoked

	payload []byte // whole
}

// mostPending bounds what waits behind the reading of an index. Dropping it is
// no loss: the index is then read again, and has it.
const mostPending = 256

// userEvent takes in a publication on a user's channel.
func (c *Core) userEvent(u *user, payload []byte) {
	ev := control{payload: payload}
	if json.Unmarshal(payload, &ev) != nil {
		return
	}
	switch ev.Type {
	case "disconnect":
		c.disconnected(u, ev.BeforeMs)
	case "joined", "left":
	default:
		c.tell(u, edge.FrameOf(payload))
		return
	}
	switch {
	case u.readTok == 0 && u.known:
		c.roomsChanged(u, &ev)
		c.roomDecided(u)
	case len(c.waiting[u]) < mostPending:
		c.waiting[u] = append(c.waiting[u], ev)
	default:
		delete(c.waiting, u)
		c.readUser(u)
	}
}

// disconnected closes the connections of a user who was disconnected (M4). It may be
// late: who came with a newer token stays. One that does not say since when ends
// everything.
func (c *Core) disconnected(u *user, before uint64) {
	if before == 0 {
		for i := range u.conns {
			c.out.Close(u.conns[i].id, protocol.CloseTokenExpired)
		}
		return
	}
	u.revoked = max(u.revoked, before)
	c.closeRevoked(u.conns, u.revoked, true)
}

// roomsChanged takes in what a user's channel says of a new revision: joined, left,
// or a disconnection, which changes no room. One that is not newer than what is
// known is part of it (M3).
func (c *Core) roomsChanged(u *user, ev *control) {
	if ev.RoomsRev <= u.rev {
		return
	}
	u.rev, u.exact = ev.RoomsRev, false
	switch ev.Type {
	case "disconnect":
		// Who comes next must not be told the one before: its list of rooms would
		// have another every time.
		return
	case "joined":
		if protocol.ValidRoom(ev.Room) {
			c.joined(u, ev.Room, ev.Head)
		}
		return
	}
	if m := c.membershipIn(u, ev.Room); m != nil {
		c.leave(m)
	} else {
		c.compare(u) // which the index that has been read lacks already: one of the two is from another primary
	}
	c.tellRev(u, edge.FrameOf(ev.payload), edge.NewFrame(160, func(b []byte) []byte {
		return protocol.AppendLeft(b, ev.Room, u.name, noRev)
	}))
}

// unsettle has a connection told a revision again only with `resumed`.
func (c *Core) unsettle(ref *connRef) {
	if ref.state != connOpening {
		ref.unsure = true
		c.jobOf(ref).announce = true
	}
}

// noRev is a revision that no index has (they are milliseconds since 1970): a
// client finds it lower than its own, and lists its rooms.
const noRev = 1

// tellRev sends an event that says a revision to every connection of a user that
// has had its hello.
func (c *Core) tellRev(u *user, sure, unsure *edge.Frame) {
	for i := range u.conns {
		switch ref := &u.conns[i]; {
		case ref.state == connOpening:
		case ref.unsure:
			c.out.Unicast(ref.id, unsure)
		default:
			c.out.Unicast(ref.id, sure)
		}
	}
}

// tell sends an event to every connection of a user that has had its hello.
func (c *Core) tell(u *user, f *edge.Frame) {
	for i := range u.conns {
		if u.conns[i].state != connOpening {
			c.out.Unicast(u.conns[i].id, f)
		}
	}
}

// hello greets a connection; what follows it is delivered, at once or, for one
// that resumes, when its positions have come.
func (c *Core) hello(u *user, ref *connRef) {
	if ref.via != edge.LongPoll { // which is told where it starts, when that is known
		f := edge.NewFrame(160+len(u.name), func(b []byte) []byte {
			return protocol.AppendHello(b, c.cfg.ConnPrefix+ref.id.String(), u.name, u.rev, c.cfg.HeartbeatS, c.cfg.Version)
		})
		f.Time = c.clocks.least
		c.out.Unicast(ref.id, f)
	}
	ref.unsure = !u.known // the revision was a guess
	if ref.resume {
		ref.state = connHeld
		j := c.jobOf(ref)
		j.announce = true
		j.start = make(map[string]protocol.ID, len(u.rooms))
		for m := range c.members.each(u.rooms) {
			if m.state == memberIn {
				r := c.roomOf(m)
				j.start[r.name] = r.head
			}
		}
		if j.complete {
			c.resume(u, ref)
		}
		return
	}
	ref.state = connLive
	for m := range c.members.each(u.rooms) {
		if m.state == memberIn {
			c.attach(ref.id, c.roomOf(m))
		}
	}
	if !u.decided() {
		// It was greeted with a revision that may not be true: `resumed` will tell.
		c.jobOf(ref).announce = true
	}
}

// helloOverdue greets a connection although a partition has not answered (F4).
func (c *Core) helloOverdue(id edge.ConnID) {
	u := c.byConn[id]
	if u == nil {
		return
	}
	if ref := u.conn(id); ref.state == connOpening {
		c.hello(u, ref)
	}
}

// roomDecided goes on with what waited for all rooms of a user to be decided.
func (c *Core) roomDecided(u *user) {
	if !u.decided() {
		return
	}
	for i := range u.conns {
		switch ref := &u.conns[i]; {
		case ref.state == connOpening:
			c.hello(u, ref)
		case ref.job != nil && ref.state == connLive:
			c.run(ref.job)
		}
	}
}
