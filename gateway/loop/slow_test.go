package loop_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

// bigMessage is a message of some 10 KB.
func bigMessage(n uint64) *edge.Frame {
	f := edge.NewFrame(11000, func(dst []byte) []byte {
		return protocol.AppendMessage(dst, "r", protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}, n, []byte(`"body":"`+strings.Repeat("x", 10_000)+`"}`))
	})
	f.ID, f.Prev = protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}
	return f
}

// idOf is the n of a message's ID.
func idOf(t *testing.T, event string) uint64 {
	t.Helper()
	var h struct{ id uint64 }
	if _, err := fmt.Sscanf(event[strings.Index(event, `"id":"`):], `"id":"%d-0"`, &h.id); err != nil {
		t.Fatalf("%.100s: %v", event, err)
	}
	return h.id
}

// stall broadcasts to room1 until a connection that does not read falls behind,
// and returns the number of the last message.
func stall(g *gateway, n uint64) uint64 {
	g.t.Helper()
	for g.Stats().SlowReaders == 0 { // it may be closed for that before anybody looks
		for range 20 {
			n++
			g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: bigMessage(n)})
		}
		time.Sleep(5 * time.Millisecond)
		if n > 5000 {
			g.t.Fatal("50 MB and it is not behind")
		}
	}
	return n
}

func TestASlowReaderIsLeftOutToldAndAttachedAgain(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops = 1; o.QueueBytes = 64 << 10 })
	slow, fast := g.dial("slow"), g.dial("fast")
	go func() { // reads all the time
		for {
			if _, _, err := fast.Read(context.Background()); err != nil {
				return
			}
		}
	}()
	g.post(
		edge.Cmd{Kind: edge.CmdAttach, Conn: slow.id, Room: room1}, edge.Cmd{Kind: edge.CmdAttach, Conn: fast.id, Room: room1},
		edge.Cmd{Kind: edge.CmdAttach, Conn: slow.id, Room: room2},
	)
	last := stall(g, 0)
	// Another room is left out from its first message on; what is ephemeral is
	// dropped; what can't be caught up, and unicasts, are queued all the same.
	other := message(500)
	g.post(
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room2, Frame: other},
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room2, Shed: true, Frame: frame(`{"type":"typing"}`)},
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room2, Frame: frame(`{"type":"joined"}`)},
		edge.Cmd{Kind: edge.CmdUnicast, Conn: slow.id, Shed: true, Frame: frame(`{"type":"presence"}`)},
		edge.Cmd{Kind: edge.CmdUnicast, Conn: slow.id, Frame: frame(`{"type":"unicast"}`)},
	)
	g.eventually("they are queued", func() bool { return g.Stats().Shed >= 2 })
	if q := g.Stats().QueuedBytes; q > 3*64<<10 {
		t.Errorf("%d bytes are queued", q)
	}

	// It reads on: everything up to where it was left out, in order.
	var next uint64 = 1
	for {
		line := slow.next()
		if strings.Contains(line, `"joined"`) {
			break
		}
		if got := idOf(t, line); got != next {
			t.Fatalf("got message %d, want %d", got, next)
		}
		next++
	}
	slow.want(`{"type":"unicast"}`)
	ev := g.hub.of(t, slow.id, edge.EvLagged)
	if n := g.Stats().Shed; n != 2 {
		t.Errorf("%d ephemeral events were dropped, want two", n)
	}
	if len(ev.Lag) != 2 || ev.Lag[room1] != (protocol.ID{Ms: next - 1}) || ev.Lag[room2] != other.Prev {
		t.Fatalf("told %v, had room1 up to %d of %d", ev.Lag, next-1, last)
	}

	// Told, but not attached again: still left out, and not told twice.
	g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: message(last + 1)})
	// The hub catches it up and attaches it; then it is live again.
	for n := next; n <= last+1; n += 50 {
		g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: slow.id, Frame: frame(fmt.Sprintf(`{"catch up":%d}`, n))})
	}
	g.post(
		edge.Cmd{Kind: edge.CmdAttach, Conn: slow.id, Room: room1},
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: frame(`{"live":1}`)},
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room2, Frame: message(501)},
		edge.Cmd{Kind: edge.CmdAttach, Conn: slow.id, Room: room2},
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room2, Frame: frame(`{"live":2}`)},
	)
	for n := next; n <= last+1; n += 50 {
		slow.want(fmt.Sprintf(`{"catch up":%d}`, n))
	}
	slow.want(`{"live":1}`, `{"live":2}`)
	fast.CloseNow() // on a busy machine it may have been too slow itself
	g.eventually("nobody is behind", func() bool { return g.Stats().Behind == 0 })
	for _, ev := range g.hub.all() {
		if ev.Kind == edge.EvLagged && ev.Conn == slow.id {
			t.Error("told once more")
		}
	}
}

