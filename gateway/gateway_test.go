package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/gateway"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

var secret = bytes.Repeat([]byte("s"), 32)

// start runs a gateway on a real Redis, without anything that holds senders
// back.
func start(t *testing.T, change func(*gateway.Options)) (*gateway.Gateway, *redisstore.Store) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := redisstore.Open(redisstore.Options{URL: testkit.Redis(t).URL(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.New(auth.Options{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	o := gateway.Options{
		Loop: loop.Options{Addr: "127.0.0.1:0", Verifier: verifier, Logger: log},
		Hub:  hub.Options{Feed: store, Logger: log},
	}
	if change != nil {
		change(&o)
	}
	g, err := gateway.New(o)
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = g.Stop(ctx)
		store.Close()
	})
	return g, store
}

func dial(t *testing.T, g *gateway.Gateway, user, query string) *websocket.Conn {
	t.Helper()
	return dialWith(t, g, mint(t, user, time.Now()), query)
}

// mint makes a token that was issued at a time.
func mint(t *testing.T, user string, issued time.Time) string {
	t.Helper()
	token, err := auth.Mint(secret, user, time.Hour, auth.MintOptions{Now: issued})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func dialWith(t *testing.T, g *gateway.Gateway, token, query string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+g.Addr().String()+"/v1/ws"+query, &websocket.DialOptions{
		Subprotocols: []string{protocol.Subprotocol}, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// event is what the tests read of an event.
type event struct {
	Type  string
	ID    protocol.ID
	Prev  protocol.ID
	After protocol.ID
	Head  protocol.ID
	N     uint64
}

// A reader that does not keep up leaves live delivery and catches up from the
// log, over and over: whatever it misses, each message it gets follows the one
// before, or a gap is told.
func TestSlowReadersSeeEveryBreakInTheChain(t *testing.T) {
	g, store := start(t, func(o *gateway.Options) {
		o.Loop.QueueBytes = 32 << 10
		o.Loop.SendBufferBytes = 16 << 10
		o.Loop.SlowTimeout = time.Minute
	})
	const readers, messages = 30, 10_000
	users := make([]string, readers)
	for i := range users {
		users[i] = fmt.Sprintf("u%d", i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	if _, err := store.CreateRoom(ctx, chat.Actor{User: "u0"}, "r", "", users); err != nil {
		t.Fatal(err)
	}
	conns := make([]*websocket.Conn, readers)
	for i := range conns {
		conns[i] = dial(t, g, users[i], "")
		if ev := next(t, ctx, conns[i])[0]; ev.Type != "hello" {
			t.Fatalf("first event is %q", ev.Type)
		}
	}

	var sent atomic.Int64
	var wg sync.WaitGroup
	tail := `"from":"u0","body":{"type":"text","text":"` + string(bytes.Repeat([]byte("x"), 300)) + `"}}`
	for range 8 {
		wg.Go(func() {
			for {
				n := sent.Add(1)
				if n > messages {
					return
				}
				_, err := store.Send(ctx, chat.Send{Room: "r", By: chat.Actor{User: "u0"}, Key: fmt.Sprint(n), Hash: "h", Tail: []byte(tail)})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var gaps, slow atomic.Int64
	for i, c := range conns {
		wg.Go(func() {
			var at protocol.ID
			var n uint64
			for reads := 0; n < messages; reads++ {
				if i%3 != 0 && reads%400 == 399 {
					time.Sleep(150 * time.Millisecond) // what is tested: it stops reading now and then
					slow.Add(1)
				}
				for _, ev := range next(t, ctx, c) {
					switch {
					case ev.Type == "gap":
						if ev.After != at {
							t.Errorf("%s: gap after %v, but it is at %v", users[i], ev.After, at)
							return
						}
						at = ev.Head
						gaps.Add(1)
					case ev.Type != "message", !at.Less(ev.ID): // a repeat
					case ev.Prev != at:
						t.Errorf("%s: message %d (%v) follows %v, but it is at %v (message %d)", users[i], ev.N, ev.ID, ev.Prev, at, n)
						return
					default:
						at, n = ev.ID, ev.N
					}
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	st := g.Loops().Stats()
	t.Logf("%d pauses, %d times slow, %d left out, %d gaps told", slow.Load(), st.SlowReaders, st.LeftOut, gaps.Load())
	if st.SlowReaders == 0 {
		t.Error("nobody was slow: nothing was tested")
	}
}

// A gateway that ends with nobody connected may be in the middle of letting somebody
// in: they are told where they stand.
func TestStoppingAnIdleGatewayAnswersRequestsInFlight(t *testing.T) {
	g, _ := start(t, func(o *gateway.Options) { o.DrainOver = time.Second })
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"); err != nil {
		t.Fatal(err)
	}
	await(t, "the request is awaited", func() bool { return g.Loops().Stats().Heads == 1 })
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- g.Stop(ctx)
	}()
	await(t, "nobody else is let in", func() bool {
		c, err := net.Dial("tcp", g.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := io.WriteString(conn, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("answered %s", resp.Status)
	}
	conn.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// await waits for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A token that was revoked opens no socket, and lengthens the life of none.
func TestARevokedTokenDoesNotRenewASocket(t *testing.T) {
	g, store := start(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	old := mint(t, "alice", time.Now().Add(-time.Minute))
	before, err := store.Disconnect(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	for uint64(time.Now().Unix())*1000 <= before { // a token says in which second it was issued
		time.Sleep(10 * time.Millisecond)
	}
	fresh := mint(t, "alice", time.Now())
	c := dialWith(t, g, fresh, "")
	for _, token := range []string{fresh, old} {
		if ev := next(t, ctx, c)[0]; ev.Type != "hello" && ev.Type != "pong" {
			t.Fatalf("got %q", ev.Type)
		}
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"auth","token":%q}`, token)); err != nil {
			t.Fatal(err)
		}
		if err := c.Write(ctx, websocket.MessageText, []byte(`{"type":"ping"}`)); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		_, _, err = c.Read(ctx)
	}
	if got := websocket.CloseStatus(err); got != websocket.StatusCode(protocol.CloseTokenExpired) {
		t.Fatalf("the socket ended with %v (%v), want %d", got, err, protocol.CloseTokenExpired)
	}
}

// next reads a frame's events.
func next(t *testing.T, ctx context.Context, c *websocket.Conn) []event {
	_, data, err := c.Read(ctx)
	if err != nil {
		t.Error(err)
		return nil
	}
	var evs []event
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		var ev event
		if err := dec.Decode(&ev); err == io.EOF {
			return evs
		} else if err != nil {
			t.Errorf("%v in %.200q", err, data)
			return evs
		}
		evs = append(evs, ev)
	}
}
