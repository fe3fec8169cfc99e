package live

import (
	"hash/maphash"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/fifo"
	"github.com/madang-chat/madang/gateway/index"
	"github.com/madang-chat/madang/internal/chat"
)

// seating is who is online here, and how far Redis knows it.
//
// A seat is written when it is taken, refreshed long before it would expire, and
// left when its grace time is over. Everything that is to be written goes through
// one queue with a bound on what is under way, so that a storm becomes larger
// batches and not more of them.
type seating struct {
	all   []seat
	free  []uint32
	parts [][]uint32 // by partition: seats in it
	index index.Index
	seed  maphash.Seed

	// incarnation counts the gateway's IDs: an answer to an earlier one is void.
	incarnation uint64
	seq         uint64
	opens       uint32

	ready    fifo.Queue[uint32] // to be written or left
	inFlight int

	graces fifo.Timed[graceEnd]
	lazies fifo.Timed[uint32]
	errors fifo.Timed[uint32] // failed, to be tried again

	refresh   sweep
	stepAt    int64 // of the next refresh step
	fraction  int64 // of a seat, carried between steps, in units of 1/RefreshMs
	rewrites  []sweep
	rewriteAt int64 // up to when rewriting has been paid for
}

// seat is a user here. Kept small: there is one for every user online.
type seat struct {
	user  string
	seq   uint64 // of what Redis was told, or is to be
	opens uint32 // moves with every connection opened: ends an earlier grace time
	at    uint32 // in its partition's list
	part  uint16
	conns uint16
	told  uint16 // connections, as Redis was told
	flags seatFlags
}

type seatFlags uint8

const (
	seatInUse  seatFlags = 1 << iota
	seatGone             // the grace time is over: to be left
	seatBusy             // a request is under way
	seatQueued           // in ready
	seatDirty            // changed since the last request
	seatLazy             // in lazies
	seatKnown            // Redis was told of it at least once
	seatFocus            // what its connections look at has changed
)

type graceEnd struct {
	num, opens uint32
}

// sweep walks a partition's seats from the end of its list, so that one that
// moves when another leaves is never passed over.
type sweep struct {
	part int
	left int // seats not visited yet
}

// refreshStepMs is how often some seats are refreshed: seldom enough that those
// of a partition make a batch.
const refreshStepMs = 250

func (s *seating) init(partitions int) {
	s.seed = maphash.MakeSeed()
	s.parts = make([][]uint32, max(1, partitions))
	s.incarnation = 1
}

func (c *Core) partOf(user string) int {
	return c.cfg.PartitionOf(chat.Channel{Kind: chat.UserChannel, Name: user})
}

// Opened takes in that a user has one more connection: it is seated, or its
// seat counts one more.
func (c *Core) Opened(now int64, user string) {
	s := &c.seats
	num, ok := s.of(user)
	if !ok {
		num = s.add(user, c.partOf(user))
	}
	st := &s.all[num]
	s.opens++
	st.opens = s.opens
	st.conns++
	switch {
	case !ok || st.flags&seatGone != 0:
		st.flags &^= seatGone
		c.touch(num)
	case st.conns != st.told:
		c.touchLazily(now, num)
	} // else it came back within its grace time: nothing has changed
}

// Left takes in that a user has one connection less. What it said stands: somebody
// who polls has none between two polls.
func (c *Core) Left(now int64, user string) {
	s := &c.seats
	num, ok := s.of(user)
	if !ok {
		return
	}
	st := &s.all[num]
	if st.conns == 0 {
		return
	}
	if st.conns--; st.conns > 0 {
		c.touchLazily(now, num)
		return
	}
	s.graces.Push(now+c.cfg.GraceMs, graceEnd{num, st.opens})
}

// of is a user's seat.
func (s *seating) of(user string) (num uint32, ok bool) {
	return s.index.Find(maphash.String(s.seed, user), func(num uint32) bool { return s.all[num].user == user })
}

func (s *seating) hashOf(num uint32) uint64 { return maphash.String(s.seed, s.all[num].user) }

func (s *seating) add(user string, part int) uint32 {
	var num uint32
	if n := len(s.free); n > 0 {
		num = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		num = uint32(len(s.all))
		s.all = append(s.all, seat{})
	}
	s.all[num] = seat{user: user, part: uint16(part), at: uint32(len(s.parts[part])), flags: seatInUse}
	s.parts[part] = append(s.parts[part], num)
	s.index.Add(s.hashOf(num), num, s.hashOf)
	return num
}

