package live

import (
	"fmt"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/fifo"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// watching is whose presence somebody here wants to know. A user's presence
// channel is subscribed when the first connection watches, so that each change
// reaches the gateways where it is wanted and no others.
type watching struct {
	users   map[string]*watched
	sets    fifo.Timed[edge.ConnID] // connections whose watchNext is due
	lingers fifo.Timed[*watched]
	retries fifo.Timed[*watched]
	holds   fifo.Timed[int] // links
	// spent says up to when (µs) the users that somebody came to watch are paid for; of
	// those of whom that is to come, or was a moment ago.
	spent map[string]int64
	debts fifo.Timed[string] // to be forgotten
}

const (
	// watchEveryMs is how often a connection may change its watch set; what comes
	// sooner waits, the last one counts.
	watchEveryMs = 500
	// watchLingerMs is how long a user stays watched after the last watcher left.
	watchLingerMs = 10_000
	// epochHoldMs is how long watched states are believed after Redis lost its
	// data, until their gateways have written them again.
	epochHoldMs = 60_000
)

type status uint8

const (
	unknown status = iota
	online
	offline
)

// watched is a user whose presence is watched.
type watched struct {
	user      string
	confirmed uint64 // the making of the link that carries the user's presence channel
	link      int32
	status    status
	asking    bool
	overtaken bool // an event came while a read was under way: its answer is older
	audit     bool // to be read again: the channel may have been silent
	dropped   bool
	lastSeen  int64 // Unix ms
	watchers  []watcher
	lingersAt int64 // when it is dropped, if nobody watches then
}

// watcher and watch are the two ends of one connection watching one user. Each
// knows where the other is, so that both go in constant time.
type watcher struct {
	c  *conn
	at uint32 // in c.watches
}

type watch struct {
	w  *watched
	at uint32 // in w.watchers
}

func (w *watched) channel() chat.Channel {
	return chat.Channel{Kind: chat.PresenceChannel, Name: w.user}
}

// wantWatch takes a connection's new watch set, or keeps it until the connection
// may change it again.
func (c *Core) wantWatch(now int64, cn *conn, users []string) {
	if len(users) > c.cfg.WatchMax {
		c.refuse(cn.id, protocol.ErrInvalid, fmt.Sprintf("at most %d users can be watched", c.cfg.WatchMax))
		return
	}
	if cn.waiting || now < cn.watchFrom || c.overspent(now, cn.user) {
		if !cn.waiting {
			cn.waiting = true
			c.watched.sets.Push(now+watchEveryMs, cn.id)
		}
		c.stats.WatchLimited++
		cn.watchNext = users
		return
	}
	c.setWatch(now, cn, users)
}

// setWatch makes users the watch set of a connection. Those that are new in it
// are told at once, or as soon as they are known.
func (c *Core) setWatch(now int64, cn *conn, users []string) {
	cn.watchFrom = now + watchEveryMs
	wanted := make(map[string]bool, len(users))
	for _, u := range users {
		wanted[u] = true
	}
	for i := len(cn.watches) - 1; i >= 0; i-- {
		if w := cn.watches[i].w; wanted[w.user] {
			delete(wanted, w.user)
		} else {
			c.unwatch(now, cn, i)
		}
	}
	for _, u := range users { // not the map: its order is no order
		if wanted[u] {
			delete(wanted, u)
			c.watch(now, cn, u)
		}
	}
}

// watchAheadMs is by how much a user may be ahead of WatchNewPerSecond: ten devices
// that come back after a restart, with a screenful each, need not wait for each other.
const watchAheadMs = 5_000

// overspent says whether a user's connections have come to watch more users than they
// may: a connection more would begin anew.
func (c *Core) overspent(now int64, user string) bool {
	return c.watched.spent[user] > (now+watchAheadMs)*1000
}

// spend puts it down to a user that somebody is watched who was not.
func (c *Core) spend(now int64, user string) {
	until, known := c.watched.spent[user]
	if !known {
		c.watched.debts.Push(now+watchAheadMs, user)
	}
	c.watched.spent[user] = max(until, now*1000) + 1_000_000/int64(c.cfg.WatchNewPerSecond)
}

func (c *Core) watch(now int64, cn *conn, user string) {
	w := c.watched.users[user]
	if w == nil {
		w = &watched{user: user}
		ch := w.channel()
		w.link = int32(c.cfg.LinkOf(ch))
		c.watched.users[user] = w
		c.spend(now, cn.user)
		if l := &c.links[w.link]; l.up && !l.made {
			c.out.Subscribe(int(w.link), l.gen, ch)
		}
	}
	cn.watches = append(cn.watches, watch{w, uint32(len(w.watchers))})
	w.watchers = append(w.watchers, watcher{cn, uint32(len(cn.watches) - 1)})
	c.stats.Watches++
	if w.status != unknown {
		c.out.Whisper(cn.id, w.frame())
	}
}

// unwatch ends cn.watches[i].
func (c *Core) unwatch(now int64, cn *conn, i int) {
	w, at := cn.watches[i].w, cn.watches[i].at
	c.stats.Watches--

	last := w.watchers[len(w.watchers)-1]
	w.watchers[at] = last
	last.c.watches[last.at].at = at
	w.watchers[len(w.watchers)-1] = watcher{}
	w.watchers = w.watchers[:len(w.watchers)-1]

	moved := cn.watches[len(cn.watches)-1]
	if i < len(cn.watches)-1 {
		cn.watches[i] = moved
		moved.w.watchers[moved.at].at = uint32(i)
	}
	cn.watches[len(cn.watches)-1] = watch{}
	cn.watches = cn.watches[:len(cn.watches)-1]

	if len(w.watchers) == 0 {
		w.watchers = nil
		w.lingersAt = now + watchLingerMs
		c.watched.lingers.Push(w.lingersAt, w)
	}
}

func (c *Core) unwatchAll(now int64, cn *conn) {
	for i := len(cn.watches) - 1; i >= 0; i-- {
		c.unwatch(now, cn, i)
	}
}

func (c *Core) unwatched(w *watched) {
	w.dropped = true
	delete(c.watched.users, w.user)
	if l := &c.links[w.link]; l.up && !l.made {
		c.out.Unsubscribe(int(w.link), l.gen, w.channel())
	}
}

// frame is a watched user's state as an event.
func (w *watched) frame() *edge.Frame {
	return edge.NewFrame(96+len(w.user), func(b []byte) []byte {
		seen := time.Time{}
		if w.lastSeen != 0 {
			seen = time.UnixMilli(w.lastSeen)
		}
		return protocol.AppendPresence(b, w.user, w.status == online, seen)
	})
}

// set takes in a watched user's state, and tells it when it is news.
func (c *Core) set(w *watched, ch chat.PresenceChange) {
	is := offline
	if ch.Online {
		is = online
	}
	if ch.LastSeen != 0 {
		w.lastSeen = ch.LastSeen
	}
	if w.status == is {
		return
	}
	w.status = is
	if len(w.watchers) == 0 {
		return
	}
	c.stats.Changes++
	f := w.frame()
	for i := range w.watchers {
		c.out.Whisper(w.watchers[i].c.id, f)
	}
}

// Changed takes in a publication on a presence channel.
func (c *Core) Changed(link int, gen uint64, user string, payload []byte) {
	if l := &c.links[link]; !l.up || l.gen != gen {
		return
	}
	w := c.watched.users[user]
	if w == nil {
		return
	}
	if ch, ok := chat.ParsePresenceChange(payload); ok {
		w.overtaken = w.asking
		c.set(w, ch)
	}
}

// PresenceRead takes in a watched user's state as it was read, or that it could
// not be read.
func (c *Core) PresenceRead(now int64, user string, p chat.UserPresence, err error) {
	w := c.watched.users[user]
	if w == nil || !w.asking {
		return
	}
	w.asking = false
	switch {
	case err != nil:
		c.watched.retries.Push(now+retryMs, w)
	case w.audit: // the channel may have been silent since it was asked
		c.readAgain(now, w)
	case w.overtaken:
	default:
		c.set(w, chat.PresenceChange{Online: len(p.Seats) > 0, LastSeen: p.LastSeen})
	}
}

func (c *Core) read(w *watched) {
	w.audit, w.overtaken = false, false
	if !w.asking {
		w.asking = true
		c.out.ReadPresence(w.user)
	}
}

// readAgain reads a state whose channel may have been silent. One that is known
// is believed until the link has shown that Redis still has its data: with it
// lost everybody would seem to leave and to come back.
func (c *Core) readAgain(now int64, w *watched) {
	l := &c.links[w.link]
	if !l.up || w.confirmed != l.gen || w.status != unknown && (!l.canary || now < l.holdUntil) {
		return // Confirmed, Canary or the end of the hold comes back to it
	}
	if w.asking {
		return // its answer does
	}
	c.read(w)
}

// LinkUp takes in that a link was made, for the gen-th time, and carries nothing
// yet.
func (c *Core) LinkUp(n int, gen uint64) {
	if l := &c.links[n]; gen >= l.gen {
		*l = link{gen: gen, up: true, made: true, holdUntil: l.holdUntil}
	}
}

// LinkDown takes in that a link may have missed changes since it last spoke.
func (c *Core) LinkDown(n int, gen uint64) {
	if l := &c.links[n]; gen >= l.gen {
		l.up, l.made, l.canary, l.audit = false, false, false, false
	}
}

// relink asks the links that were made since the last turn to carry what is
// watched on them, and reads again what is due on the others: one pass for all.
func (c *Core) relink(now int64) {
	any := false
	for n := range c.links {
		any = any || c.links[n].made || c.links[n].audit
	}
	if !any {
		return
	}
	for _, w := range c.watched.users {
		l := &c.links[w.link]
		if l.made {
			c.out.Subscribe(int(w.link), l.gen, w.channel())
		} else if l.audit && w.audit {
			c.readAgain(now, w)
		}
	}
	for n := range c.links {
		c.links[n].made, c.links[n].audit = false, false
	}
}

// Confirmed takes in that a link carries a user's presence from here on.
func (c *Core) Confirmed(now int64, n int, gen uint64, user string) {
	if l := &c.links[n]; !l.up || l.gen != gen {
		return
	}
	if w := c.watched.users[user]; w != nil {
		w.confirmed, w.audit = gen, true
		c.readAgain(now, w)
	}
}

// Canary takes in a partition's epoch. A new one means that Redis lost the
// partition's data: its seats are written again. So they are when the link was
// re-made, because a primary that was promoted may lack the last of them.
func (c *Core) Canary(now int64, n int, gen uint64, partition int, is string) {
	l := &c.links[n]
	if l.gen != gen {
		return
	}
	if !l.canary {
		l.canary, l.audit = true, true
	}
	old, known := c.epochs[partition]
	c.epochs[partition] = epoch{is, gen}
	if !known || old == c.epochs[partition] {
		return
	}
	c.rewrite(now, partition)
	if old.is == is || l.holdUntil == now+epochHoldMs {
		return // the same data, or another partition of the link said so in this turn
	}
	l.holdUntil = now + epochHoldMs
	c.watched.holds.Push(l.holdUntil, n)
	for _, w := range c.watched.users {
		if int(w.link) == n {
			w.audit = true
		}
	}
}

func (c *Core) tickWatched(now int64) {
	for id := range c.watched.sets.Due(now) {
		switch cn := c.conns[id]; {
		case cn == nil || !cn.waiting:
		case c.overspent(now, cn.user):
			c.watched.sets.Push(now+watchEveryMs, id)
		default:
			users := cn.watchNext
			cn.waiting, cn.watchNext = false, nil
			c.setWatch(now, cn, users)
		}
	}
	for user := range c.watched.debts.Due(now) {
		if c.watched.spent[user] > now*1000 {
			c.watched.debts.Push(now+watchAheadMs, user)
		} else {
			delete(c.watched.spent, user)
		}
	}
	for w := range c.watched.lingers.Due(now) {
		switch {
		case w.dropped || len(w.watchers) > 0 || w.lingersAt > now:
		case w.asking: // the answer would be taken for that to whoever watches next
			w.lingersAt = now + watchLingerMs
			c.watched.lingers.Push(w.lingersAt, w)
		default:
			c.unwatched(w)
		}
	}
	for w := range c.watched.retries.Due(now) {
		if !w.dropped {
			w.audit = true
			c.readAgain(now, w)
		}
	}
	for n := range c.watched.holds.Due(now) {
		if now >= c.links[n].holdUntil {
			c.links[n].audit = true
		}
	}
}
