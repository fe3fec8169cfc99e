package loop

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/protocol"
)

// slowReader is kept for a connection whose socket does not take what it should
// get. Room events are left out for it rather than queued, and the hub catches
// it up from the log once it has swallowed what it had.
type slowReader struct {
	behind bool   // its queue passed the bound and has not been empty since
	lost   bool   // it lacks what no log has: it gets nothing more and goes
	since  uint32 // tick it fell behind at
	// leftOut are the rooms of which something was left out since it fell behind,
	// with the ID before the first such event.
	leftOut map[edge.RoomNum]protocol.ID
	// told are rooms that the hub has been told of: left out until it attaches
	// the connection again.
	told map[edge.RoomNum]struct{}
}

func (s *slowReader) tooLong(tick, slowTicks uint32) bool {
	return s.lost || s.behind && tick >= s.since+slowTicks
}

func (s *slowReader) isOut(num edge.RoomNum) bool {
	if _, out := s.told[num]; out {
		return true
	}
	_, out := s.leftOut[num]
	return out
}

// owes says whether something that was left out has not been caught up.
func (s *slowReader) owes() bool { return len(s.leftOut)+len(s.told) > 0 }

// deliverBehind is deliverAll's way for a connection that is not simply fine: its
// socket is full, its queue is long, or something was left out before.
func (l *loop) deliverBehind(slot uint32, c *conn, num edge.RoomNum, s *frameSet) {
	sr := l.slow[slot]
	if sr != nil && sr.lost {
		return
	}
	i, events := l.wholeItem(s, c), s.events
	if c.has(flagArmed) && s.hasShed { // behind: nothing ephemeral is worth the wait
		i, events = l.durableItem(s, c), s.lasting
		if i == itemNone {
			l.stats.Shed += uint64(s.events)
			return
		}
	}
	if sr == nil || !sr.behind && !sr.isOut(num) {
		size := uint32(len(l.out.items[i].buf))
		if c.qbytes+size > l.queueBytes && !c.has(flagArmed) {
			l.flushConn(slot, c) // perhaps nobody has tried to write it yet
		}
		if c.qbytes+size <= l.queueBytes || c.qbytes == 0 {
			l.enqueue(slot, c, i)
			l.stats.Deliveries += uint64(events)
			l.stats.Shed += uint64(s.events - events)
			return
		}
		sr = l.fallBehind(slot, c)
	}
	l.leaveOut(slot, c, num, s, sr)
}

// fallBehind begins an episode of leaving out.
func (l *loop) fallBehind(slot uint32, c *conn) *slowReader {
	sr := l.slow[slot]
	if sr == nil {
		sr = &slowReader{}
		l.slow[slot] = sr
		c.set(flagSlow)
	}
	sr.behind, sr.since = true, l.tick
	l.stats.SlowReaders++
	l.schedule(slot, c, l.tick+l.slowTicks)
	return sr
}

// leaveOut remembers what a slow reader does not get. Events that are not in the
// log can't be caught up: they are queued as long as twice the bound allows.
func (l *loop) leaveOut(slot uint32, c *conn, num edge.RoomNum, s *frameSet, sr *slowReader) {
	if s.first != nil && !sr.isOut(num) {
		if sr.leftOut == nil {
			sr.leftOut = make(map[edge.RoomNum]protocol.ID)
		}
		sr.leftOut[num] = s.first.Prev
		c.stillOwed()
	}
	for i, f := range s.frames {
		switch {
		case s.shed[i]:
			l.stats.Shed++
		case !f.ID.IsZero():
			l.stats.LeftOut++
		default:
			if c.qbytes+uint32(len(f.WS())) > 2*l.queueBytes {
				sr.lost = true
				l.schedule(slot, c, l.tick)
				return
			}
			l.unicastFrame(slot, c, f)
		}
	}
}

