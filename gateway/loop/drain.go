package loop

import (
	"time"

	"github.com/madang-chat/madang/protocol"
)

// startDrain stops accepting and begins to ask everyone to leave by a time. Who
// is in the backlog is taken in first and answered 503: closing a listener resets
// them.
func (l *loop) startDrain(over time.Duration) {
	if l.draining || l.stopping {
		return
	}
	l.draining = true
	l.stopAccepting()
	l.drainTicks = int64(ticksOf(over))
	l.drainUntil = l.tick + ticksOf(over)
	l.drainTotal = l.stats.Open
	l.drainCursor = 1
	// The shorter the drain, the more the delays must spread who comes back.
	l.retrySpreadMs = int(max(2000, 10_000-over.Milliseconds()))
}

func (l *loop) stopAccepting() {
	if l.listener < 0 {
		return
	}
	for range backlog {
		fd, err := sysAccept(l.listener)
		if err != 0 {
			break
		}
		l.accepted(fd)
	}
	l.closeListener()
}

// drainSome closes what is above the straight line from all to none: evenly over
// the time there is, whatever turns came late.
func (l *loop) drainSome() {
	open := int64(l.stats.Open)
	if left := int64(l.drainUntil) - int64(l.tick); left > 0 {
		mayStay := (l.drainTotal*left + l.drainTicks - 1) / l.drainTicks
		l.closeSome(int(max(0, open-mayStay)), ClosedDrain)
	} else {
		l.closeSome(int(open), ClosedDrain)
	}
	if l.live == 0 {
		l.drainDone()
	}
}

// closeSome asks n connections to leave, in the order of their slots.
func (l *loop) closeSome(n int, why CloseReason) {
	for looked := uint32(0); n > 0 && looked < l.conns.used; looked++ {
		if l.drainCursor == 0 || l.drainCursor >= l.conns.used {
			l.drainCursor = 1
		}
		slot := l.drainCursor
		l.drainCursor++
		if slot >= l.conns.used {
			return
		}
		switch c := l.conns.at(slot); c.phase {
		case phaseOpen:
			l.closeBye(slot, c, why)
			n--
		case phaseIdle: // between two polls: it asks elsewhere
			l.endIdle(slot, c, why)
			n--
		}
	}
}

func (l *loop) drainDone() {
	select {
	case <-l.drained:
	default:
		close(l.drained)
	}
}

// shed asks n connections to move elsewhere.
func (l *loop) shed(n int, reason protocol.ByeReason) {
	why := ClosedShed
	if reason == protocol.ByeRebalance {
		why = ClosedRebalance
	}
	l.closeSome(n, why)
}

// startStop closes everyone at once.
func (l *loop) startStop() {
	if l.stopping {
		return
	}
	l.stopping = true
	l.closeListener()
	for slot := uint32(1); slot < l.conns.used; slot++ {
		switch c := l.conns.at(slot); c.phase {
		case phaseProxy, phaseTLS, phaseHead, phaseTicket, phaseBody:
			l.stats.Upgrades[UpgradeUnavailable]++
			l.destroy(slot, c, ClosedHandshake)
		case phaseIdle:
			l.endIdle(slot, c, ClosedStop)
		case phaseOpen:
			l.beginClose(slot, c, ClosedStop, "going away")
		}
	}
}

// endIdle ends a connection between two polls, but not in the middle of its last answer:
// the hub takes for delivered what is in that.
func (l *loop) endIdle(slot uint32, c *conn, why CloseReason) {
	if !c.unwritten() {
		l.destroy(slot, c, why)
		return
	}
	l.unseat(c)
	c.why = why
	l.startClosing(slot, c)
}