func (s *seating) remove(num uint32) {
	st := &s.all[num]
	list := s.parts[st.part]
	last := list[len(list)-1]
	list[st.at] = last
	s.all[last].at = st.at
	s.parts[st.part] = list[:len(list)-1]
	s.index.Remove(s.hashOf(num), num, s.hashOf)
	*st = seat{}
	s.free = append(s.free, num)
}

// touch has a seat written, as it then is.
func (c *Core) touch(num uint32) {
	s := &c.seats
	st := &s.all[num]
	s.seq++
	st.seq = s.seq
	c.queue(num)
}

// queue has a seat written again.
func (c *Core) queue(num uint32) {
	s := &c.seats
	st := &s.all[num]
	st.flags |= seatDirty
	if st.flags&(seatBusy|seatQueued) == 0 {
		st.flags |= seatQueued
		s.ready.Push(num)
	}
}

// lazyMs is how long a change nobody is told of (focus, number of connections) waits
// for the next one.
const lazyMs = 2_000

// touchLazily has a change written that nobody waits for.
func (c *Core) touchLazily(now int64, num uint32) {
	st := &c.seats.all[num]
	if st.flags&seatLazy == 0 {
		st.flags |= seatLazy
		c.seats.lazies.Push(now+lazyMs, num)
	}
}

// refocused has written what a user's connections look at now.
func (c *Core) refocused(now int64, user string) {
	if num, ok := c.seats.of(user); ok {
		c.seats.all[num].flags |= seatFocus
		c.touchLazily(now, num)
	}
}

// pumpSeats sends requests as far as they may be under way.
func (c *Core) pumpSeats() {
	s := &c.seats
	for s.ready.Len() > 0 && s.inFlight < c.cfg.SeatsInFlight {
		num, _ := s.ready.Pop()
		st := &s.all[num]
		st.flags &^= seatQueued
		if st.flags&seatInUse == 0 || st.flags&seatDirty == 0 {
			continue
		}
		if st.flags&(seatGone|seatKnown) == seatGone {
			s.remove(num) // nobody was ever told
			continue
		}
		st.flags = st.flags&^(seatDirty|seatFocus) | seatBusy | seatKnown
		st.told = st.conns
		s.inFlight++
		if st.flags&seatGone != 0 {
			c.out.LeaveSeat(s.incarnation, chat.Seat{User: st.user, Seq: st.seq})
			continue
		}
		c.out.TakeSeat(s.incarnation, chat.Seat{
			User: st.user, Conns: int(st.conns), Seq: st.seq, Focus: c.focusOf(st.user),
		})
	}
}

// focusOf is what a user's connections here look at.
func (c *Core) focusOf(user string) (rooms []string) {
	if len(c.conns) == 0 {
		return nil
	}
	c.rooms.Connections(user, func(id edge.ConnID, _ bool) {
		cn := c.conns[id]
		if cn == nil || cn.focus == nil {
			return
		}
		for _, r := range rooms {
			if r == cn.focus.name {
				return
			}
		}
		rooms = append(rooms, cn.focus.name)
	})
	return rooms
}

// here says whether a user is connected, or between two polls.
func (c *Core) here(st *seat) (is bool) {
	if st.conns == 0 {
		c.rooms.Connections(st.user, func(edge.ConnID, bool) { is = true })
		return is
	}
	return true
}

// SeatDone takes in that a seat was taken or left, or that it failed. A nil error
// is what makes a seat that was left go.
func (c *Core) SeatDone(now int64, incarnation uint64, user string, left bool, err error) {
	s := &c.seats
	if incarnation != s.incarnation {
		return
	}
	num, ok := s.of(user)
	if !ok || s.all[num].flags&seatBusy == 0 {
		return
	}
	s.inFlight--
	st := &s.all[num]
	st.flags &^= seatBusy
	switch {
	case err != nil:
		st.flags |= seatDirty
		s.errors.Push(now+retryMs, num)
	case left && st.flags&seatGone != 0:
		c.stats.Left++
		s.remove(num)
	case left: // it came back meanwhile
		c.stats.Left++
		c.queue(num)
	default:
		c.stats.Taken++
		if st.flags&seatDirty != 0 {
			c.queue(num)
		}
	}
}

