package loop_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

// identity is a certificate, by itself or by another's word.
func identity(t testing.TB, name string, by *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        by == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := template, any(key)
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// encrypted is a gateway that speaks TLS, and what its clients need.
type encrypted struct {
	*gateway
	trust *x509.CertPool
}

func startTLS(t testing.TB, set func(*loop.Options)) *encrypted {
	t.Helper()
	cert := identity(t, "gateway", nil)
	trust := x509.NewCertPool()
	trust.AddCert(cert.Leaf)
	return &encrypted{start(t, func(o *loop.Options) {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		if set != nil {
			set(o)
		}
	}), trust}
}

func (g *encrypted) config(version uint16) *tls.Config {
	return &tls.Config{RootCAs: g.trust, ServerName: "localhost", MinVersion: version, MaxVersion: version}
}

// dialTLS is a client of bytes over TLS; between is what TLS runs over.
func (g *encrypted) dialTLS(conf *tls.Config, between func(net.Conn) net.Conn) *raw {
	g.t.Helper()
	r := g.dialRaw()
	conn := r.Conn
	if between != nil {
		conn = between(conn)
	}
	c := tls.Client(conn, conf)
	if err := c.Handshake(); err != nil {
		g.t.Fatalf("handshake: %v", err)
	}
	return &raw{Conn: c, t: g.t, r: bufio.NewReader(c)}
}

func (g *encrypted) dialWSS(user string, version uint16) *client {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	g.t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, "wss://"+g.Addr().String()+"/v1/ws", &websocket.DialOptions{
		Subprotocols: []string{protocol.Subprotocol, protocol.BearerPrefix + user},
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: g.config(version)}},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	conn.SetReadLimit(4 << 20)
	g.t.Cleanup(func() { conn.CloseNow() })
	ev := g.hub.take(g.t, "opening of "+user, func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == user })
	return &client{Conn: conn, t: g.t, id: ev.Conn, ctx: ctx}
}

var tlsVersions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

func TestTLSBothWays(t *testing.T) {
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			g := startTLS(t, nil)
			c := g.dialWSS("alice", version)
			c.says(`{"type":"ping"}`)
			c.want(protocol.Pong)
			c.says(`{"type":"focus","room":"r1"}`)
			if ev := g.hub.of(t, c.id, edge.EvFocus); ev.Room != "r1" {
				t.Errorf("%+v", ev)
			}
			g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: 1})
			for n := uint64(1); n <= 300; n++ { // several records in some turns
				g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: 1, Frame: message(n)})
			}
			for n := uint64(1); n <= 300; n++ {
				if line := c.next(); !strings.Contains(line, fmt.Sprintf(`"n":%d,`, n)) {
					t.Fatalf("got %s, want message %d", line, n)
				}
			}
			long := `{"type":"x","text":"` + strings.Repeat("x", 100_000) + `"}` // more than a record
			g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: c.id, Frame: frame(long)}, edge.Cmd{Kind: edge.CmdMark, Conn: c.id})
			c.want(long)
			g.hub.of(t, c.id, edge.EvDrained)
			g.post(edge.Cmd{Kind: edge.CmdClose, Conn: c.id, Code: protocol.CloseForbidden})
			c.wantClose(protocol.CloseForbidden)
			g.eventually("it is gone", func() bool { s := g.Stats(); return s.Closing == 0 && s.HeldBytes == 0 })
			if s := g.Stats(); s.TLSHandshakes != 1 {
				t.Errorf("%d handshakes", s.TLSHandshakes)
			}
		})
	}
}

// pieces sends what is written to it a few bytes at a time.
type pieces struct {
	net.Conn
	size int
}

func (p pieces) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n, err := p.Conn.Write(b[sent:min(len(b), sent+p.size)])
		if sent += n; err != nil {
			return sent, err
		}
	}
	return len(b), nil
}

func TestTLSRecordsInPieces(t *testing.T) {
	for name, version := range tlsVersions {
		for _, size := range []int{1, 3, 100} {
			t.Run(fmt.Sprintf("%s by %d", name, size), func(t *testing.T) {
				g := startTLS(t, nil)
				r := g.dialTLS(g.config(version), func(c net.Conn) net.Conn { return pieces{c, size} })
				r.sends(bearerAlice + masked(0x81, `{"type":"ping"}`))
				wantStatus(t, r, 101)
				for range 20 {
					pong := make([]byte, 2+len(protocol.Pong))
					if _, err := io.ReadFull(r.r, pong); err != nil || string(pong[2:]) != protocol.Pong {
						t.Fatalf("%q, %v", pong, err)
					}
					r.sends(masked(0x81, `{"type":"ping"}`))
				}
			})
		}
	}
}

