package loop

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/gobwas/ws"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// upgrader builds the 101. It runs over memory: the head is complete and checked
// when it gets it, because the library itself bounds neither bytes nor time and
// accepts what is not quite HTTP.
var upgrader = ws.Upgrader{
	Protocol: func(offered []byte) bool { return string(offered) == protocol.Subprotocol },
}

// headReader feeds the upgrader exactly one head, so that it can't swallow the
// frames behind it, and takes its answer.
type headReader struct {
	head []byte
	out  []byte
}

func (h *headReader) Read(p []byte) (int, error) {
	if len(h.head) == 0 {
		return 0, io.EOF
	}
	n := copy(p, h.head)
	h.head = h.head[n:]
	return n, nil
}

func (h *headReader) Write(p []byte) (int, error) {
	h.out = append(h.out, p...)
	return len(p), nil
}

var headEnd = []byte("\r\n\r\n")

// receivedHead takes bytes of a request. Usually it is complete at once and read
// where it is; only a piece of one is kept.
func (l *loop) receivedHead(slot uint32, c *conn, p []byte) {
	had := 0
	head := p
	if c.has(flagCarry) {
		k := l.carries[slot]
		had = len(k.head)
		// What is beyond the limit is not kept: it is refused.
		k.head = l.pool.Append(k.head, p[:min(len(p), l.g.opts.MaxHeadBytes+len(headEnd)-had)])
		head = k.head
	}
	// The end may straddle what was there and what has come.
	from := max(0, had-len(headEnd)+1)
	end := bytes.Index(head[from:], headEnd)
	if end < 0 {
		switch {
		case len(head) > l.g.opts.MaxHeadBytes:
			l.refuse(slot, c, errHeadTooLarge)
		case bareLineEnd(head):
			l.refuse(slot, c, errLineEnd)
		case had == 0:
			k := l.carry(slot, c)
			k.head = l.pool.Append(nil, p)
		}
		return
	}
	end += from + len(headEnd)
	if end > l.g.opts.MaxHeadBytes {
		l.refuse(slot, c, errHeadTooLarge)
		return
	}
	l.begin(slot, c, head[:end])
	rest := p[end-had:]
	switch c.phase {
	case phaseTicket, phaseBody: // it has the head; it may already have what is behind
		l.carries[slot].head = l.carries[slot].head[:end]
		l.received(slot, c, rest)
	case phaseOpen:
		l.dropCarry(slot, c)
		if len(rest) > 0 {
			l.received(slot, c, rest)
		}
	}
}

// bareLineEnd says whether a head that has no end yet has an LF without CR: it
// would be waited for in vain.
func bareLineEnd(head []byte) bool {
	for i := bytes.IndexByte(head, '\n'); i >= 0; {
		if i == 0 || head[i-1] != '\r' {
			return true
		}
		next := bytes.IndexByte(head[i+1:], '\n')
		if next < 0 {
			return false
		}
		i += 1 + next
	}
	return false
}

// begin does what a complete head asks for, or says why not.
func (l *loop) begin(slot uint32, c *conn, head []byte) {
	req, bad := parseRequest(head, l.g.opts.Session.Echo)
	switch {
	case bad == nil:
		bad = l.judge(slot, c, head, &req)
	case bad == errRequestLine && looksProxied(head):
		bad = errProxyRefused
	}
	if bad != nil {
		l.refuseTo(slot, c, bad, l.g.readableBy(&req), req.method == methodHEAD)
	}
}

// judge decides on a request, up to whom it comes from.
func (l *loop) judge(slot uint32, c *conn, head []byte, req *request) *refusal {
	if !originAllowed(req, l.g.opts.Origins) {
		return errOrigin
	}
	if req.method == methodOPTIONS {
		l.preflight(slot, c, req)
		return nil
	}
	// Before the token: what can't be taken should not cost a signature. Who polls has
	// its place, and a poll that is refused would cost a connection more.
	if l.draining || l.stopping || l.g.refusing.Load() && !c.has(flagSeated) {
		return l.full()
	}
	switch {
	case req.length > int64(l.g.opts.MaxBodyBytes):
		return errBodyTooLarge
	case req.tokens > 1 || req.tokens == 1 && req.ticket != nil:
		return errAuthorization
	case req.ticket != nil:
		return l.askTicket(slot, c, head, req)
	case req.tokens == 1 && req.token == nil:
		return errNoBearer
	case req.token == nil && !l.g.opts.Session.Echo:
		return errNoToken
	}
	claims, bad := l.verify(req.token)
	if bad != nil {
		return bad
	}
	return l.admitted(slot, c, head, req, claims)
}

