// Package proxy is a TCP proxy that fails on command: it cuts, stalls, throttles,
// resets in mid-frame, and leaves connections half open. The kernel need not help
// (no netem), and what it does is done to the bytes of real processes.
package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy forwards connections to a target. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	done     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when a fault begins or ends
	fault   fault
	pairs   map[*pair]struct{}
	closed  bool
}

// fault is what is wrong with every connection, old and new.
type fault struct {
	refuse  bool // new connections are reset
	stalled bool // nothing passes
	perSec  int  // bytes each way and connection; 0: no limit
}

// pair is one connection through the proxy.
type pair struct {
	client, server *net.TCPConn

	// Guarded by Proxy.mu.
	resetAfter int  // bytes that still pass to the client before a reset; negative: no reset
	gone       bool // was cut
	silent     bool // carries nothing any more
	halfOpen   bool // the server's side is gone, and the client does not know
}

// Listen starts a proxy for target on a free port of the loopback.
func Listen(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, changed: make(chan struct{}), pairs: map[*pair]struct{}{}}
	p.done.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.Cut()
	p.done.Wait()
}

// Cut resets all connections; new ones pass.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pr := range p.pairs {
		pr.gone = true
		pr.reset()
	}
	p.signal()
}

// Refuse resets all connections, and new ones until Heal.
func (p *Proxy) Refuse() {
	p.set(func(f *fault) { f.refuse = true })
	p.Cut()
}

// Stall lets nothing pass until Heal. Connections stay open, new ones are
// accepted and hear nothing: a network that drops every packet.
func (p *Proxy) Stall() { p.set(func(f *fault) { f.stalled = true }) }

// Throttle lets so many bytes per second pass, each way of each connection.
func (p *Proxy) Throttle(bytesPerSecond int) { p.set(func(f *fault) { f.perSec = bytesPerSecond }) }

// Heal ends Refuse, Stall and Throttle. What was stalled goes on.
func (p *Proxy) Heal() { p.set(func(f *fault) { *f = fault{} }) }

// ResetAfter lets each connection of now carry so many more bytes towards the
// client, then resets it: in the middle of a frame, usually.
func (p *Proxy) ResetAfter(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pr := range p.pairs {
		pr.resetAfter = bytes
	}
}

// HalfOpen closes the server's side of each connection of now; the client's side
// stays open and hears nothing, as after a server lost its power.
func (p *Proxy) HalfOpen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pr := range p.pairs {
		pr.halfOpen = true
		_ = pr.server.SetLinger(0)
		_ = pr.server.Close()
	}
}

// Silence has each connection of now carry nothing any more, for good: both ends
// stay open, as behind a firewall that has forgotten them. New ones pass.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pr := range p.pairs {
		pr.silent = true
	}
	p.signal()
}

func (p *Proxy) set(change func(*fault)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.fault)
	p.signal()
}

// signal wakes what waits for a change; mu is held.
func (p *Proxy) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		client := conn.(*net.TCPConn)
		p.mu.Lock()
		refuse := p.fault.refuse || p.closed
		p.mu.Unlock()
		if refuse {
			_ = client.SetLinger(0)
			_ = client.Close()
			continue
		}
		p.done.Go(func() { p.serve(client) })
	}
}

// serve carries one connection until both ways have ended.
func (p *Proxy) serve(client *net.TCPConn) {
	defer client.Close()
	conn, err := net.DialTimeout("tcp", p.target, 2*time.Second)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	pr := &pair{client: client, server: conn.(*net.TCPConn), resetAfter: -1}
	defer pr.server.Close()
	p.mu.Lock()
	if p.closed || p.fault.refuse {
		p.mu.Unlock()
		return
	}
	p.pairs[pr] = struct{}{}
	p.mu.Unlock()
	up := make(chan struct{})
	go func() {
		defer close(up)
		p.copy(pr, pr.server, client, false)
	}()
	p.copy(pr, client, pr.server, true)
	<-up
	p.mu.Lock()
	delete(p.pairs, pr)
	p.mu.Unlock()
}

// piece is how much is forwarded at once: small enough that a throttle is even.
const piece = 16 << 10

// copy forwards one way until it ends, and passes the end on.
func (p *Proxy) copy(pr *pair, to, from *net.TCPConn, down bool) {
	buf := make([]byte, piece)
	for {
		n, err := from.Read(buf)
		passed := n == 0 || p.forward(pr, to, buf[:n], down)
		p.mu.Lock()
		halfOpen := pr.halfOpen
		p.mu.Unlock()
		switch {
		case halfOpen && down:
			return // the client is left to find out
		case halfOpen:
			if err != nil {
				return
			}
		case !passed:
			pr.reset()
			return
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
			return
		case err != nil:
			pr.reset()
			return
		}
	}
}

// forward passes bytes on as the fault of the moment allows. False: the
// connection ends here.
func (p *Proxy) forward(pr *pair, to *net.TCPConn, b []byte, down bool) bool {
	for len(b) > 0 {
		p.mu.Lock()
		f, changed := p.fault, p.changed
		if pr.gone || pr.halfOpen {
			p.mu.Unlock()
			return false
		}
		if pr.silent {
			p.mu.Unlock()
			return true
		}
		if f.stalled {
			p.mu.Unlock()
			<-changed
			continue
		}
		n, reset := len(b), false
		if f.perSec > 0 {
			n = min(n, max(1, f.perSec/20))
		}
		if down && pr.resetAfter >= 0 {
			n = min(n, pr.resetAfter)
			pr.resetAfter -= n
			reset = pr.resetAfter == 0
		}
		p.mu.Unlock()
		if f.perSec > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(f.perSec))
		}
		if _, err := to.Write(b[:n]); err != nil || reset {
			return false
		}
		b = b[n:]
	}
	return true
}

func (pr *pair) reset() {
	_ = pr.client.SetLinger(0)
	_ = pr.client.Close()
	_ = pr.server.SetLinger(0)
	_ = pr.server.Close()
}