func TestCloseNotify(t *testing.T) {
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			g := startTLS(t, nil)
			// The client's: the connection is gone at once, without a close frame.
			r := g.dialTLS(g.config(version), nil)
			r.sends(bearerAlice)
			wantStatus(t, r, 101)
			if err := r.Conn.(*tls.Conn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			g.hub.kind(t, edge.EvClosed)
			if _, err := io.ReadAll(r.r); err != nil {
				t.Errorf("our close_notify did not come: %v", err)
			}
			// The gateway's, after a close frame: a reader can tell it from a cut.
			r = g.dialTLS(g.config(version), nil)
			r.sends(bearerAlice)
			wantStatus(t, r, 101)
			r.sends("\x88\x82\x00\x00\x00\x00\x03\xe8")
			if b, err := io.ReadAll(r.r); err != nil || string(b) != "\x88\x02\x03\xe8" {
				t.Errorf("got %q, %v", b, err)
			}
			// A refusal as well.
			r = g.dialTLS(g.config(version), nil)
			r.sends(goodHead + "\r\n")
			wantStatus(t, r, 401)
			if _, err := io.ReadAll(r.r); err != nil {
				t.Errorf("after a refusal: %v", err)
			}
		})
	}
}

func TestWhatIsNoTLSIsRefused(t *testing.T) {
	g := startTLS(t, func(o *loop.Options) { o.HeadTimeout, o.CloseTimeout = time.Second, 300*time.Millisecond })
	plain := g.dialRaw()
	plain.sends(bearerAlice)
	if body := wantStatus(t, plain, 400); !strings.Contains(body, "TLS") {
		t.Error(body)
	}
	// Garbage in a record, a version nobody speaks, a record that never ends,
	// nothing at all: all are cut in time, without a goroutine left.
	cut := map[string]*raw{}
	for name, sent := range map[string]string{
		"garbage": "\x16\x03\x01\x00\x05hello", "half a record": "\x16\x03\x01\x40\x00half", "half a header": "\x16\x03", "nothing": "",
		"endless": "\x16\x03\x01\x3f\xff" + strings.Repeat("\x01\x00\xff\xff", 40_000),
	} {
		r := g.dialRaw()
		go func() { _, _ = io.WriteString(r.Conn, sent) }() // it may be cut in the middle
		cut[name] = r
	}
	for name, r := range cut {
		if _, err := io.Copy(io.Discard, r.r); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := &tls.Config{RootCAs: g.trust, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if err := tls.Client(g.dialRaw().Conn, old).Handshake(); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: %v", err)
	}
	g.eventually("all are gone", func() bool { s := g.Stats(); return s.Heads == 0 && s.Closing == 0 && s.HeldBytes == 0 })
}

func TestNoHandshakeWhileRefusing(t *testing.T) {
	g := startTLS(t, nil)
	g.Refuse(true)
	if err := tls.Client(g.dialRaw().Conn, g.config(tls.VersionTLS13)).Handshake(); err == nil {
		t.Error("a handshake while memory is short")
	}
	g.eventually("it is counted", func() bool { return g.Stats().Upgrades[loop.UpgradeUnavailable] == 1 })
	g.Refuse(false)
	r := g.dialTLS(g.config(tls.VersionTLS13), nil)
	r.sends(bearerAlice)
	wantStatus(t, r, 101)
}

func TestTLSHandshakesThatStallAreCut(t *testing.T) {
	g := startTLS(t, func(o *loop.Options) { o.HeadTimeout, o.TLSWorkers = 2*time.Second, 1 })
	before := runtime.NumGoroutine()
	// Each sends a whole hello and then nothing: its goroutine waits, and with one
	// place to compute at, it must not keep that.
	for range 20 {
		r := g.dialRaw()
		hello := helloOf(t)
		r.sends(string(hello))
	}
	r := g.dialTLS(g.config(tls.VersionTLS13), nil)
	r.sends(bearerAlice)
	wantStatus(t, r, 101)
	if n := g.Stats().Upgrades[loop.UpgradeTimeout]; n > 0 {
		t.Errorf("it was let in when %d had been cut", n)
	}
	g.eventually("they are cut", func() bool { s := g.Stats(); return s.Upgrades[loop.UpgradeTimeout] == 20 && s.Heads == 0 })
	g.eventually("no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// helloOf is a client's first flight.
func helloOf(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		_ = tls.Client(there, &tls.Config{ServerName: "localhost"}).Handshake() // fails with the pipe
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(here, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(here, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

func TestMutualTLS(t *testing.T) {
	ca := identity(t, "ca", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	g := startTLS(t, func(o *loop.Options) {
		o.TLS.ClientAuth, o.TLS.ClientCAs = tls.RequireAndVerifyClientCert, pool
	})
	for name, version := range tlsVersions {
		conf := g.config(version)
		conf.Certificates = []tls.Certificate{identity(t, "device", &ca)}
		r := g.dialTLS(conf, nil)
		r.sends(bearerAlice)
		wantStatus(t, r, 101)

		for what, certs := range map[string][]tls.Certificate{"none": nil, "a stranger's": {identity(t, "stranger", nil)}} {
			conf := g.config(version)
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if certs == nil {
					return &tls.Certificate{}, nil
				}
				return &certs[0], nil
			}
			c := tls.Client(g.dialRaw().Conn, conf)
			err := c.Handshake()
			if err == nil { // in TLS 1.3 the client is done before it is refused
				_, err = c.Read(make([]byte, 1))
			}
			var alert *net.OpError
			if !errors.As(err, &alert) || !strings.Contains(err.Error(), "certificate") && !strings.Contains(err.Error(), "authority") && !strings.Contains(err.Error(), "handshake failure") {
				t.Errorf("%s, certificate %s: %v", name, what, err)
			}
		}
	}
	g.eventually("counted", func() bool { return g.Stats().Upgrades[loop.UpgradeTLS] == 4 })
}

func TestTLSBehindABalancer(t *testing.T) {
	g := startTLS(t, func(o *loop.Options) {
		o.ProxyFrom, o.MaxPerAddr = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, 1
	})
	header := proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", "")
	// Header and hello in one segment.
	together := func(c net.Conn) net.Conn { return &prefixed{Conn: c, prefix: header} }
	r := g.dialTLS(g.config(tls.VersionTLS13), together)
	r.sends(bearerAlice)
	wantStatus(t, r, 101)
	over := tls.Client(together(g.dialRaw().Conn), g.config(tls.VersionTLS13))
	if err := over.Handshake(); err == nil {
		t.Error("a second connection of the address was let in")
	}
}

type prefixed struct {
	net.Conn
	prefix string
}

func (p *prefixed) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(append([]byte(p.prefix), b...))
	n = max(0, n-len(p.prefix))
	p.prefix = ""
	return n, err
}

func TestSlowReaderWithTLS(t *testing.T) {
	const queue = 32 << 10
	g := startTLS(t, func(o *loop.Options) {
		o.Loops, o.QueueBytes, o.SendBufferBytes, o.SlowTimeout = 1, queue, 16<<10, time.Minute
	})
	r := g.dialTLS(g.config(tls.VersionTLS13), nil)
	r.sends(bearerAlice)
	wantStatus(t, r, 101)
	id := g.hub.kind(t, edge.EvOpened).Conn
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: 1})
	var n uint64
	pad := strings.Repeat("x", 1000)
	// The kernel's own buffers take a few megabytes first.
	for g.Stats().SlowReaders == 0 {
		for range 100 {
			n++
			f := edge.NewFrame(1200, func(dst []byte) []byte {
				return protocol.AppendMessage(dst, "r", protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}, n, []byte(`"from":"`+pad+`"}`))
			})
			f.ID, f.Prev = protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}
			g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: 1, Frame: f})
		}
		time.Sleep(2 * time.Millisecond)
		if n > 100_000 {
			t.Fatal("it never became slow")
		}
	}
	if s := g.Stats(); s.QueuedBytes > 2*queue || s.HeldBytes > 8*queue { // frames that were joined for the room count as well
		t.Errorf("%d bytes queued, %d held", s.QueuedBytes, s.HeldBytes)
	}
	go io.Copy(io.Discard, r.r) // ends with the connection
	ev := g.hub.of(t, id, edge.EvLagged)
	if ev.Lag[1].Ms == 0 || ev.Lag[1].Ms >= n {
		t.Errorf("lagged since %v of %d", ev.Lag, n)
	}
}

