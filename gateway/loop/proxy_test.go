package loop_test

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/testkit"
)

const bearerAlice = goodHead + "Authorization: Bearer alice\r\n\r\n"

// proxyV2 builds a header of version 2; command is 1 for PROXY, 0 for LOCAL.
func proxyV2(command byte, src, dst string, extra string) string {
	body := ""
	family := byte(0) // UNSPEC
	if src != "" {
		from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		family = 0x11
		if from.Addr().Is6() {
			family = 0x21
		}
		body = string(from.Addr().AsSlice()) + string(to.Addr().AsSlice())
		body = string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte(body), from.Port()), to.Port()))
	}
	body += extra
	head := []byte("\r\n\r\n\x00\r\nQUIT\n\x00\x00")
	head[12], head[13] = 0x20|command, family
	return string(binary.BigEndian.AppendUint16(head, uint16(len(body)))) + body
}

func behindBalancer(t *testing.T, set func(*loop.Options)) *gateway {
	return start(t, func(o *loop.Options) {
		o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		o.MaxPerAddr = 1
		if set != nil {
			set(o)
		}
	})
}

func wantStatus(t *testing.T, r *raw, status int) string {
	t.Helper()
	resp, body := r.answer()
	if resp.StatusCode != status {
		t.Fatalf("got %d %s, want %d", resp.StatusCode, body, status)
	}
	return body
}

