// Package follow decides what a gateway must hear, read and deliver. It is the
// logic of following users and rooms, of catching up and of audits, and nothing
// else: inputs come in as method calls, decisions go out through Out, in order.
// It has no clock (now is an argument), starts no goroutine, does no I/O and is
// not safe for concurrent use; gateway/hub drives it in production, a simulator
// drives it in tests.
//
// Its invariants:
//
//   - A room's tail is a chain: every frame's Prev is the ID before it, and the
//     last one's ID is the room's head.
//   - A connection is attached to a room only at a moment when everything up to
//     the room's head has been queued for it, or a gap has been told.
//   - Between a Detach and the next Attach a connection is told left, joined or a
//     gap: what its loop had left out till then is forgotten, and must not matter.
//   - What is read is read after the subscription was confirmed, and only by a
//     token that is still asked for: late answers are thrown away.
//   - A user's index decides which rooms are followed, the members of each whether
//     the user gets them (DELIVERY F1, F2).
//   - A connection has at most one catch-up per room.
package follow

import (
	"cmp"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/fifo"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// Token identifies a read, so that its answer can be told from an earlier one's.
type Token uint64

// Out takes decisions, in order. Reads are answered by UserRead, RoomRead and
// LogRead with the same token, in any order, or never.
type Out interface {
	Subscribe(link int, gen uint64, ch chat.Channel)
	Unsubscribe(link int, gen uint64, ch chat.Channel)

	ReadUser(tok Token, user string)
	ReadRoom(tok Token, q chat.RoomQuery)
	ReadLog(tok Token, q chat.LogQuery)
	// Repair has a user's index written that lacks a room (F3). It is not answered,
	// but by RepairFailed: what it changes comes on the user's channel.
	Repair(m chat.Membership)

	Unicast(conn edge.ConnID, f *edge.Frame)
	Attach(conn edge.ConnID, room edge.RoomNum)
	Detach(conn edge.ConnID, room edge.RoomNum)
	// Broadcast goes to the loops in the mask, bit i for loop i.
	Broadcast(room edge.RoomNum, loops uint64, f *edge.Frame)
	DropRoom(room edge.RoomNum, loops uint64)
	Mark(conn edge.ConnID)
	Close(conn edge.ConnID, code protocol.CloseCode)
}

// Config is what a Core needs to know. Times are in milliseconds.
type Config struct {
	Links       int
	LinkOf      func(chat.Channel) int
	PartitionOf func(chat.Channel) int

	HeartbeatS int    // told in hello
	Version    string // told in hello
	// ConnPrefix is put before a connection's ID in hello, so that it is the only
	// one of its name in the fleet.
	ConnPrefix string

	// ResumeRoom and ResumeConn bound what a resume pushes, in messages; beyond
	// them the client is told a gap and pages. Larger: longer catch-ups on the
	// socket; smaller: more paging over HTTP.
	ResumeRoom, ResumeConn int
	// SinceMarginMs is by how much a resume from a time goes back: more than the
	// clocks of Redis's servers differ. Larger repeats more.
	SinceMarginMs int64
	// TailEntries and TailBytes bound a room's hot tail. Larger: fewer log reads
	// in a reconnect storm, more memory per busy room.
	TailEntries, TailBytes int
	// PendBytes bounds what waits behind a room's catch-up.
	PendBytes int
	// CreditBytes is how much catch-up is queued for a socket before it must
	// have been written.
	CreditBytes int
	// HelloMs is how long hello waits for partitions that do not answer (F4).
	HelloMs int64
	// RetryMs is the time before a failed read is tried again.
	RetryMs int64
	// AuditsPerSecond is how many rooms and users are compared per second after
	// links were made again. More finds sooner what was missed; fewer leave more of
	// Redis to sends and to who comes back, while all gateways audit.
	AuditsPerSecond int
	// LingerMs is how long a user stays followed after the last connection
	// closed, so that a reconnect costs Redis nothing.
	LingerMs int64

	// Trace says who wants to know when a message that was published now reaches
	// the sockets: nil for most. nil: nobody.
	Trace func(room string, id protocol.ID) edge.Trace
}

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	c.ResumeRoom = cmp.Or(c.ResumeRoom, 500)
	c.ResumeConn = cmp.Or(c.ResumeConn, 5000)
	c.TailEntries = cmp.Or(c.TailEntries, 64)
	c.TailBytes = cmp.Or(c.TailBytes, 32<<10)
	c.PendBytes = cmp.Or(c.PendBytes, 1<<20)
	c.CreditBytes = cmp.Or(c.CreditBytes, 128<<10)
	c.HeartbeatS = cmp.Or(c.HeartbeatS, 25)
	// 10,000 rooms and 15,000 users are compared in 1.3 s, by some 8 % of a Redis.
	c.AuditsPerSecond = cmp.Or(c.AuditsPerSecond, 20_000)
	c.SinceMarginMs = cmp.Or(c.SinceMarginMs, 60_000)
	c.HelloMs = cmp.Or(c.HelloMs, 5000)
	c.RetryMs = cmp.Or(c.RetryMs, 250)
	return c
}

