package loop

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"
)

// A balancer that passes bytes on says in a PROXY protocol header (v1 or v2)
// whom it passes them on for. From the addresses it may come from it must come;
// from others it is a bad request, because anybody could claim to be anybody.

const (
	// maxProxyV1 is the longest line of version 1, its end included.
	maxProxyV1 = 107
	// maxProxyV2 bounds version 2 with its extensions (TLVs); what balancers add
	// (connection IDs, TLS details) is some hundred bytes.
	maxProxyV2 = 2 << 10
	// proxyV2Fixed is the part of version 2 that says how long it is.
	proxyV2Fixed = 16
)

var proxyV2Signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

var errProxyHeader = &refusal{status: 400, outcome: UpgradeProxy, code: "malformed", detail: "a PROXY protocol header is needed from this address"}

// looksProxied says whether a head that is no request begins as a PROXY header does;
// of version 2 it has what comes before the first empty line.
func looksProxied(head []byte) bool {
	return bytes.HasPrefix(head, []byte("PROXY ")) || bytes.Equal(head, headEnd)
}

var errNotProxy = errors.New("not a PROXY protocol header")

func init() {
	// nginx's stream module writes IPv4 addresses into TCP6 lines when it listens
	// on both families.
	proxyproto.V1AcceptIPv4InTCP6 = true
}

// proxyHeaderLen is how long the header at the beginning of p is; 0: more bytes
// are needed to tell, or to have it whole. The parser takes a header that is not
// whole for none, so it must not see one.
func proxyHeaderLen(p []byte) (int, error) {
	v1 := []byte("PROXY ")
	switch {
	case hasPrefixSoFar(p, proxyV2Signature):
		if len(p) < proxyV2Fixed {
			return 0, nil
		}
		n := proxyV2Fixed + int(binary.BigEndian.Uint16(p[proxyV2Fixed-2:]))
		if n > maxProxyV2 {
			return 0, errNotProxy
		}
		if len(p) < n {
			return 0, nil
		}
		return n, nil
	case hasPrefixSoFar(p, v1):
		end := bytes.IndexByte(p[:min(len(p), maxProxyV1)], '\n')
		if end < 0 && len(p) >= maxProxyV1 {
			return 0, errNotProxy
		}
		return end + 1, nil
	}
	return 0, errNotProxy
}

// hasPrefixSoFar says whether p begins with prefix, or may once it is longer.
func hasPrefixSoFar(p, prefix []byte) bool {
	n := min(len(p), len(prefix))
	return bytes.Equal(p[:n], prefix[:n])
}

// parseProxyHeader reads a whole header. An invalid address means that it is the
// balancer's own connection (LOCAL, a health check) or that it does not know.
func parseProxyHeader(header []byte) (netip.Addr, error) {
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
	if err != nil {
		return netip.Addr{}, err
	}
	if h.Command.IsLocal() {
		return netip.Addr{}, nil
	}
	if tcp, ok := h.SourceAddr.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap(), nil
	}
	return netip.Addr{}, nil
}

// receivedProxy takes bytes of a PROXY header and what may be behind it.
func (l *loop) receivedProxy(slot uint32, c *conn, p []byte) {
	had := 0
	header := p
	if c.has(flagCarry) {
		k := l.carries[slot]
		had = len(k.head)
		k.head = l.pool.Append(k.head, p[:min(len(p), maxProxyV2-had)])
		header = k.head
	}
	n, err := proxyHeaderLen(header)
	if n == 0 && err == nil {
		if had == 0 {
			k := l.carry(slot, c)
			k.head = l.pool.Append(nil, p)
		}
		return
	}
	var addr netip.Addr
	if err == nil {
		addr, err = parseProxyHeader(header[:n])
	}
	if err != nil {
		l.refuse(slot, c, errProxyHeader)
		return
	}
	l.dropCarry(slot, c)
	if !l.admit(slot, c, addr) {
		return
	}
	l.awaitRequest(c)
	if rest := p[n-had:]; len(rest) > 0 {
		l.received(slot, c, rest)
	}
}

// trustsProxy says whether an address is a balancer's.
func (g *Group) trustsProxy(addr netip.Addr) bool {
	for _, p := range g.opts.ProxyFrom {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// peerAddr is the address at the other end of a socket.
func peerAddr(fd int) netip.Addr {
	sa, err := unix.Getpeername(fd)
	if err != nil {
		return netip.Addr{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr).Unmap()
	}
	return netip.Addr{}
}
