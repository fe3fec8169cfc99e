// Package live decides what makes a chat feel alive: who is online here and what
// Redis is told of it, which users' presence is watched, which room a connection
// looks at, who hears typing and receipts, and when read and delivered markers
// are written. Like gateway/follow it is logic and nothing else: inputs come in
// as method calls, decisions go out through Out, now is an argument; it starts no
// goroutine, does no I/O and is not safe for concurrent use. gateway/hub drives
// it.
//
// What it decides is ephemeral. It may be late, coalesced or left out under load;
// no message ever waits for it.
//
// Its invariants:
//
//   - At most one request about a seat (a user here) is under way, and each
//     carries the seat's newest Seq: what Redis holds converges to what is so.
//   - A user stays seated for the grace time after the last connection closed.
//   - A watched user's state is told only when it changed, and an answer that was
//     overtaken by an event is thrown away.
//   - Nothing a connection says about a room counts unless follow has checked
//     that its user is a member.
package live

import (
	"cmp"
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/fifo"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// Out takes decisions, in order. Requests are answered by the method named after
// them, in any order, or never.
type Out interface {
	Subscribe(link int, gen uint64, ch chat.Channel)
	Unsubscribe(link int, gen uint64, ch chat.Channel)

	// TakeSeat and LeaveSeat are answered by SeatDone with the same incarnation.
	TakeSeat(incarnation uint64, s chat.Seat)
	LeaveSeat(incarnation uint64, s chat.Seat)
	// CountSeats is answered by SeatsHeld.
	CountSeats(incarnation uint64, partition, expected int)
	// ReadPresence is answered by PresenceRead.
	ReadPresence(user string)
	// FindMessage asks for the ordinal of a marker's message; it is answered by
	// MessageFound.
	FindMessage(kind chat.MarkerKind, m chat.Marker)
	// AdvanceMarker is answered by MarkerDone.
	AdvanceMarker(kind chat.MarkerKind, m chat.Marker)
	// Publish sends an event on a room's channel. It is not answered, and may be
	// left out under load.
	Publish(room string, event []byte)

	// Whisper queues an event for a connection that keeps up; for one that does
	// not it is left out.
	Whisper(conn edge.ConnID, f *edge.Frame)
	// Refuse tells a connection that what it said was not done.
	Refuse(conn edge.ConnID, code protocol.ErrorCode, detail string)
}

// Rooms is what live asks follow.
type Rooms interface {
	// Connection says whose a connection is ("" when it is gone), and whether it
	// has had its hello.
	Connection(conn edge.ConnID) (user string, greeted bool)
	// Connections calls f with every connection of a user, those between two polls
	// included.
	Connections(user string, f func(conn edge.ConnID, greeted bool))
	// Membership says whether a connection's user is a member of a room, and the
	// room's number; deciding: that is being asked, and known in a moment.
	Membership(conn edge.ConnID, room string) (num edge.RoomNum, member, deciding bool)
	// Away says whether a connection is between two polls. Nothing is asked about it
	// then but whose it is.
	Away(conn edge.ConnID) bool
	// Head is a followed room's last message.
	Head(room edge.RoomNum) (id protocol.ID, n uint64)
	// Ordinal is a message's place in its room, if it is in memory.
	Ordinal(room edge.RoomNum, id protocol.ID) (n uint64, ok bool)
}

// Config is what a Core needs to know. Times are in milliseconds; what is zero
// gets its default.
type Config struct {
	Links       int
	LinkOf      func(chat.Channel) int
	Partitions  int
	PartitionOf func(chat.Channel) int
	// ConnPrefix is put before a connection's ID in hello, so that commands that
	// come over HTTP find it in the fleet.
	ConnPrefix string

	// GraceMs is how long a user without a connection stays online. Longer hides
	// longer reconnects; shorter tells sooner who left.
	GraceMs int64 // 5 s
	// RefreshMs is how often a seat's expiry (10 min) is put off. Shorter heals
	// sooner what Redis lost unnoticed; each refresh is two Redis commands.
	RefreshMs int64 // 4 min
	// RewritePerSecond bounds how many seats are written again per second after
	// Redis lost its data. More heals sooner, and loads a Redis that just came back.
	RewritePerSecond int // 4,000
	// SeatsInFlight bounds unanswered writes of seats.
	SeatsInFlight int // 4,096

	// WatchMax bounds the users a connection watches. Every one costs 32 bytes,
	// and a subscription when nobody else here watches it.
	WatchMax int // 500
	// WatchNewPerSecond is how many users whom nobody here watched before one user's
	// connections may come to watch per second in the long run, and 5 s' worth at once:
	// each is a subscription and two reads of Redis. Beyond it sets wait. More lets
	// somebody who opens connections only to watch load Redis more.
	WatchNewPerSecond int // 1,000
	// ReceiptMembers is the size of a room above which there are no receipts and
	// no delivered markers.
	ReceiptMembers int // 100
}

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	c.GraceMs = cmp.Or(c.GraceMs, 5_000)
	c.RefreshMs = cmp.Or(c.RefreshMs, 240_000)
	c.RewritePerSecond = cmp.Or(c.RewritePerSecond, 4_000)
	c.SeatsInFlight = cmp.Or(c.SeatsInFlight, 4_096)
	c.WatchMax = cmp.Or(c.WatchMax, 500)
	c.WatchNewPerSecond = cmp.Or(c.WatchNewPerSecond, 1_000)
	c.ReceiptMembers = cmp.Or(c.ReceiptMembers, 100)
	return c
}

