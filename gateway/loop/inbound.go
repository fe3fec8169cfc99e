package loop

import (
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// carry is what a connection has sent of something that is not complete: a piece
// of its request, or a decoder in the middle of a message. Idle connections have
// none.
type carry struct {
	head  []byte // from loop.pool
	end   int    // of a request's head, which is complete
	body  int    // bytes of the request's body, which are behind it or will be
	held  int    // of them, those that count in loop.bodies
	dec   wsframe.Decoder
	since uint32 // tick its message began at

	claims  auth.Claims // of whom the body is awaited
	mustAsk bool        // the client waits for an interim answer before it sends the body
}

func (l *loop) carry(slot uint32, c *conn) *carry {
	var k *carry
	if n := len(l.freeCarries); n > 0 {
		k = l.freeCarries[n-1]
		l.freeCarries = l.freeCarries[:n-1]
	} else {
		k = new(carry)
	}
	k.since = l.tick
	l.carries[slot] = k
	c.set(flagCarry)
	return k
}

// keptCarries bounds how many unused ones a loop keeps.
const keptCarries = 1024

func (l *loop) dropCarry(slot uint32, c *conn) {
	if !c.has(flagCarry) {
		return
	}
	c.clear(flagCarry)
	k := l.carries[slot]
	delete(l.carries, slot)
	if k.head != nil {
		l.pool.Put(k.head)
	}
	k.dec.Reset(&l.pool)
	k.head = nil
	l.freeBody(k)
	if len(l.freeCarries) < keptCarries {
		l.freeCarries = append(l.freeCarries, k)
	}
}

// freeBody: no body is awaited any more.
func (l *loop) freeBody(k *carry) {
	l.bodies -= int64(k.held)
	k.end, k.body, k.held, k.claims, k.mustAsk = 0, 0, 0, auth.Claims{}, false
}

// readable reads what a socket has, once: what does not fit into the buffer makes
// it readable again in the next turn, after the others.
func (l *loop) readable(slot uint32, c *conn) {
	n, err := sysRead(int(c.fd), l.readBuf)
	l.stats.Reads++
	switch {
	case err == sysAgain || err == sysIntr:
		return
	case err != 0 || n == 0:
		if c.phase.early() {
			l.stats.Upgrades[UpgradeGone]++
			l.destroy(slot, c, ClosedHandshake)
			return
		}
		why := ClosedPeerGone
		switch {
		case err == sysTimedOut: // what it was sent was never acknowledged
			why = ClosedHeartbeat
		case err == 0:
			why = c.ended()
		}
		l.destroy(slot, c, why)
		return
	}
	l.stats.BytesIn += uint64(n)
	// Of who has more to take than its socket holds, taking it is the sign of life: it
	// could go on talking for ever.
	if !c.has(flagArmed) {
		c.lastRead = l.tick
		if c.has(flagPinged) && l.g.opts.OnHeartbeat != nil {
			l.g.opts.OnHeartbeat(time.Duration(l.tick-c.pingedAt) * tickMs * time.Millisecond)
		}
		c.clear(flagPinged)
	}
	if c.has(flagTLS) {
		l.receivedTLS(slot, c, l.readBuf[:n])
		return
	}
	l.received(slot, c, l.readBuf[:n])
}

// received takes a client's bytes, TLS removed.
func (l *loop) received(slot uint32, c *conn, p []byte) {
	switch c.phase {
	case phaseProxy:
		l.receivedProxy(slot, c, p)
	case phaseTLS:
		l.beginTLS(slot, c, p)
	case phaseHead:
		l.receivedHead(slot, c, p)
	case phaseTicket:
		l.receivedEarly(slot, c, p)
	case phaseBody:
		l.receivedBody(slot, c, p)
	case phaseOpen:
		switch c.form {
		case events, eventsStill:
			l.ignore(slot, c)
		case collected:
			l.receivedAhead(slot, c, p)
		default:
			l.receivedFrames(slot, c, p)
		}
	case phaseIdle:
		l.wakeIdle(slot, c, p)
	case phaseClosing, phaseLinger:
		l.threwAway(slot, c, len(p))
	}
}

// threwAway notes that bytes of a closing connection were read, which is done only
// so that its answer and its end can be seen: what comes first after our close frame
// is taken for the answer. Each byte costs it some of its time: about a megabyte is
// taken from a client that does not stop, and then it is reset.
func (l *loop) threwAway(slot uint32, c *conn, n int) {
	const bytesPerTick = 16 << 10
	c.deadline -= min(c.deadline, uint32(n/bytesPerTick))
	if l.tick >= c.deadline {
		l.abort(slot, c)
		return
	}
	if c.phase == phaseLinger && c.owesClose() {
		l.closeAnswered(slot, c)
	}
}

// receivedFrames decodes bytes and does what they ask.
func (l *loop) receivedFrames(slot uint32, c *conn, p []byte) {
	dec := &l.decoder // for whoever is between messages
	if c.has(flagCarry) {
		dec = &l.carries[slot].dec
	}
	limits := &l.frameLimits[c.form]
	for c.phase == phaseOpen {
		item, rest, bad := dec.Next(p, limits, &l.pool)
		p = rest
		if bad == nil && item.Compressed {
			bad = l.inflate(&item)
		}
		if bad != nil || item.Op == wsframe.Close { // no answer to ours would be understood, or come
			c.set(flagAnswered)
		}
		if bad != nil {
			l.beginCloseCode(slot, c, ClosedProtocol, bad.Code, bad.Reason)
			break
		}
		if item.Op == wsframe.None {
			break
		}
		l.stats.FramesIn++
		if item.Op == wsframe.Pong && l.ponged(slot, c, item.Payload) {
			continue
		}
		verdict := c.session.Receive(item, l.nowMs, &l.g.opts.Session)
		l.obey(slot, c, &verdict)
		if c.has(flagCarry) && (item.Op == wsframe.Text || item.Op == wsframe.Binary) {
			l.carries[slot].since = l.tick // the next message has its own time
		}
	}
	switch {
	case c.phase != phaseOpen:
		dec.Reset(&l.pool)
		l.dropCarry(slot, c)
	case dec.Idle():
		l.dropCarry(slot, c)
	case !c.has(flagCarry):
		k := l.carry(slot, c)
		k.dec = l.decoder
		l.decoder = wsframe.Decoder{}
		l.schedule(slot, c, l.tick+l.messageTicks)
	}
}

// obey does what a session's verdict says.
func (l *loop) obey(slot uint32, c *conn, v *session.Verdict) {
	switch v.Do {
	case session.Post:
		v.Event.Conn = l.id(slot, c)
		if v.Event.Kind == edge.EvPositions {
			c.deadline = l.tick + l.resumeTicks // for the next frame, if there is one
		}
		l.report(v.Event)
	case session.Pong:
		l.reply(slot, c, itemPong)
	case session.WSPong:
		if len(v.Payload) <= 125 && c.qbytes <= l.queueBytes {
			l.enqueueOwn(slot, c, wsframe.AppendControl(l.pool.Get(len(v.Payload)+2), wsframe.Pong, v.Payload))
		}
	case session.Renew:
		l.renew(slot, c, v.Token)
	case session.Refuse:
		l.sendError(slot, c, v.Code, v.Detail)
	case session.Kick:
		l.sendError(slot, c, v.Code, v.Detail)
		why := ClosedMalformed
		if v.Close != protocol.CloseMalformed {
			why = ClosedProtocol
		}
		l.beginCloseCode(slot, c, why, v.Close, v.Detail)
	case session.Fail:
		why := ClosedProtocol
		if v.Close == protocol.CloseRateLimit {
			why = ClosedRateLimit
		}
		l.beginCloseCode(slot, c, why, v.Close, v.Detail)
	case session.PeerLeft:
		c.set(flagPeerClosed)
		l.beginCloseCode(slot, c, ClosedByClient, v.Close, "")
	case session.Echo:
		l.echo(slot, c, v.Op, v.Payload)
	}
}

// reply queues a small answer, unless the client asks without ever reading: then
// it has enough to read.
func (l *loop) reply(slot uint32, c *conn, i uint32) {
	if c.qbytes <= l.queueBytes {
		l.enqueue(slot, c, i)
	}
}

func (l *loop) sendError(slot uint32, c *conn, code protocol.ErrorCode, detail string) {
	if c.qbytes <= l.queueBytes {
		l.enqueueEvent(slot, c, func(dst []byte) []byte { return protocol.AppendError(dst, code, detail) })
	}
}

// renew takes a new token on an open connection: it must speak for the same user.
// A bad one changes nothing. Whether it was revoked the hub knows, as of one that a
// connection came with.
func (l *loop) renew(slot uint32, c *conn, token []byte) {
	claims, bad := l.verify(token)
	switch {
	case bad != nil:
		l.sendError(slot, c, bad.code, bad.detail)
	case !l.g.users.is(c.user, claims.User):
		l.sendError(slot, c, protocol.ErrForbidden, "the token is another user's")
		l.beginClose(slot, c, ClosedOtherUser, "the token is another user's")
	default:
		c.expires, c.key = claims.Expires, claims.Key.Short()
		l.schedule(slot, c, l.nextLook(slot, c))
		l.report(edge.Event{Kind: edge.EvRenewed, Conn: l.id(slot, c), IssuedAt: claims.IssuedAt})
	}
}
