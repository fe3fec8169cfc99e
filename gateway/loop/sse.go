package loop

import (
	"strconv"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// Server-sent events: a response that does not end, until the connection does. An
// event's bytes are the same for everybody who takes events like this, but for one
// thing: `id`, the time that a browser comes back with, may be told only to who has
// everything that is older.

// eventsHead also tells proxies to pass events on as they come: some hold back what they
// compress until there is more of it, or even the head. No-transform keeps them from that;
// nginx reads X-Accel-Buffering.
const eventsHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n" +
	"X-Accel-Buffering: no\r\nConnection: close\r\n"

// openEvents begins the response. at are the client's positions, nil when it sent
// none.
func (l *loop) openEvents(slot uint32, c *conn, req *request, claims auth.Claims, at map[string]protocol.ID) *refusal {
	if bad := l.sit(c, &claims); bad != nil {
		return bad
	}
	c.form = events
	if at != nil || req.since != 0 {
		c.form = eventsStill
	}
	l.seated(c)
	origin := l.g.readableBy(req)
	head := append(l.pool.Get(len(eventsHead)+len(origin)+64), eventsHead...)
	head = append(appendCORS(head, origin), "\r\n"...)
	if at == nil && req.since != 0 { // with hello: what it has is true until it has more
		head = appendTime(head, req.since)
	}
	l.append(c, l.out.newItem(head, true, 0)) // with hello, as a WebSocket's answer
	// Nothing is heard of a client that only reads: that it takes no heartbeat the
	// kernel finds out.
	setUserTimeout(int(c.fd), l.g.opts.Heartbeat+l.g.opts.Grace)
	ev := edge.Event{Resume: at != nil}
	if at == nil {
		ev.Since = req.since
	}
	l.opened(slot, c, claims, ev)
	if at != nil {
		l.positions(slot, c, at)
	}
	return nil
}

// appendEvent appends an event as SSE; timed: with the time that it says.
func appendEvent(dst []byte, f *edge.Frame, timed bool) []byte {
	if timed && f.Time != 0 {
		dst = appendTime(dst, f.Time)
	}
	dst = append(dst, "data: "...)
	dst = append(dst, f.JSON()...)
	return append(dst, '\n', '\n')
}

func appendTime(dst []byte, ms uint64) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendUint(dst, ms, 10)
	return append(dst, '\n')
}

// eventOverhead is what appendEvent adds to an event, at the most.
const eventOverhead = len("id: \ndata: \n\n") + 20

// stillOwed: something older than what comes next is still to come. Until `resumed`
// says that it has, events tell no time.
func (c *conn) stillOwed() {
	if c.form == events {
		c.form = eventsStill
	}
}

// movesOn looks at an event for one connection that takes events: one from the log
// means that it catches up, and `resumed` that it has, unless something was left out
// since: another one will come for that.
func (l *loop) movesOn(slot uint32, c *conn, f *edge.Frame) {
	switch {
	case !f.ID.IsZero():
		c.stillOwed()
	case c.form == eventsStill && protocol.IsResumed(f.JSON()) && !(c.has(flagSlow) && l.slow[slot].owes()):
		c.form = events
	}
}

// ignore takes what a client says that has nothing to say. A little of it may be
// somebody's idea of keeping a connection open.
func (l *loop) ignore(slot uint32, c *conn) {
	if !c.session.Allow(l.nowMs, &l.g.opts.Session) {
		l.abortOpen(slot, c, ClosedRateLimit)
	}
}

// endEvents says good-bye with a `bye`, and when to come back, which a browser's
// EventSource does by itself.
func (l *loop) endEvents(slot uint32, c *conn, why CloseReason, reason protocol.ByeReason) {
	l.settle(c)
	retryInMs := l.retryInMs(why)
	buf := append(l.pool.Get(256), "retry: "...)
	buf = strconv.AppendInt(buf, int64(retryInMs), 10)
	buf = append(buf, "\ndata: "...)
	buf = protocol.AppendBye(buf, reason, retryInMs)
	l.enqueueOwn(slot, c, append(buf, '\n', '\n'))
	l.leave(slot, c, why)
	l.startClosing(slot, c)
}
