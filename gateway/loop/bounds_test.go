package loop_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

// Whoever takes nothing is closed, however much it says meanwhile, also while less
// than a whole queue waits for it.
func TestWhoTakesNothingIsClosedWhateverItSays(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Loops, o.QueueBytes, o.SendBufferBytes = 1, 1<<20, 16<<10
		o.Heartbeat, o.Grace, o.SlowTimeout = time.Second, time.Second, time.Minute
	})
	r, id := g.dialWS("alice")
	if err := r.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	pad := strings.Repeat("x", 1000)
	g.eventually("its socket is full", func() bool {
		g.Post(0, []edge.Cmd{{Kind: edge.CmdUnicast, Conn: id, Frame: frame(`{"type":"x","pad":"` + pad + `"}`)}})
		return g.Stats().QueuedBytes > 64<<10
	})
	ping := `{"type":"ping"}`
	ping = string([]byte{0x81, 0x80 | byte(len(ping)), 0, 0, 0, 0}) + ping
	g.eventually("it is closed", func() bool {
		_, _ = r.Conn.Write([]byte(ping))
		time.Sleep(50 * time.Millisecond)
		return g.Stats().Open == 0
	})
	if n := g.Stats().Closed[loop.ClosedHeartbeat]; n != 1 {
		t.Errorf("closed for %v", g.Stats().Closed)
	}
}

// What is in no log can't be caught up: a reader gets all of it, or is closed.
func TestNoEventIsLeftOutWithoutAWord(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops, o.QueueBytes, o.SendBufferBytes = 1, 64<<10, 32<<10 })
	c := g.dial("alice")
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: 1})
	const events = 6000
	pad := strings.Repeat("x", 200)
	event := func(n int) *edge.Frame { return frame(fmt.Sprintf(`{"type":"joined","n":%d,"pad":"%s"}`, n, pad)) }
	var batch []edge.Cmd
	for i := range events {
		batch = append(batch, edge.Cmd{Kind: edge.CmdBroadcast, Room: 1, Frame: event(i)})
	}
	g.Post(0, batch)
	go func() { // one more, when it has taken what it got
		for s := g.Stats(); s.Commands < events || s.QueuedBytes > 0; s = g.Stats() {
			time.Sleep(time.Millisecond)
		}
		g.Post(0, []edge.Cmd{{Kind: edge.CmdUnicast, Conn: c.id, Frame: event(events)}})
	}()
	for want := 0; want <= events; {
		_, data, err := c.Read(c.ctx)
		if err != nil {
			return // closed, and knows
		}
		for line := range strings.Lines(string(data)) {
			var ev struct {
				Type string
				N    int
			}
			if err := json.Unmarshal([]byte(line), &ev); err != nil {
				t.Fatal(err)
			}
			if ev.Type == "bye" {
				return
			}
			if ev.N != want {
				t.Fatalf("%d came after %d", ev.N, want-1)
			}
			want++
		}
	}
}

