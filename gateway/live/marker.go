package live

import (
	"fmt"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/fifo"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// marking is the markers that move. A marker is written at once, then not before
// its time again, and then with what it has come to: a reader of a busy room
// costs Redis a write per second and not per message.
type marking struct {
	all      map[markKey]*mark
	moved    []*room // whose focused users have read more
	ready    fifo.Queue[*mark]
	inFlight int
	rate     bucket
	cools    [3]fifo.Timed[*mark] // by cooling
	large    map[string]int64
}

type markKey struct {
	kind       chat.MarkerKind
	user, room string
}

// mark is one user's marker of one room, while it moves: waiting to be written,
// being written, or cooling.
type mark struct {
	markKey
	id   protocol.ID // what it has come to
	n    uint64      // its ordinal; 0 when it has to be found first
	by   edge.ConnID // who claimed it last
	told protocol.ID // what Redis was told last
	// sure is the furthest it has come to that is known to be a message, with its ordinal:
	// what counts when a claim beyond it is of none.
	sure  protocol.ID
	sureN uint64
	// unsure is the furthest claim before id that has not been looked up either, and whose
	// it was: it is, when id is of no message.
	unsure   protocol.ID
	unsureBy edge.ConnID
}

// know takes in that there is such a message.
func (m *mark) know(id protocol.ID, n uint64) {
	if m.sure.Less(id) {
		m.sure, m.sureN = id, n
	}
}

// keep remembers a claim that something further has overtaken.
func (m *mark) keep(id protocol.ID, by edge.ConnID) {
	if m.unsure.Less(id) {
		m.unsure, m.unsureBy = id, by
	}
}

// cooling is how long a mark waits, as an index.
type cooling uint8

const (
	coolRead cooling = iota
	coolDelivered
	coolLarge
)

const (
	// largeMs is how long a room is believed to be too large for receipts.
	largeMs = 60_000
	// maxLarge bounds that memory; over it all is forgotten.
	maxLarge = 10_000
	// The least times between two writes of a user's marker of a room; large: in rooms
	// without receipts.
	readEveryMs, deliveredEveryMs, readLargeEveryMs = int64(1_000), int64(5_000), int64(10_000)
	// markersPerSecond bounds writes of markers. Fewer coalesce more.
	markersPerSecond = 1_000
	// maxMarksInFlight bounds unanswered writes of markers.
	maxMarksInFlight = 1024
)

// claim takes in what a connection says it has read, or got.
func (c *Core) claim(now int64, cn *conn, kind chat.MarkerKind, name string, num edge.RoomNum, id protocol.ID) {
	key := claimKey{kind, name}
	switch said := cn.markers[key]; {
	case id.IsZero():
		c.refuse(cn.id, protocol.ErrInvalid, "no such message")
		return
	case id.Less(said):
		c.refuse(cn.id, protocol.ErrInvalid, "the marker never goes back")
		return
	case id == said:
		return
	}
	if kind == chat.DeliveredMarker && c.isLarge(now, name) {
		c.refuseLarge(cn.id)
		return
	}
	if len(cn.markers) >= maxClaims {
		clear(cn.markers)
	}
	if cn.markers == nil {
		cn.markers = map[claimKey]protocol.ID{}
	}
	cn.markers[key] = id
	n, ok := c.rooms.Ordinal(num, id)
	if !ok {
		n = 0
	}
	c.advance(kind, cn.user, name, id, n, cn.id)
}

// advance moves a marker. by is who claims it, 0 for who looks at the room.
func (c *Core) advance(kind chat.MarkerKind, user, name string, id protocol.ID, n uint64, by edge.ConnID) {
	if id.IsZero() {
		return
	}
	key := markKey{kind, user, name}
	m := c.marks.all[key]
	if m == nil {
		m = &mark{markKey: key, id: id, n: n, by: by}
		c.marks.all[key] = m
		c.marks.ready.Push(m)
	}
	if n != 0 {
		m.know(id, n)
	}
	switch {
	case m.id.Less(id):
		if m.n == 0 {
			m.keep(m.id, m.by)
		}
		c.stats.MarkersCoalesced++
		m.id, m.n, m.by = id, n, by
	case id.Less(m.id) && n == 0 && m.n == 0:
		m.keep(id, by)
	}
}

// refuseLarge says that a claim counts for nothing, so that a client can stop.
func (c *Core) refuseLarge(id edge.ConnID) {
	c.refuse(id, protocol.ErrInvalid, fmt.Sprintf("rooms of more than %d members have no delivered markers", c.cfg.ReceiptMembers))
}

func (c *Core) isLarge(now int64, name string) bool {
	until, ok := c.marks.large[name]
	return ok && now < until
}

// pumpMarks sends what is ready, as fast as markers may be written.
func (c *Core) pumpMarks(now int64) {
	ms := &c.marks
	for _, r := range ms.moved {
		r.moved = false
		if r.num == edge.NoRoom {
			continue
		}
		id, n := c.rooms.Head(r.num)
		for _, cn := range r.focused {
			if cn.muted {
				cn.missed = true
				continue
			}
			c.advance(chat.ReadMarker, cn.user, r.name, id, n, 0)
		}
	}
	clear(ms.moved)
	ms.moved = ms.moved[:0]
	for ms.ready.Len() > 0 && ms.inFlight < maxMarksInFlight && ms.rate.allow(now, markersPerSecond) {
		m, _ := ms.ready.Pop()
		if c.hasLeft(m) {
			delete(ms.all, m.markKey)
			continue
		}
		ms.inFlight++
		if m.n == 0 {
			c.out.FindMessage(m.kind, c.marker(now, m))
		} else {
			c.write(now, m)
		}
	}
}

// hasLeft says whether the user of a marker is no member of its room any more. Of one
// who is not connected, or is between two polls, that is not known here.
func (c *Core) hasLeft(m *mark) (is bool) {
	known := false
	c.rooms.Connections(m.user, func(id edge.ConnID, _ bool) {
		if !known && !c.rooms.Away(id) {
			_, member, deciding := c.rooms.Membership(id, m.room)
			known, is = true, !member && !deciding
		}
	})
	return is
}

func (c *Core) marker(now int64, m *mark) chat.Marker {
	return chat.Marker{User: m.user, Room: m.room, ID: m.id, N: m.n, Quiet: c.isLarge(now, m.room)}
}

func (c *Core) write(now int64, m *mark) {
	m.told = m.id
	c.out.AdvanceMarker(m.kind, c.marker(now, m))
}

// MessageFound takes in whether there is a message that somebody's marker is to
// move to, and its ordinal.
func (c *Core) MessageFound(now int64, kind chat.MarkerKind, asked chat.Marker, n uint64, found bool, err error) {
	m := c.marks.all[markKey{kind, asked.User, asked.Room}]
	if m == nil {
		return
	}
	if err == nil && found {
		m.know(asked.ID, n)
	}
	switch {
	case m.id != asked.ID && m.n != 0: // it has come further meanwhile
		c.write(now, m)
		return
	case m.id != asked.ID:
		c.out.FindMessage(kind, c.marker(now, m))
		return
	case err != nil:
	case found:
		m.n = n
		c.write(now, m)
		return
	default:
		if cn := c.conns[m.by]; cn != nil {
			delete(cn.markers, claimKey{m.kind, m.room})
			c.refuse(m.by, protocol.ErrInvalid, "no such message")
		}
		if m.sure.Less(m.unsure) {
			m.id, m.by, m.unsure = m.unsure, m.unsureBy, protocol.ID{}
			c.out.FindMessage(kind, c.marker(now, m))
			return
		}
		m.id, m.n = m.sure, m.sureN // what comes next counts from there
		if m.id != m.told {
			c.write(now, m)
			return
		}
	}
	c.cool(now, m)
}

// MarkerDone takes in what became of a marker that was written.
func (c *Core) MarkerDone(now int64, kind chat.MarkerKind, asked chat.Marker, r chat.MarkerResult, err error) {
	m := c.marks.all[markKey{kind, asked.User, asked.Room}]
	if m == nil {
		return
	}
	switch {
	case err != nil:
		m.told = protocol.ID{} // again, when it has cooled
	case r == chat.MarkerTooLarge:
		if c.marks.large == nil || len(c.marks.large) >= maxLarge {
			c.marks.large = map[string]int64{}
		}
		c.marks.large[m.room] = now + largeMs
		if kind == chat.DeliveredMarker && c.conns[m.by] != nil {
			c.refuseLarge(m.by)
		}
	case r == chat.MarkerMoved:
		c.stats.MarkersMoved++
	}
	c.cool(now, m)
}

// cool keeps a mark from being written for a while.
func (c *Core) cool(now int64, m *mark) {
	c.marks.inFlight--
	kind, ms := coolRead, readEveryMs
	switch {
	case m.kind == chat.DeliveredMarker:
		kind, ms = coolDelivered, deliveredEveryMs
	case c.isLarge(now, m.room):
		kind, ms = coolLarge, readLargeEveryMs
	}
	c.marks.cools[kind].Push(now+ms, m)
}

// tickMarks lets marks that have cooled be written again, and forgets those that
// have not moved.
func (c *Core) tickMarks(now int64) {
	for i := range c.marks.cools {
		for m := range c.marks.cools[i].Due(now) {
			if m.id == m.told {
				delete(c.marks.all, m.markKey)
				continue
			}
			c.marks.ready.Push(m)
		}
	}
}