// memory is a net.Conn over bytes in memory that says would-block, temporarily,
// when it has none: what the gateway does to crypto/tls, and nothing else of it.
type memory struct {
	in, out []byte
}

type passing struct{}

func (passing) Error() string   { return "not yet" }
func (passing) Timeout() bool   { return true }
func (passing) Temporary() bool { return true }

func (m *memory) Read(p []byte) (int, error) {
	if len(m.in) == 0 {
		return 0, passing{}
	}
	n := copy(p, m.in)
	m.in = m.in[n:]
	return n, nil
}

func (m *memory) Write(p []byte) (int, error)      { m.out = append(m.out, p...); return len(p), nil }
func (m *memory) Close() error                     { return nil }
func (m *memory) LocalAddr() net.Addr              { return nil }
func (m *memory) RemoteAddr() net.Addr             { return nil }
func (m *memory) SetDeadline(time.Time) error      { return nil }
func (m *memory) SetReadDeadline(time.Time) error  { return nil }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }

// switching is a pipe during the handshake and memory after it.
type switching struct {
	net.Conn
	after *memory
	on    bool
}

func (s *switching) Read(p []byte) (int, error) {
	if s.on {
		return s.after.Read(p)
	}
	return s.Conn.Read(p)
}

func (s *switching) Write(p []byte) (int, error) {
	if s.on {
		return s.after.Write(p)
	}
	return s.Conn.Write(p)
}

