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
	link      int32
	known     bool // the index has been read
	confirmed bool // the link carries the user's channel
	undecided int32
	readTok   Token
	rev       uint64
	opens     uint64 // how often a connection was opened: ends an earlier linger
	conns     []connRef
	rooms     []*membership
	pend      [][]byte // events that came before the index did
}

// connRef is one connection of a user.
type connRef struct {
	id     edge.ConnID
	state  connState
	resume bool
	job    *job // catching up; nil when there is nothing to catch up
}

type connState uint8

const (
	connOpening connState = iota // hello not sent
	connHeld                     // hello sent, the positions have not all come
	connLive
)

// membership joins a user to a room it follows, or may follow once the members
// were checked. Both sides hold it at an index it knows, so that it leaves in
// constant time.
type membership struct {
	u      *user
	r      *room
	iu, ir uint32
	member bool // checked
	dead   bool // unlinked; a check in flight is of no interest
	// again: a `left` was seen while the check was in flight, whose answer may
	// be older than it (F2).
	again bool
}

func (u *user) channel() chat.Channel {
	return chat.Channel{Kind: chat.UserChannel, Name: u.name}
}

// decided says whether all rooms of the index are followed or refused.
func (u *user) decided() bool { return u.known && u.undecided == 0 }

func (u *user) conn(id edge.ConnID) *connRef {
	for i := range u.conns {
		if u.conns[i].id == id {
			return &u.conns[i]
		}
	}
	return nil
}

func (u *user) membership(r *room) *membership {
	for _, m := range u.rooms {
		if m.r == r {
			return m
		}
	}
	return nil
}

// Open takes in a connection that was upgraded and authenticated.
func (c *Core) Open(now int64, id edge.ConnID, name string, resume bool) {
	u := c.users[name]
	if u == nil {
		u = c.addUser(name)
	}
	u.opens++
	u.conns = append(u.conns, connRef{id: id, resume: resume})
	c.byConn[id] = u
	if u.decided() {
		c.hello(u, &u.conns[len(u.conns)-1])
		return
	}
	c.hellos.push(now+c.cfg.HelloMs, id)
}

// Close takes in that a connection is gone.
func (c *Core) Close(now int64, id edge.ConnID) {
	u := c.byConn[id]
	if u == nil {
		return
	}
	delete(c.byConn, id)
	i := slices.IndexFunc(u.conns, func(r connRef) bool { return r.id == id })
	if j := u.conns[i].job; j != nil {
		j.dead = true
	}
	last := len(u.conns) - 1
	u.conns[i] = u.conns[last]
	u.conns[last] = connRef{}
	u.conns = u.conns[:last]
	if last > 0 {
		return
	}
	if c.cfg.LingerMs > 0 {
		c.lingers.push(now+c.cfg.LingerMs, linger{u.num, u.opens})
		return
	}
	c.dropUser(u)
}

func (c *Core) addUser(name string) *user {
	u := &user{name: name, link: int32(c.cfg.LinkOf(chat.Channel{Kind: chat.UserChannel, Name: name}))}
	if n := len(c.freeUser); n > 0 {
		u.num = c.freeUser[n-1]
		c.freeUser = c.freeUser[:n-1]
		c.userList[u.num] = u
	} else {
		u.num = uint32(len(c.userList))
		c.userList = append(c.userList, u)
	}
	c.users[name] = u
	c.subscribe(u.link, u.channel())
	return u
}

func (c *Core) dropUser(u *user) {
	for len(u.rooms) > 0 {
		c.unlink(u.rooms[len(u.rooms)-1])
	}
	delete(c.users, u.name)
	c.userList[u.num] = nil
	c.freeUser = append(c.freeUser, u.num)
	c.unsubscribe(u.link, u.channel())
}

func (c *Core) readUser(u *user) {
	u.readTok = c.nextToken()
	c.out.ReadUser(u.readTok, u.name)
}

