package loop

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/protocol"
)

// A connection ends in one of three ways. beginClose says good-bye: what is
// queued and a close frame are written, the peer's is awaited for a while, the socket
// is shut down for writing, and the peer's end is awaited, because closing a socket
// with unread bytes resets it and would take the last frames with it. (A socket that
// ends together with our close frame can't be answered, and some clients then take
// the connection for lost: over TLS aiohttp and Node's websocket tell 1006 of any
// code.) destroy just frees a connection whose peer is gone. abort resets one that is
// stuck.

// beginClose says good-bye with the reason's own code.
func (l *loop) beginClose(slot uint32, c *conn, why CloseReason, text string) {
	l.beginCloseCode(slot, c, why, why.code(), text)
}

func (l *loop) beginCloseCode(slot uint32, c *conn, why CloseReason, code protocol.CloseCode, text string) {
	if c.phase != phaseOpen {
		return
	}
	if c.form.transport() != edge.WebSocket {
		l.endHTTP(slot, c, why, byeOf(why, code))
		return
	}
	if code == protocol.CloseTokenExpired && why == ClosedByHub { // as for a key that was withdrawn
		l.settle(c)
		l.enqueueEvent(slot, c, func(dst []byte) []byte { return protocol.AppendBye(dst, protocol.ByeRevoked, 0) })
		text = string(protocol.ByeRevoked)
	}
	l.leave(slot, c, why)
	l.enqueueOwn(slot, c, wsframe.AppendClose(l.pool.Get(len(text)+4), code, text))
	l.startClosing(slot, c)
}

// closeBye sends the reason's `bye` first.
func (l *loop) closeBye(slot uint32, c *conn, why CloseReason) {
	if c.phase != phaseOpen {
		return
	}
	if c.form.transport() != edge.WebSocket {
		l.endHTTP(slot, c, why, why.bye())
		return
	}
	l.settle(c)
	retryInMs := l.retryInMs(why)
	l.enqueueEvent(slot, c, func(dst []byte) []byte { return protocol.AppendBye(dst, why.bye(), retryInMs) })
	l.beginClose(slot, c, why, string(why.bye()))
}

// endHTTP says good-bye to who has no close codes.
func (l *loop) endHTTP(slot uint32, c *conn, why CloseReason, reason protocol.ByeReason) {
	if c.form == collected {
		l.byePoll(slot, c, why, reason)
		return
	}
	l.endEvents(slot, c, why, reason)
}

// byeOf is the reason of a `bye` that stands for a close code.
func byeOf(why CloseReason, code protocol.CloseCode) protocol.ByeReason {
	switch reason := why.bye(); {
	case reason != "":
		return reason
	case code == protocol.CloseTokenExpired:
		return protocol.ByeRevoked
	}
	return protocol.ByeDrain
}

// closeSlow gives up on a reader. What it was to get is dropped, so that the
// good-bye has a chance to fit; it resumes from its positions.
func (l *loop) closeSlow(slot uint32, c *conn) {
	l.settle(c)
	l.dropQueue(c, true)
	l.closeBye(slot, c, ClosedSlow)
}

// retryInMs is when a client should come back: soon and spread when many are to at
// the same time, at once when the reason was its own.
func (l *loop) retryInMs(why CloseReason) int {
	switch why {
	case ClosedDrain, ClosedShed, ClosedRebalance, ClosedKeyWithdrawn:
		return 50 + rand.IntN(l.retrySpreadMs)
	case ClosedSlow:
		return 500 + rand.IntN(1000)
	}
	return 0
}

// startClosing: the last bytes are queued.
func (l *loop) startClosing(slot uint32, c *conn) {
	c.phase = phaseClosing
	c.deadline = l.tick + l.closeTicks
	l.stats.Closing++
	l.schedule(slot, c, c.deadline)
}

// leave takes an open connection out of everything: the hub hears no more of it
// after EvClosed, and it gets nothing more.
func (l *loop) leave(slot uint32, c *conn, why CloseReason) {
	l.stopReceiving(slot, c)
	l.unseat(c)
	l.stopCompressing(c)
	c.why = why
}

// stopReceiving is leave for a connection that keeps its place, for another poll.
func (l *loop) stopReceiving(slot uint32, c *conn) {
	l.settle(c)
	l.detachAll(slot, c)
	if c.has(flagSlow) {
		delete(l.slow, slot)
		c.clear(flagSlow)
	}
	closed := edge.Event{Kind: edge.EvClosed, Conn: l.id(slot, c)}
	if c.form == collected {
		if w := l.polls[slot]; w != nil {
			closed.Whispers = w.told
		}
		delete(l.polls, slot)
		c.clear(flagAnswer)
	}
	l.report(closed)
}

// finishClose: the good-bye is written.
func (l *loop) finishClose(slot uint32, c *conn) {
	if c.has(flagPeerClosed) {
		// It said good-bye first and sends no more: nothing can be reset. It is
		// freed at the end of the turn.
		l.doom(slot, c)
		return
	}
	c.phase = phaseLinger
	if c.owesClose() { // until it says it (threwAway), or has not for a while (lookAt)
		c.pingedAt = l.tick
		l.schedule(slot, c, l.nextLook(slot, c))
		return
	}
	_ = unix.Shutdown(int(c.fd), unix.SHUT_WR) // fails when the peer is gone, which its end will tell
}

// answerTicks is how long an answer to our close frame is waited for before the socket is
// shut down: a second. Who waits for that, and does not answer, is not to wait for longer.
const answerTicks = 1000 / tickMs

// closeAnswered goes on with a good-bye whose close frame was answered, or will not be.
func (l *loop) closeAnswered(slot uint32, c *conn) {
	c.set(flagAnswered)
	c.phase = phaseClosing // once more, to its end
	l.dirty(slot, c)
}

// abort resets a connection that is stuck in its good-bye.
func (l *loop) abort(slot uint32, c *conn) {
	if c.phase == phaseClosing { // unwritten bytes: a peer that does not read them would keep them in the kernel for minutes
		_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	l.destroy(slot, c, c.why)
}

// abortOpen resets a connection whose peer is dead, as far as one can tell, or not worth
// a word.
func (l *loop) abortOpen(slot uint32, c *conn, why CloseReason) {
	_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	l.destroy(slot, c, why)
}

// destroy frees a connection in whatever phase it is. Only here is a descriptor
// closed and a slot given back.
func (l *loop) destroy(slot uint32, c *conn, why CloseReason) {
	switch c.phase {
	case phaseFree:
		panic("BUG: a connection was freed twice")
	case phaseProxy, phaseTLS, phaseHead, phaseTicket, phaseBody:
		c.why = ClosedHandshake
		l.heads--
		l.headsChanged()
	case phaseIdle:
		c.why = why
	case phaseOpen:
		l.leave(slot, c, why)
	case phaseClosing, phaseLinger:
		l.stats.Closing--
	}
	l.unseat(c)
	l.stats.Closed[c.why]++
	l.dropQueue(c, false)
	l.dropCarry(slot, c)
	l.dropTLS(slot, c)
	l.releaseAddr(c)
	l.unschedule(c)
	_ = unix.Close(int(c.fd)) // the poller forgets it with that
	l.conns.give(slot)
	l.live--
}
