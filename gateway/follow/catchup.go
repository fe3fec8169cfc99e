package follow

import (
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/protocol"
)

// job is one connection catching up: a resume, a slow reader coming back, or a
// room joined whose first messages are already past.
type job struct {
	u     *user
	id    edge.ConnID
	known edge.ConnID // of a long poll: what its answer tells, unless 0
	dead  bool

	// positions are where the client is, in all rooms until they have all come,
	// then in those that are not decided yet; start are the heads at hello, until
	// then.
	positions, start map[string]protocol.ID
	// joined are rooms that it is to be told of when its positions have come:
	// before, it could not be said what will be delivered.
	joined    map[string]bool
	pulls     []*pull     // unfinished, at most one of a room
	queue     []*pull     // those of them that need not wait
	parked    int         // those of them that wait at their room, for an answer that is on its way
	complete  bool        // all positions have come
	cut       bool        // too many to keep: where the client is in a room without one is not known
	timed     bool        // instead of positions it has a time,
	since     protocol.ID // from which every room is repeated
	announce  bool        // ends with `resumed`
	paused    bool        // waits until the socket has taken what was queued
	pausedAt  uint32      // the mark that says so
	sent      int         // messages, those of started pulls that are still to come too
	unwritten int         // bytes queued since the last pause
}

// pull is one room that a connection must be brought up to date in.
type pull struct {
	j       *job
	r       *room
	i       int         // in j.pulls
	pos     protocol.ID // everything up to it is the client's
	blind   bool        // it is not known what the client has
	timed   bool        // pos is a time: what is newer is the client's to get
	told    bool        // timed, and joined has told a head that is not older
	lagged  bool        // the socket had not kept up: it is attached, and left out
	started bool        // it counts in j.sent: it is finished, however long
	counted bool        // in job.parked
	late    bool        // parked when the log was being read already
	stalled bool        // the membership is suspended
	done    bool
}

// mostPositions bounds what a client may have kept: as many as a user can have
// rooms by default. Who has more is told a gap in rooms whose positions were left out.
const mostPositions = 10_000

// maxParked bounds how many rooms one connection waits for at once. Those that can't be
// read now don't count: they would keep it from all others (F4).
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
	for room, at := range pos {
		// Until hello, and until its index is known, every room may turn out to be
		// the user's (F4); and also while the index is to be read again.
		if ref.state == connHeld && u.current() && c.membershipIn(u, room) == nil {
			continue
		}
		if _, again := j.positions[room]; !again && len(j.positions) >= mostPositions {
			j.cut = true
			continue
		}
		j.positions[room] = at
	}
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
	if ref.via == edge.LongPoll && u.known && (u.current() || !j.cut) { // else it is refused, and keeps the positions it has
		c.polled(u, ref)
	}
	start, joined := j.start, j.joined
	j.start, j.joined = nil, nil
	for m := range c.members.each(u.rooms) {
		r := c.roomOf(m)
		if m.state != memberIn {
			if j.timed && !m.state.decided() {
				j.positions[r.name] = j.since
			}
			if joined[r.name] {
				c.tellJoined(ref, m, c.starts[m].after)
			}
			continue
		}
		pos, known := j.positions[r.name]
		delete(j.positions, r.name)
		if !known && !j.cut {
			pos, known = start[r.name]
		}
		if j.timed {
			pos, known = j.since, true
		}
		p := j.add(r, pos)
		p.timed = j.timed
		p.blind = !known // greeted before the room could be followed, or told too many positions
		c.enqueue(p)
		if joined[r.name] {
			c.tellJoined(ref, m, pos)
		}
	}
	c.run(j)
}