func TestAReaderThatStaysSlowIsClosed(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Loops = 1
		o.QueueBytes = 64 << 10
		o.SlowTimeout = 300 * time.Millisecond
	})
	slow := g.dial("slow")
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: slow.id, Room: room1})
	stall(g, 0)
	g.hub.of(t, slow.id, edge.EvClosed)
	if q := g.Stats().QueuedBytes; q > 64<<10 {
		t.Errorf("%d bytes are still queued", q)
	}
	// When it reads again in time, it learns why.
	slow.wantClose(protocol.CloseTooSlow)
	g.eventually("freed", func() bool { s := g.Stats(); return s.Closing == 0 && s.QueuedBytes == 0 && s.Attachments == 0 })
	if n := g.hub.count(edge.EvLagged); n != 0 {
		t.Error("it was told to have caught up")
	}
}

func TestUnicastsBeyondTwiceTheBoundClose(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.QueueBytes = 64 << 10; o.CloseTimeout = 300 * time.Millisecond })
	slow := g.dial("slow")
	for n := uint64(1); g.Open() == 1; n++ {
		g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: slow.id, Frame: bigMessage(n)})
		if q := g.Stats().QueuedBytes; q > 200<<10 {
			t.Fatalf("%d bytes are queued", q)
		}
		if n%10 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	g.hub.of(t, slow.id, edge.EvClosed)
	g.eventually("freed though it never reads", func() bool { return g.Stats().Closing == 0 })
}

// A burst in one batch is no reason to think a reader slow: it is written first.
func TestABurstForAReaderThatReads(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops = 1; o.QueueBytes = 64 << 10 })
	c := g.dial("alice")
	cmds := []edge.Cmd{{Kind: edge.CmdAttach, Conn: c.id, Room: room1}}
	for n := range uint64(8) {
		cmds = append(cmds, edge.Cmd{Kind: edge.CmdUnicast, Conn: c.id, Frame: bigMessage(n + 1)}, edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: bigMessage(n + 101)})
	}
	cmds = append(cmds, edge.Cmd{Kind: edge.CmdMark, Conn: c.id})
	g.Post(0, cmds)
	for n := range uint64(8) {
		if a, b := idOf(t, c.next()), idOf(t, c.next()); a != n+1 || b != n+101 {
			t.Fatalf("got %d and %d", a, b)
		}
	}
	g.hub.of(t, c.id, edge.EvDrained)
	if s := g.Stats(); s.SlowReaders != 0 {
		t.Error("it was held to be slow")
	}
}

// Everybody else gets everything while some do not read.
func TestStalledReadersDoNotHurtTheOthers(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.QueueBytes, o.MaxPerUser, o.SlowTimeout = 64<<10, 1000, time.Hour })
	for range 20 {
		r, id := g.dialWS("stalled")
		r.Conn.(*net.TCPConn).SetReadBuffer(4096)
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: room1})
	}
	const readers, messages = 10, 600
	read := make(chan error, readers*messages)
	for i := range readers {
		c := g.dial(fmt.Sprint("reader", i))
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: room1})
		go func() {
			for n := uint64(1); n <= messages; {
				_, data, err := c.Read(c.ctx)
				if err != nil {
					read <- err
					return
				}
				for line := range strings.SplitSeq(string(data), "\n") {
					if !strings.Contains(line, fmt.Sprintf(`"id":"%d-0"`, n)) {
						read <- fmt.Errorf("message %d: %.80s", n, line)
						return
					}
					n++
					read <- nil
				}
			}
		}()
	}
	// Three at a time, as fast as the readers go.
	for n := uint64(1); n <= messages; n++ {
		g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: bigMessage(n)})
		if n%3 != 0 {
			continue
		}
		for range 3 * readers {
			if err := <-read; err != nil {
				t.Fatal(err)
			}
		}
	}
	s := g.Stats()
	if s.QueuedBytes > 20*2*64<<10 {
		t.Errorf("%d bytes are queued", s.QueuedBytes)
	}
	if s.Behind != 20 || s.SlowReaders != 20 {
		t.Errorf("%d behind, %d were; want the 20 stalled ones", s.Behind, s.SlowReaders)
	}
}

