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
	bad := l.upgrade(slot, c, head[:end])
	rest := p[end-had:]
	switch {
	case bad != nil:
		l.refuse(slot, c, bad)
	case c.phase == phaseTicket: // it has the head; it may already have what is behind
		l.carries[slot].head = l.carries[slot].head[:end]
		l.receivedEarly(slot, c, rest)
	default:
		l.dropCarry(slot, c)
		if len(rest) > 0 && c.phase == phaseOpen {
			l.receivedFrames(slot, c, rest)
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

// upgrade turns a connection with a complete head into a WebSocket, or says why
// not.
func (l *loop) upgrade(slot uint32, c *conn, head []byte) *refusal {
	path, anyone := l.servedPath()
	req, bad := parseRequest(head, path)
	if bad != nil {
		return bad
	}
	if !originAllowed(&req, l.g.opts.Origins) {
		return errOrigin
	}
	// Before the token: what can't be taken should not cost a signature.
	if l.draining || l.stopping || l.g.refusing.Load() {
		return l.full()
	}
	switch {
	case req.ticket != nil && req.token != nil:
		return errAuthorization
	case req.ticket != nil:
		return l.askTicket(slot, c, head, &req)
	case req.token == nil && !anyone:
		return errNoToken
	}
	claims, bad := l.verify(req.token)
	if bad != nil {
		return bad
	}
	return l.open(slot, c, head, &req, claims)
}

// servedPath is the only path that is served; "": any, and for anyone.
func (l *loop) servedPath() (path string, anyone bool) {
	if l.g.opts.Session.Echo {
		return "", true
	}
	return Path, false
}

// open answers 101, or says why not.
func (l *loop) open(slot uint32, c *conn, head []byte, req *request, claims auth.Claims) *refusal {
	if l.g.open.Add(1) > int64(l.g.opts.MaxConns) {
		l.g.open.Add(-1)
		return l.full()
	}
	l.http = headReader{head: head, out: l.http.out[:0]}
	if _, err := upgrader.Upgrade(&l.http); err != nil {
		l.g.open.Add(-1)
		return badRequest(err.Error())
	}
	if l.g.opts.Compress && req.compression.Agreed() {
		c.windowBits = req.compression.WindowBits
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

	l.heads--
	l.headsChanged()
	user, ok := l.g.users.acquire(claims.User)
	if !ok {
		l.g.open.Add(-1)
		l.stopCompressing(c)
		l.stats.Upgrades[UpgradeTooMany]++
		c.why = ClosedTooMany
		l.enqueueOwn(slot, c, wsframe.AppendClose(l.pool.Get(64), ClosedTooMany.code(), "too many connections of this user"))
		l.startClosing(slot, c)
		return nil
	}
	l.stats.Upgrades[UpgradeOK]++
	l.stats.Open++
	if l.g.opts.OnUpgraded != nil {
		l.g.opts.OnUpgraded(time.Duration(int32(l.tick+l.headTicks-c.deadline)) * tickMs * time.Millisecond)
	}
	c.phase, c.user, c.expires, c.deadline = phaseOpen, user, claims.Expires, 0
	c.session.Open(req.resume)
	if req.resume {
		c.deadline = l.tick + l.resumeTicks
	}
	l.schedule(slot, c, l.nextLook(slot, c))
	l.report(edge.Event{
		Kind: edge.EvOpened, Conn: l.id(slot, c), Resume: req.resume,
		User: claims.User, Expires: claims.Expires, IssuedAt: claims.IssuedAt,
	})
	return nil
}

// verify checks a token that a connection or a renewal came with.
func (l *loop) verify(token []byte) (auth.Claims, *refusal) {
	claims, err := l.g.opts.Verifier.Verify(string(token))
	switch {
	case errors.Is(err, auth.ErrExpired):
		return claims, errOldToken
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

// full is errFull with a spread time to come back.
func (l *loop) full() *refusal {
	return spread(errFull)
}

// refuse answers a request that is not upgraded and ends the connection.
func (l *loop) refuse(slot uint32, c *conn, r *refusal) {
	l.stats.Upgrades[r.outcome]++
	l.logRefusal(l.addrOf(c), r)
	l.heads--
	l.headsChanged()
	l.dropCarry(slot, c)
	c.why = ClosedHandshake
	l.enqueueOwn(slot, c, appendRefusal(l.pool.Get(768), r))
	l.startClosing(slot, c)
}
