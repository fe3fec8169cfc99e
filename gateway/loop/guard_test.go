package loop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/testkit"
)

// broken is a gateway of one loop in which things go wrong on purpose. It is
// reached from inside, because from outside nothing must.
type broken struct {
	*Group
	t   *testing.T
	log testkit.Log

	mu     sync.Mutex
	opened map[string]edge.ConnID
	closed map[edge.ConnID]int
}

func (b *broken) Post(events []edge.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ev := range events {
		switch ev.Kind {
		case edge.EvOpened:
			b.opened[ev.User] = ev.Conn
		case edge.EvClosed:
			b.closed[ev.Conn]++
		}
	}
}

type panickingVerifier struct{}

func (panickingVerifier) Verify(token string) (auth.Claims, error) {
	if token == "boom" {
		panic("a token that the verifier can't take")
	}
	return auth.Claims{User: token}, nil
}

func newBroken(t *testing.T, set func(*Options)) *broken {
	t.Helper()
	b := &broken{t: t, opened: make(map[string]edge.ConnID), closed: make(map[edge.ConnID]int)}
	o := Options{Addr: "127.0.0.1:0", Loops: 1, Hub: b, Verifier: panickingVerifier{}, Compress: true, Logger: slog.New(slog.NewTextHandler(&b.log, nil))}
	if set != nil {
		set(&o)
	}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b.Group = g
	g.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error(err)
		}
		if n := g.Open(); n != 0 {
			t.Errorf("%d are counted as open after the end", n)
		}
	})
	return b
}

func (b *broken) eventually(what string, ok func() bool) {
	b.t.Helper()
	testkit.Soon(b.t, 20*time.Second, what, ok, func() string { return fmt.Sprintf("%+v; log: %s", b.Stats(), b.log.String()) })
}

// dial opens a connection and returns it with its name.
func (b *broken) dial(user string) (net.Conn, edge.ConnID) {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, strings.Replace(okHead, "t.o.k", user, 1))
	head := make([]byte, 0, 512)
	for !bytes.HasSuffix(head, headEnd) {
		var c [1]byte
		if _, err := conn.Read(c[:]); err != nil {
			b.t.Fatalf("%s: %v after %q", user, err, head)
		}
		head = append(head, c[0])
	}
	var id edge.ConnID
	b.eventually(user+" is announced", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		id = b.opened[user]
		return id != 0
	})
	return conn, id
}

// attach returns when it is done.
func (b *broken) attach(room edge.RoomNum, ids ...edge.ConnID) {
	b.t.Helper()
	want := b.Stats().Attachments + int64(len(ids))
	defer b.eventually("attached", func() bool { return b.Stats().Attachments == want })
	for _, id := range ids {
		b.Group.Post(0, []edge.Cmd{{Kind: edge.CmdAttach, Conn: id, Room: room}})
	}
}

func (b *broken) broadcast(room edge.RoomNum, text string) {
	b.Group.Post(0, []edge.Cmd{{Kind: edge.CmdBroadcast, Room: room, Frame: edge.FrameOf([]byte(text))}})
}

// inside runs f in the loop and waits for it.
func (b *broken) inside(f func(l *loop)) {
	done := make(chan struct{})
	l := b.loops[0]
	l.call(func() { defer close(done); f(l) })
	<-done
}

// wantText reads one frame.
func (b *broken) wantText(conn net.Conn, want string) {
	b.t.Helper()
	got := make([]byte, 2+len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got[2:]) != want {
		b.t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func (b *broken) wantGone(conn net.Conn, id edge.ConnID) {
	b.t.Helper()
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		b.t.Errorf("not ended: %v", err)
	}
	b.eventually("the hub is told once", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.closed[id] == 1
	})
}

func (b *broken) wantBugs(n uint64) {
	b.t.Helper()
	b.eventually(fmt.Sprint(n, " bugs are counted"), func() bool { return b.Stats().Bugs == n })
	if !strings.Contains(b.log.String(), "BUG: panic in an event loop") { // one a second is
		b.t.Error("none is logged")
	}
}