// Reborn takes in that the gateway has a new ID: everything is written again
// under it, paced. Seats in Redis under the old one are the fleet's to sweep.
func (c *Core) Reborn(now int64) {
	s := &c.seats
	s.incarnation++
	s.inFlight = 0
	for num := range s.all {
		st := &s.all[num]
		if st.flags&seatInUse == 0 {
			continue
		}
		st.flags &^= seatBusy | seatKnown
		if st.flags&seatGone != 0 {
			c.queue(uint32(num)) // to be forgotten
		}
	}
	for part := range s.parts {
		c.rewrite(now, part)
	}
}

// rewrite has a partition's seats written again, paced.
func (c *Core) rewrite(now int64, part int) {
	s := &c.seats
	if len(s.rewrites) == 0 {
		s.rewriteAt = now
	}
	for i := range s.rewrites {
		if s.rewrites[i].part == part {
			s.rewrites[i].left = len(s.parts[part])
			return
		}
	}
	if len(s.parts[part]) > 0 {
		s.rewrites = append(s.rewrites, sweep{part, len(s.parts[part])})
	}
}

// tickSeats ends grace times, and refreshes, rewrites and retries what is due.
func (c *Core) tickSeats(now int64) {
	s := &c.seats
	for g := range s.graces.Due(now) {
		st := &s.all[g.num]
		if st.flags&seatInUse != 0 && st.opens == g.opens && st.conns == 0 && st.flags&seatGone == 0 {
			st.flags |= seatGone
			c.touch(g.num)
		}
	}
	for num := range s.lazies.Due(now) {
		st := &s.all[num]
		if st.flags&(seatInUse|seatLazy) != seatInUse|seatLazy {
			continue
		}
		st.flags &^= seatLazy
		if st.conns > 0 && st.conns != st.told || st.flags&seatFocus != 0 && c.here(st) {
			c.touch(num)
		}
	}
	for num := range s.errors.Due(now) {
		if st := &s.all[num]; st.flags&(seatInUse|seatDirty) == seatInUse|seatDirty {
			c.queue(num)
		}
	}
	c.tickRewrites(now)
	c.tickRefresh(now)
}

func (c *Core) tickRewrites(now int64) {
	s := &c.seats
	if len(s.rewrites) == 0 {
		return
	}
	n := (now - s.rewriteAt) * int64(c.cfg.RewritePerSecond) / 1000
	if n == 0 {
		return
	}
	s.rewriteAt = now
	for ; n > 0 && len(s.rewrites) > 0; n-- {
		num, ok := s.next(&s.rewrites[0])
		if !ok {
			s.rewrites = s.rewrites[1:]
			continue
		}
		c.stats.Rewritten++
		c.queue(num)
	}
}

// tickRefresh walks all seats once per RefreshMs, partition after partition, and
// has each partition counted when it is through: a seat in Redis that is nobody's
// here was written late, by a request that had been given up.
func (c *Core) tickRefresh(now int64) {
	s := &c.seats
	if now < s.stepAt {
		return
	}
	if s.stepAt == 0 {
		s.stepAt = now
	}
	steps := (now - s.stepAt) / refreshStepMs
	s.stepAt += (steps + 1) * refreshStepMs
	due := s.fraction + min(steps+1, 10)*refreshStepMs*int64(s.index.Len()+len(s.parts))
	n := due / c.cfg.RefreshMs
	s.fraction = due % c.cfg.RefreshMs
	// An empty partition costs a visit as a seat does, so that the walk moves on.
	for ; n > 0; n-- {
		if num, ok := s.next(&s.refresh); ok {
			c.stats.Refreshed++
			c.queue(num)
			continue
		}
		c.count(s.refresh.part)
		s.refresh.part = (s.refresh.part + 1) % len(s.parts)
		s.refresh.left = len(s.parts[s.refresh.part])
	}
}

// next is the next seat of a walk.
func (s *seating) next(w *sweep) (uint32, bool) {
	list := s.parts[w.part]
	if w.left = min(w.left, len(list)); w.left == 0 {
		return 0, false
	}
	w.left--
	return list[w.left], true
}

func (c *Core) count(part int) {
	s := &c.seats
	c.out.CountSeats(s.incarnation, part, len(s.parts[part]))
}

// SeatsHeld takes in whose seats Redis holds for this gateway in a partition,
// when they are more than expected. Those that are nobody's are left.
func (c *Core) SeatsHeld(incarnation uint64, part int, users []string) {
	s := &c.seats
	if incarnation != s.incarnation {
		return
	}
	for _, user := range users {
		if _, seated := s.of(user); seated || c.partOf(user) != part {
			continue
		}
		c.stats.Surplus++
		num := s.add(user, part)
		s.all[num].flags |= seatGone | seatKnown
		c.touch(num)
	}
}