// TestTemporaryErrorsKeepTLSState guards the one assumption about crypto/tls that
// TLS without goroutines rests on, apart from our own code: that a Read which got
// a temporary net.Error after the handshake has lost nothing and may be repeated,
// at every byte of a record. If a new Go breaks it, this fails first.
func TestTemporaryErrorsKeepTLSState(t *testing.T) {
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			cert := identity(t, "gateway", nil)
			trust := x509.NewCertPool()
			trust.AddCert(cert.Leaf)
			a, b := net.Pipe()
			left, right := &switching{Conn: a, after: &memory{}}, &switching{Conn: b, after: &memory{}}
			server := tls.Server(left, &tls.Config{Certificates: []tls.Certificate{cert}})
			client := tls.Client(right, &tls.Config{RootCAs: trust, ServerName: "localhost", MinVersion: version, MaxVersion: version})
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := server.Handshake(); err != nil {
					t.Error(err)
				}
			})
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			if version == tls.VersionTLS13 { // the session ticket: net.Pipe needs a reader
				wg.Go(func() {
					_ = client.SetReadDeadline(time.Now().Add(time.Second))
					_, _ = client.Read(make([]byte, 1))
				})
			}
			wg.Wait()
			_ = client.SetReadDeadline(time.Time{})
			left.on, right.on = true, true
			buf := make([]byte, 1<<16)
			for _, pair := range []struct {
				from, to *tls.Conn
				out, in  *memory
			}{{client, server, right.after, left.after}, {server, client, left.after, right.after}} {
				for round := range 3 {
					want := strings.Repeat(fmt.Sprintf("message %d ", round), 1+round*2000)
					if _, err := io.WriteString(pair.from, want); err != nil {
						t.Fatal(err)
					}
					sent := pair.out.out
					pair.out.out = nil
					var got []byte
					for _, c := range sent { // a Read before every byte
						n, err := pair.to.Read(buf)
						got = append(got, buf[:n]...)
						var ne net.Error
						if err != nil && (!errors.As(err, &ne) || !ne.Timeout()) {
							t.Fatalf("after %d of %d bytes: %v", len(got), len(sent), err)
						}
						pair.in.in = append(pair.in.in, c)
					}
					for {
						n, err := pair.to.Read(buf)
						got = append(got, buf[:n]...)
						if err != nil {
							break
						}
					}
					if string(got) != want {
						t.Fatalf("round %d: got %d bytes, want %d", round, len(got), len(want))
					}
				}
			}
		})
	}
}

// The end of an answer that is encrypted, but not yet taken by the socket, is a part of
// the answer: a gateway that goes does not cut it.
func TestNoAnswerIsCutByTheEndWithTLS(t *testing.T) {
	g := startTLS(t, func(o *loop.Options) { o.Loops, o.SendBufferBytes = 1, 16<<10 })
	// An answer of which nothing but ciphertext is left is found by its size.
	for size := 20_000; size < 3*210_000; size += 6_000 {
		r := g.dialTLS(g.config(tls.VersionTLS13), func(c net.Conn) net.Conn {
			if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
				t.Fatal(err)
			}
			return c
		})
		id := g.polls(r, "alice", "{}")
		blocked := g.Stats().WouldBlock
		g.post(unicast(id, polledAt("alice", 17), frame(`{"type":"x","pad":"`+strings.Repeat("x", 20_000+size%210_000)+`"}`), resumedFrame)...)
		g.hub.of(t, id, edge.EvClosed)
		time.Sleep(20 * time.Millisecond) // for the socket to take what it does; another size is tried if it had not the time
		s := g.Stats()
		if s.WouldBlock == blocked || s.QueuedBytes > 0 || s.HeldBytes < 8<<10 {
			r.Close()
			g.eventually("it is gone", func() bool { return g.Stats().Open == 0 })
			continue
		}
		ctx, cancel := timeout(20 * time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- g.Drain(ctx, 50*time.Millisecond) }()
		time.Sleep(200 * time.Millisecond) // a client that takes its time
		resp, err := http.ReadResponse(r.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || !json.Valid(body) {
			t.Errorf("%d bytes of %d: %v", len(body), resp.ContentLength, err)
		}
		r.Close() // else its end is waited for
		if err := <-done; err != nil {
			t.Error(err)
		}
		return
	}
	t.Fatal("there is no such size")
}
