package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/gateway/poll"
	"github.com/madang-chat/madang/internal/descriptors"
)

// listenerToken is the listener's in the poller: a slot that no connection has.
const listenerToken = uint64(1<<24 - 1)

const (
	// backlog is as much as the kernel gives (net.core.somaxconn bounds it):
	// a storm waits there, at 0.3 KB a client, rather than in us.
	backlog = 65535
	// acceptsPerTurn bounds a turn's accepts, so that a storm does not keep those
	// who are in waiting.
	acceptsPerTurn = 128
	// acceptPauseMs is how long to leave the backlog alone when descriptors have
	// run out. Level-triggered readiness would make the loop spin.
	acceptPauseMs = 100
	// acceptTellMs is how often the log says that accepting fails.
	acceptTellMs = 10_000
)

// vacant says whether nobody listens on an address. Two gateways that were given the
// same one would share its port, and each get half of the clients.
func vacant(addr string) error {
	probe, err := net.Listen("tcp", addr) // without SO_REUSEPORT
	if err != nil {
		return err
	}
	return probe.Close()
}

// listen makes a non-blocking listening socket that shares its port with those of
// the other loops: the kernel spreads connections over them.
func listen(addr string, sendBufferBytes int) (fd int, bound netip.AddrPort, err error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return -1, bound, err
	}
	want := tcp.AddrPort()
	if !want.Addr().IsValid() { // all addresses, of both families where there are two
		want = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(tcp.Port))
		if fd, bound, err = listenOn(want, sendBufferBytes); err == nil || !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fd, bound, err
		}
		want = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(tcp.Port))
	}
	return listenOn(want, sendBufferBytes)
}

func listenOn(want netip.AddrPort, sendBufferBytes int) (fd int, bound netip.AddrPort, err error) {
	var sa unix.Sockaddr
	family := unix.AF_INET
	if ip := want.Addr().Unmap(); ip.Is4() {
		sa = &unix.SockaddrInet4{Port: int(want.Port()), Addr: ip.As4()}
	} else {
		family = unix.AF_INET6
		in6 := &unix.SockaddrInet6{Port: int(want.Port()), Addr: ip.As16()}
		if zone := ip.Zone(); zone != "" {
			ifi, err := net.InterfaceByName(zone)
			if err != nil {
				return -1, bound, err
			}
			in6.ZoneId = uint32(ifi.Index)
		}
		sa = in6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, bound, fmt.Errorf("socket: %w", err)
	}
	unix.CloseOnExec(fd)
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if err = unix.SetNonblock(fd, true); err != nil {
		return fd, bound, fmt.Errorf("set nonblock: %w", err)
	}
	type option struct {
		level, name, value int
		text               string
	}
	options := []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"},
		// Inherited by what is accepted: frames are whole when they are written.
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, "TCP_NODELAY"},
	}
	if sendBufferBytes > 0 { // inherited too
		options = append(options, option{unix.SOL_SOCKET, unix.SO_SNDBUF, sendBufferBytes, "SO_SNDBUF"})
	}
	for _, o := range options {
		if err = unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fd, bound, fmt.Errorf("%s: %w", o.text, err)
		}
	}
	if family == unix.AF_INET6 && want.Addr().IsUnspecified() {
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fd, bound, fmt.Errorf("IPV6_V6ONLY: %w", err)
		}
	}
	if err = unix.Bind(fd, sa); err != nil {
		return fd, bound, fmt.Errorf("bind: %w", err)
	}
	if err = unix.Listen(fd, backlog); err != nil {
		return fd, bound, fmt.Errorf("listen: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fd, bound, fmt.Errorf("getsockname: %w", err)
	}
	switch sa := name.(type) {
	case *unix.SockaddrInet4:
		bound = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		// With the zone: without it nobody else can listen at a link-local address.
		bound = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).WithZone(want.Addr().Zone()), uint16(sa.Port))
	}
	return fd, bound, nil
}

func closeFD(fd int) { _ = unix.Close(fd) }

func (l *loop) closeListener() {
	if l.listener >= 0 {
		closeFD(l.listener)
		l.listener = -1
		l.accepting = false
	}
}

