package loop

import "time"

const (
	// tickMs is the wheel's grain. What it times are seconds.
	tickMs = 50
	// wheelSlots × tickMs is how far ahead the wheel looks before it comes
	// around (51 s); what is due later just stays for another round.
	wheelSlots = 1024
)

// wheel is a hashed timing wheel over a loop's connections: each is in one list,
// that of the tick at which it has to be looked at next. Activity does not move
// it; it is looked at when its old time comes and moved on then. A busy
// connection costs nothing, an idle one a few operations per heartbeat.
type wheel struct {
	heads [wheelSlots]uint32
	count int    // connections in it
	done  uint32 // the last tick that was handled
}

// ticksOf rounds up, so that nothing is cut short.
func ticksOf(d time.Duration) uint32 {
	return uint32((d.Milliseconds() + tickMs - 1) / tickMs)
}

// schedule makes sure that the connection is looked at no later than at due.
func (l *loop) schedule(slot uint32, c *conn, due uint32) {
	due = max(due, l.wheel.done+1)
	if c.due != 0 {
		if c.due <= due {
			return
		}
		l.unschedule(c)
	}
	head := &l.wheel.heads[due%wheelSlots]
	c.due, c.wprev, c.wnext = due, 0, *head
	if *head != 0 {
		l.conns.at(*head).wprev = slot
	}
	*head = slot
	l.wheel.count++
}

func (l *loop) unschedule(c *conn) {
	if c.due == 0 {
		return
	}
	if c.wprev != 0 {
		l.conns.at(c.wprev).wnext = c.wnext
	} else {
		l.wheel.heads[c.due%wheelSlots] = c.wnext
	}
	if c.wnext != 0 {
		l.conns.at(c.wnext).wprev = c.wprev
	}
	c.due, c.wprev, c.wnext = 0, 0, 0
	l.wheel.count--
}

// advance looks at every connection that is due by now.
func (l *loop) advance() {
	w := &l.wheel
	if w.done >= l.tick {
		return
	}
	from := w.done + 1
	if l.tick-w.done > wheelSlots { // slept for more than a round
		from = l.tick - wheelSlots + 1
	}
	for t := from; t <= l.tick; t++ {
		// The list is emptied first: looking at a connection may schedule it again,
		// or free it.
		l.due = l.due[:0]
		for slot := w.heads[t%wheelSlots]; slot != 0; slot = l.conns.at(slot).wnext {
			if l.conns.at(slot).due <= l.tick {
				l.due = append(l.due, slot)
			}
		}
		for _, slot := range l.due {
			l.unschedule(l.conns.at(slot))
		}
		w.done = t
		for _, slot := range l.due {
			if c := l.conns.at(slot); c.phase != phaseFree && c.due == 0 {
				l.at.slot = slot
				l.lookAt(slot, c)
			}
		}
	}
	l.at.slot = 0
}

// untilDue is how long, in milliseconds, the loop may sleep.
func (l *loop) untilDue() int {
	w := &l.wheel
	if w.count == 0 {
		return -1
	}
	elapsed := time.Since(l.start).Milliseconds()
	for ahead := uint32(1); ahead <= wheelSlots; ahead++ {
		if w.heads[(w.done+ahead)%wheelSlots] != 0 {
			return int(max(0, int64(w.done+ahead)*tickMs-elapsed))
		}
	}
	return -1
}