// Stats counts what happened; the driver reads it between inputs.
type Stats struct {
	Users, Rooms, Conns int
	Memberships         int    // of users in rooms, those that a question is still out about included
	GapsFilled          uint64 // catch-ups of a room whose prev did not match
	GapsTold            uint64 // gap events of what no log has, or nobody knows of
	Audits              uint64 // rooms and users compared after a link was re-made
	AuditsWaiting       int    // and those that wait for their turn
	LogReads            uint64
	Resumes             uint64 // resumes completed
	FromTail            uint64 // pulls answered from memory
	Duplicates          uint64 // events not newer than the head
}

// Core is the state of everything one gateway follows.
type Core struct {
	cfg   Config
	out   Out
	stats Stats
	tok   Token

	links  []link
	epochs map[int]string // by partition
	clocks clocks

	people table[user]
	byConn map[edge.ConnID]*user
	// waiting are joined and left that came while a user's index was being read:
	// whether they are older than it, their revision says. A user seldom has any.
	waiting map[*user][]control
	// detached are the connections that have marks after a Detach under way.
	detached map[edge.ConnID]*detachments

	members members
	// starts are of those few memberships that have one.
	starts map[*membership]start

	rooms    table[room]
	atRest   *reading   // of all rooms that read nothing
	readings []*reading // to be used again

	asking []*room // rooms with checks to be asked at the end of the turn
	audits auditing

	hellos  fifo.Timed[edge.ConnID]
	retries fifo.Timed[retry]
	lingers fifo.Timed[linger]
	lefts   fifo.Timed[userRoom] // removals that their users have not been told
	repairs fifo.Timed[chat.Membership]
}

type userRoom struct{ user, room string }

type linger struct {
	num   uint32
	opens uint64 // user.opens when it began
}

type retry struct {
	kind retryKind
	name string
	tok  Token // retried only if nothing newer was asked meanwhile
}

type retryKind uint8

const (
	retryUser retryKind = iota
	retryRoom
	retryLog
)

// New returns a Core that follows nothing.
func New(cfg Config, out Out) *Core {
	c := &Core{
		cfg:      cfg.WithDefaults(),
		out:      out,
		links:    make([]link, cfg.Links),
		epochs:   map[int]string{},
		clocks:   clocks{ms: make([]uint64, cfg.Links)},
		people:   newTable(0, func(u *user) string { return u.name }, func(u *user) *subscription { return &u.sub }),
		byConn:   map[edge.ConnID]*user{},
		waiting:  map[*user][]control{},
		detached: map[edge.ConnID]*detachments{},
		rooms:    newTable(restingNums, func(r *room) string { return r.name }, func(r *room) *subscription { return &r.sub }),
		atRest:   new(reading),
		starts:   map[*membership]start{},
	}
	c.audits.tokens = c.mostAudits()
	return c
}

// Stats returns the counts so far.
func (c *Core) Stats() Stats {
	s := c.stats
	s.AuditsWaiting = c.audits.waiting.Len()
	s.Memberships = c.members.len()
	s.Users, s.Rooms, s.Conns = c.people.index.Len(), c.rooms.index.Len(), len(c.byConn)
	return s
}

func (c *Core) nextToken() Token {
	c.tok++
	return c.tok
}

// Flush asks what the inputs since the last Flush made it necessary to ask. The
// driver calls it once per turn, so that questions about one room travel
// together.
func (c *Core) Flush() {
	c.members.reuse()
	c.resubscribe()
	for i := 0; i < len(c.asking); i++ {
		r := c.asking[i]
		r.inAsking = false
		switch {
		case !r.audit || len(r.checks)+len(r.parked)+len(r.pend) > 0:
			c.askRoom(r)
		case !r.inAudits: // nobody waits for it
			r.inAudits = true
			c.audits.waiting.Push(audit{r: r})
		}
	}
	clear(c.asking)
	c.asking = c.asking[:0]
	if !c.atRest.done() {
		panic("BUG: follow: a room at rest was written to")
	}
	c.pumpAudits()
}

// Tick lets time pass: deadlines of hello, retries, the end of lingering, and of
// waiting for the user's side of a removal.
func (c *Core) Tick(now int64) {
	c.tickAudits(now)
	for id := range c.hellos.Due(now) {
		c.helloOverdue(id)
	}
	for r := range c.retries.Due(now) {
		c.again(r)
	}
	for of := range c.lefts.Due(now) {
		c.leftDue(of)
	}
	for m := range c.repairs.Due(now) {
		c.out.Repair(m)
	}
	for l := range c.lingers.Due(now) {
		if u := c.people.list[l.num]; u != nil && u.opens == l.opens && len(u.conns) == 0 {
			c.dropUser(u)
		}
	}
}

func (c *Core) again(r retry) {
	switch r.kind {
	case retryUser:
		if u := c.people.named(r.name); u != nil && u.readTok == r.tok {
			c.compare(u)
		}
	case retryRoom:
		if rm := c.rooms.named(r.name); rm != nil && rm.askTok == r.tok {
			rm.askTok = 0
			c.wantAsk(rm)
		}
	case retryLog:
		if rm := c.rooms.named(r.name); rm != nil && rm.logTok == r.tok {
			rm.logTok = 0
			c.readLog(rm)
		}
	}
}
