package follow

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/protocol"
)

// What gateway/live asks (live.Rooms): who is connected, and who may be told of a
// room. None of it changes anything.

// Connection says whose a connection is, "" when it is gone, and whether it has
// had its hello.
func (c *Core) Connection(id edge.ConnID) (user string, greeted bool) {
	u := c.byConn[id]
	if u == nil {
		return "", false
	}
	return u.name, u.conn(id).state != connOpening
}

// Connections calls f with every connection of a user.
func (c *Core) Connections(name string, f func(id edge.ConnID, greeted bool)) {
	if u := c.people.named(name); u != nil {
		for i := range u.conns {
			f(u.conns[i].id, u.conns[i].state != connOpening)
		}
	}
}

// Membership says whether a connection's user is a member of a room, and the
// room's number; deciding: that is being asked.
func (c *Core) Membership(id edge.ConnID, name string) (num edge.RoomNum, member, deciding bool) {
	u := c.byConn[id]
	if u == nil {
		return edge.NoRoom, false, false
	}
	if r := c.rooms.named(name); r != nil {
		if m := c.membership(u, r); m != nil {
			return r.num, m.state == memberIn, !m.state.decided()
		}
	}
	return edge.NoRoom, false, !u.known
}

// Head is a followed room's last message.
func (c *Core) Head(num edge.RoomNum) (protocol.ID, uint64) {
	if int(num) >= len(c.rooms.list) || c.rooms.list[num] == nil {
		return protocol.ID{}, 0
	}
	r := c.rooms.list[num]
	return r.head, r.n
}

// Ordinal is a message's place in its room, if it is in memory. The tail is a chain that ends at the head, so
// ordinals count back from there.
func (c *Core) Ordinal(num edge.RoomNum, id protocol.ID) (n uint64, ok bool) {
	if int(num) >= len(c.rooms.list) || c.rooms.list[num] == nil {
		return 0, false
	}
	r := c.rooms.list[num]
	if id == r.head {
		return r.n, true
	}
	for i := len(r.tail) - 1; i >= 0 && !r.tail[i].ID.Less(id); i-- {
		if r.tail[i].ID == id {
			return r.n - uint64(len(r.tail)-1-i), true
		}
	}
	return 0, false
}

// RoomName is the name of a followed room, "" when the number means none.
func (c *Core) RoomName(num edge.RoomNum) string {
	if int(num) >= len(c.rooms.list) || c.rooms.list[num] == nil {
		return ""
	}
	return c.rooms.list[num].name
}