// admitted goes on with a request of somebody who is known.
func (l *loop) admitted(slot uint32, c *conn, head []byte, req *request, claims auth.Claims) *refusal {
	if c.has(flagSeated) && req.route != routePoll { // it polled, and does something else now
		l.unseat(c)
		c.form = plain
	}
	switch {
	case req.route == routeWS:
		return l.openWS(slot, c, head, req, claims)
	case req.hasBody():
		l.awaitBody(slot, c, head, req, claims)
		return nil
	}
	return l.openEvents(slot, c, req, claims, nil)
}

// openWS answers 101, or says why not.
func (l *loop) openWS(slot uint32, c *conn, head []byte, req *request, claims auth.Claims) *refusal {
	if l.g.open.Add(1) > int64(l.g.opts.MaxConns) {
		l.g.open.Add(-1)
		return l.full()
	}
	l.http = headReader{head: req.forUpgrader(head), out: l.http.out[:0]}
	if _, err := upgrader.Upgrade(&l.http); err != nil {
		l.g.open.Add(-1)
		return badRequest(err.Error())
	}
	if l.g.opts.Compress && req.compression.Agreed() {
		c.form, c.windowBits = compressed, req.compression.WindowBits
		l.stats.Compressed++
		l.http.out = appendExtensions(l.http.out, req.compression)
	}
	// It goes out with hello, which is a moment away and which the client waits for
	// anyway: one write, and one client that is woken once. If hello takes longer,
	// it goes out alone (lookAtOpen).
	l.append(c, l.out.newItem(append(l.pool.Get(len(l.http.out)), l.http.out...), true, 0))
	if l.g.opts.Session.Echo {
		l.dirty(slot, c)
	}

	user, ok := l.g.users.acquire(claims.User)
	if !ok {
		l.heads--
		l.headsChanged()
		l.g.open.Add(-1)
		l.stopCompressing(c)
		l.stats.Upgrades[UpgradeTooMany]++
		c.why = ClosedTooMany
		l.enqueueOwn(slot, c, wsframe.AppendClose(l.pool.Get(64), ClosedTooMany.code(), "too many connections of this user"))
		l.startClosing(slot, c)
		return nil
	}
	c.user = user
	l.seated(c)
	c.session.Open(req.resume)
	l.opened(slot, c, claims, edge.Event{Resume: req.resume})
	return nil
}

// sit counts a connection that is not a WebSocket among those there are, and
// among its user's. One that polled before has its place, if it is the same user's.
func (l *loop) sit(c *conn, claims *auth.Claims) *refusal {
	if c.has(flagSeated) {
		if l.g.users.is(c.user, claims.User) {
			return nil
		}
		l.unseat(c) // a proxy's connection, which serves several
	}
	if l.g.open.Add(1) > int64(l.g.opts.MaxConns) {
		l.g.open.Add(-1)
		return l.full()
	}
	user, ok := l.g.users.acquire(claims.User)
	if !ok {
		l.g.open.Add(-1)
		return errTooManyUser
	}
	c.user = user
	c.session.Open(false)
	return nil
}

var errTooManyUser = &refusal{
	status: 429, outcome: UpgradeTooMany, code: protocol.ErrRateLimited,
	detail: "too many connections of this user", header: "Retry-After: 30\r\n",
}

// seated: c.user and Group.open count the connection.
func (l *loop) seated(c *conn) {
	c.set(flagSeated)
	l.stats.Open++
	l.stats.OpenBy[c.form.transport()]++
}

// unseat undoes it.
func (l *loop) unseat(c *conn) {
	if !c.has(flagSeated) {
		return
	}
	c.clear(flagSeated)
	l.g.users.release(c.user)
	l.g.open.Add(-1)
	l.stats.Open--
	l.stats.OpenBy[c.form.transport()]--
}