// lookAt does what time asks of a connection, and schedules the next look.
func (l *loop) lookAt(slot uint32, c *conn) {
	switch c.phase {
	case phaseTicket:
		if l.tick >= c.deadline {
			l.refuse(slot, c, spread(errTicketLate))
		}
	case phaseBody:
		if l.tick >= c.deadline {
			l.refuse(slot, c, errBodyLate)
		}
	case phaseIdle:
		if l.tick >= c.deadline && !l.takesAnswer(c) {
			l.destroy(slot, c, ClosedIdle)
			return
		}
	case phaseProxy, phaseTLS, phaseHead:
		if l.tick >= c.deadline {
			l.stats.Upgrades[UpgradeTimeout]++
			l.destroy(slot, c, ClosedHandshake)
			return
		}
	case phaseClosing, phaseLinger:
		if l.tick >= c.deadline && !l.takesAnswer(c) {
			l.abort(slot, c)
			return
		}
		if c.phase == phaseLinger && c.owesClose() && l.tick >= c.pingedAt+answerTicks {
			l.closeAnswered(slot, c)
		}
	case phaseOpen:
		l.lookAtOpen(slot, c)
		if !c.phase.listens() {
			return
		}
	}
	l.schedule(slot, c, l.nextLook(slot, c))
}

func (l *loop) lookAtOpen(slot uint32, c *conn) {
	switch {
	case c.expires != 0 && l.unix >= c.expires:
		l.closeBye(slot, c, ClosedTokenExpired)
		return
	case c.session.AwaitsPositions() && l.tick >= c.deadline:
		l.beginClose(slot, c, ClosedResumeTimeout, "no positions came")
		return
	case c.has(flagCarry) && c.form < events && l.tick >= l.carries[slot].since+l.messageTicks:
		l.beginClose(slot, c, ClosedMessageTimeout, "the message was never completed")
		return
	case c.has(flagSlow) && l.slow[slot].tooLong(l.tick, l.slowTicks):
		l.closeSlow(slot, c)
		return
	}
	if c.waits() {
		l.dirty(slot, c)
	}
	switch c.form {
	case collected:
		if l.tick >= c.deadline {
			l.pollDue(slot, c)
		}
		return
	case events, eventsStill:
		if l.tick >= c.lastRead+l.heartbeatOf(slot) {
			c.lastRead = l.tick
			if !c.has(flagArmed) { // else it has enough to read
				l.stats.Pings++
				l.enqueue(slot, c, itemComment)
			}
		}
		return
	}
	if c.has(flagPinged) {
		if l.tick >= c.pingedAt+l.graceTicks {
			l.abortOpen(slot, c, ClosedHeartbeat)
		}
		return
	}
	if l.tick >= c.lastRead+l.heartbeatOf(slot) {
		c.set(flagPinged | flagPongOwed)
		c.pingedAt = l.tick
		l.stats.Pings++
		l.enqueue(slot, c, itemPing)
	}
}

// nextLook is the earliest tick at which time may ask something of it.
func (l *loop) nextLook(slot uint32, c *conn) uint32 {
	switch {
	case c.phase == phaseLinger && c.owesClose():
		return min(c.deadline, c.pingedAt+answerTicks)
	case c.phase != phaseOpen:
		return c.deadline
	}
	next := c.lastRead + l.heartbeatOf(slot)
	switch {
	case c.form == collected:
		next = c.deadline
	case c.has(flagPinged):
		next = c.pingedAt + l.graceTicks
	}
	if c.waits() {
		next = min(next, l.tick+1)
	}
	if c.expires != 0 {
		// Recomputed at every look, so that a step of the wall clock is noticed.
		left := min(max(0, c.expires-l.unix), 3600)
		next = min(next, l.tick+uint32(left)*(1000/tickMs))
	}
	if c.session.AwaitsPositions() {
		next = min(next, c.deadline)
	}
	if c.has(flagCarry) && c.form < events {
		next = min(next, l.carries[slot].since+l.messageTicks)
	}
	if c.has(flagSlow) {
		if s := l.slow[slot]; s.behind {
			next = min(next, s.since+l.slowTicks)
		}
	}
	return next
}

// heartbeatOf spreads the heartbeat over 80 to 100 % of its time, so that
// connections that were opened together are not pinged together.
func (l *loop) heartbeatOf(slot uint32) uint32 {
	spread := l.heartbeatTicks / 5
	if spread == 0 {
		return l.heartbeatTicks
	}
	return l.heartbeatTicks - (slot*2654435761>>8)%(spread+1)
}
