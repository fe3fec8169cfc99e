package loop

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// TLS without a goroutine per connection. A handshake runs on a goroutine of its
// own (tlshandshake.go) that ends with it. After it the tls.Conn belongs to the
// loop like the rest of the connection: it reads from the bytes that the loop has
// just taken off the socket and writes into a buffer that the loop then writes.
// When it wants more bytes than there are it gets errWouldBlock, which crypto/tls
// takes for a passing thing because it is a net.Error that says Temporary: what
// has come of a record stays where it is, and the next Read goes on. That is what
// crypto/tls does since Go 1.0 and what TestTemporaryErrorsKeepTLSState guards.

const (
	// maxTLSRead is the most that a record holds (RFC 8446 §5.1).
	maxTLSRead = 16 << 10
	// maxTLSWrite is how much plaintext is encrypted at once, so that what a full
	// socket leaves behind fits into a buffer of 16 KiB, records' overhead included.
	maxTLSWrite = 15 << 10
	// maxTLSHandshakeBytes bounds what a client may send in its handshake: a
	// hello, and a chain of certificates where they are asked for.
	maxTLSHandshakeBytes = 64 << 10
	// maxTLSPending is how much ciphertext may wait for a socket that takes none: a
	// queue's records are made one by one, so beyond two of them it is TLS's own
	// answers, to a client that goes on asking for new keys (RFC 8446 §4.6.3).
	maxTLSPending   = 64 << 10
	recordHeader    = 5
	recordHandshake = 22
)

// tlsState is a loop's part of TLS.
type tlsState struct {
	conns  map[uint32]*tlsConn // by slot
	in     []byte              // what the tls.Conn that is read has of its socket
	plain  []byte              // what a Read gives
	gather []byte              // what a Write takes
}

func (s *tlsState) init(l *loop) {
	if l.g.opts.TLS == nil {
		return
	}
	s.conns = make(map[uint32]*tlsConn)
	s.plain = make([]byte, maxTLSRead)
	s.gather = make([]byte, 0, maxTLSWrite)
}

// tlsConn is a connection's TLS.
type tlsConn struct {
	conn *tls.Conn // nil while the handshake goes on
	hs   *handshake
	// pending is what conn wrote and the socket has not taken, from off on; from
	// loop.pool.
	pending []byte
	off     int
	ended   bool // our close_notify is on its way
}

// wire is the net.Conn under a tls.Conn.
type wire struct {
	hs *handshake // during it
	// After it.
	loop *loop
	own  *tlsConn
}

// errWouldBlock: there are no more bytes for now.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

func (w *wire) Read(p []byte) (int, error) {
	if w.hs != nil {
		return w.hs.read(p)
	}
	in := &w.loop.tls.in
	if len(*in) == 0 {
		return 0, errWouldBlock
	}
	n := copy(p, *in)
	*in = (*in)[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	if w.hs != nil {
		return w.hs.write(p)
	}
	w.own.pending = w.loop.pool.Append(w.own.pending, p)
	return len(p), nil
}

// The rest of net.Conn: deadlines are the loop's business, and so is closing.
func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return noAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return noAddr{} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "" }

// receivedTLS decrypts what came and passes it on.
func (l *loop) receivedTLS(slot uint32, c *conn, p []byte) {
	t := l.tls.conns[slot]
	if t.conn == nil {
		l.feedHandshake(slot, c, t, p)
		return
	}
	if !c.phase.listens() {
		l.threwAway(slot, c, len(p))
		return
	}
	l.decrypt(slot, c, t, p)
}

func (l *loop) decrypt(slot uint32, c *conn, t *tlsConn, p []byte) {
	l.tls.in = p
	defer func() { l.tls.in = nil }()
	for c.phase.listens() {
		n, err := t.conn.Read(l.tls.plain)
		if len(t.pending) > 0 { // with answers of TLS's own: key updates, alerts
			if len(t.pending)-t.off > maxTLSPending {
				l.doom(slot, c)
				return
			}
			l.dirty(slot, c)
		}
		if n > 0 {
			l.received(slot, c, l.tls.plain[:n])
			if !c.has(flagTLS) {
				return // that was its end
			}
		}
		if err == nil {
			continue
		}
		if errors.Is(err, errWouldBlock) {
			return
		}
		// close_notify, or what is no TLS: both end it. An alert that the socket
		// does not take at once is not worth waiting for.
		why := ClosedPeerGone
		if errors.Is(err, io.EOF) {
			why = c.ended()
			l.endTLS(t)
		}
		l.flushTLS(slot, c)
		if c.has(flagDoomed) {
			return
		}
		if c.phase.early() {
			l.stats.Upgrades[UpgradeGone]++
		}
		l.destroy(slot, c, why)
		return
	}
}

// endTLS writes our close_notify, once.
func (l *loop) endTLS(t *tlsConn) {
	if t.conn != nil && !t.ended {
		t.ended = true
		_ = t.conn.CloseWrite() // into memory: it can't fail but for being closed
	}
}

// flushTLS is flushConn's way for a connection with TLS: it encrypts its queue, a
// record at a time, into a buffer that goes back to the pool when the socket has
// taken it. Bytes count as written when they are encrypted; what is between, maxTLSWrite
// at most, is in pending.
func (l *loop) flushTLS(slot uint32, c *conn) {
	t := l.tls.conns[slot]
	for {
		if len(t.pending) > 0 {
			if !l.writePending(slot, c, t) {
				return
			}
		}
		switch {
		case t.conn == nil: // the handshake's bytes were all there is
			l.disarm(slot, c)
			if c.phase == phaseClosing {
				l.finishClose(slot, c)
			}
			return
		case c.qhead != 0:
			l.seal(slot, c, t)
		case c.phase == phaseClosing && !t.ended && !c.owesClose():
			l.endTLS(t)
		default:
			l.drainedConn(slot, c)
			return
		}
	}
}

// seal encrypts the head of a queue.
func (l *loop) seal(slot uint32, c *conn, t *tlsConn) {
	o := &l.out
	buf := l.tls.gather[:0]
	for n := c.qhead; n != 0 && len(buf) < maxTLSWrite; n = o.nodes[n].next {
		part := o.items[o.nodes[n].item].buf
		if n == c.qhead {
			part = part[c.qoff:]
		}
		buf = append(buf, part[:min(len(part), maxTLSWrite-len(buf))]...)
	}
	if len(buf) > 0 && !t.ended {
		if _, err := t.conn.Write(buf); err != nil {
			l.doom(slot, c) // short of a bug: too many records for one key
		}
	}
	l.written(slot, c, len(buf))
}

// writePending writes ciphertext; false: the socket is full, or failed.
func (l *loop) writePending(slot uint32, c *conn, t *tlsConn) bool {
	for t.off < len(t.pending) {
		l.iov.set(0, t.pending[t.off:])
		l.stats.Writes++
		n, err := l.iov.writeTo(int(c.fd), 1)
		switch {
		case err == sysAgain:
			l.stats.WouldBlock++
			l.arm(slot, c)
			return false
		case err == sysIntr:
			continue
		case err != 0:
			l.doom(slot, c)
			return false
		}
		t.off += n
	}
	l.pool.Put(t.pending)
	t.pending, t.off = nil, 0
	return true
}

// dropTLS forgets a connection's TLS.
func (l *loop) dropTLS(slot uint32, c *conn) {
	if !c.has(flagTLS) {
		return
	}
	c.clear(flagTLS)
	t := l.tls.conns[slot]
	delete(l.tls.conns, slot)
	if t.pending != nil {
		l.pool.Put(t.pending)
	}
	if t.hs != nil {
		t.hs.abandon()
	}
}