func TestAPanicCostsOneConnection(t *testing.T) {
	b := newBroken(t, nil)
	alice, aliceID := b.dial("alice")
	bob, bobID := b.dial("bob")
	b.attach(1, aliceID, bobID)

	// While its request is read.
	boom, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer boom.Close()
	io.WriteString(boom, strings.Replace(okHead, "t.o.k", "boom", 1))
	if n, _ := io.Copy(io.Discard, boom); n != 0 {
		t.Errorf("%d bytes of an answer", n)
	}
	b.wantBugs(1)
	b.broadcast(1, `{"n":1}`)
	b.wantText(alice, `{"n":1}`)
	b.wantText(bob, `{"n":1}`)

	// While its queue is written; the others of the turn are served.
	carol, carolID := b.dial("carol")
	b.attach(1, carolID)
	b.inside(func(l *loop) { // the queue leads nowhere
		_, c := l.connOf(carolID)
		n := uint32(len(l.out.nodes))
		l.out.nodes = append(l.out.nodes, node{item: 1 << 30})
		c.qhead, c.qtail = n, n
	})
	b.broadcast(1, `{"n":2}`)
	b.wantText(alice, `{"n":2}`)
	b.wantText(bob, `{"n":2}`)
	b.wantGone(carol, carolID)
	b.wantBugs(2)

	// While time is looked after.
	dave, daveID := b.dial("dave")
	b.inside(func(l *loop) {
		slot, c := l.connOf(daveID)
		c.set(flagCarry) // without one
		l.unschedule(c)
		l.schedule(slot, c, l.tick)
	})
	b.wantGone(dave, daveID)
	b.wantBugs(3)
	b.eventually("nothing is left over", func() bool {
		s := b.Stats()
		return s.Open == 2 && s.Closing == 0 && s.Heads == 0 && s.Attachments == 2
	})
	b.broadcast(1, `{"n":3}`)
	b.wantText(alice, `{"n":3}`)
	b.wantText(bob, `{"n":3}`)
}

// Nobody can tell who of a room has got what: all of them come back and resume.
// Other rooms go on, and what was posted after it is carried out.
func TestAPanicInARoomCostsTheRoom(t *testing.T) {
	b := newBroken(t, nil)
	alice, aliceID := b.dial("alice")
	bob, bobID := b.dial("bob")
	carol, carolID := b.dial("carol")
	b.attach(1, aliceID, bobID)
	b.attach(2, carolID)
	b.inside(func(l *loop) {
		rm := l.rooms.get(1)
		rm.members = append(rm.members, 1<<23)
	})
	frame := func(text string) *edge.Frame { return edge.FrameOf([]byte(text)) }
	b.Group.Post(0, []edge.Cmd{
		{Kind: edge.CmdBroadcast, Room: 2, Frame: frame(`{"n":1}`)},
		{Kind: edge.CmdBroadcast, Room: 1, Frame: frame(`{"lost":1}`)},
		{Kind: edge.CmdKind(99)}, // no such command
		{Kind: edge.CmdBroadcast, Room: 2, Frame: frame(`{"n":2}`)},
	})
	b.wantText(carol, "{\"n\":1}\n{\"n\":2}")
	b.wantGone(alice, aliceID)
	b.wantGone(bob, bobID)
	b.wantBugs(2)
	b.broadcast(2, `{"n":3}`)
	b.wantText(carol, `{"n":3}`)
	dave, daveID := b.dial("dave")
	b.attach(1, daveID)
	b.broadcast(1, `{"n":4}`)
	b.wantText(dave, `{"n":4}`)
	if n := b.Stats().Open; n != 2 {
		t.Errorf("%d open", n)
	}
}

func TestPanicsOfCallbacksAndCalls(t *testing.T) {
	armed := true
	b := newBroken(t, func(o *Options) {
		o.OnDelivered = func(int64, int) {
			if armed {
				armed = false
				panic("a metric that can't be")
			}
		}
	})
	_, aliceID := b.dial("alice")
	bob, bobID := b.dial("bob")
	b.attach(1, aliceID, bobID)
	b.loops[0].call(func() { panic("a call") })
	b.wantBugs(1)
	f := edge.FrameOf([]byte(`{"n":1}`))
	f.SentAtMs = 1
	b.Group.Post(0, []edge.Cmd{{Kind: edge.CmdBroadcast, Room: 1, Frame: f}})
	b.wantBugs(2) // it costs the last one that was written to
	b.eventually("one is left", func() bool { return b.Stats().Open == 1 })
	_ = bob
	carol, carolID := b.dial("carol")
	b.attach(1, carolID)
	b.broadcast(1, `{"n":2}`)
	b.wantText(carol, `{"n":2}`)
}

// A loop whose state can't be mended ends, and its clients with it, rather than
// spinning.
func TestALoopThatGoesOnPanickingEnds(t *testing.T) {
	b := newBroken(t, nil)
	alice, aliceID := b.dial("alice")
	b.inside(func(l *loop) { l.out.dirty = make([]uint32, 10); l.out.at = -1 << 40 })
	b.wantGone(alice, aliceID)
	b.eventually("it says so", func() bool { return strings.Contains(b.log.String(), "gives up") })
}