// A poll's answer that is being written when the gateway goes arrives whole: the hub
// takes for delivered what is in it.
func TestNoAnswerIsCutByTheEnd(t *testing.T) {
	for _, how := range []string{"drain", "stop"} {
		t.Run(how, func(t *testing.T) {
			g := start(t, func(o *loop.Options) { o.Loops, o.SendBufferBytes = 1, 16<<10 })
			positions := make([]string, 10_000) // a megabyte
			for i := range positions {
				positions[i] = fmt.Sprintf("%0*d %d-%d", protocol.MaxRoomLen, i, uint64(1<<64-1), uint64(1<<64-1))
			}
			r := g.dialRaw()
			id := g.polls(r, "alice", "{}")
			g.post(unicast(id, polledAt("alice", 17, positions...), message(1), resumedFrame)...)
			resp, err := http.ReadResponse(r.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := timeout(20 * time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				if how == "drain" {
					done <- g.Drain(ctx, 100*time.Millisecond)
				} else {
					done <- g.Stop(ctx)
				}
			}()
			time.Sleep(300 * time.Millisecond) // a client that takes its time
			if body, err := io.ReadAll(resp.Body); err != nil {
				t.Errorf("%d bytes of %d: %v", len(body), resp.ContentLength, err)
			}
			r.Close() // else its end is waited for
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// The accept rate is what is accepted, and not what is looked for.
func TestNobodyIsHeldBackBelowTheAcceptRate(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops, o.AcceptRate = 1, 40 })
	for range 45 { // a second and a half, at three quarters of it
		g.dialRaw()
		time.Sleep(time.Second / 30)
	}
	g.eventually("all are accepted", func() bool { return g.Stats().Accepted == 45 })
	// Now and then, on a machine that is busy and lets them come together.
	if n := g.Stats().AcceptPauses; n > 45/4 {
		t.Errorf("held back %d times", n)
	}
}

func TestNoMoreLoopsThanTheHubTellsApart(t *testing.T) {
	for loops, ok := range map[int]bool{64: true, 65: false} {
		g, err := loop.New(loop.Options{Addr: "127.0.0.1:0", Loops: loops, Hub: newHub(), Verifier: verifier{}})
		if (err == nil) != ok {
			t.Errorf("%d loops: %v", loops, err)
		}
		if err == nil {
			ctx, cancel := timeout(20 * time.Second)
			defer cancel()
			g.Start()
			_ = g.Stop(ctx)
		}
	}
}

// answerOf is an answer to a poll of a quarter of a megabyte.
func answerOf(id edge.ConnID) []edge.Cmd {
	pad := strings.Repeat("x", 8000)
	frames := []*edge.Frame{polledAt("alice", 17)}
	for range 31 {
		frames = append(frames, frame(`{"type":"x","pad":"`+pad+`"}`))
	}
	return unicast(id, append(frames, resumedFrame)...)
}

// A poll that is the last on its socket, and of a client that takes nothing of its
// answer, is not kept because it talks.
func TestWhoTakesNothingOfItsLastAnswerIsClosed(t *testing.T) {
	t.Parallel() // it waits, mostly
	g := start(t, func(o *loop.Options) {
		o.Loops, o.SendBufferBytes = 1, 16<<10
		o.SlowTimeout, o.CloseTimeout = 500*time.Millisecond, 500*time.Millisecond
	})
	r := g.dialRaw()
	if err := r.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	id := g.polls(r, "alice", "{}", "Connection", "close")
	g.post(answerOf(id)...)
	g.hub.of(t, id, edge.EvClosed) // its answer is on its way
	for range 15 {                 // now and then, for six times the time-outs
		_, _ = r.Conn.Write([]byte("x"))
		time.Sleep(200 * time.Millisecond)
	}
	if g.Stats().Closing != 0 {
		t.Error("it is still there")
	}
}

// Whoever asks again and again and takes no answer is not given more than one.
func TestPollsWithoutReadingAreBounded(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops, o.SendBufferBytes, o.QueueBytes = 1, 16<<10, 64<<10 })
	r := g.dialRaw()
	if err := r.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	refused := func() bool { return g.Stats().Upgrades[loop.UpgradeRate] > 0 }
	for range 30 { // fewer than may come at once
		if _, err := r.Conn.Write([]byte(request("POST", "/v1/poll", "alice", "{}"))); err != nil {
			t.Fatal(err)
		}
		g.eventually("it is taken or refused", func() bool { return refused() || g.hub.count(edge.EvOpened) > 0 })
		if refused() {
			break
		}
		id := g.polled("alice")
		g.post(answerOf(id)...)
		g.hub.of(t, id, edge.EvClosed) // answered
	}
	if n := g.Stats().QueuedBytes; n > 1<<20 {
		t.Errorf("%d KiB wait for one client that takes nothing", n>>10)
	}
}

// Bodies are bounded by what has come of them, not by what was announced: who announces
// much and sends nothing keeps nobody out.
func TestAnnouncedBodiesHoldUpNobody(t *testing.T) {
	const size, most = 16 << 20, 64 << 20
	g := start(t, func(o *loop.Options) { o.Loops, o.MaxBodyBytes, o.HeadTimeout = 1, size, time.Minute })
	head := strings.TrimSuffix(request("POST", "/v1/poll", "mallory", "{}"), "{}")
	head = strings.Replace(head, "Content-Length: 2\r\n", fmt.Sprintf("Content-Length: %d\r\n", size), 1)
	var all []*raw
	for range most/size + 1 {
		r := g.dialRaw()
		r.sends(head + "{")
		all = append(all, r)
	}
	g.eventually("all are awaited", func() bool { return g.Stats().Heads == int64(len(all)) })
	alice := g.dialRaw()
	id := g.polls(alice, "alice", `{}`)
	g.post(unicast(id, polledAt("alice", 17), resumedFrame, frame(`{"type":"x"}`))...)
	alice.wantAnswer(map[string]string{}, 18, `{"type":"x"}`)

	// Those who do send share the bound.
	rest := strings.Repeat(" ", size-2)
	for _, r := range all {
		go func() { _, _ = io.WriteString(r.Conn, rest) }()
	}
	g.eventually("one too many is refused", func() bool { return g.Stats().Upgrades[loop.UpgradeUnavailable] > 0 })
	g.eventually("the others are held", func() bool { s := g.Stats(); return s.Heads > 0 && s.HeldBytes >= size && s.Closing == 0 })
	if held := g.Stats().HeldBytes; held > 2*most {
		t.Errorf("%d bytes are held", held)
	}
	for _, r := range all {
		r.Close()
	}
	g.eventually("nothing is held", func() bool { s := g.Stats(); return s.Heads == 0 && s.Closing == 0 && s.HeldBytes == 0 })
}