// Stats counts what happened and what there is.
type Stats struct {
	Online    int // users seated here, those in their grace time included
	Watched   int // users watched from here
	Watches   int // connections watching, summed over them
	Focused   int // connections that look at a room
	SeatQueue int // seats that wait to be written
	InFlight  int // seats being written

	Taken, Left, Refreshed, Rewritten uint64 // seats
	Surplus                           uint64 // seats found in Redis that were nobody's
	Changes                           uint64 // changes of watched users, told
	TypingSent, TypingLimited         uint64
	WatchLimited                      uint64
	MarkersMoved, MarkersCoalesced    uint64
	Receipts                          uint64 // whispered to focused connections
	Refused                           uint64
}

// Core is the state of everything live in one gateway.
type Core struct {
	cfg   Config
	out   Out
	rooms Rooms
	stats Stats

	seats   seating
	watched watching
	links   []link
	epochs  map[int]epoch // by partition

	conns   map[edge.ConnID]*conn // those that said something
	focused map[string]*room
	byNum   map[edge.RoomNum]*room
	later   fifo.Timed[postponed]
	idle    fifo.Timed[string] // rooms without focus, to be forgotten

	marks marking
}

type link struct {
	gen       uint64
	up        bool
	made      bool  // LinkUp came; subscriptions are still to be asked for
	canary    bool  // one came back in this making
	audit     bool  // what is to be read again on it can be read now
	holdUntil int64 // watched states are not read again before
}

// epoch is what a partition's canaries said last, and on which making of its link.
type epoch struct {
	is  string
	gen uint64
}

// conn is a connection that focuses, watches, types or reads. One that is only
// there costs nothing here.
type conn struct {
	id   edge.ConnID
	user string

	focus   *room
	focusAt int  // in focus.focused
	muted   bool // whether it may look at focus is being asked
	away    bool // muted, because it is between two polls
	missed  bool // messages came while it was muted

	watches   []watch
	watchNext []string // to be watched when it may change its set again
	watchFrom int64    // when that is
	waiting   bool     // watchNext is set and scheduled

	typedAt int64

	// focusSaid and watchSaid count what was said: of two that were postponed, or
	// one that was and one that was not, the last one counts.
	focusSaid, watchSaid uint32
	// waits is what it said between two polls; later counts what else is postponed.
	waits []postponed
	later int
	// markers are what the connection itself has claimed: it may not go back.
	markers map[claimKey]protocol.ID
}

