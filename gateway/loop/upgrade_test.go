package loop_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

// masked builds a client's frame with a zero mask, which leaves the payload
// readable.
func masked(first byte, payload string) string {
	if len(payload) > 125 {
		return string([]byte{first, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}) + payload
	}
	return string([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}) + payload
}

func TestAnswersToRequests(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Origins = []string{"https://chat.example"} })
	bearer := func(token string) string { return goodHead + "Authorization: Bearer " + token + "\r\n" }
	for _, tc := range []struct {
		name, head string
		status     int
		contains   string
	}{
		{"good", bearer("alice"), 101, ""},
		{"no token", goodHead, 401, `"code":"unauthorized"`},
		{"bad token", bearer("bad"), 401, `"code":"unauthorized"`},
		{"another issuer's token", bearer("foreign"), 401, `"detail":"the token is not valid: iss is not the expected one"`},
		{"expired token", bearer("old"), 401, `"code":"token_expired"`},
		{"token expired meanwhile", bearer("alice.-1"), 401, `"code":"token_expired"`},
		{"server key", bearer("server"), 403, `"code":"forbidden"`},
		{"foreign origin", bearer("alice") + "Origin: https://evil.example\r\n", 403, `"code":"forbidden"`},
		{"own origin", bearer("alice") + "Origin: https://chat.example\r\n", 101, ""},
		{"other path", strings.Replace(bearer("alice"), "/v1/ws", "/", 1), 404, `"code":"not_found"`},
		{"other version", strings.Replace(bearer("alice"), ": 13", ": 12", 1), 426, ""},
		{"body", bearer("alice") + "Content-Length: 4\r\n", 400, ""},
		{"token in the URL", strings.Replace(bearer("alice"), "/v1/ws", "/v1/ws?token=x", 1), 400, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := g.dialRaw()
			r.sends(tc.head + "\r\n")
			resp, body := r.answer()
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.contains) {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			if tc.status == 101 {
				if got := resp.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
					t.Errorf("accept key %q", got) // RFC 6455 §1.3's example
				}
				return
			}
			if tc.status == 426 && resp.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Errorf("headers %v", resp.Header)
			}
			if _, err := r.r.ReadByte(); err != io.EOF {
				t.Errorf("not closed: %v", err)
			}
		})
	}
	g.eventually("all refused ones are gone", func() bool { s := g.Stats(); return s.Closing == 0 || s.Open == 2 })
}

// A request may name the whole URL, as to a proxy. Its host is then the gateway's own,
// whatever Host says.
func TestAWholeURLIsAskedFor(t *testing.T) {
	const poll = "Host: h\r\nContent-Type: application/json\r\nContent-Length: 3\r\n"
	g := start(t, nil)
	for _, tc := range []struct {
		name, head string
		status     int
	}{
		{"a WebSocket", strings.Replace(goodHead, "/v1/ws", "http://h/v1/ws", 1), 101},
		{"… for a page of the URL's host", strings.Replace(goodHead, "/v1/ws", "http://other:8081/v1/ws", 1) + "Origin: http://other:8081\r\n", 101},
		{"… for a page of Host", strings.Replace(goodHead, "/v1/ws", "http://other:8081/v1/ws", 1) + "Origin: http://h\r\n", 403},
		{"events", "GET http://other/v1/events HTTP/1.1\r\nHost: h\r\nOrigin: https://other\r\n", 200},
		{"events for a page of Host", "GET http://other/v1/events HTTP/1.1\r\nHost: h\r\nOrigin: https://h\r\n", 403},
		{"a poll", "POST http://other/v1/poll HTTP/1.1\r\n" + poll + "Origin: http://other\r\n", 400}, // by its body
		{"another path", "GET http://h/ HTTP/1.1\r\nHost: h\r\n", 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := g.dialRaw()
			r.sends(tc.head + "Authorization: Bearer alice\r\n\r\n")
			if strings.HasPrefix(tc.head, "POST") {
				r.sends("[1]")
			}
			if resp, err := http.ReadResponse(r.r, nil); err != nil || resp.StatusCode != tc.status {
				t.Fatalf("got %+v, %v", resp, err)
			}
		})
	}
}