// acceptSome takes clients off the backlog.
func (l *loop) acceptSome() {
	if l.crammed && !l.hasRoom() {
		l.cannotAccept(unix.EMFILE)
		return
	}
	for range acceptsPerTurn {
		if l.listener < 0 || !l.accepting {
			return
		}
		if !l.mayAccept() {
			l.stats.AcceptPauses++
			l.acceptAgain = l.tick + 1
			l.headsChanged()
			return
		}
		fd, err := sysAccept(l.listener)
		switch {
		case err == sysAgain:
			return
		case err == sysIntr, err == unix.ECONNABORTED, err == unix.EPROTO:
			continue // that client is gone: the next
		case err != 0:
			l.cannotAccept(err)
			return
		}
		l.countAccept()
		l.accepted(fd)
		if fd >= l.mostFile {
			l.cannotAccept(unix.EMFILE)
			return
		}
	}
}

// hasRoom looks anew whether a client's descriptor would be none of those that are
// kept.
func (l *loop) hasRoom() bool {
	l.mostFile = descriptors.Line()
	next, err := descriptors.Next(l.listener)
	l.crammed = err != nil || next >= l.mostFile
	return !l.crammed
}

// cannotAccept: EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC. Those who are in go on; the others
// wait in the backlog until there is room.
func (l *loop) cannotAccept(why error) {
	l.crammed = true
	l.stats.AcceptFailures++
	l.acceptAgain = l.tick + acceptPauseMs/tickMs
	l.headsChanged()
	if l.acceptTold == 0 || l.tick-l.acceptTold >= acceptTellMs/tickMs {
		l.acceptTold = l.tick
		l.g.log.Warn("cannot accept clients: they wait", "err", why, "fix", remedy(why), "open", l.stats.Open)
	}
}

// remedy is what lets clients in again.
func remedy(why error) string {
	switch {
	case errors.Is(why, unix.EMFILE):
		return "raise the limit of open files, LimitNOFILE or ulimit -n"
	case errors.Is(why, unix.ENFILE):
		return "raise the machine's limit of open files, fs.file-max"
	case errors.Is(why, unix.ENOSPC):
		return "raise the limit of watched sockets, fs.epoll.max_user_watches"
	}
	return "madang doctor looks at what the host has" // memory, mostly
}

// accepted makes a connection of a descriptor.
func (l *loop) accepted(fd int) {
	slot, c := l.conns.take()
	if c == nil {
		closeFD(fd)
		l.stats.AcceptFailures++
		return
	}
	c.fd = int32(fd)
	err := prepareConn(fd)
	if err == nil {
		err = l.poller.Add(fd, token(slot, c), poll.Read)
	}
	if err != nil {
		closeFD(fd)
		l.conns.give(slot)
		l.cannotAccept(err)
		return
	}
	l.stats.Accepted++
	l.live++
	l.heads++
	c.phase = phaseHead
	c.lastRead = l.tick
	c.deadline = l.tick + l.headTicks
	l.schedule(slot, c, c.deadline)
	l.entered(slot, c)
	l.headsChanged()
}

func token(slot uint32, c *conn) uint64 { return uint64(slot) | uint64(c.gen)<<32 }

// watch tells the poller what a connection waits for.
func (l *loop) watch(slot uint32, c *conn) {
	in := poll.Read
	if c.has(flagArmed) {
		in |= poll.Write
	}
	if err := l.poller.Mod(int(c.fd), token(slot, c), in); err != nil {
		l.doom(slot, c)
	}
}

// headsChanged opens or shuts the door: beyond so many clients whose request is
// awaited, or out of descriptors, the others wait in the backlog.
func (l *loop) headsChanged() {
	open := l.heads < l.maxHeads && l.acceptAgain == 0
	if open == l.accepting || l.listener < 0 {
		return
	}
	var in poll.Interest
	if open {
		in = poll.Read
	}
	if err := l.poller.Mod(l.listener, listenerToken, in); err != nil {
		l.g.log.Error("watch the listener", "loop", l.num, "error", err)
		return
	}
	l.accepting = open
}
