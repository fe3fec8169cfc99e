package loop_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

// patience is how long a test waits for what must happen; it is reached only
// when something is broken.
const patience = 10 * time.Second

// hub records what loops report.
type hub struct {
	mu     sync.Mutex
	events []edge.Event
	news   chan struct{}
}

func newHub() *hub { return &hub{news: make(chan struct{}, 1)} }

func (h *hub) Post(batch []edge.Event) {
	h.mu.Lock()
	h.events = append(h.events, batch...)
	h.mu.Unlock()
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// take removes and returns the first event that fits, waiting for it.
func (h *hub) take(t testing.TB, what string, fits func(edge.Event) bool) edge.Event {
	t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		for i, ev := range h.events {
			if fits(ev) {
				h.events = append(h.events[:i], h.events[i+1:]...)
				h.mu.Unlock()
				return ev
			}
		}
		h.mu.Unlock()
		select {
		case <-h.news:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("no %s came; there are %+v", what, h.all())
		}
	}
}

func (h *hub) kind(t testing.TB, kind edge.EventKind) edge.Event {
	t.Helper()
	return h.take(t, fmt.Sprintf("event of kind %d", kind), func(ev edge.Event) bool { return ev.Kind == kind })
}

func (h *hub) of(t testing.TB, conn edge.ConnID, kind edge.EventKind) edge.Event {
	t.Helper()
	return h.take(t, fmt.Sprintf("event of kind %d of %v", kind, conn), func(ev edge.Event) bool {
		return ev.Kind == kind && ev.Conn == conn
	})
}

func (h *hub) all() []edge.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]edge.Event(nil), h.events...)
}

func (h *hub) count(kind edge.EventKind) int {
	n := 0
	for _, ev := range h.all() {
		if ev.Kind == kind {
			n++
		}
	}
	return n
}

// verifier takes tokens of the form user[.seconds until expiry].
type verifier struct{}

func (verifier) Verify(token string) (auth.Claims, error) {
	user, left, timed := strings.Cut(token, ".")
	expires := time.Now().Add(time.Hour).Unix()
	if timed {
		var s int64
		if _, err := fmt.Sscan(left, &s); err != nil {
			return auth.Claims{}, auth.ErrInvalid
		}
		expires = time.Now().Unix() + s
	}
	switch user {
	case "bad":
		return auth.Claims{}, auth.ErrInvalid
	case "foreign":
		return auth.Claims{}, fmt.Errorf("%w: iss is not the expected one", auth.ErrInvalid)
	case "old":
		return auth.Claims{}, auth.ErrExpired
	case "server":
		return auth.Claims{Server: true}, nil
	}
	return auth.Claims{User: user, Expires: expires, IssuedAt: 7}, nil
}

// gateway is a group under test.
type gateway struct {
	*loop.Group
	t   testing.TB
	hub *hub
}

