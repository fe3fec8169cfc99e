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
	"slices"
	"strings"
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
	const readers, messages, between = 30, 4_000, 400
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
	var senders, readersDone sync.WaitGroup
	tail := `"from":"u0","body":{"type":"text","text":"` + string(bytes.Repeat([]byte("x"), 300)) + `"}}`
	send := func(n int64) bool {
		_, err := store.Send(ctx, chat.Send{Room: "r", By: chat.Actor{User: "u0"}, Key: fmt.Sprint(n), Hash: "h", Tail: []byte(tail)})
		if err != nil {
			t.Error(err)
		}
		return err == nil
	}
	for range 8 {
		senders.Go(func() {
			for n := sent.Add(1); n <= messages && send(n); n = sent.Add(1) {
			}
		})
	}
	var gaps, slow atomic.Int64
	for i, c := range conns {
		readersDone.Go(func() {
			var at protocol.ID
			var n uint64
			for stop := uint64(between); n < messages; {
				if i%3 != 0 && n >= stop {
					// What is tested: it stops reading now and then. At first until somebody is
					// slow: how long that takes depends on the machine.
					stop = n + between
					time.Sleep(150 * time.Millisecond)
					for g.Loops().Stats().SlowReaders == 0 && sent.Load() < messages {
						time.Sleep(10 * time.Millisecond)
					}
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
	// Where the last ones were a gap the next message says how many there were.
	all := make(chan struct{})
	go func() {
		readersDone.Wait()
		close(all)
	}()
	senders.Wait()
	for more := true; more; {
		select {
		case <-all:
			more = false
		case <-time.After(100 * time.Millisecond):
			more = send(sent.Add(1))
		}
	}
	<-all
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
	testkit.Soon(t, 10*time.Second, "the request is awaited", func() bool { return g.Loops().Stats().Heads == 1 })
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- g.Stop(ctx)
	}()
	testkit.Soon(t, 10*time.Second, "nobody else is let in", func() bool {
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

// polling is a client that does nothing but polls: what it says more goes over HTTP,
// with the ID that the last answer told.
type polling struct {
	t     *testing.T
	g     *gateway.Gateway
	store *redisstore.Store
	user  string

	conn  string
	rooms json.RawMessage
}

// polls sends a poll, and returns the types of the events in the answer.
func (p *polling) polls(waitS int) (types []string) {
	p.t.Helper()
	body := map[string]any{"wait_s": waitS}
	if p.conn != "" {
		body["conn"], body["rooms"] = p.conn, p.rooms
	}
	text, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+p.g.Addr().String()+"/v1/poll", bytes.NewReader(text))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+mint(p.t, p.user, time.Now()))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a struct {
		Events []struct{ Type, User, Status string }
		Rooms  json.RawMessage
		Conn   string
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s, %v", resp.Status, err)
	}
	p.conn, p.rooms = a.Conn, a.Rooms
	for _, ev := range a.Events {
		types = append(types, strings.TrimRight(strings.Join([]string{ev.Type, ev.User, ev.Status}, " "), " "))
	}
	return types
}

func (p *polling) says(c chat.Command) {
	p.t.Helper()
	c.Conn = p.conn
	if err := p.store.Command(p.t.Context(), p.user, c); err != nil {
		p.t.Fatal(err)
	}
}

// pollsUntil polls until an answer has an event.
func (p *polling) pollsUntil(want string) {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		got := p.polls(2)
		if slices.Contains(got, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("no %q comes; the last answer has %q", want, got)
		}
	}
}

func TestAClientThatPollsIsOneConnection(t *testing.T) {
	g, store := start(t, func(o *gateway.Options) {
		store := o.Hub.Feed.(*redisstore.Store)
		o.Hub.Seats, o.Hub.Markers = store, store
		o.Hub.Follow.LingerMs, o.Hub.Live.GraceMs = 3000, 2000
	})
	if _, err := store.CreateRoom(t.Context(), chat.Actor{User: "alice"}, "r", "", []string{"bob"}); err != nil {
		t.Fatal(err)
	}
	alice := &polling{t: t, g: g, store: store, user: "alice"}
	alice.polls(0)
	first := alice.conn
	alice.says(chat.Command{Do: chat.CommandWatch, Users: []string{"bob"}}) // between two polls
	alice.says(chat.Command{Do: chat.CommandFocus, Room: "r"})
	alice.pollsUntil("presence bob offline")
	bob := dial(t, g, "bob", "")
	alice.pollsUntil("presence bob online") // still watched, many polls later
	if alice.conn != first {
		t.Errorf("the client was %s and is %s", first, alice.conn)
	}

	// Both look at the room.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hears := func(kind string) {
		t.Helper()
		for {
			for _, ev := range next(t, ctx, bob) {
				if ev.Type == kind {
					return
				}
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	if err := bob.Write(ctx, websocket.MessageText, []byte(`{"type":"focus","room":"r"}`)); err != nil {
		t.Fatal(err)
	}
	testkit.Soon(t, 10*time.Second, "both look at the room", func() bool { return g.HubStats().Live.Focused == 2 })
	alice.says(chat.Command{Do: chat.CommandTyping, Room: "r"})
	alice.polls(0)
	hears("typing")
	heard := make(chan struct{})
	var typing sync.WaitGroup
	typing.Go(func() { // again and again: what is typed between two polls is not told
		for {
			if err := bob.Write(ctx, websocket.MessageText, []byte(`{"type":"typing","room":"r"}`)); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-heard:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	alice.pollsUntil("typing bob")
	close(heard)
	typing.Wait()

	// Another user's ID is nobody's.
	mallory := &polling{t: t, g: g, store: store, user: "mallory", conn: first, rooms: json.RawMessage("{}")}
	mallory.polls(0)
	if mallory.conn == first {
		t.Error("mallory has taken over alice's ID")
	}
	alice.polls(0)
	if alice.conn != first {
		t.Error("alice has lost hers")
	}

	// Who does not come back is forgotten.
	testkit.Soon(t, 10*time.Second, "nobody is watched", func() bool { return g.HubStats().Live.Watches == 0 })
	alice.polls(0)
	if alice.conn == first {
		t.Error("an ID of long ago is still good")
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
