package follow

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// catchUp reads what a room missed; live messages wait behind it.
func (c *Core) catchUp(r *room) {
	r.state = roomCatching
	c.owe(r.sub.link, owing{r: r})
	r.logTok = 0 // what is being read for others may be older
	c.readLog(r)
}

// readLog reads a room's log from its head when the room itself must catch up,
// else from the oldest position that someone waits at: one read serves them all.
// A room whose channel was silent is audited first, and its members asked about.
func (c *Core) readLog(r *room) {
	if r.logTok != 0 || !r.sub.confirmed || r.state == roomNew {
		return
	}
	if r.unchecked() {
		c.wantAsk(r) // who waits here does not wait for the audits' budget
		return
	}
	from := r.head
	if r.state == roomCatching {
		r.pendKnown = len(r.pend)
	} else {
		waiting := false
		for _, p := range r.parked {
			if p.done {
				continue
			}
			waiting = true
			if p.pos.Less(from) {
				from = p.pos
			}
		}
		if !waiting {
			r.parked = nil
			return
		}
	}
	c.stats.LogReads++
	c.wake(r)
	r.logTok = c.nextToken()
	r.logFrom, r.logHead = from, r.head
	// The position itself, what may be pushed after it, and one more that shows
	// that it was too much.
	c.out.ReadLog(r.logTok, chat.LogQuery{Room: r.name, From: from, Limit: c.cfg.ResumeRoom + 2})
}

// page is a part of a room's log.
type page struct {
	from    protocol.ID
	head    protocol.ID
	n       uint64 // ordinal of the head
	version uint64 // of the members
	more    bool
	frames  []*edge.Frame
	ns      []uint64 // their ordinals
}

// LogRead takes in a page of a room's log.
func (c *Core) LogRead(now int64, tok Token, name string, lp chat.LogPage, err error) {
	r := c.rooms.named(name)
	if r == nil || r.logTok != tok {
		return
	}
	defer c.rest(r)
	r.failing = err != nil
	if err != nil {
		c.retries.Push(now+c.cfg.RetryMs, retry{retryLog, name, tok})
		c.stuck(r)
		return
	}
	r.logTok = 0
	if r.unchecked() {
		c.readLog(r) // when they have been: it has what was sent since
		return
	}
	checked := r.logChecked
	r.logChecked = false
	if lp.Head.Less(r.logHead) {
		c.loseUnheard(r, lp.Head, lp.N, lp.Version) // behind what was held when it was asked for (L3)
		return
	}
	if r.head.Less(lp.Head) && lp.Version != r.version && !checked {
		// It is ahead of the channel, in which there may still be a `left`: what was sent
		// since is not for who was removed (F2). What is read next is taken anyway, or
		// nobody would catch up while many join.
		r.logChecked = true
		c.recheckAt(r, lp.Version)
		c.readLog(r)
		return
	}
	pg := newPage(r, lp)
	if !c.advance(r, &pg) {
		return
	}
	if r.state == roomCatching {
		if pg.more {
			c.readLog(r)
			return
		}
		r.state = roomLive
		c.drainPend(r)
		return
	}
	c.serve(r, &pg)
}

func newPage(r *room, lp chat.LogPage) page {
	pg := page{
		from: r.logFrom, head: lp.Head, n: lp.N, version: lp.Version, more: lp.More,
		frames: make([]*edge.Frame, len(lp.Entries)), ns: make([]uint64, len(lp.Entries)),
	}
	for i, e := range lp.Entries {
		f := edge.NewFrame(128+len(e.Tail), func(b []byte) []byte {
			return protocol.AppendMessage(b, r.name, e.ID, e.Prev, e.N, e.Tail)
		})
		f.ID, f.Prev = e.ID, e.Prev
		pg.frames[i], pg.ns[i] = f, e.N
	}
	return pg
}

// after returns the index of the first frame after pos, and whether the page
// proves that nothing is missing between (DELIVERY, "Proven"). A time is proven by
// what it lies between: the first newer message follows one that is not newer.
func (pg *page) after(pos protocol.ID, timed bool) (i int, proven bool) {
	for i < len(pg.frames) && !pos.Less(pg.frames[i].ID) {
		i++
	}
	switch {
	case i > 0 && pg.frames[i-1].ID == pos, pos == pg.head, timed && pg.head.Less(pos):
		return i, true
	case i < len(pg.frames):
		prev := pg.frames[i].Prev
		return i, prev == pos || timed && prev.Less(pos)
	}
	return i, false
}

// advance brings the room's own head up to the page's, so that whatever is
// delivered to anybody is what the room holds itself: a tail that is lost later
// is then missed. false means that the room lost its tail.
func (c *Core) advance(r *room, pg *page) bool {
	if !r.head.Less(pg.head) {
		return true
	}
	i, proven := pg.after(r.head, false)
	if !proven {
		if i == len(pg.frames) && pg.more {
			return true // the page ends before the head
		}
		c.loseUnheard(r, pg.head, pg.n, pg.version)
		return false
	}
	for ; i < len(pg.frames); i++ {
		c.accept(r, pg.frames[i], pg.ns[i])
	}
	return true
}

// loseUnheard loses a tail that a log and no audit has found: the link told nothing of
// it. Of members who were removed, or of a room that others made anew, it has not told
// either, so they are asked about before anything is delivered.
func (c *Core) loseUnheard(r *room, head protocol.ID, n, version uint64) {
	if version != r.version {
		c.recheckAt(r, version)
	}
	c.loseTail(r, head, n)
}

// serve gives everyone who waits at the room what the page has for them.
func (c *Core) serve(r *room, pg *page) {
	parked := r.parked
	r.parked = nil
	for _, p := range parked {
		if p.done {
			continue
		}
		p.uncount()
		if !c.wanted(p) {
			continue
		}
		i, proven := pg.after(p.pos, p.timed)
		switch {
		case p.pos.Less(pg.from), i == len(pg.frames) && !proven && (pg.more || p.late):
			c.park(p) // not in this page
		case !proven:
			c.gap(p)
		case i == len(pg.frames):
			c.arriveOrWait(p)
		case !c.start(p, int(pg.n-pg.ns[i])+1):
			c.tooMuch(p)
		case p.j.paused:
			c.enqueue(p)
		default:
			c.push(p, pg.frames[i:])
		}
	}
	c.readLog(r)
	for _, p := range parked {
		c.run(p.j)
	}
}
