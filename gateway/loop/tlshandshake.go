package loop

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"sync"
)

// Handshakes. crypto/tls can't be interrupted in one, so each runs on a goroutine
// that waits for the client's bytes, which the loop brings, and is gone when it is
// done. Connections without an answer are bounded (Options.MaxUpgrades) and timed
// (Options.HeadTimeout), so these goroutines are; how many of them compute at a
// time is bounded as well (Options.TLSWorkers), because a signature costs more
// than anything else that a loop's processor does for a client. A client that has
// not sent a whole record yet has no goroutine.

// handshakes is what all loops' handshakes share.
type handshakes struct {
	computing chan struct{} // a place for each that may compute
	running   sync.WaitGroup
}

func (h *handshakes) init(o *Options) { h.computing = make(chan struct{}, o.TLSWorkers) }

func (h *handshakes) wait() { h.running.Wait() }

// handshake is one of them.
type handshake struct {
	// Immutable.
	loop      *loop
	slot, gen uint32
	// The goroutine's own.
	out []byte // written since the loop was told last
	// The loop's own.
	fed     int
	started bool

	mu   sync.Mutex
	news sync.Cond // in or gone has changed
	in   []byte    // guarded by mu: not read yet
	gone bool      // guarded by mu: the connection is no more
}

var errNotTLS = badRequest("this port speaks TLS")

// beginTLS takes a client's first bytes.
func (l *loop) beginTLS(slot uint32, c *conn, p []byte) {
	if p[0] != recordHandshake { // plain HTTP, most likely: so is the answer
		l.refuse(slot, c, errNotTLS)
		return
	}
	if l.g.refusing.Load() || l.draining || l.stopping {
		// Saying 503 would take the handshake, which costs more than anything else
		// that a newcomer does: memory, when it is memory that is short.
		l.cutTLS(slot, c, UpgradeUnavailable)
		return
	}
	hs := &handshake{loop: l, slot: slot, gen: c.gen}
	hs.news.L = &hs.mu
	t := &tlsConn{hs: hs}
	l.tls.conns[slot] = t
	c.set(flagTLS)
	l.feedHandshake(slot, c, t, p)
}

// feedHandshake brings a handshake the client's bytes.
func (l *loop) feedHandshake(slot uint32, c *conn, t *tlsConn, p []byte) {
	if c.phase != phaseTLS {
		return // it failed: read only so that its end can be seen
	}
	hs := t.hs
	if hs.fed += len(p); hs.fed > maxTLSHandshakeBytes {
		l.cutTLS(slot, c, UpgradeTLS)
		return
	}
	hs.mu.Lock()
	hs.in = append(hs.in, p...)
	whole := len(hs.in) >= recordHeader && len(hs.in) >= recordHeader+int(binary.BigEndian.Uint16(hs.in[3:]))
	hs.news.Signal()
	hs.mu.Unlock()
	if !hs.started && whole {
		hs.started = true
		l.g.handshakes.running.Go(hs.run)
	}
}

// run is the handshake's goroutine. It ends when the handshake does, or with the
// connection; Group.Stop waits for it.
func (h *handshake) run() {
	computing := h.loop.g.handshakes.computing
	computing <- struct{}{}
	w := &wire{hs: h}
	conn := tls.Server(w, h.loop.g.opts.TLS)
	err := conn.Handshake()
	<-computing
	h.flush()
	h.loop.call(func() { h.loop.shaken(h, w, conn, err) })
}

// read gives the goroutine the client's bytes; while it waits for them, others
// compute.
func (h *handshake) read(p []byte) (int, error) {
	h.flush()
	h.mu.Lock()
	if len(h.in) == 0 && !h.gone {
		computing := h.loop.g.handshakes.computing
		<-computing
		for len(h.in) == 0 && !h.gone {
			h.news.Wait()
		}
		h.mu.Unlock()
		computing <- struct{}{}
		h.mu.Lock()
	}
	defer h.mu.Unlock()
	if h.gone {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, h.in)
	h.in = append(h.in[:0], h.in[n:]...)
	return n, nil
}

func (h *handshake) write(p []byte) (int, error) {
	h.out = append(h.out, p...)
	return len(p), nil
}

// flush hands what the goroutine wrote to the loop.
func (h *handshake) flush() {
	if len(h.out) == 0 {
		return
	}
	out := h.out
	h.out = nil
	h.loop.call(func() {
		l := h.loop
		c := l.conns.get(h.slot, h.gen)
		if c == nil || !c.has(flagTLS) {
			return
		}
		t := l.tls.conns[h.slot]
		t.pending = l.pool.Append(t.pending, out)
		l.dirty(h.slot, c)
	})
}

// abandon ends a handshake whose connection is gone.
func (h *handshake) abandon() {
	h.mu.Lock()
	h.gone = true
	h.news.Signal()
	h.mu.Unlock()
}

// shaken: a handshake is over, well or not.
func (l *loop) shaken(h *handshake, w *wire, conn *tls.Conn, err error) {
	c := l.conns.get(h.slot, h.gen)
	if c == nil || c.phase != phaseTLS {
		return
	}
	if err != nil {
		if l.g.logsRefusals() {
			l.g.log.Debug("TLS handshake failed", "addr", l.addrOf(c), "err", err)
		}
		l.cutTLS(h.slot, c, UpgradeTLS)
		return
	}
	l.stats.TLSHandshakes++
	t := l.tls.conns[h.slot]
	// From here on it is the loop's.
	w.hs, w.loop, w.own = nil, l, t
	t.conn, t.hs = conn, nil
	h.mu.Lock()
	early := h.in // what came behind the handshake
	h.mu.Unlock()
	c.phase = phaseHead
	c.deadline = l.tick + l.headTicks
	// Even without more bytes: the tls.Conn may have read ahead.
	l.decrypt(h.slot, c, t, early)
}

// cutTLS ends a connection that has not finished its handshake; what TLS had to
// say of it is written.
func (l *loop) cutTLS(slot uint32, c *conn, outcome UpgradeOutcome) {
	l.stats.Upgrades[outcome]++
	l.heads--
	l.headsChanged()
	c.why = ClosedHandshake
	l.startClosing(slot, c)
	l.dirty(slot, c)
}
