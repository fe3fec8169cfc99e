package loop

import (
	"context"
	"log/slog"
	"net/netip"
)

// What is asked of a client before its request is read: where it comes from, and
// whether its address, or everybody, has had enough.

// ipv6Prefix is whom an IPv6 address stands for: a /64 is what one subscriber has
// at the least, and may pick any address of.
const ipv6Prefix = 64

var errTooManyAddr = &refusal{
	status: 429, outcome: UpgradeTooManyAddr, code: "rate_limited",
	detail: "too many connections from this address", header: "Retry-After: 30\r\n",
}

// asksAddr says whether it matters where a connection comes from.
func (g *Group) asksAddr() bool { return g.opts.MaxPerAddr > 0 || g.logsRefusals() }

// logsRefusals is asked each time: a log's level is changed while a process runs, to
// find out why a client does not get in.
func (g *Group) logsRefusals() bool { return g.log.Enabled(context.Background(), slog.LevelDebug) }

// entered: a connection was accepted. Its address is asked for only where it
// matters, because that is one more system call for each.
func (l *loop) entered(slot uint32, c *conn) {
	if len(l.g.opts.ProxyFrom) == 0 && !l.g.asksAddr() {
		l.awaitRequest(c)
		return
	}
	addr := peerAddr(int(c.fd))
	if !addr.IsValid() { // it has gone again, as the check of a balancer does: what it sent is nobody's
		l.stats.Upgrades[UpgradeGone]++
		l.doom(slot, c)
		return
	}
	if l.g.trustsProxy(addr) {
		c.phase = phaseProxy
		return
	}
	if l.admit(slot, c, addr) {
		l.awaitRequest(c)
	}
}

// awaitRequest: what comes next is the request, or TLS and then the request.
func (l *loop) awaitRequest(c *conn) {
	c.phase = phaseHead
	if l.g.opts.TLS != nil {
		c.phase = phaseTLS
	}
}

// admit counts a connection of an address, or refuses it. An invalid address is
// a balancer's own connection and counts for nobody.
func (l *loop) admit(slot uint32, c *conn, addr netip.Addr) bool {
	if !addr.IsValid() || !l.g.asksAddr() {
		return true
	}
	who := addr.String()
	if addr.Is6() {
		if p, err := addr.Prefix(ipv6Prefix); err == nil {
			who = p.String()
		}
	}
	ref, ok := l.g.addrs.acquire(who)
	if !ok {
		l.logRefusal(who, errTooManyAddr)
		l.stats.Upgrades[UpgradeTooManyAddr]++
		if l.g.opts.TLS != nil { // there is no saying why without a handshake
			c.why = ClosedHandshake
			l.doom(slot, c)
			return false
		}
		l.endRequest(slot, c, appendRefusal(l.pool.Get(768), errTooManyAddr, nil))
		return false
	}
	c.addr = ref + 1
	return true
}

// releaseAddr: the connection is gone.
func (l *loop) releaseAddr(c *conn) {
	if c.addr != 0 {
		l.g.addrs.release(c.addr - 1)
		c.addr = 0
	}
}

// addrOf is the client's address for the log: the one that a balancer told, or the
// balancer's own while it has told none. "": nobody asked when it came.
func (l *loop) addrOf(c *conn) string {
	if c.phase == phaseProxy && l.g.logsRefusals() {
		return peerAddr(int(c.fd)).String()
	}
	if c.addr == 0 {
		return ""
	}
	return l.g.addrs.name(c.addr - 1)
}

// logRefusal is for finding out why a client does not get in; a flood of them
// is a matter for the counters.
func (l *loop) logRefusal(who string, r *refusal) {
	if l.g.logsRefusals() {
		l.g.log.Debug("refused", "addr", who, "status", r.status, "reason", r.detail)
	}
}

// acceptBurstMs is how much of the accept rate may be used at once.
const acceptBurstMs = 100

// mayAccept holds a storm back to the accept rate: who is too early stays in the
// kernel's queue. It is the cell algorithm again, one number, which accepting
// somebody moves on.
func (l *loop) mayAccept() bool { return l.acceptTat-float64(l.nowMs) <= acceptBurstMs }

// countAccept takes a place of the accept rate.
func (l *loop) countAccept() {
	l.acceptTat = max(l.acceptTat, float64(l.nowMs)) + l.acceptEveryMs
}
