package follow

import (
	"maps"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// job is one connection catching up: a resume, a slow reader coming back, or a
// room joined whose first messages are already past.
type job struct {
	u    *user
	id   edge.ConnID
	dead bool

	// positions are where the client is in rooms that are still to be caught up
	// or decided; start are the heads at hello, until the client's have come.
	positions, start map[string]protocol.ID
	queue            []*pull
	parked           int  // pulls that wait at their room
	complete         bool // all positions have come
	announce         bool // ends with `resumed`
	paused           bool // waits until the socket has taken what was queued
	sent             int  // messages
	unwritten        int  // bytes queued since the last pause
}

// pull is one room that a connection must be brought up to date in.
type pull struct {
	j       *job
	r       *room
	pos     protocol.ID // everything up to it is the client's
	started bool        // some of it was sent: it is finished, however long
}

// maxParked bounds how many rooms one connection waits for at once.
const maxParked = 8

// Positions takes in a client's `resume`; more says that another follows.
// Positions of rooms the user is not in are ignored (R1). ok is false when the
// connection is not waiting for positions.
func (c *Core) Positions(id edge.ConnID, pos map[string]protocol.ID, more bool) (ok bool) {
	u := c.byConn[id]
	if u == nil {
		return true
	}
	ref := u.conn(id)
	if ref.state == connLive || !ref.resume {
		return false
	}
	j := c.jobOf(ref)
	maps.Copy(j.positions, pos)
	j.complete = !more
	if ref.state == connHeld && j.complete {
		c.resume(u, ref)
	}
	return true
}

// resume begins to deliver to a connection whose positions are known.
func (c *Core) resume(u *user, ref *connRef) {
	ref.state = connLive
	j := ref.job
	for r, p := range j.start {
		if _, named := j.positions[r]; !named {
			j.positions[r] = p
		}
	}
	j.start = nil
	for _, m := range u.rooms {
		if m.member {
			j.queue = append(j.queue, &pull{j: j, r: m.r, pos: j.positions[m.r.name]})
		}
	}
	c.run(j)
}

// Lagged takes in that a socket had not kept up and has now drained: per room,
// what follows the position was left out.
func (c *Core) Lagged(id edge.ConnID, lag map[edge.RoomNum]protocol.ID) {
	u := c.byConn[id]
	if u == nil {
		return
	}
	ref := u.conn(id)
	for _, m := range u.rooms {
		if from, ok := lag[m.r.num]; ok && m.member {
			c.jobOf(ref).announce = true
			c.jobOf(ref).queue = append(c.jobOf(ref).queue, &pull{j: ref.job, r: m.r, pos: from})
		}
	}
	if ref.job != nil {
		c.run(ref.job)
	}
}

// Drained takes in that everything queued before the mark has been written.
func (c *Core) Drained(id edge.ConnID) {
	u := c.byConn[id]
	if u == nil {
		return
	}
	if j := u.conn(id).job; j != nil && j.paused {
		j.paused, j.unwritten = false, 0
		c.run(j)
	}
}

func (c *Core) jobOf(ref *connRef) *job {
	if ref.job == nil {
		ref.job = &job{u: c.byConn[ref.id], id: ref.id, positions: map[string]protocol.ID{}}
	}
	return ref.job
}

// enqueue brings a connection up to date in a room, then attaches it.
func (c *Core) enqueue(ref *connRef, r *room, from protocol.ID) {
	if from == r.head && r.state == roomLive {
		c.attach(ref.id, r)
		return
	}
	j := c.jobOf(ref)
	j.queue = append(j.queue, &pull{j: j, r: r, pos: from})
	c.run(j)
}

// run goes on with a connection's catch-up as far as it goes without waiting.
func (c *Core) run(j *job) {
	for len(j.queue) > 0 && j.parked < maxParked && !j.paused && !j.dead {
		p := j.queue[0]
		j.queue[0] = nil
		j.queue = j.queue[1:]
		c.pull(p)
	}
	if j.dead || j.paused || len(j.queue) > 0 || j.parked > 0 || !j.u.decided() {
		return
	}
	ref := j.u.conn(j.id)
	if ref == nil || ref.job != j || ref.state != connLive {
		return
	}
	ref.job = nil
	if j.announce {
		c.stats.Resumes++
		rev := j.u.rev
		c.out.Unicast(j.id, edge.NewFrame(64, func(b []byte) []byte {
			return protocol.AppendResumed(b, rev)
		}))
	}
}

// pull brings one room up to date from memory, or parks until the log was read.
func (c *Core) pull(p *pull) {
	r := p.r
	if !p.wanted() {
		return
	}
	if r.state != roomLive {
		c.park(p)
		return
	}
	if p.pos == r.head {
		c.arrive(p)
		return
	}
	if i, ok := r.tailAfter(p.pos); ok && c.within(p, len(r.tail)-i) {
		c.stats.FromTail++
		c.push(p, r.tail[i:])
		return
	}
	c.park(p)
	c.readLog(r)
}

// wanted says whether the connection still lives and still follows the room
// (F2). If it is being asked again whether it may, the position is kept for when
// the answer comes.
func (p *pull) wanted() bool {
	if p.j.dead || p.r.dropped {
		return false
	}
	m := p.j.u.membership(p.r)
	if m == nil {
		return false
	}
	if !m.member {
		p.j.positions[p.r.name] = p.pos
	}
	return m.member
}

// tailAfter returns the index of the first frame after pos in the hot tail, if
// the tail proves that nothing is missing between.
func (r *room) tailAfter(pos protocol.ID) (int, bool) {
	for i := len(r.tail) - 1; i >= 0; i-- {
		if r.tail[i].Prev == pos {
			return i, true
		}
		if r.tail[i].ID.Less(pos) {
			break
		}
	}
	return 0, false
}

// within says whether missed more messages may be pushed (R3).
func (c *Core) within(p *pull, missed int) bool {
	return p.started || missed <= c.cfg.ResumeRoom && p.j.sent+missed <= c.cfg.ResumeConn
}

// push queues frames that follow p.pos and end at the room's head, then attaches;
// or as many as the socket's credit allows, and goes on when they were written.
func (c *Core) push(p *pull, frames []*edge.Frame) {
	j := p.j
	for _, f := range frames {
		if j.unwritten > c.cfg.CreditBytes {
			c.pause(p)
			return
		}
		c.out.Unicast(j.id, f)
		j.unwritten += len(f.WS())
		j.sent++
		p.pos, p.started = f.ID, true
	}
	if p.pos == p.r.head {
		c.arrive(p)
		return
	}
	j.queue = append(j.queue, p)
}

// arrive ends a pull: from here on the connection gets what the room gets.
func (c *Core) arrive(p *pull) {
	delete(p.j.positions, p.r.name)
	c.attach(p.j.id, p.r)
}

func (c *Core) pause(p *pull) {
	j := p.j
	j.queue = append([]*pull{p}, j.queue...)
	if !j.paused {
		j.paused = true
		c.out.Mark(j.id)
	}
}

func (c *Core) park(p *pull) {
	p.j.parked++
	p.r.parked = append(p.r.parked, p)
}

// unpark lets those who waited for a room go on.
func (c *Core) unpark(r *room) {
	parked := r.parked
	r.parked = nil
	for _, p := range parked {
		p.j.parked--
		p.j.queue = append(p.j.queue, p)
	}
	for _, p := range parked {
		c.run(p.j)
	}
}

func (c *Core) attach(id edge.ConnID, r *room) {
	r.loops |= 1 << id.Loop()
	c.out.Attach(id, r.num)
}

// gap tells a connection that what follows its position can't be pushed, and
// goes on from the head.
func (c *Core) gap(p *pull) {
	c.stats.GapsTold++
	after, head := p.pos, p.r.head
	c.out.Unicast(p.j.id, edge.NewFrame(160, func(b []byte) []byte {
		return protocol.AppendGap(b, p.r.name, after, head)
	}))
	c.arrive(p)
}

// catchUp reads what a room missed; live events wait behind it.
func (c *Core) catchUp(r *room) {
	r.state = roomCatching
	c.readLog(r)
}

// readLog reads a room's log from its head when the room itself must catch up,
// else from the oldest position that someone waits at: one read serves them all.
func (c *Core) readLog(r *room) {
	if r.logTok != 0 && r.state != roomCatching {
		return
	}
	from := r.head
	if r.state == roomLive {
		live := r.parked[:0]
		for _, p := range r.parked {
			if p.wanted() {
				live = append(live, p)
			} else {
				p.j.parked--
			}
		}
		clear(r.parked[len(live):])
		r.parked = live
		if len(live) == 0 {
			return
		}
		from = live[0].pos
		for _, p := range live {
			if p.pos.Less(from) {
				from = p.pos
			}
		}
	}
	c.stats.LogReads++
	r.logTok = c.nextToken()
	r.logFrom, r.logHead = from, r.head
	// The position itself, what may be pushed after it, and one more that shows
	// that it was too much.
	c.out.ReadLog(r.logTok, chat.LogQuery{Room: r.name, From: from, Limit: c.cfg.ResumeRoom + 2})
}

// LogRead takes in a page of a room's log.
func (c *Core) LogRead(now int64, tok Token, name string, pg chat.LogPage, err error) {
	r := c.rooms[name]
	if r == nil || r.logTok != tok {
		return
	}
	if err != nil {
		c.retries.push(now+c.cfg.RetryMs, retry{retryLog, name, tok})
		return
	}
	r.logTok = 0
	if !pg.Exists || pg.Head.Less(r.logHead) {
		c.loseTail(r, pg.Head, pg.N) // behind what was held when it was asked for (L3)
		return
	}
	frames := make([]*edge.Frame, len(pg.Entries))
	for i, e := range pg.Entries {
		frames[i] = edge.NewFrame(128+len(e.Tail), func(b []byte) []byte {
			return protocol.AppendMessage(b, r.name, e.ID, e.Prev, e.N, e.Tail)
		})
		frames[i].ID, frames[i].Prev = e.ID, e.Prev
	}
	if r.state == roomCatching {
		c.catchRoom(r, pg, frames)
		return
	}
	c.serve(r, pg, frames)
}

// after returns how many frames follow pos in a page, and whether the page
// proves that these are all that follow it (DELIVERY, "Proven").
func after(pg chat.LogPage, frames []*edge.Frame, pos protocol.ID) (rest []*edge.Frame, proven bool) {
	i := 0
	for i < len(frames) && !pos.Less(frames[i].ID) {
		i++
	}
	rest = frames[i:]
	switch {
	case i > 0 && frames[i-1].ID == pos, pos == pg.Head:
		return rest, true
	case len(rest) > 0 && rest[0].Prev == pos:
		return rest, true
	}
	return rest, false
}

// catchRoom applies a page to the room itself.
func (c *Core) catchRoom(r *room, pg chat.LogPage, frames []*edge.Frame) {
	rest, proven := after(pg, frames, r.head)
	if !proven {
		c.loseTail(r, pg.Head, pg.N)
		return
	}
	for _, f := range rest {
		e := pg.Entries[len(frames)-len(rest)]
		frames, pg.Entries = frames[1:], pg.Entries[1:]
		c.accept(r, f, e.N)
	}
	if pg.More {
		c.readLog(r)
		return
	}
	r.state = roomLive
	c.drainPend(r)
}

// serve gives everyone who waits at the room what the page has for them.
func (c *Core) serve(r *room, pg chat.LogPage, frames []*edge.Frame) {
	parked := r.parked
	r.parked = nil
	for _, p := range parked {
		p.j.parked--
		if !p.wanted() {
			continue
		}
		rest, proven := after(pg, frames, p.pos)
		for len(rest) > 0 && r.head.Less(rest[len(rest)-1].ID) {
			rest = rest[:len(rest)-1] // the link is about to bring it
		}
		switch {
		case p.pos.Less(r.logFrom), len(rest) == 0 && !proven && pg.More:
			c.park(p) // not in this page
		case !proven:
			c.gap(p)
		case r.head.Less(p.pos):
			c.arrive(p) // newer than our head, and true (L5)
		case pg.More && !p.started && p.pos == r.logFrom, !pg.More && !c.within(p, len(rest)):
			c.gap(p)
		case pg.More && !p.started:
			c.park(p) // how much it missed shows in the next page
		case p.j.paused:
			p.j.queue = append(p.j.queue, p)
		default:
			c.push(p, rest)
		}
	}
	if len(r.parked) > 0 {
		c.readLog(r)
	}
	for _, p := range parked {
		c.run(p.j)
	}
}