// Credentials that can't be any are none, as over the API; two are a mistake,
// whichever comes first.
func TestCredentialsThatAreNoneOrTwo(t *testing.T) {
	const (
		header   = "Authorization: Bearer alice\r\n"
		protocol = "Sec-WebSocket-Protocol: madang.v1, bearer.alice\r\n"
	)
	g := start(t, nil)
	for _, tc := range []struct {
		name, lines string
		status      int
	}{
		{"another scheme", "Authorization: Basic eA==\r\n", 401},
		{"a scheme alone", "Authorization: Bearer\r\n", 401},
		{"nothing", "Authorization:\r\n", 401},
		{"a space in the token", "Authorization: Bearer a b\r\n", 401},
		{"an empty token in the subprotocol", "Sec-WebSocket-Protocol: bearer.\r\n", 401},
		{"the header twice", header + header, 400},
		{"two subprotocols", "Sec-WebSocket-Protocol: bearer.alice, bearer.bob\r\n", 400},
		{"two subprotocols in two lines", protocol + protocol, 400},
		{"the header first", header + protocol, 400},
		{"the subprotocol first", protocol + header, 400},
		{"another scheme and a subprotocol", "Authorization: Basic eA==\r\n" + protocol, 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := g.dialRaw()
			r.sends(goodHead + tc.lines + "\r\n")
			resp, body := r.answer()
			if resp.StatusCode != tc.status {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			if challenged := resp.Header.Get("WWW-Authenticate") == "Bearer"; challenged != (tc.status == 401) {
				t.Errorf("WWW-Authenticate is %q", resp.Header.Get("WWW-Authenticate"))
			}
		})
	}
}

func TestBrowserTokenIsNeverEchoed(t *testing.T) {
	g := start(t, nil)
	for offers, want := range map[string]string{
		"madang.v1, bearer.alice": "madang.v1", "bearer.alice, madang.v1": "madang.v1", "bearer.alice": "", "chat.v9, bearer.alice": "",
	} {
		r := g.dialRaw()
		r.sends(goodHead + "Sec-WebSocket-Protocol: " + offers + "\r\n\r\n")
		if resp, _ := r.answer(); resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Protocol") != want {
			t.Errorf("%s: got %d %q, want %q", offers, resp.StatusCode, resp.Header.Get("Sec-WebSocket-Protocol"), want)
		}
	}
}

func TestHeadInPiecesWithFramesBehindIt(t *testing.T) {
	g := start(t, nil)
	whole := goodHead + "Authorization: Bearer alice\r\n\r\n" + masked(0x81, `{"type":"ping"}`) + masked(0x81, `{"type":"focus","room":"r1"}`)
	for _, size := range []int{1, 7, len(whole) - 30, len(whole)} {
		r := g.dialRaw()
		for rest := whole; len(rest) > 0; {
			n := min(size, len(rest))
			r.sends(rest[:n])
			rest = rest[n:]
		}
		if resp, body := r.answer(); resp.StatusCode != 101 {
			t.Fatalf("pieces of %d: %d %s", size, resp.StatusCode, body)
		}
		pong := make([]byte, 2+len(protocol.Pong))
		if _, err := io.ReadFull(r.r, pong); err != nil || string(pong[2:]) != protocol.Pong {
			t.Fatalf("pieces of %d: %q, %v", size, pong, err)
		}
		g.hub.kind(t, edge.EvFocus)
		r.Close()
	}
}

func TestHeadTooLarge(t *testing.T) {
	g := start(t, nil)
	line := "X-Junk: " + strings.Repeat("x", 90) + "\r\n"
	for name, junk := range map[string]string{
		"many headers": strings.Repeat(line, 5000), "one line": "X: " + strings.Repeat("x", 2<<20), "no line end": strings.Repeat("y", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			r := g.dialRaw()
			go io.WriteString(r.Conn, goodHead+junk) // it will not get all of it out
			resp, body := r.answer()
			if resp.StatusCode != 431 || !strings.Contains(body, "too_large") {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
		})
	}
	// Just below the limit is fine.
	head := goodHead + "Authorization: Bearer alice\r\n"
	for len(head)+len(line)+2 <= 8<<10 {
		head += line
	}
	r := g.dialRaw()
	r.sends(head + "\r\n")
	if resp, body := r.answer(); resp.StatusCode != 101 {
		t.Errorf("a head of %d bytes: %d %s", len(head), resp.StatusCode, body)
	}
}