// opened: from here on it receives. ev tells the hub how it begins.
func (l *loop) opened(slot uint32, c *conn, claims auth.Claims, ev edge.Event) {
	if c.has(flagReused) { // what is still said to its last poll is not for it
		c.clear(flagReused)
		if c.gen++; c.gen == 0 {
			c.gen = 1
		}
		l.watch(slot, c)
	}
	l.heads--
	l.headsChanged()
	if c.form != collected {
		l.stats.Upgrades[UpgradeOK]++
		if l.g.opts.OnUpgraded != nil {
			l.g.opts.OnUpgraded(time.Duration(int32(l.tick+l.headTicks-c.deadline)) * tickMs * time.Millisecond)
		}
		c.deadline = 0
	}
	c.phase, c.expires, c.key = phaseOpen, claims.Expires, claims.Key.Short()
	if c.session.AwaitsPositions() {
		c.deadline = l.tick + startTicks + l.resumeTicks // less when hello comes (greeted)
	}
	l.schedule(slot, c, l.nextLook(slot, c))
	ev.Kind, ev.Via, ev.Conn = edge.EvOpened, c.form.transport(), l.id(slot, c)
	ev.User, ev.IssuedAt = claims.User, claims.IssuedAt
	l.report(ev)
}

// greeted: the client learns that its positions are waited for.
func (l *loop) greeted(slot uint32, c *conn) {
	c.deadline = l.tick + l.resumeTicks
	l.schedule(slot, c, c.deadline)
}

// verify checks a token that a connection or a renewal came with.
func (l *loop) verify(token []byte) (auth.Claims, *refusal) {
	claims, err := l.g.opts.Verifier.Verify(string(token))
	switch {
	case errors.Is(err, auth.ErrExpired):
		return claims, errOldToken
	case errors.Is(err, auth.ErrInvalid): // with the reason, which may be shown
		bad := *errBadToken
		bad.detail = err.Error()
		return claims, &bad
	case err != nil:
		return claims, errBadToken
	case claims.Server:
		return claims, errServerKey
	case claims.Expires != 0 && claims.Expires <= l.unix:
		return claims, errOldToken
	case !protocol.ValidUser(claims.User):
		return claims, errBadToken
	}
	return claims, nil
}

// full is errFull with a spread time to come back; at once when it drains, because
// the balancer has others.
func (l *loop) full() *refusal {
	if l.draining {
		return errDraining
	}
	return spread(errFull)
}

// refuse answers a request that is not served and ends the connection.
func (l *loop) refuse(slot uint32, c *conn, r *refusal) {
	var origin []byte
	if c.has(flagCarry) {
		if k := l.carries[slot]; k.end > 0 {
			req, _ := parseRequest(k.head[:k.end], l.g.opts.Session.Echo)
			origin = l.g.readableBy(&req)
		}
	}
	l.refuseTo(slot, c, r, origin, false)
}

// refuseTo is refuse for a page of an origin, nil for none, that may read why.
// headOnly: the answer's head is all that was asked for.
func (l *loop) refuseTo(slot uint32, c *conn, r *refusal, origin []byte, headOnly bool) {
	if r != errDraining || !c.has(flagSeated) { // who has been in for polls is not turned away, but asked to move
		l.stats.Upgrades[r.outcome]++
	}
	l.logRefusal(l.addrOf(c), r)
	answer := appendRefusal(l.pool.Get(768+len(origin)), r, origin)
	if headOnly { // what is behind it would be the next answer to a proxy (RFC 9110 §9.3.2)
		answer = answer[:bytes.Index(answer, headEnd)+len(headEnd)]
	}
	l.endRequest(slot, c, answer)
}

// preflight answers what a browser asks before a page's request.
func (l *loop) preflight(slot uint32, c *conn, req *request) {
	l.stats.Upgrades[UpgradePreflight]++
	l.endRequest(slot, c, appendPreflight(l.pool.Get(512+len(req.origin)), req, l.g.readableBy(req)))
}

// endRequest writes the last answer on a connection that does not open.
func (l *loop) endRequest(slot uint32, c *conn, answer []byte) {
	l.heads--
	l.headsChanged()
	l.dropCarry(slot, c)
	c.why = ClosedHandshake
	l.enqueueOwn(slot, c, answer)
	l.startClosing(slot, c)
}