// UserRead takes in a user's index, or that it could not be read. The first one
// says what to follow; a later one, after the link was re-made, is compared with
// what is followed.
func (c *Core) UserRead(now int64, tok Token, name string, st chat.UserState, err error) {
	u := c.users[name]
	if u == nil || u.readTok != tok {
		return
	}
	if err != nil {
		c.retries.push(now+c.cfg.RetryMs, retry{retryUser, name, tok})
		return
	}
	u.readTok = 0
	first := !u.known
	u.known = true
	if first {
		u.rev = st.Rev
		u.rooms = make([]*membership, 0, len(st.Rooms))
		for _, ir := range st.Rooms {
			c.followRoom(u, ir.Room, nil)
		}
	} else {
		c.stats.Audits++
		c.compareIndex(u, st)
	}
	pend := u.pend
	u.pend = nil
	for _, p := range pend {
		c.userEvent(now, u, p)
	}
	c.roomDecided(u)
}

// compareIndex brings what is followed for a user in line with an index that
// was read after its channel may have been silent for a while.
func (c *Core) compareIndex(u *user, st chat.UserState) {
	if st.Rev == u.rev {
		return
	}
	u.rev = st.Rev
	have := make(map[string]*membership, len(u.rooms))
	for _, m := range u.rooms {
		have[m.r.name] = m
	}
	for _, ir := range st.Rooms {
		if have[ir.Room] != nil {
			delete(have, ir.Room)
			continue
		}
		head := ir.Head
		c.tell(u, edge.NewFrame(160, func(b []byte) []byte {
			return protocol.AppendJoined(b, ir.Room, u.name, head, st.Rev)
		}))
		c.followRoom(u, ir.Room, &head)
	}
	for _, m := range u.rooms { // not the map: its order is no order
		if have[m.r.name] == m {
			c.recheck(m) // the members are the truth, the index may have been lost
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
}

// userEvent takes in a publication on a user's channel.
func (c *Core) userEvent(now int64, u *user, payload []byte) {
	if !u.known {
		if len(u.pend) < 256 {
			u.pend = append(u.pend, payload)
		} else if u.readTok != 0 {
			// Too many to keep: the index read after them has them all.
			u.pend = nil
			c.readUser(u)
		}
		return
	}
	var ev control
	if json.Unmarshal(payload, &ev) != nil {
		return
	}
	switch ev.Type {
	case "joined":
		if ev.RoomsRev <= u.rev || !protocol.ValidRoom(ev.Room) {
			return
		}
		u.rev = ev.RoomsRev
		c.tell(u, edge.FrameOf(payload))
		c.followRoom(u, ev.Room, &ev.Head)
	case "left":
		if ev.RoomsRev <= u.rev {
			return
		}
		u.rev = ev.RoomsRev
		if r := c.rooms[ev.Room]; r != nil {
			if m := u.membership(r); m != nil {
				c.leave(m)
			}
		}
		c.tell(u, edge.FrameOf(payload))
		c.roomDecided(u)
	case "disconnect":
		for i := range u.conns {
			c.out.Close(u.conns[i].id, protocol.CloseTokenExpired)
		}
	default:
		c.tell(u, edge.FrameOf(payload))
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
	c.out.Unicast(ref.id, edge.NewFrame(160+len(u.name), func(b []byte) []byte {
		return protocol.AppendHello(b, c.cfg.ConnPrefix+ref.id.String(), u.name, u.rev, c.cfg.HeartbeatS, c.cfg.Version)
	}))
	if !ref.resume {
		ref.state = connLive
		for _, m := range u.rooms {
			if m.member {
				c.attach(ref.id, m.r)
			}
		}
		return
	}
	ref.state = connHeld
	j := c.jobOf(ref)
	j.announce = true
	j.start = make(map[string]protocol.ID, len(u.rooms))
	for _, m := range u.rooms {
		if m.member {
			j.start[m.r.name] = m.r.head
		}
	}
	if j.complete {
		c.resume(u, ref)
	}
}

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