func TestBareLineFeedsAreNotWaitedOut(t *testing.T) {
	g := start(t, nil)
	r := g.dialRaw()
	r.sends("GET /v1/ws HTTP/1.1\nHost: h\n\n")
	if resp, _ := r.answer(); resp.StatusCode != 400 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

func TestSlowHandshakesAreCut(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.HeadTimeout = 300 * time.Millisecond })
	silent, dripping := g.dialRaw(), g.dialRaw()
	go func() {
		for i := range len(goodHead) {
			if _, err := dripping.Write([]byte(goodHead[i : i+1])); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	for _, r := range []*raw{silent, dripping} {
		if _, err := r.r.ReadByte(); err == nil {
			t.Error("got an answer")
		}
	}
	g.eventually("two timed out", func() bool { return g.Stats().Upgrades[loop.UpgradeTimeout] == 2 })
	g.eventually("nothing is held", func() bool { s := g.Stats(); return s.Heads == 0 && s.HeldBytes == 0 })
}

func TestMaxConns(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.MaxConns = 2 })
	a := g.dial("alice")
	g.dial("bob")
	r := g.dialRaw()
	r.sends(goodHead + "Authorization: Bearer carol\r\n\r\n")
	if resp, body := r.answer(); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	a.Close(websocket.StatusNormalClosure, "")
	g.eventually("alice has left", func() bool { return g.Open() == 1 })
	g.dial("carol")

	g.Refuse(true)
	r = g.dialRaw()
	r.sends(goodHead + "Authorization: Bearer dave\r\n\r\n")
	if resp, _ := r.answer(); resp.StatusCode != 503 {
		t.Errorf("while refusing: %d", resp.StatusCode)
	}
}

func TestMaxPerUserAcrossLoops(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.MaxPerUser = 3; o.Loops = 3 })
	var last *client
	for range 3 {
		last = g.dial("alice")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, g.url(""), &websocket.DialOptions{Subprotocols: []string{"bearer.alice"}})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = conn.Read(ctx)
	var ce websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != websocket.StatusCode(protocol.CloseTooMany) {
		t.Errorf("got %v", err)
	}
	g.dial("bob")
	last.Close(websocket.StatusNormalClosure, "")
	g.eventually("one has left", func() bool { return g.Open() == 3 })
	g.dial("alice")
	if n := g.hub.count(edge.EvOpened); n != 0 {
		t.Errorf("%d more were announced", n)
	}
}

// Beyond the bound of requests in flight the rest waits in the backlog and is
// served when there is room.
func TestUpgradesInFlightAreBounded(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.MaxUpgrades = 4; o.Loops = 1 })
	var silent []*raw
	for range 4 {
		silent = append(silent, g.dialRaw())
	}
	g.eventually("four are waited for", func() bool { return g.Stats().Heads == 4 })
	waiting := g.dialRaw()
	waiting.sends(goodHead + "Authorization: Bearer alice\r\n\r\n")
	time.Sleep(50 * time.Millisecond)
	if s := g.Stats(); s.Accepted != 4 {
		t.Fatalf("%d accepted", s.Accepted)
	}
	silent[0].Close()
	if resp, _ := waiting.answer(); resp.StatusCode != 101 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

// Two gateways on one port would share its clients in silence.
func TestAPortThatIsTakenIsRefused(t *testing.T) {
	g := start(t, nil)
	second, err := loop.New(loop.Options{Addr: g.Addr().String(), Hub: newHub(), Verifier: verifier{}})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second gateway on %s: %v, %v", g.Addr(), second, err)
	}
}

