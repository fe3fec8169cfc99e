package swarm

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"encoding/base64"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/reactor"
)

// dials are the prepared ends of connections, so that a connect allocates nothing.
type dials struct {
	gateways []unix.Sockaddr
	hosts    []string
	sources  []unix.Sockaddr
	family   []int
}

func (d *dials) init(cfg Config) {
	for _, g := range cfg.Gateways {
		family, sa := sockaddr(g)
		d.gateways = append(d.gateways, sa)
		d.family = append(d.family, family)
		host := cfg.Host
		if host == "" {
			host = g.String()
		}
		d.hosts = append(d.hosts, host)
	}
	for _, a := range cfg.Sources {
		_, sa := sockaddr(netip.AddrPortFrom(a, 0))
		d.sources = append(d.sources, sa)
	}
}

func sockaddr(a netip.AddrPort) (int, unix.Sockaddr) {
	if a.Addr().Unmap().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// makeKey makes the Sec-WebSocket-Key of all this process's clients, and the
// answer to it: the server must compute it each time, we need not.
func (s *Swarm) makeKey() {
	var raw [16]byte
	for i := range raw {
		raw[i] = byte(s.rng.Uint32())
	}
	s.wsKey = base64.StdEncoding.EncodeToString(raw[:])
	sum := sha1.Sum([]byte(s.wsKey + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see above
	s.wsAccept = base64.StdEncoding.EncodeToString(sum[:])
}

// connectSome opens as many waiting connections as rate and in-flight limit allow.
func (s *Swarm) connectSome() {
	if len(s.queue) == 0 {
		s.refilled = s.now
		return
	}
	budget := s.cfg.InFlight - s.inFlight
	if s.cfg.Rate > 0 {
		s.allowance += s.cfg.Rate * float64(s.now-s.refilled) / 1e9
		// After a stall of our own, a burst of at most 50 ms' worth.
		s.allowance = min(s.allowance, max(1, s.cfg.Rate/20))
		budget = min(budget, int(s.allowance))
	}
	s.refilled = s.now
	opened := 0
	for ; opened < budget && opened < len(s.queue); opened++ {
		s.connect(s.queue[opened])
	}
	if s.queue = s.queue[opened:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.allowance -= float64(opened)
}

// connect begins a connection.
func (s *Swarm) connect(i uint32) {
	c := &s.clients[i]
	if c.state != queued {
		return // stopped or dropped meanwhile
	}
	c.state = connecting
	s.inFlight++
	s.stats.Attempts++
	if c.since == 0 {
		c.since = s.now
	}
	gateway := (s.cfg.First + int(i) + int(c.attempts)) % len(s.dials.gateways)
	fd, err := reactor.Socket(s.dials.family[gateway])
	if err != nil {
		s.fail(i, failure("connect", err))
		return
	}
	c.fd = int32(fd)
	if n := len(s.dials.sources); n > 0 {
		reactor.BindLate(fd)
		if err := unix.Bind(fd, s.dials.sources[int(i)%n]); err != nil {
			s.fail(i, failure("bind", err))
			return
		}
	}
	if err := unix.Connect(fd, s.dials.gateways[gateway]); err != nil && err != unix.EINPROGRESS {
		s.fail(i, failure("connect", err))
		return
	}
	s.wheel.set(i, s.ticks()+uint32(s.cfg.Timeout/tick))
	if err := s.poll.Add(fd, i, reactor.In|reactor.Out); err != nil {
		s.fail(i, failure("epoll", err))
	}
}

// handleConnected is called when a connecting socket became writable.
func (s *Swarm) handleConnected(i uint32) {
	c := &s.clients[i]
	if code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
		s.fail(i, failure("connect", unix.Errno(code)))
		return
	}
	c.state = upgrading
	s.watch(i, reactor.In)
	s.wire.begin(i)
}

// watch changes what the loop wants to hear about a socket.
func (s *Swarm) watch(i uint32, what uint32) { s.poll.Watch(int(s.clients[i].fd), i, what) }