// HAProxy's check says whom it asks for, and resets the connection in the same breath:
// that is no client who was refused.
func TestABalancersCheckIsNotRefused(t *testing.T) {
	hold := holding{make(chan struct{}), make(chan struct{})}
	g := behindBalancer(t, func(o *loop.Options) { o.Loops, o.Verifier = 1, hold })
	client := g.dialRaw()
	client.sends(proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", "") + goodHead + "Authorization: Bearer hold\r\n\r\n")
	<-hold.begun
	check := g.dialRaw()
	check.sends(proxyV2(0, "", "", ""))
	check.Conn.(*net.TCPConn).SetLinger(0)
	check.Close()
	close(hold.end)
	wantStatus(t, client, 101)
	g.eventually("the check is gone", func() bool { return g.Stats().Accepted == 2 && g.Stats().Closed[loop.ClosedHandshake] == 1 })
	if s := g.Stats(); s.Upgrades[loop.UpgradeGone] != 1 || s.Upgrades[loop.UpgradeBadRequest] != 0 {
		t.Errorf("%d gone, %d bad requests, want 1 and 0", s.Upgrades[loop.UpgradeGone], s.Upgrades[loop.UpgradeBadRequest])
	}
}

func TestProxyHeaderTellsTheClient(t *testing.T) {
	for name, header := range map[string]string{
		"v1":                   "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n",
		"v1 IPv6":              "PROXY TCP6 2001:db8::1 2001:db8:1::1 5000 443\r\n",
		"v1 of nginx":          "PROXY TCP6 192.0.2.1 198.51.100.1 5000 443\r\n",
		"v2":                   proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", ""),
		"v2 IPv6":              proxyV2(1, "[2001:db8::1]:5000", "[2001:db8:1::1]:443", ""),
		"v2 with an extension": proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", "\x04\x00\x03abc"),
	} {
		t.Run(name, func(t *testing.T) {
			g := behindBalancer(t, nil)
			first, second := g.dialRaw(), g.dialRaw()
			first.sends(header + bearerAlice)
			wantStatus(t, first, 101)
			second.sends(header + bearerAlice)
			if body := wantStatus(t, second, 429); !strings.Contains(body, `"rate_limited"`) {
				t.Error(body)
			}
			other := g.dialRaw()
			other.sends(proxyV2(1, "203.0.113.7:5000", "198.51.100.1:443", "") + bearerAlice)
			wantStatus(t, other, 101)

			first.Close() // the address has its place back
			g.eventually("the first is gone", func() bool { return g.Open() == 1 })
			again := g.dialRaw()
			again.sends(header + bearerAlice)
			wantStatus(t, again, 101)
		})
	}
}

func TestProxyHeaderByteByByte(t *testing.T) {
	g := behindBalancer(t, nil)
	for _, header := range []string{
		"PROXY TCP4 192.0.2.9 198.51.100.1 5000 443\r\n",
		proxyV2(1, "192.0.2.10:5000", "198.51.100.1:443", "\x04\x00\x03abc"),
	} {
		r := g.dialRaw()
		for _, b := range []byte(header + bearerAlice) {
			r.sends(string([]byte{b}))
		}
		wantStatus(t, r, 101)
	}
}

func TestBalancersOwnConnectionsCountForNobody(t *testing.T) {
	g := behindBalancer(t, nil)
	for _, header := range []string{
		proxyV2(0, "", "", ""), proxyV2(0, "", "", ""), // LOCAL: health checks
		"PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
	} {
		r := g.dialRaw()
		r.sends(header + bearerAlice)
		wantStatus(t, r, 101)
	}
	// A check that connects, says whose it is, and leaves.
	r := g.dialRaw()
	r.sends(proxyV2(0, "", "", ""))
	r.Close()
	g.eventually("it is gone", func() bool { s := g.Stats(); return s.Upgrades[loop.UpgradeGone] == 1 && s.Heads == 0 })
}

func TestBadProxyHeaders(t *testing.T) {
	g := behindBalancer(t, nil)
	tooLong := []byte(proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", ""))
	binary.BigEndian.PutUint16(tooLong[14:], 60_000)
	otherVersion := []byte(proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", ""))
	otherVersion[12] = 0x31
	for name, sent := range map[string]string{
		"none":               bearerAlice,
		"garbage":            "\x00\x01\x02\x03",
		"endless line":       "PROXY TCP4 " + strings.Repeat("1", 200),
		"line without CR":    "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\n" + bearerAlice,
		"no address":         "PROXY TCP4 a b 5000 443\r\n" + bearerAlice,
		"too few words":      "PROXY TCP4 192.0.2.1\r\n" + bearerAlice,
		"half a signature":   "\r\n\r\n\x00\r\nQUIX",
		"v2 far too long":    string(tooLong),
		"v3":                 string(otherVersion) + bearerAlice,
		"v2 of no family":    proxyV2(1, "", "", "") + bearerAlice,
		"v2 without address": proxyV2(1, "", "", "")[:13] + "\x11\x00\x00" + bearerAlice,
	} {
		t.Run(name, func(t *testing.T) {
			r := g.dialRaw()
			r.sends(sent)
			wantStatus(t, r, 400)
		})
	}
	g.eventually("all counted", func() bool { return g.Stats().Upgrades[loop.UpgradeProxy] == 11 })
}

func TestHalfAProxyHeaderIsTimedOut(t *testing.T) {
	g := behindBalancer(t, func(o *loop.Options) { o.HeadTimeout = 200e6 })
	r := g.dialRaw()
	r.sends(proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", "")[:15])
	if _, err := r.r.ReadByte(); err == nil || err == io.ErrNoProgress {
		t.Fatal("answered")
	}
	g.eventually("cut", func() bool { return g.Stats().Upgrades[loop.UpgradeTimeout] == 1 })
}

func TestProxyHeaderFromElsewhereIsABadRequest(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	for _, header := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n", proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", ""),
	} {
		r := g.dialRaw()
		r.sends(header + bearerAlice)
		wantStatus(t, r, 400)
	}
	r := g.dialRaw()
	r.sends(bearerAlice)
	wantStatus(t, r, 101)
}

// Who is one too many of its address is told of once, with the address.
func TestTheLogNamesATooManyOnce(t *testing.T) {
	var log testkit.Log
	g := behindBalancer(t, func(o *loop.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	const header = "PROXY TCP4 192.0.2.77 198.51.100.1 5000 443\r\n"
	first, second := g.dialRaw(), g.dialRaw()
	first.sends(header + goodHead + "Authorization: Bearer alice\r\n\r\n")
	wantStatus(t, first, 101)
	second.sends(header + goodHead + "Authorization: Bearer alice\r\n\r\n")
	wantStatus(t, second, 429)
	g.eventually("the log has it", func() bool { return strings.Contains(log.String(), "addr=192.0.2.77 status=429") })
	if n := strings.Count(log.String(), "status=429"); n != 1 {
		t.Errorf("%d times in the log: %s", n, log.String())
	}
	g.eventually("it is counted", func() bool { return g.Stats().Upgrades[loop.UpgradeTooManyAddr] == 1 })
}

// The level of a log may be changed while it is written: who is refused from then on is
// named in it.
func TestTheLogNamesWhoIsRefusedOnceItIsAskedTo(t *testing.T) {
	var log testkit.Log
	var level slog.LevelVar
	g := behindBalancer(t, func(o *loop.Options) {
		o.MaxPerAddr = 0
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: &level}))
	})
	refused := func(addr string) {
		r := g.dialRaw()
		r.sends("PROXY TCP4 " + addr + " 198.51.100.1 5000 443\r\n" + goodHead + "Authorization: Bearer bad\r\n\r\n")
		wantStatus(t, r, 401)
		r.Close()
		g.eventually("it is gone", func() bool { return g.Stats().Closing == 0 })
	}
	level.Set(slog.LevelDebug)
	refused("192.0.2.77")
	g.eventually("the log has it", func() bool { return strings.Contains(log.String(), "addr=192.0.2.77 status=401") })
	level.Set(slog.LevelInfo)
	refused("192.0.2.78")
	level.Set(slog.LevelDebug)
	refused("192.0.2.79")
	g.eventually("the log has it", func() bool { return strings.Contains(log.String(), "addr=192.0.2.79 status=401") })
	if strings.Contains(log.String(), "192.0.2.78") {
		t.Error("the log has what nobody asked for")
	}
}

func TestTheLogNamesTheClientAndNotTheBalancer(t *testing.T) {
	var log testkit.Log
	g := behindBalancer(t, func(o *loop.Options) {
		o.MaxPerAddr = 0
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r := g.dialRaw()
	r.sends("PROXY TCP4 192.0.2.77 198.51.100.1 5000 443\r\n" + goodHead + "Authorization: Bearer bad\r\n\r\n")
	wantStatus(t, r, 401)
	g.eventually("the log has it", func() bool {
		s := log.String()
		return strings.Contains(s, "192.0.2.77") && strings.Contains(s, "status=401") && !strings.Contains(s, "127.0.0.1")
	})
	if strings.Contains(log.String(), "bad") {
		t.Error("the token is in the log")
	}
}

func TestConnectionsPerAddress(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.MaxPerAddr = 2 })
	a, b := g.dialRaw(), g.dialRaw()
	a.sends(bearerAlice)
	wantStatus(t, a, 101)
	g.eventually("both are in", func() bool { return g.Stats().Accepted == 2 })
	c := g.dialRaw()
	if resp, _ := c.answer(); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("got %d %v", resp.StatusCode, resp.Header)
	}
	c.Close()
	b.Close() // one that never asked for anything counted as well
	g.eventually("there is room", func() bool { s := g.Stats(); return s.Heads == 0 && s.Closing == 0 })
	d := g.dialRaw()
	d.sends(bearerAlice)
	wantStatus(t, d, 101)
}