func TestJoinedFramesStaySmall(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops = 1 })
	r, id := g.dialWS("alice")
	cmds := []edge.Cmd{{Kind: edge.CmdAttach, Conn: id, Room: room1}}
	const messages = 500
	for n := range uint64(messages) {
		cmds = append(cmds, edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: message(n + 1)})
	}
	g.Post(0, cmds)
	frames, got := 0, uint64(0)
	for got < messages {
		_, payload, err := r.frameIn()
		if err != nil {
			t.Fatal(err)
		}
		if frames++; len(payload) > 16<<10 {
			t.Errorf("a frame of %d bytes", len(payload))
		}
		for line := range strings.SplitSeq(payload, "\n") {
			if got++; idOf(t, line) != got {
				t.Fatalf("got %s, want message %d", line, got)
			}
		}
	}
	if s := g.Stats(); frames > 10 || s.Writes > 4 {
		t.Errorf("%d frames, %d writes", frames, s.Writes)
	}
}

func TestDrain(t *testing.T) {
	g := start(t, nil)
	var clients []*client
	for i := range 40 {
		clients = append(clients, g.dial(fmt.Sprint("user", i)))
	}
	half := g.dialRaw()
	half.sends(goodHead)
	g.eventually("the half request is in", func() bool { return g.Stats().Heads == 1 })
	for _, c := range clients {
		g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: c.id, Frame: frame(`{"queued":1}`)})
	}
	began := time.Now()
	over := 2 * time.Second // long against the pauses of a busy machine
	result := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		result <- g.Drain(ctx, over)
	}()
	closed := make(chan time.Duration, len(clients))
	delays := make(chan int, len(clients))
	for _, c := range clients {
		go func() {
			c.want(`{"queued":1}`)
			var ms int
			if _, err := fmt.Sscanf(c.next(), `{"type":"bye","reason":"drain","retry_in_ms":%d}`, &ms); err != nil {
				t.Error(err)
			}
			delays <- ms
			c.wantClose(protocol.CloseDraining)
			closed <- time.Since(began)
		}()
	}
	g.eventually("nobody is let in", func() bool {
		conn, err := net.Dial("tcp", g.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	half.sends("Authorization: Bearer late\r\n\r\n")
	if resp, _ := half.answer(); resp.StatusCode != 503 {
		t.Errorf("a late request got %d", resp.StatusCode)
	}
	half.Close()
	early := 0
	distinct := map[int]bool{}
	for range clients {
		if d := <-closed; d < over/2 {
			early++
		}
		distinct[<-delays] = true
	}
	if early < 10 || early > 30 {
		t.Errorf("%d of 40 left in the first half", early)
	}
	if len(distinct) < 30 {
		t.Errorf("only %d different delays", len(distinct))
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > over+3*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestShed(t *testing.T) {
	g := start(t, nil)
	var clients []*client
	for i := range 10 {
		clients = append(clients, g.dial(fmt.Sprint("user", i)))
	}
	for _, c := range clients {
		go func() {
			for {
				if _, _, err := c.Read(c.ctx); err != nil {
					return
				}
			}
		}()
	}
	g.Shed(4, protocol.ByeRebalance)
	g.eventually("four or so were asked", func() bool {
		s := g.Stats()
		return s.Closed[loop.ClosedRebalance]+uint64(s.Closing) >= 3 && s.Open <= 7
	})
	if s := g.Stats(); s.Open < 6 {
		t.Errorf("%d are left", s.Open)
	}
}

func TestStop(t *testing.T) {
	g := start(t, nil)
	c := g.dial("alice")
	silent, _ := g.dialWS("silent")
	_ = silent
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	done := make(chan error, 2)
	go func() { done <- g.Stop(ctx) }()
	c.wantClose(protocol.CloseGoingAway)
	go func() { done <- g.Stop(ctx) }() // again
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
	for range 2 {
		g.hub.kind(t, edge.EvClosed)
	}
	g.post(edge.Cmd{Kind: edge.CmdClose, Conn: c.id}) // into the void
	if s := g.Stats(); s.Open != 0 || s.Closing != 0 || s.Heads != 0 {
		t.Errorf("left: %+v", s)
	}
}

func TestNewStartsNothingAndStopsUnstarted(t *testing.T) {
	if _, err := loop.New(loop.Options{Addr: "127.0.0.1:0", Loops: 1000, Origins: []string{"nonsense"}}); err == nil ||
		!strings.Contains(err.Error(), "Hub") || !strings.Contains(err.Error(), "Loops") || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
	g, err := loop.New(loop.Options{Addr: "127.0.0.1:0", Hub: newHub(), Verifier: verifier{}})
	if err != nil {
		t.Fatal(err)
	}
	addr := g.Addr()
	if err := g.Drain(context.Background(), time.Second); err != nil {
		t.Error(err)
	}
	if err := g.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	again, err := loop.New(loop.Options{Addr: addr.String(), Hub: newHub(), Verifier: verifier{}})
	if err != nil {
		t.Fatal("the port was not released: ", err)
	}
	again.Stop(context.Background())
}
