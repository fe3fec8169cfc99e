package loop

import (
	"fmt"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/gateway/deflate"
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/wsframe"
)

// A panic is a mistake of ours. It must not end the process for everybody, and
// nothing may be lost without being noticed: the connection that was being
// handled is reset, or everybody in the room that was being served, since nobody
// can tell who of them has got what; they come back and resume. The loop goes on
// where it was.

// handling is what a loop is doing, so that a panic can be put down to it. It
// costs two stores per connection handled.
type handling struct {
	slot uint32 // 0: no connection in particular
	room *room  // whose members are being served
}

// steps are what a turn does, in this order. After a panic the turn goes on with
// the step that failed; each keeps in the loop how far it has come.
var steps = [...]func(*loop){
	(*loop).advance, (*loop).again, (*loop).reportLate, (*loop).readMailbox, (*loop).fanOutAll, (*loop).answerPolls, (*loop).hand, (*loop).flush, (*loop).hand,
}

// bugLogTicks is the least time between two panics that are logged.
const bugLogTicks = 1000 / tickMs

// maxBugsPerTurn is when a loop is beyond help: its state is broken in a way that
// resetting connections does not mend.
const maxBugsPerTurn = 1000

// turn does all steps, whatever happens.
func (l *loop) turn() {
	for bugs := 0; !l.doSteps(); bugs++ {
		if bugs == maxBugsPerTurn {
			l.g.log.Error("event loop gives up", "loop", l.num, "error", "BUG: it goes on panicking")
			l.killed = true
			return
		}
	}
}

func (l *loop) doSteps() (done bool) {
	defer l.rescue()
	for l.step < len(steps) {
		steps[l.step](l)
		l.step++
	}
	l.step = 0
	return true
}

// pollSafely is poll. Sockets that a panic kept from being looked at are ready
// again in the next turn.
func (l *loop) pollSafely(timeoutMs int) error {
	defer l.rescue()
	return l.poll(timeoutMs)
}

// rescue recovers from a panic, if there is one, and ends what it may have
// damaged.
func (l *loop) rescue() {
	what := recover()
	if what == nil {
		return
	}
	l.stats.Bugs++
	// Somebody may know how to bring it about: the log is not theirs to fill.
	if l.bugTold == 0 || l.tick-l.bugTold >= bugLogTicks {
		l.bugTold = l.tick
		l.g.log.Error("BUG: panic in an event loop", "loop", l.num, "panics", l.stats.Bugs, "panic", fmt.Sprint(what), "stack", string(debug.Stack()))
	}
	at := l.at
	l.at = handling{}
	// Shared tools may have been left in the middle of something.
	l.decoder, l.inflater, l.deflater = wsframe.Decoder{}, deflate.Inflater{}, deflate.Deflater{}
	if at.room != nil {
		members := at.room.members
		at.room.members = nil
		for _, slot := range members {
			l.giveUp(slot)
		}
	}
	l.giveUp(at.slot)
	l.try(l.mend)
}

// try says whether f came to its end.
func (l *loop) try(f func()) (ok bool) {
	defer func() {
		if !ok {
			_ = recover() // the panic that led here has been told
		}
	}()
	f()
	return true
}

// giveUp resets a connection after a panic, by force if it must be.
func (l *loop) giveUp(slot uint32) {
	if slot == 0 || slot >= l.conns.used {
		return
	}
	c := l.conns.at(slot)
	if c.phase == phaseFree {
		return
	}
	// First, so that what is pending in its rooms is not handed out in here.
	l.try(func() { l.detachAll(slot, c) })
	if l.try(func() { l.abortOpen(slot, c, ClosedBug) }) || c.phase == phaseFree {
		return
	}
	// Its state is broken. Everything that can be undone is, and the slot is never
	// used again.
	_ = unix.Close(int(c.fd))
	if c.has(flagSeated) { // it still counts
		l.stats.Open--
		l.stats.OpenBy[c.form.transport()]--
		l.g.open.Add(-1)
		l.stats.Closed[ClosedBug]++
		if c.phase == phaseOpen {
			l.report(edge.Event{Kind: edge.EvClosed, Conn: l.id(slot, c)})
		}
	}
	l.stats.QueuedBytes -= int64(c.qbytes)
	l.try(func() { l.dropCarry(slot, c) })
	l.try(func() { l.unschedule(c) })
	l.try(func() { l.forget(slot) })
	delete(l.slow, slot)
	delete(l.polls, slot)
	*c = conn{gen: c.gen, fd: -1}
	l.live--
}

// forget takes a connection out of all rooms whatever it says it is in.
func (l *loop) forget(slot uint32) {
	r := &l.rooms
	for p, page := range r.pages {
		for i := 0; page != nil && i < len(page); i++ {
			rm := &page[i]
			pos := slices.Index(rm.members, slot)
			if pos < 0 {
				continue
			}
			last := len(rm.members) - 1
			moved := rm.members[last]
			rm.members = rm.members[:last]
			if pos != last {
				rm.members[pos] = moved
				r.att(r.find(moved, l.conns.at(moved), edge.RoomNum(p<<roomPageBits+i))).pos = uint32(pos)
			}
		}
	}
}

// destroySafely is destroy for a loop that ends.
func (l *loop) destroySafely(slot uint32, why CloseReason) {
	defer l.rescue()
	l.at.slot = slot
	if c := l.conns.at(slot); c.phase != phaseFree {
		l.destroy(slot, c, why)
	}
	l.at.slot = 0
}

// mend makes good what the interrupted step has not come to.
func (l *loop) mend() {
	// Events that were being handed out are not handed out to the next room.
	for i := range l.rooms.pending {
		p := &l.rooms.pending[i]
		if rm := l.rooms.get(p.room); rm == nil || rm.pending != uint32(i+1) {
			clear(p.frames)
			p.frames, p.shed, p.bytes = p.frames[:0], p.shed[:0], 0
		}
	}
	// Who was to be looked at is looked at soon.
	for _, slot := range l.due {
		if c := l.conns.at(slot); c.phase != phaseFree && c.due == 0 {
			l.schedule(slot, c, l.tick+1)
		}
	}
	l.due = l.due[:0]
}