func TestAcceptRateQueuesAStorm(t *testing.T) {
	const rate, clients = 100, 60
	g := start(t, func(o *loop.Options) { o.Loops, o.AcceptRate = 1, rate })
	began := time.Now().UnixMilli()
	var all []*raw
	for range clients {
		r := g.dialRaw()
		r.sends(goodHead + "Authorization: Bearer u" + string(rune('a'+len(all)%26)) + "\r\n\r\n")
		all = append(all, r)
	}
	for _, r := range all {
		wantStatus(t, r, 101)
	}
	// A tenth of a second's worth at once, the rest at the rate.
	if took, least := time.Now().UnixMilli()-began, int64((clients-rate/10-5)*1000/rate); took < least {
		t.Errorf("all were in after %d ms; at %d a second it takes %d", took, rate, least)
	}
	if g.Stats().AcceptPauses == 0 {
		t.Error("no pause was counted")
	}
}

// TestABalancerThatIsNotKnown is what a first set-up meets: the header comes from an
// address that is not in ProxyFrom, or none comes from one that is.
func TestABalancerThatIsNotKnown(t *testing.T) {
	unknown := start(t, nil)
	for version, header := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n", "v2": proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", ""),
	} {
		r := unknown.dialRaw()
		r.sends(header + bearerAlice)
		if body := wantStatus(t, r, 400); !strings.Contains(body, "PROXY protocol header?") {
			t.Errorf("%s: it is told %s", version, body)
		}
	}

	var log testkit.Log
	g := behindBalancer(t, func(o *loop.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r := g.dialRaw()
	r.sends(bearerAlice)
	wantStatus(t, r, 400)
	g.eventually("the log names it", func() bool { return strings.Contains(log.String(), "addr=127.0.0.1 status=400") })
}