func start(t testing.TB, set func(*loop.Options)) *gateway {
	t.Helper()
	h := newHub()
	o := loop.Options{
		Addr: "127.0.0.1:0", Loops: 2, Hub: h, Verifier: verifier{},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if set != nil {
		set(&o)
	}
	g, err := loop.New(o)
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return &gateway{Group: g, t: t, hub: h}
}

// post sends commands for one connection's loop.
func (g *gateway) post(cmds ...edge.Cmd) {
	for _, cmd := range cmds {
		if cmd.Kind == edge.CmdBroadcast || cmd.Kind == edge.CmdDropRoom {
			for i := range g.Count() {
				g.Post(i, []edge.Cmd{cmd})
			}
			continue
		}
		g.Post(int(cmd.Conn.Loop()), []edge.Cmd{cmd})
	}
}

func (g *gateway) eventually(what string, ok func() bool) {
	g.t.Helper()
	testkit.Soon(g.t, patience, what, ok, func() string { return fmt.Sprintf("stats %+v", g.Stats()) })
}

func (g *gateway) url(query string) string {
	return "ws://" + g.Addr().String() + "/v1/ws" + query
}

// client is a WebSocket client that is not built on our own code.
type client struct {
	*websocket.Conn
	t     testing.TB
	id    edge.ConnID
	lines []string
	ctx   context.Context
}

func (g *gateway) dial(user string) *client { return g.dialQuery(user, "") }

func (g *gateway) dialQuery(user, query string) *client {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	g.t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, g.url(query), &websocket.DialOptions{
		Subprotocols: []string{protocol.Subprotocol, protocol.BearerPrefix + user},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	g.t.Cleanup(func() { conn.CloseNow() })
	name, _, _ := strings.Cut(user, ".")
	ev := g.hub.take(g.t, "opening of "+name, func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == name })
	return &client{Conn: conn, t: g.t, id: ev.Conn, ctx: ctx}
}

// next returns the next event.
func (c *client) next() string {
	c.t.Helper()
	for len(c.lines) == 0 {
		ctx, cancel := context.WithTimeout(c.ctx, patience)
		_, data, err := c.Read(ctx)
		cancel()
		if err != nil {
			c.t.Fatalf("reading: %v", err)
		}
		c.lines = strings.Split(string(data), "\n")
	}
	line := c.lines[0]
	c.lines = c.lines[1:]
	return line
}

func (c *client) want(lines ...string) {
	c.t.Helper()
	for _, want := range lines {
		if got := c.next(); got != want {
			c.t.Fatalf("got %s, want %s", got, want)
		}
	}
}

func (c *client) says(text string) {
	c.t.Helper()
	if err := c.Write(c.ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// wantClose reads until the connection is closed and checks the code.
func (c *client) wantClose(code protocol.CloseCode) {
	c.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(c.ctx, patience)
		_, _, err := c.Read(ctx)
		cancel()
		if err == nil {
			continue
		}
		var ce websocket.CloseError
		if !errors.As(err, &ce) || protocol.CloseCode(ce.Code) != code {
			c.t.Fatalf("closed with %v, want %d", err, code)
		}
		return
	}
}

// raw is a client of bytes.
type raw struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (g *gateway) dialRaw() *raw {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{Conn: conn, t: g.t, r: bufio.NewReader(conn)}
}

func (r *raw) sends(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.Conn, text); err != nil {
		r.t.Fatal(err)
	}
}

// answer reads an HTTP answer with its body.
func (r *raw) answer() (*http.Response, string) {
	r.t.Helper()
	resp, err := http.ReadResponse(r.r, nil)
	if err != nil {
		r.t.Fatalf("reading the answer: %v", err)
	}
	if resp.StatusCode == 101 {
		return resp, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(body)
}

const goodHead = "GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

// dialWS upgrades a raw client.
func (g *gateway) dialWS(user string) (*raw, edge.ConnID) {
	g.t.Helper()
	r := g.dialRaw()
	r.sends(goodHead + "Authorization: Bearer " + user + "\r\n\r\n")
	if resp, body := r.answer(); resp.StatusCode != 101 {
		g.t.Fatalf("got %d: %s", resp.StatusCode, body)
	}
	ev := g.hub.take(g.t, "opening of "+user, func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == user })
	return r, ev.Conn
}

// message is a frame as the hub makes them of messages.
func message(n uint64) *edge.Frame {
	f := edge.NewFrame(200, func(dst []byte) []byte {
		return protocol.AppendMessage(dst, "r", protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}, n, []byte(`"from":"x"}`))
	})
	f.ID, f.Prev = protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}
	return f
}

func frame(text string) *edge.Frame { return edge.FrameOf([]byte(text)) }

func timeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// constant accepts every token without a thought.
type constant struct{}

func (constant) Verify(token string) (auth.Claims, error) {
	return auth.Claims{User: token, Expires: 1 << 40}, nil
}