type claimKey struct {
	kind chat.MarkerKind
	room string
}

// maxWaits bounds conn.waits, over which what was said first is left out, and conn.later,
// over which what is said is refused: over HTTP a client may say more than on its socket.
const maxWaits = 64

// maxClaims bounds conn.markers; over it the memory of all rooms goes.
const maxClaims = 256

// postponed is something said before follow could tell whether it is allowed, or about a
// room that it knows nothing of.
type postponed struct {
	ev      edge.Event
	tries   int
	said    uint32 // conn.said when it was
	recheck bool   // of a focus
}

const (
	// retryMs is the time before something that failed is tried again.
	retryMs    = 500
	postponeMs = 100
	// maxPostpones gives follow 20 s: a partition that is away that long answers
	// the client with an error.
	maxPostpones = 200
	// untoldPostpones is how often a room is asked about again that the user is not in:
	// whom the API has just answered that it is may say so before the user's channel does.
	untoldPostpones = 3
)

// New returns a Core in which nobody is online.
func New(cfg Config, rooms Rooms, out Out) *Core {
	c := &Core{
		cfg:     cfg.WithDefaults(),
		out:     out,
		rooms:   rooms,
		links:   make([]link, cfg.Links),
		epochs:  map[int]epoch{},
		conns:   map[edge.ConnID]*conn{},
		focused: map[string]*room{},
		byNum:   map[edge.RoomNum]*room{},
	}
	c.seats.init(cfg.Partitions)
	c.watched.users = map[string]*watched{}
	c.watched.spent = map[string]int64{}
	c.marks.all = map[markKey]*mark{}
	return c
}

// Stats returns the counts so far.
func (c *Core) Stats() Stats {
	s := c.stats
	s.Online = c.seats.index.Len()
	s.SeatQueue, s.InFlight = c.seats.ready.Len(), c.seats.inFlight
	s.Watched = len(c.watched.users)
	return s
}

// ReceiptMembers is the configured size of rooms that have receipts.
func (c *Core) ReceiptMembers() int { return c.cfg.ReceiptMembers }

// Closed takes in that a user has one connection less, and which.
func (c *Core) Closed(now int64, id edge.ConnID, user string) {
	c.Forget(now, id, user)
	c.Left(now, user)
}

// Away takes in that a connection hears nothing for now, until Back: its poll was
// answered. Whether it may still look at its room is asked again then; what comes
// meanwhile it has not read, and what it says waits.
func (c *Core) Away(id edge.ConnID) {
	if cn := c.conns[id]; cn != nil && cn.focus != nil {
		cn.muted, cn.away = true, true
	}
}

// Back takes in that it hears again.
func (c *Core) Back(now int64, id edge.ConnID) {
	cn := c.conns[id]
	if cn == nil {
		return
	}
	if cn.away {
		c.recheck(now, cn, cn.focus.name)
	}
	waited := cn.waits
	cn.waits = nil
	for _, p := range waited {
		c.handle(now, cn, p)
	}
}

// Forget takes in that what a connection said is no longer so.
func (c *Core) Forget(now int64, id edge.ConnID, user string) {
	if cn := c.conns[id]; cn != nil {
		delete(c.conns, id)
		if cn.focus != nil {
			c.unfocus(now, cn)
			c.refocused(now, user)
		}
		c.unwatchAll(now, cn)
	}
}

// Said takes in what a client said: EvFocus, EvTyping, EvRead, EvDelivered or
// EvWatch.
func (c *Core) Said(now int64, ev edge.Event) {
	user, _ := c.rooms.Connection(ev.Conn)
	if user == "" {
		return
	}
	cn := c.conns[ev.Conn]
	if cn == nil {
		cn = &conn{id: ev.Conn, user: user}
		c.conns[ev.Conn] = cn
	}
	said := uint32(0)
	switch ev.Kind {
	case edge.EvFocus:
		cn.focusSaid++
		said = cn.focusSaid
	case edge.EvWatch:
		cn.watchSaid++
		said = cn.watchSaid
	}
	c.handle(now, cn, postponed{ev: ev, said: said})
}

