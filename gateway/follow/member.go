package follow

import (
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// membership joins a user to a room of its index. The index decides that it is
// there; the members, asked on the room's side, decide its state. One that was
// refused stays, and with it the room's subscription: the index says otherwise,
// so one of the two is about to change, or the answer came from a Redis that had
// been left behind.
//
// A gateway has ten times as many as connections, so they are small and without
// pointers: 20 bytes, and 4 in each of the two lists that have it.
type membership struct {
	user  uint32 // in Core.people
	room  uint32 // in Core.rooms
	place uint32 // in its room's members, so that it leaves in constant time; its own number when it is dead
	state memberState

	asking  bool // in room.checks or room.asked
	asked   bool // in room.asked: a question is under way
	again   bool // joined or left came meanwhile, which the answer may be older than (F2)
	indexed bool // the index has it
	seen    bool // the index that is being compared has it
	untold  bool // refused, and its user's connections are to hear of that from its index
	dead    bool // unlinked; an answer is of no interest
}

// start is where connections begin that had their hello before they were members:
// they are promised what follows it, or else told a gap after it.
type start struct {
	after    protocol.ID
	promised bool
}

type memberState uint8

const (
	memberNew       memberState = iota // not asked yet
	memberIn                           // is one
	memberSuspended                    // was one, until a `left` was seen
	memberRefused                      // is none
)

func (s memberState) decided() bool { return s == memberIn || s == memberRefused }

func (c *Core) userOf(m *membership) *user { return c.people.list[m.user] }
func (c *Core) roomOf(m *membership) *room { return c.rooms.list[m.room] }

// membership looks on the side that has fewer: some users have thousands of
// rooms, some rooms thousands of users.
func (c *Core) membership(u *user, r *room) *membership {
	if len(r.members) < len(u.rooms) {
		for m := range c.members.each(r.members) {
			if m.user == u.num {
				return m
			}
		}
		return nil
	}
	for m := range c.members.each(u.rooms) {
		if m.room == uint32(r.num) {
			return m
		}
	}
	return nil
}

func (c *Core) membershipIn(u *user, name string) *membership {
	if r := c.rooms.named(name); r != nil {
		return c.membership(u, r)
	}
	return nil
}

// follow follows a room for a user, once the members were asked.
func (c *Core) follow(u *user, name string) *membership {
	r := c.rooms.named(name)
	if r == nil {
		r = c.addRoom(name)
	} else if known := c.membership(u, r); known != nil {
		return known
	}
	num, m := c.members.take()
	*m = membership{user: u.num, room: uint32(r.num), place: uint32(len(r.members)), indexed: true}
	u.rooms = append(u.rooms, num)
	r.members = append(r.members, num)
	u.undecided++
	c.check(m)
	return m
}

// joined takes in that a user was added to a room: that it joined, that its index
// was repaired, or that it left and joined and only the latter is told. What
// follows head is delivered (F3); a connection that gets the room already is told
// where it is instead, and goes on from there.
func (c *Core) joined(u *user, name string, head protocol.ID) {
	if m := c.membershipIn(u, name); m != nil && m.state == memberRefused && !m.indexed {
		c.unlink(m) // it left, which the members are being asked about
	}
	m := c.follow(u, name)
	m.indexed = true
	switch m.state {
	case memberIn:
		if m.asked {
			c.check(m)
		}
	case memberNew, memberRefused:
		if st := c.starts[m]; !st.promised || head.Less(st.after) { // else an earlier one was promised
			c.starts[m] = start{head, true}
		}
		head = c.starts[m].after
		c.check(m)
	case memberSuspended: // and will be told a gap, if it is one again
		c.check(m)
		return
	}
	for i := range u.conns {
		if m.state == memberRefused { // told when the members say so, and what comes before must not hide it
			c.unsettle(&u.conns[i])
			continue
		}
		c.tellJoined(&u.conns[i], m, head)
	}
}

// stillIndexed takes in that an index that was read again has a room. Where the
// members had refused the user, one of the two was behind.
func (c *Core) stillIndexed(m *membership, head protocol.ID) {
	if m.state == memberRefused {
		c.starts[m] = start{head, true}
		c.check(m)
	}
}

// unindexed takes in that an index that was read again has a room no more. If
// the members still have the user, it is the index that was lost.
func (c *Core) unindexed(m *membership) {
	told := !m.indexed
	m.indexed = false
	if m.state == memberRefused {
		if !told {
			c.tellLeft(m)
		}
		c.unlink(m)
		return
	}
	c.check(m)
}

// leave obeys a `left` on the user's channel, on open sockets at once. Unless the
// members have said so already they are asked: a primary of a Cluster that was
// stopped, and runs what waited in its sockets before it learns that it is none any
// more, is heard through the one that replaced it, and the user may be back there.
func (c *Core) leave(m *membership) {
	m.indexed = false
	switch m.state {
	case memberRefused:
		c.unlink(m)
		return
	case memberIn:
		c.detach(m)
		c.starts[m] = start{c.roomOf(m).head, true}
	case memberSuspended: // and the members are being asked
		c.userOf(m).undecided--
		c.starts[m] = start{c.starts[m].after, true}
	case memberNew:
		c.userOf(m).undecided--
	}
	c.giveUp(m)
	if m.state != memberSuspended {
		c.check(m)
	}
	m.state = memberRefused
}

func (c *Core) detach(m *membership) {
	conns := c.userOf(m).conns
	for i := range conns {
		c.detachFrom(&conns[i], c.roomOf(m))
	}
}

// unlink takes a membership out of both its lists; a room without any is
// dropped.
func (c *Core) unlink(m *membership) {
	u, r := c.userOf(m), c.roomOf(m)
	if !m.state.decided() {
		u.undecided--
	}
	delete(c.starts, m)
	c.giveUp(m)

	num := r.members[m.place]
	last := len(r.members) - 1
	r.members[m.place] = r.members[last]
	c.members.at(r.members[last]).place = m.place
	r.members = r.members[:last]
	// A user who leaves altogether leaves the last room first; else some numbers
	// are looked through.
	at := len(u.rooms) - 1
	for u.rooms[at] != num {
		at--
	}
	last = len(u.rooms) - 1
	u.rooms[at] = u.rooms[last]
	u.rooms = u.rooms[:last]

	m.dead, m.place = true, num
	if !m.asking {
		c.members.give(m)
	}
	if len(r.members) == 0 {
		c.dropRoom(r)
	}
}

// check has the members asked about a user. One who is followed for stays
// attached until the answer comes.
func (c *Core) check(m *membership) {
	if m.asked {
		m.again = true
		return
	}
	r := c.roomOf(m)
	if !m.asking {
		m.asking = true
		c.wake(r)
		r.checks = append(r.checks, m)
	}
	c.wantAsk(r)
}

// suspend obeys a `left` on the room's channel at once: nothing more of the room
// reaches the user's sockets. Whether it was overtaken by a later `joined` is
// asked.
func (c *Core) suspend(m *membership) {
	if m.state == memberIn {
		c.detach(m)
		m.state = memberSuspended
		c.starts[m] = start{c.roomOf(m).head, false}
		c.userOf(m).undecided++
	}
	c.check(m)
}

// leftMs is how long a removal that was seen in a room waits for the user's own
// channel, which has it with the revision: milliseconds, as a rule; when the API that
// did it died, until another has swept its outbox, which is looked at every 2 s.
const leftMs = 5000

// leftDue tells of a removal that the user's channel has not told.
func (c *Core) leftDue(of userRoom) {
	u := c.people.named(of.user)
	if u == nil {
		return
	}
	if m := c.membershipIn(u, of.room); m != nil && m.untold {
		c.tellLeft(m)
	}
}

// decide takes in whether a user is a member.
func (c *Core) decide(now int64, m *membership, is bool) {
	u, was := c.userOf(m), m.state
	if !was.decided() {
		u.undecided--
	}
	if is && !m.indexed && was == memberRefused {
		m.indexed = true // the user's channel said that it is not (see leave): the index is asked
		c.compare(u)
	}
	if is && !m.indexed {
		// Nobody would follow the room for the user after the next connect.
		c.out.Repair(chat.Membership{Room: c.roomOf(m).name, User: u.name})
	}
	switch {
	case is && was == memberIn:
	case is:
		if was == memberRefused {
			if m.untold {
				c.tellLeft(m)
			}
			if !c.starts[m].promised {
				c.starts[m] = start{c.roomOf(m).head, true}
			}
			for i := range u.conns {
				c.tellJoined(&u.conns[i], m, c.starts[m].after)
			}
		}
		m.state = memberIn
		for i := range u.conns {
			c.begin(&u.conns[i], m)
		}
		delete(c.starts, m)
	default:
		m.state = memberRefused
		if was == memberIn {
			c.detach(m)
		}
		c.giveUp(m)
		switch {
		case was == memberRefused:
		case was == memberSuspended && m.indexed: // a `left` was heard, which the index is about to have
			m.untold = true
			c.lefts.Push(now+leftMs, userRoom{u.name, c.roomOf(m).name})
		default: // what clients know may be from the index
			c.tellLeft(m)
		}
		delete(c.starts, m)
		if !m.indexed {
			c.unlink(m)
		}
	}
	c.roomDecided(u)
}

// RepairFailed takes in that an index could not be put right. It is tried again also
// when the user has gone: nobody else may find out.
func (c *Core) RepairFailed(now int64, m chat.Membership) { c.repairs.Push(now+c.cfg.RetryMs, m) }

// begin starts a room for a connection.
func (c *Core) begin(ref *connRef, m *membership) {
	r := c.roomOf(m)
	switch ref.state {
	case connHeld:
		if st := c.starts[m]; st.promised {
			ref.job.startAt(r, st.after)
		}
	case connLive:
		if ref.job != nil {
			if p := ref.job.pullOf(r); p != nil {
				if p.told { // and was suspended: what joined has told may be lost since
					c.tellGap(ref.id, r, c.starts[m].after)
					p.tells(r.head)
				}
				if p.stalled {
					p.stalled = false
					c.enqueue(p)
					c.run(ref.job) // it may wait for nothing else (F4)
				}
				return
			}
			if pos, ok := ref.job.positions[r.name]; ok {
				delete(ref.job.positions, r.name)
				c.catchUpFrom(ref, r, pos)
				return
			}
		}
		st, before := c.starts[m]
		if st.promised {
			c.catchUpFrom(ref, r, st.after)
			return
		}
		if j := ref.job; j != nil && j.timed && !before {
			p := j.add(r, j.since)
			p.timed = true
			c.enqueue(p)
			c.run(j)
			return
		}
		// It was suspended, and its socket may have been left out of something
		// that no loop remembers after a Detach; or it was greeted before the room
		// could be followed, and what came since is anybody's guess.
		c.tellGap(ref.id, r, st.after)
		c.attach(ref.id, r)
	}
}

// giveUp ends the catching up of a user's connections in a room.
func (c *Core) giveUp(m *membership) {
	conns, r := c.userOf(m).conns, c.roomOf(m)
	for i := range conns {
		j := conns[i].job
		if j == nil {
			continue
		}
		if conns[i].state == connLive { // else its positions are not looked at yet
			delete(j.positions, r.name)
		}
		delete(j.start, r.name)
		delete(j.joined, r.name)
		if p := j.pullOf(r); p != nil {
			j.remove(p)
		}
	}
}

// tellJoined tells a connection that its user is in a room, of which it gets what
// follows head, or what follows where it is.
func (c *Core) tellJoined(ref *connRef, m *membership, head protocol.ID) {
	u, r, at := c.userOf(m), c.roomOf(m), head
	switch ref.state {
	case connOpening:
		return
	case connHeld:
		c.unsettle(ref) // what it is told before this must not hide it
		ref.job.startAt(r, head)
		if ref.job.joined == nil {
			ref.job.joined = map[string]bool{}
		}
		ref.job.joined[r.name] = true
		return
	case connLive:
		if m.state == memberIn {
			at = r.head
		}
	}
	if j := ref.job; j != nil {
		if p := j.pullOf(r); p != nil {
			if p.timed { // no message is there: it gets what follows the head, and more
				p.tells(at)
			} else {
				at = p.pos
			}
		} else if pos, ok := j.positions[r.name]; ok && !j.timed {
			at = pos
		}
	}
	rev := u.rev
	if ref.unsure {
		rev = noRev
	}
	c.out.Unicast(ref.id, edge.NewFrame(160, func(b []byte) []byte {
		return protocol.AppendJoined(b, r.name, u.name, at, rev)
	}))
}

// tellLeft tells a user's connections what was found out, rather than heard: no
// revision, because the index that has it may still have the room.
func (c *Core) tellLeft(m *membership) {
	m.untold = false
	u, r := c.userOf(m), c.roomOf(m)
	c.tell(u, edge.NewFrame(160, func(b []byte) []byte {
		return protocol.AppendLeft(b, r.name, u.name, 0)
	}))
}

// recheckAt asks again about everybody that a room is followed for: its members have
// changed unheard of, and are of another version now.
func (c *Core) recheckAt(r *room, version uint64) {
	r.version, r.recheck = version, true
	for m := range c.members.each(r.members) {
		c.check(m)
	}
}

// unask takes a question back that is under way: it will be asked again.
func (r *room) unask() {
	if r.askTok == 0 {
		return
	}
	r.askTok, r.askAll = 0, false
	for _, m := range r.asked {
		m.asked, m.again = false, false
	}
	r.checks = append(r.checks, r.asked...)
	r.asked = nil
}

// mostAsked is about how many users one question asks. The members of a room that are
// here may be tens of thousands, and after a break they are all asked about, by every
// gateway: Redis stands still for 1 ms for a thousand of them, and for 40 for 18,000.
const mostAsked = 1000

// questions takes the memberships to be asked about next, the living ones.
func (c *Core) questions(r *room) []*membership {
	n := min(len(r.checks), mostAsked)
	ms := slices.DeleteFunc(r.checks[:n:n], func(m *membership) bool {
		if m.dead {
			c.members.give(m)
		}
		return m.dead
	})
	if r.checks = r.checks[n:]; len(r.checks) == 0 {
		r.checks = nil
	}
	for _, m := range ms {
		m.asked, m.again = true, false
	}
	return ms
}