// caughtBreath: a slow reader's queue is empty. The hub is told from where to
// catch it up.
func (l *loop) caughtBreath(slot uint32, c *conn) {
	sr := l.slow[slot]
	if !sr.behind {
		return
	}
	sr.behind = false
	// Who takes times waits to be told when nothing is owed any more, even if the hub
	// has detached it from all that was left out.
	if len(sr.leftOut) > 0 || c.form == eventsStill {
		l.report(edge.Event{Kind: edge.EvLagged, Conn: l.id(slot, c), Lag: sr.leftOut})
		if sr.told == nil {
			sr.told = make(map[edge.RoomNum]struct{}, len(sr.leftOut))
		}
		for num := range sr.leftOut {
			sr.told[num] = struct{}{}
		}
		sr.leftOut = nil // it belongs to the hub now
	}
	l.endSlow(slot, c, sr)
}

// endSlow forgets a slow reader that is none any more.
func (l *loop) endSlow(slot uint32, c *conn, sr *slowReader) {
	if !sr.behind && !sr.owes() && !sr.lost {
		delete(l.slow, slot)
		c.clear(flagSlow)
	}
}

// noLongerLeftOut: the hub has attached, or detached, the connection.
func (l *loop) noLongerLeftOut(slot uint32, c *conn, num edge.RoomNum) {
	if !c.has(flagSlow) {
		return
	}
	sr := l.slow[slot]
	delete(sr.told, num)
	delete(sr.leftOut, num)
	l.endSlow(slot, c, sr)
}

// forgetLeftOut: the room's number will mean another room.
func (l *loop) forgetLeftOut(num edge.RoomNum) {
	for slot, sr := range l.slow {
		delete(sr.told, num)
		delete(sr.leftOut, num)
		l.endSlow(slot, l.conns.at(slot), sr)
	}
}

// unicast queues a frame for one connection. It may take a queue to twice the
// bound, because the hub can't leave it out; beyond that the connection goes.
func (l *loop) unicast(cmd *edge.Cmd) {
	slot, c := l.connOf(cmd.Conn)
	if c == nil {
		return
	}
	l.settle(c)
	if c.form == collected {
		if cmd.Shed {
			l.collectWhisper(slot, c, cmd.Frame)
		} else {
			l.collect(slot, c, cmd.Frame)
		}
		return
	}
	if c.has(flagSlow) && l.slow[slot].lost {
		l.closeSlow(slot, c)
		return
	}
	if cmd.Shed && (c.has(flagArmed) || c.has(flagSlow) && l.slow[slot].behind) {
		l.stats.Shed++
		return
	}
	size := uint32(len(cmd.Frame.WS()))
	if c.qbytes+size > 2*l.queueBytes && c.qbytes > 0 {
		if !c.has(flagArmed) {
			l.flushConn(slot, c)
		}
		if c.qbytes+size > 2*l.queueBytes && c.qbytes > 0 {
			l.closeSlow(slot, c)
			return
		}
	}
	l.unicastFrame(slot, c, cmd.Frame)
	if c.session.AwaitsPositions() && protocol.TypeOf(cmd.Frame.JSON()) == "hello" {
		l.greeted(slot, c)
	}
}

// unicastFrame queues a frame; the same frame for several connections in a row
// is one item.
func (l *loop) unicastFrame(slot uint32, c *conn, f *edge.Frame) {
	o := &l.out
	if c.form >= events {
		if c.form == collected {
			l.collect(slot, c, f)
			return
		}
		l.movesOn(slot, c, f)
	}
	if o.lastOne != f {
		o.lastOne, o.lastItem = f, [forms]uint32{}
	}
	form := formFor(c, len(f.JSON()))
	if o.lastItem[form] == itemNone {
		if form >= events {
			buf := appendEvent(l.pool.Get(len(f.JSON())+eventOverhead), f, form == events)
			o.lastItem[form] = o.newItem(buf, true, f.SentAtMs)
		} else {
			o.lastItem[form] = o.newItem(l.bytesOf(f, form), false, f.SentAtMs)
		}
	}
	l.enqueue(slot, c, o.lastItem[form])
	l.stats.Deliveries++
}