// Out of descriptors: those who are in are served, nothing spins, and the others
// are taken when there is room again.
func TestOutOfDescriptors(t *testing.T) {
	var log testkit.Log
	g := start(t, func(o *loop.Options) { o.Loops = 1; o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	alice := g.dial("alice")
	used := highestFD(t)
	allow := descriptors(t)
	allow(used + 2) // one for the client, none for the gateway
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Skip("no descriptor for the client: ", err)
	}
	defer conn.Close()
	g.eventually("accepting fails", func() bool { return g.Stats().AcceptFailures > 0 })
	g.eventually("the log says so", func() bool { return strings.Contains(log.String(), "too many open files") })
	turns := g.Stats().Turns
	time.Sleep(300 * time.Millisecond)
	if n := g.Stats().Turns - turns; n > 50 {
		t.Errorf("%d turns in 300 ms: it spins", n)
	}
	alice.says(`{"type":"ping"}`)
	alice.want(protocol.Pong)
	allow(0)
	rc := &raw{Conn: conn, t: t}
	rc.sends(goodHead + "Authorization: Bearer bob\r\n\r\n")
	g.hub.take(t, "opening of bob", func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == "bob" })
}

// Clients leave descriptors to the process itself: a connection to Redis that broke
// could not be made again, because those who wait take what it leaves.
func TestClientsDoNotTakeTheLastDescriptors(t *testing.T) {
	used := highestFD(t)
	descriptors(t)((used + 40) * 8 / 7)
	g := start(t, func(o *loop.Options) { o.Loops = 1 })
	var clients []net.Conn
	for g.Stats().AcceptFailures == 0 {
		conn, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal("clients have taken all descriptors: ", err)
		}
		defer conn.Close()
		clients = append(clients, conn)
		g.eventually("accepted, or not", func() bool {
			s := g.Stats()
			return s.Accepted == uint64(len(clients)) || s.AcceptFailures > 0
		})
	}
	for range 2 {
		fd, err := syscall.Dup(2)
		if err != nil {
			t.Fatal("there is none for a connection to Redis: ", err)
		}
		defer syscall.Close(fd)
	}
	accepted := g.Stats().Accepted
	bob, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Close()
	for failures := g.Stats().AcceptFailures; g.Stats().AcceptFailures < failures+2; {
		time.Sleep(10 * time.Millisecond)
	}
	if n := g.Stats().Accepted; n != accepted {
		t.Errorf("%d more were accepted", n-accepted)
	}
	for _, conn := range clients {
		conn.Close()
	}
	rc := &raw{Conn: bob, t: t}
	rc.sends(goodHead + "Authorization: Bearer bob\r\n\r\n")
	g.hub.take(t, "opening of bob", func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == "bob" })
}

// descriptors sets how many this process may have, until the test ends; 0: as many as before.
func descriptors(t *testing.T) (allow func(n int)) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	allow = func(n int) {
		limit := before
		if n > 0 {
			limit.Cur = uint64(n)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { allow(0) })
	return allow
}

// highestFD is the largest descriptor in use, with those below it filled up.
func highestFD(t *testing.T) int {
	t.Helper()
	highest := -1
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			highest = max(highest, n)
		}
	}
	for {
		fd, err := syscall.Dup(2)
		if err != nil {
			t.Fatal(err)
		}
		if fd > highest {
			syscall.Close(fd)
			return highest
		}
		t.Cleanup(func() { syscall.Close(fd) })
	}
}

// A link-local address is one only together with its interface, for every loop.
func TestAllLoopsListenAtALinkLocalAddress(t *testing.T) {
	addr := linkLocal(t)
	g := start(t, func(o *loop.Options) { o.Addr = net.JoinHostPort(addr, "0") })
	if g.Addr().Addr().String() != addr {
		t.Errorf("it listens at %v, not at %s", g.Addr(), addr)
	}
	r := g.dialRaw()
	r.sends(bearerAlice)
	wantStatus(t, r, 101)
}

// linkLocal is an address of this machine that needs a zone.
func linkLocal(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() && i.Flags&net.FlagUp != 0 {
				return n.IP.String() + "%" + i.Name
			}
		}
	}
	t.Skip("no interface here has a link-local IPv6 address")
	return ""
}