// Lagged takes in that a socket had not kept up and has now drained: per room,
// what follows the position was left out. Who takes times is told when that has come,
// also when the rooms are gone meanwhile: its loop says no times until then.
func (c *Core) Lagged(id edge.ConnID, lag map[edge.RoomNum]protocol.ID) {
	u := c.byConn[id]
	if u == nil {
		return
	}
	ref := u.conn(id)
	if ref.via == edge.SSE {
		c.jobOf(ref)
	}
	for m := range c.members.each(u.rooms) {
		r := c.roomOf(m)
		from, ok := lag[r.num]
		if !ok || m.state != memberIn {
			continue
		}
		if c.detached[id].has(r) {
			// It may be from before a Detach, and it may be from after the Attach
			// that followed: a gap is true of both.
			c.restart(ref, r, from)
			continue
		}
		j := c.jobOf(ref)
		j.announce = true
		p := j.add(r, from)
		p.lagged = true
		c.enqueue(p)
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
	ref := u.conn(id)
	ref.drained++
	if d := c.detached[id]; d != nil {
		if d.drained(ref.drained); len(d.marks) == 0 {
			delete(c.detached, id)
		}
	}
	if j := ref.job; j != nil && j.paused && j.pausedAt <= ref.drained {
		j.paused, j.unwritten = false, 0
		c.run(j)
	}
}

func (c *Core) mark(ref *connRef) uint32 {
	ref.marks++
	c.out.Mark(ref.id)
	return ref.marks
}

func (c *Core) jobOf(ref *connRef) *job {
	if ref.job == nil {
		// Who resumes from times must learn when nothing older is on its way.
		ref.job = &job{u: c.byConn[ref.id], id: ref.id, positions: map[string]protocol.ID{}, announce: ref.via == edge.SSE}
	}
	return ref.job
}

// startAt notes where a room starts unless the client says otherwise.
func (j *job) startAt(r *room, at protocol.ID) {
	if is, ok := j.start[r.name]; !ok || at.Less(is) {
		j.start[r.name] = at
	}
}

func (j *job) pullOf(r *room) *pull {
	for _, p := range j.pulls {
		if p.r == r {
			return p
		}
	}
	return nil
}

func (j *job) add(r *room, pos protocol.ID) *pull {
	p := &pull{j: j, r: r, i: len(j.pulls), pos: pos}
	j.pulls = append(j.pulls, p)
	return p
}

// tells notes that a connection that takes times was told where a room is: what follows
// that is for it, also where its time is newer.
func (p *pull) tells(at protocol.ID) {
	if p.timed && at.Less(p.pos) {
		p.pos, p.timed, p.told = at, false, false
		return
	}
	p.told = true
}

// remove ends a pull, wherever it waits.
func (j *job) remove(p *pull) {
	p.done = true
	p.uncount()
	last := len(j.pulls) - 1
	j.pulls[p.i] = j.pulls[last]
	j.pulls[p.i].i = p.i
	j.pulls[last] = nil
	j.pulls = j.pulls[:last]
}

// catchUpFrom brings a connection up to date in a room, then attaches it.
func (c *Core) catchUpFrom(ref *connRef, r *room, from protocol.ID) {
	if from == r.head && r.state == roomLive {
		c.attach(ref.id, r)
		return
	}
	j := c.jobOf(ref)
	p := j.add(r, from)
	p.timed = j.timed && from == j.since
	c.enqueue(p)
	c.run(j)
}

func (c *Core) enqueue(p *pull) {
	p.j.queue = append(p.j.queue, p)
}

// run goes on with a connection's catch-up as far as it goes without waiting.
func (c *Core) run(j *job) {
	for len(j.queue) > 0 && j.parked < maxParked && !j.paused && !j.dead {
		p := j.queue[0]
		j.queue[0] = nil
		j.queue = j.queue[1:]
		c.pull(p)
	}
	if j.dead || len(j.pulls) > 0 || !j.u.decided() {
		return
	}
	ref := j.u.conn(j.id)
	if ref == nil || ref.job != j || ref.state != connLive {
		return
	}
	ref.job = nil
	if j.announce {
		c.stats.Resumes++
		ref.unsure = false
		rev := j.u.rev
		f := edge.NewFrame(64, func(b []byte) []byte {
			return protocol.AppendResumed(b, rev)
		})
		f.Time = c.clocks.least
		c.out.Unicast(j.id, f)
	}
}

// pull brings one room up to date from memory, or parks until the log was read.
func (c *Core) pull(p *pull) {
	r := p.r
	if p.done || !c.wanted(p) {
		return
	}
	if r.state != roomLive {
		c.park(p)
		return
	}
	if p.blind || p.timed && c.ahead(p.pos) {
		c.gap(p)
		return
	}
	if p.timed && !p.pos.Less(r.head) { // nothing is newer
		c.arrive(p)
		return
	}
	if p.pos == r.head {
		c.arrive(p)
		return
	}
	if i, ok := r.tailAfter(p.pos, p.timed); ok && c.start(p, len(r.tail)-i) {
		c.stats.FromTail++
		c.push(p, r.tail[i:])
		return
	}
	c.park(p)
	c.readLog(r)
}

// wanted says whether the connection still follows the room (F2). If that is
// being asked, the pull waits for the answer.
func (c *Core) wanted(p *pull) bool {
	if p.done || p.j.dead {
		return false
	}
	m := c.membership(p.j.u, p.r)
	p.stalled = m.state != memberIn
	return !p.stalled
}

// tailAfter returns the index of the first frame after pos in the hot tail, if
// the tail proves that nothing is missing between: pos is the one before it or,
// where pos is a time, not older than the one before it.
func (r *room) tailAfter(pos protocol.ID, timed bool) (int, bool) {
	for i := len(r.tail) - 1; i >= 0; i-- {
		if prev := r.tail[i].Prev; prev == pos || timed && prev.Less(pos) {
			return i, true
		}
		if r.tail[i].ID.Less(pos) {
			break
		}
	}
	return 0, false
}

// start says whether missed more messages may be pushed, and counts them (R3): of
// rooms that wait for the socket at the same time, too.
func (c *Core) start(p *pull, missed int) bool {
	if p.started {
		return true
	}
	if missed > c.cfg.ResumeRoom || p.j.sent+missed > c.cfg.ResumeConn {
		return false
	}
	p.started = true
	p.j.sent += missed
	return true
}

// push queues frames that follow p.pos, then attaches if that was all; or as many
// as the socket's credit allows, and goes on when they were written.
func (c *Core) push(p *pull, frames []*edge.Frame) {
	j := p.j
	for _, f := range frames {
		if j.unwritten > c.cfg.CreditBytes {
			c.pause(p)
			return
		}
		c.out.Unicast(j.id, f)
		j.unwritten += len(f.WS())
		p.pos, p.timed = f.ID, false
	}
	c.arriveOrWait(p)
}

// arriveOrWait attaches a connection that has all the room has, or goes on.
func (c *Core) arriveOrWait(p *pull) {
	if p.pos == p.r.head {
		c.arrive(p)
		return
	}
	c.enqueue(p)
}

// arrive ends a pull: from here on the connection gets what the room gets.
func (c *Core) arrive(p *pull) {
	p.j.remove(p)
	c.attach(p.j.id, p.r)
}

func (c *Core) pause(p *pull) {
	j := p.j
	j.queue = append([]*pull{p}, j.queue...)
	if !j.paused {
		j.paused, j.pausedAt = true, c.mark(j.u.conn(j.id))
	}
}

func (c *Core) park(p *pull) {
	p.late = p.r.logTok != 0
	c.wake(p.r)
	if p.counted = p.r.sub.confirmed && !p.r.failing; p.counted {
		p.j.parked++
	}
	ps := p.r.parked
	if len(ps) == cap(ps) { // who is gone meanwhile goes before it grows; half of it is free then, at least
		ps = slices.DeleteFunc(ps, func(p *pull) bool { return p.done || p.j.dead })
		ps = slices.Grow(ps, len(ps)+1)
	}
	p.r.parked = append(ps, p)
}

// uncount takes a pull out of job.parked.
func (p *pull) uncount() {
	if p.counted {
		p.counted = false
		p.j.parked--
	}
}

// stuck lets connections that wait for rooms that can't be read now go on with others.
func (c *Core) stuck(rooms ...*room) {
	var parked []*pull
	for _, r := range rooms {
		parked = append(parked, r.parked...)
	}
	for _, p := range parked {
		p.uncount()
	}
	for _, p := range parked {
		c.run(p.j)
	}
}

// unpark lets those who waited for a room go on.
func (c *Core) unpark(r *room) {
	parked := r.parked
	r.parked = nil
	for _, p := range parked {
		if !p.done {
			p.uncount()
			c.enqueue(p)
		}
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
	c.tellGap(p.j.id, p.r, p.pos)
	c.arrive(p)
}

// tooMuch is gap for what the log has, but is more than is pushed (R3): that is no hole,
// and nobody's alarm.
func (c *Core) tooMuch(p *pull) {
	c.sayGap(p.j.id, p.r, p.pos)
	c.arrive(p)
}

func (c *Core) tellGap(id edge.ConnID, r *room, after protocol.ID) {
	c.stats.GapsTold++
	c.sayGap(id, r, after)
}

func (c *Core) sayGap(id edge.ConnID, r *room, after protocol.ID) {
	c.out.Unicast(id, edge.NewFrame(160, func(b []byte) []byte {
		return protocol.AppendGap(b, r.name, after, r.head)
	}))
}