// handle does what a client said, refuses it, or postpones it until follow knows
// whether it is allowed.
func (c *Core) handle(now int64, cn *conn, p postponed) {
	ev := &p.ev
	if ev.Kind == edge.EvFocus && p.said != cn.focusSaid || ev.Kind == edge.EvWatch && p.said != cn.watchSaid {
		return // something newer was said
	}
	if c.rooms.Away(cn.id) {
		if ev.Kind == edge.EvFocus || ev.Kind == edge.EvWatch {
			cn.waits = slices.DeleteFunc(cn.waits, func(o postponed) bool { return o.ev.Kind == p.ev.Kind })
		}
		if len(cn.waits) == maxWaits {
			cn.waits = cn.waits[1:]
		}
		cn.waits = append(cn.waits, p)
		return
	}
	num, member, deciding := edge.NoRoom, true, false
	if ev.Kind != edge.EvWatch && ev.Room != "" {
		num, member, deciding = c.rooms.Membership(ev.Conn, ev.Room)
	}
	_, greeted := c.rooms.Connection(ev.Conn)
	deciding = deciding || !greeted
	patience := 0
	switch {
	case deciding:
		patience = maxPostpones
	case !member:
		patience = untoldPostpones
	}
	if p.tries < patience && cn.later < maxWaits {
		p.tries++
		cn.later++
		c.later.Push(now+postponeMs, p)
		return
	}
	switch {
	case deciding:
		c.refuse(ev.Conn, protocol.ErrUnavailable, "the room can't be reached now")
		return
	case !member:
		c.refuse(ev.Conn, protocol.ErrForbidden, "not a member of the room")
		return
	}
	switch ev.Kind {
	case edge.EvFocus:
		c.setFocus(now, cn, ev.Room, num)
	case edge.EvTyping:
		c.typing(now, cn, ev.Room)
	case edge.EvRead:
		c.claim(now, cn, chat.ReadMarker, ev.Room, num, ev.ID)
	case edge.EvDelivered:
		c.claim(now, cn, chat.DeliveredMarker, ev.Room, num, ev.ID)
	case edge.EvWatch:
		c.wantWatch(now, cn, ev.Users)
	}
}

func (c *Core) refuse(id edge.ConnID, code protocol.ErrorCode, detail string) {
	c.stats.Refused++
	c.out.Refuse(id, code, detail)
}

// Tick lets time pass. The driver calls it at least every 100 ms.
func (c *Core) Tick(now int64) {
	for p := range c.later.Due(now) {
		switch cn := c.conns[p.ev.Conn]; {
		case cn == nil:
		case p.recheck:
			c.recheck(now, cn, p.ev.Room)
		default:
			cn.later--
			c.handle(now, cn, p)
		}
	}
	for name := range c.idle.Due(now) {
		if r := c.focused[name]; r != nil && len(r.focused) == 0 && r.typing.idle(now) {
			delete(c.focused, name)
		}
	}
	c.tickSeats(now)
	c.tickWatched(now)
	c.tickMarks(now)
}

// Flush asks for what the inputs since the last Flush made it necessary to ask.
func (c *Core) Flush(now int64) {
	c.relink(now)
	c.pumpSeats()
	c.pumpMarks(now)
}

// bucket lets a number of things happen per second, and as many at once.
type bucket struct{ tatUs int64 }

// allow is GCRA: a thing costs an interval, and may be ahead of time by a second.
func (b *bucket) allow(now int64, perSecond int) bool {
	const second = 1_000_000
	interval := second / int64(max(1, perSecond))
	tat := max(b.tatUs, now*1000)
	if tat+interval-now*1000 > max(second, interval) {
		return false
	}
	b.tatUs = tat + interval
	return true
}

func (b *bucket) idle(now int64) bool { return b.tatUs <= now*1000 }
