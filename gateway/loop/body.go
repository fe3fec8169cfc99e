package loop

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// A request's body is collected behind its head, in the connection's carry. It is
// asked for only when it is known whom it comes from, its length is told before it
// (Options.MaxBodyBytes is the most), and what a loop holds of bodies that are not
// complete has a bound, so that nobody fills the memory with halves. What was only
// announced does not count: it costs nothing, and a few who announce much would keep
// everybody out. Nor does what comes whole at once, as most do.

// maxBodies bounds what a loop holds of bodies that are not complete.
const maxBodies = 64 << 20

var (
	errBodyLate = &refusal{status: 408, outcome: UpgradeTimeout, code: protocol.ErrMalformed, detail: "the body did not come in time"}
	errBodies   = &refusal{status: 503, outcome: UpgradeUnavailable, code: protocol.ErrUnavailable, detail: "too many requests at once"}
)

const continueAnswer = "HTTP/1.1 100 Continue\r\n\r\n"

// expectBody: from here on the connection has a carry, with its request's head in it.
func (l *loop) expectBody(slot uint32, c *conn, head []byte, req *request) {
	if !c.has(flagCarry) {
		k := l.carry(slot, c)
		k.head = l.pool.Append(nil, head)
	}
	k := l.carries[slot]
	k.end, k.body = len(head), int(req.length)
}

// holdBody says whether n bytes more of a body that is not complete may be held.
func (l *loop) holdBody(k *carry, n int) bool {
	if l.bodies+int64(n) > maxBodies {
		return false
	}
	l.bodies += int64(n)
	k.held += n
	return true
}

// awaitBody waits for the body of somebody who is known.
func (l *loop) awaitBody(slot uint32, c *conn, head []byte, req *request, claims auth.Claims) {
	if c.phase != phaseTicket { // else it is expected already
		l.expectBody(slot, c, head, req)
	}
	k := l.carries[slot]
	k.claims = claims
	k.mustAsk = req.expects
	c.phase = phaseBody
	c.deadline = l.tick + l.headTicks
	l.schedule(slot, c, c.deadline)
}

// receivedBody takes bytes of a body, and of what may be behind it.
func (l *loop) receivedBody(slot uint32, c *conn, p []byte) {
	k := l.carries[slot]
	whole := k.end + k.body
	if len(k.head)+len(p) > whole+l.g.opts.MaxHeadBytes {
		l.refuse(slot, c, errHeadTooLarge) // a request that does not wait for its answer, and a long one
		return
	}
	k.head = l.pool.Append(k.head, p)
	if len(k.head) < whole {
		if !l.holdBody(k, len(p)) {
			l.refuse(slot, c, spread(errBodies))
			return
		}
		if k.mustAsk && len(k.head) == k.end {
			l.enqueueOwn(slot, c, append(l.pool.Get(len(continueAnswer)), continueAnswer...))
		}
		k.mustAsk = false
		return
	}
	// Once more: what it refers to is where the head is now.
	req, bad := parseRequest(k.head[:k.end], false)
	if bad == nil {
		bad = l.bodyCame(slot, c, &req, k)
	}
	if bad != nil {
		l.refuseTo(slot, c, bad, l.g.readableBy(&req), false)
		return
	}
	if c.form == collected {
		l.keepAhead(slot, c, k, whole)
		return
	}
	l.dropCarry(slot, c) // whatever is behind it means nothing
}

// bodyCame opens what a whole request asks for.
func (l *loop) bodyCame(slot uint32, c *conn, req *request, k *carry) *refusal {
	ask, bad := session.ParseAsk(k.head[k.end:k.end+k.body], req.route == routePoll)
	if bad != nil {
		return &refusal{status: 400, outcome: UpgradeBadRequest, code: bad.Code, detail: bad.Detail}
	}
	if req.route == routePoll {
		return l.openPoll(slot, c, req, k.claims, ask)
	}
	return l.openEvents(slot, c, req, k.claims, ask.Positions)
}

// positions are told to the hub right behind the opening.
func (l *loop) positions(slot uint32, c *conn, at map[string]protocol.ID) {
	l.report(edge.Event{Kind: edge.EvPositions, Conn: l.id(slot, c), Positions: at})
}
