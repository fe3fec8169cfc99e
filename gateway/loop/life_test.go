package loop_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

// frameIn reads one unmasked frame.
func (r *raw) frameIn() (opcode byte, payload string, err error) {
	var h [2]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return 0, "", err
	}
	n := int(h[1])
	if n == 126 {
		var l [2]byte
		if _, err := io.ReadFull(r.r, l[:]); err != nil {
			return 0, "", err
		}
		n = int(binary.BigEndian.Uint16(l[:]))
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r.r, b)
	return h[0] & 0xf, string(b), err
}

// wantCloseFrame reads up to a close frame with this code.
func (r *raw) wantCloseFrame(code protocol.CloseCode) {
	r.t.Helper()
	for {
		op, payload, err := r.frameIn()
		if err != nil {
			r.t.Fatalf("no close frame: %v", err)
		}
		if op != 8 {
			continue
		}
		if got := binary.BigEndian.Uint16([]byte(payload)); got != uint16(code) {
			r.t.Fatalf("closed with %d %q, want %d", got, payload[2:], code)
		}
		return
	}
}

func (r *raw) wantEnd() {
	r.t.Helper()
	if _, err := r.r.ReadByte(); err != io.EOF {
		r.t.Fatalf("not the end: %v", err)
	}
}

func TestWhatEndsAConnection(t *testing.T) {
	g := start(t, nil)
	for i, tc := range []struct {
		name, bytes string
		code        protocol.CloseCode
		why         loop.CloseReason
	}{
		{"unmasked", "\x81\x02hi", 1002, loop.ClosedProtocol},
		{"reserved bits", masked(0xc1, "a"), 1002, loop.ClosedProtocol},
		{"long ping", "\x89\xfe\x00\x7e", 1002, loop.ClosedProtocol},
		{"2^63", "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00", 1002, loop.ClosedProtocol},
		{"1 GB", "\x81\xff\x00\x00\x00\x00\x40\x00\x00\x00", 1009, loop.ClosedProtocol},
		{"16 KiB and a byte, not a resume", "\x81\xfe\x40\x01\x00\x00\x00\x00" + `{"type":"watch","users":["` + strings.Repeat("a", 100), 1009, loop.ClosedProtocol},
		{"bad UTF-8", masked(0x81, "\xff"), 1007, loop.ClosedProtocol},
		{"binary", masked(0x82, "x"), 1003, loop.ClosedProtocol},
		{"not JSON", masked(0x81, "x"), 1008, loop.ClosedMalformed},
		{"unknown type", masked(0x81, `{"type":"message"}`), 1008, loop.ClosedMalformed},
		{"ping flood", strings.Repeat(masked(0x89, "x"), 41), 4029, loop.ClosedRateLimit},
		{"fragment flood", masked(0x01, "x") + strings.Repeat(masked(0x00, ""), 41), 4029, loop.ClosedRateLimit},
		{"bad close code", masked(0x88, "\x03\xee"), 1002, loop.ClosedProtocol},
		{"bad close reason", masked(0x88, "\x03\xe8\xff"), 1007, loop.ClosedProtocol},
		{"close", masked(0x88, "\x03\xe8bye"), 1000, loop.ClosedByClient},
		{"own close code", masked(0x88, "\x0f\xa0"), 4000, loop.ClosedByClient},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := g.Stats().Closed[tc.why]
			r, id := g.dialWS(fmt.Sprint("user", i))
			r.t = t
			r.sends(tc.bytes)
			r.wantCloseFrame(tc.code)
			if tc.why != loop.ClosedByClient { // else it is the answer
				r.sends(masked(0x88, "\x03\xe8"))
			}
			r.wantEnd()
			r.Close()
			g.hub.of(t, id, edge.EvClosed)
			g.eventually("counted", func() bool { return g.Stats().Closed[tc.why] == before+1 })
		})
	}
	g.eventually("nothing is left", func() bool {
		s := g.Stats()
		return s.Open == 0 && s.Closing == 0 && s.HeldBytes == 0 && s.QueuedBytes == 0
	})
	if n := g.hub.count(edge.EvClosed); n != 0 {
		t.Errorf("%d connections were closed twice", n)
	}
}

func TestNotAllowedStays(t *testing.T) {
	g := start(t, nil)
	c := g.dial("alice")
	c.says(`{"type":"resume","rooms":{}}`)
	if got := c.next(); !strings.Contains(got, `"type":"error","code":"invalid"`) {
		t.Errorf("got %s", got)
	}
	c.says(`{"type":"typing","room":"a b"}`)
	if got := c.next(); !strings.Contains(got, `"type":"error","code":"invalid"`) {
		t.Errorf("got %s", got)
	}
	c.says(`{"type":"ping"}`)
	c.want(protocol.Pong)
}

func TestAHalfClosedSocketIsFreed(t *testing.T) {
	g := start(t, nil)
	r, id := g.dialWS("alice")
	r.Conn.(*net.TCPConn).CloseWrite()
	g.hub.of(t, id, edge.EvClosed)
	g.eventually("freed", func() bool { return g.Stats().Open == 0 })
}

func TestAResetSocketIsFreed(t *testing.T) {
	g := start(t, nil)
	r, id := g.dialWS("alice")
	r.Conn.(*net.TCPConn).SetLinger(0)
	r.Close()
	g.hub.of(t, id, edge.EvClosed)
}

func TestAClientThatDoesNotFinishTheCloseIsFreed(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.CloseTimeout = 200 * time.Millisecond })
	_, id := g.dialWS("alice") // never reads, never closes
	g.post(edge.Cmd{Kind: edge.CmdClose, Conn: id, Code: 4012})
	g.hub.of(t, id, edge.EvClosed)
	g.eventually("freed", func() bool { s := g.Stats(); return s.Closing == 0 && s.Closed[loop.ClosedByHub] == 1 })
}

// A client whose socket ends with the close frame can't answer that: some then tell
// that the connection was lost, and not why it was closed.
func TestASocketEndsWhenTheCloseFrameIsAnswered(t *testing.T) {
	g := startTLS(t, nil)
	for name, dial := range map[string]func() *raw{
		"plain": start(t, nil).dialRaw,
		"TLS":   func() *raw { return g.dialTLS(g.config(tls.VersionTLS13), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r := dial()
			r.sends(goodHead + "Authorization: Bearer alice\r\n\r\n" + masked(0x81, "not JSON"))
			if resp, body := r.answer(); resp.StatusCode != 101 {
				t.Fatalf("got %d: %s", resp.StatusCode, body)
			}
			r.wantCloseFrame(protocol.CloseMalformed)
			r.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := r.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("before the answer: %v", err)
			}
			r.SetReadDeadline(time.Now().Add(patience))
			r.sends(masked(0x88, "\x03\xf0"))
			r.wantEnd()
		})
	}
}

// Who does not answer gets the end all the same, long before it is given up.
func TestASocketEndsAlsoWithoutAnAnswer(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.CloseTimeout = time.Minute })
	r, id := g.dialWS("alice")
	g.post(edge.Cmd{Kind: edge.CmdClose, Conn: id, Code: 4012})
	r.wantCloseFrame(4012)
	r.wantEnd()
}

// The slot is used again; the old name means nobody.
func TestGenerations(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops = 1 })
	old := g.dial("alice")
	old.Close(websocket.StatusNormalClosure, "")
	g.hub.of(t, old.id, edge.EvClosed)
	g.eventually("freed", func() bool { return g.Stats().Closing == 0 })
	now := g.dial("bob")
	if now.id.Slot() != old.id.Slot() || now.id == old.id {
		t.Fatalf("slots %d and %d", old.id.Slot(), now.id.Slot())
	}
	g.Post(0, []edge.Cmd{
		{Kind: edge.CmdAttach, Conn: old.id, Room: room1},
		{Kind: edge.CmdUnicast, Conn: old.id, Frame: frame(`{"for":"alice"}`)},
		{Kind: edge.CmdBroadcast, Room: room1, Frame: frame(`{"for":"room1"}`)},
		{Kind: edge.CmdMark, Conn: old.id},
		{Kind: edge.CmdClose, Conn: old.id, Code: 4003},
		{Kind: edge.CmdUnicast, Conn: now.id, Frame: frame(`{"for":"bob"}`)},
	})
	now.want(`{"for":"bob"}`)
	if n := g.hub.count(edge.EvDrained); n != 0 {
		t.Error("a mark of the old one came back")
	}
}

func TestHeartbeat(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Heartbeat, o.Grace = 1500*time.Millisecond, time.Second })
	began := time.Now()
	silent, silentID := g.dialWS("silent")
	alive, _ := g.dialWS("alive")
	talker, _ := g.dialWS("talker")
	stop := make(chan struct{})
	defer close(stop)
	go func() { // answers pings
		for {
			op, payload, err := alive.frameIn()
			if err != nil {
				return
			}
			if op == 9 {
				io.WriteString(alive.Conn, masked(0x8a, payload))
			}
		}
	}()
	go func() { // never gives cause for a ping
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				io.WriteString(talker.Conn, masked(0x8a, ""))
			}
		}
	}()
	if op, _, err := silent.frameIn(); op != 9 || err != nil {
		t.Fatalf("got %d, %v, want a ping", op, err)
	}
	if d := time.Since(began); d < 1100*time.Millisecond {
		t.Errorf("pinged after %v", d)
	}
	g.hub.of(t, silentID, edge.EvClosed)
	if d := time.Since(began); d < 2100*time.Millisecond || d > patience {
		t.Errorf("closed after %v", d)
	}
	time.Sleep(time.Second) // the others are past their own time by now
	if s := g.Stats(); s.Open != 2 || s.Closed[loop.ClosedHeartbeat] != 1 {
		t.Errorf("open %d, closed by heartbeat %d", s.Open, s.Closed[loop.ClosedHeartbeat])
	}
	talker.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if op, _, err := talker.frameIn(); err == nil {
		t.Errorf("who talks was sent a frame with opcode %d", op)
	}
}

func TestTokenExpiryAndRenewal(t *testing.T) {
	t.Parallel() // it waits, mostly
	g := start(t, nil)
	renewing, expiring, other := g.dial("bob.3"), g.dial("alice.3"), g.dial("carol.60") // bob's ends no later than alice's
	renewing.says(`{"type":"auth","token":"bob.60"}`)
	if ev := g.hub.of(t, renewing.id, edge.EvRenewed); ev.IssuedAt != 7 {
		t.Errorf("the hub is told %+v", ev)
	}
	renewing.says(`{"type":"auth","token":"bad"}`)
	if got := renewing.next(); !strings.Contains(got, `"code":"unauthorized"`) {
		t.Errorf("got %s", got)
	}
	other.says(`{"type":"auth","token":"mallory.60"}`)
	if got := other.next(); !strings.Contains(got, `"code":"forbidden"`) {
		t.Errorf("got %s", got)
	}
	other.wantClose(protocol.CloseForbidden)
	expiring.want(`{"type":"bye","reason":"token_expired","retry_in_ms":0}`)
	expiring.wantClose(protocol.CloseTokenExpired)
	time.Sleep(300 * time.Millisecond) // some ticks: the other loop looks, too
	renewing.says(`{"type":"ping"}`)
	renewing.want(protocol.Pong)
}

func TestPositionsHaveADeadlinePerFrame(t *testing.T) {
	t.Parallel() // it waits, mostly
	g := start(t, func(o *loop.Options) { o.ResumeTimeout = 2 * time.Second })
	never, slow := g.dialQuery("alice", "?resume"), g.dialQuery("bob", "?resume=1")
	g.post(append(unicast(never.id, frame(hello)), unicast(slow.id, frame(hello))...)...)
	slow.want(hello)
	for range 3 {
		time.Sleep(800 * time.Millisecond) // three are longer than the time for one
		slow.says(`{"type":"resume","rooms":{"r1":"1-0"},"more":true}`)
		if ev := g.hub.of(t, slow.id, edge.EvPositions); !ev.More || ev.Positions["r1"] != (protocol.ID{Ms: 1}) {
			t.Errorf("got %+v", ev)
		}
	}
	slow.says(`{"type":"resume","rooms":{}}`)
	g.hub.of(t, slow.id, edge.EvPositions)
	never.wantClose(protocol.CloseTryLater)
	time.Sleep(2200 * time.Millisecond) // longer than the time for another
	slow.says(`{"type":"ping"}`)
	slow.want(protocol.Pong)
}

const hello = `{"type":"hello","conn":"x","user":"u","rooms_rev":1,"heartbeat_s":25,"version":"v"}`

// hello may take as long as a partition that does not answer: a client that reads it
// before it says where it is has all of its time from then on.
func TestTheTimeForPositionsBeginsWithHello(t *testing.T) {
	t.Parallel() // it waits, mostly
	g := start(t, func(o *loop.Options) { o.ResumeTimeout = 2 * time.Second })
	opened := time.Now()
	ungreeted, c := g.dialQuery("alice", "?resume"), g.dialQuery("bob", "?resume")
	time.Sleep(2500 * time.Millisecond) // more than its time
	g.post(unicast(c.id, frame(hello))...)
	c.want(hello)
	c.says(`{"type":"resume","rooms":{"r1":"1-0"}}`)
	g.hub.of(t, c.id, edge.EvPositions)
	c.says(`{"type":"ping"}`)
	c.want(protocol.Pong)
	ungreeted.wantClose(protocol.CloseTryLater) // for ever nobody waits
	if took := time.Since(opened); took < 5*time.Second {
		t.Errorf("closed after %v, before hello had to come", took)
	}
}

func TestALongResume(t *testing.T) {
	g := start(t, nil)
	c := g.dialQuery("alice", "?resume")
	var b bytes.Buffer
	b.WriteString(`{"type":"resume","rooms":{"r":"1-1"`)
	for i := range 6000 {
		fmt.Fprintf(&b, `,"room-%d":"1732281234567-%d"`, i, i)
	}
	b.WriteString("}}")
	c.says(b.String())
	if ev := g.hub.of(t, c.id, edge.EvPositions); len(ev.Positions) != 6001 {
		t.Errorf("%d positions in %d bytes", len(ev.Positions), b.Len())
	}
	r := g.dialRaw()
	r.sends(strings.Replace(goodHead, "/v1/ws", "/v1/ws?resume", 1) + "Authorization: Bearer bob\r\n\r\n")
	wantStatus(t, r, 101)
	id := g.hub.kind(t, edge.EvOpened).Conn
	for text, first := b.String(), byte(0x01); len(text) > 0; first = 0 { // as a client whose buffer is 4 KiB
		n := min(len(text), 4096)
		if n == len(text) {
			first |= 0x80
		}
		r.sends(masked(first, text[:n]))
		text = text[n:]
	}
	if ev := g.hub.of(t, id, edge.EvPositions); len(ev.Positions) != 6001 {
		t.Errorf("%d positions in pieces", len(ev.Positions))
	}
	g.eventually("its buffer is returned", func() bool { return g.Stats().HeldBytes == 0 })
}

// Half frames and half requests of many clients hold up nobody and are cut at
// their deadline.
func TestHalfFramesOfAThousandClients(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.MessageTimeout = 4 * time.Second
		o.HeadTimeout = 4 * time.Second
		o.MaxPerUser = 2000
	})
	alice := g.dial("alice")
	for i := range 1000 {
		r := g.dialRaw()
		r.sends(goodHead)
		if i%2 == 0 {
			r.sends("Authorization: Bearer half\r\n\r\n" + masked(0x81, strings.Repeat("a", 1000))[:10+i%900])
		}
	}
	// A thousand connections take a while on a busy machine: the first may be cut by then.
	g.eventually("they are all in", func() bool { s := g.Stats(); return s.Accepted == 1001 && s.Heads <= 500 })
	began := time.Now()
	for range 20 {
		alice.says(`{"type":"ping"}`)
		alice.want(protocol.Pong)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("20 pings took %v", d)
	}
	if s := g.Stats(); s.HeldBytes == 0 || s.HeldBytes > 1000*1024 {
		t.Errorf("%d bytes are held", s.HeldBytes)
	}
	g.eventually("they are cut", func() bool { s := g.Stats(); return s.Heads == 0 && s.Open == 1 && s.HeldBytes == 0 })
	alice.says(`{"type":"ping"}`)
	alice.want(protocol.Pong)
}

// How long clients took to be let in, and to answer pings, is told.
func TestTimesOfClientsAreTold(t *testing.T) {
	upgraded, answered := make(chan time.Duration, 8), make(chan time.Duration, 8)
	g := start(t, func(o *loop.Options) {
		o.Heartbeat, o.Grace = 100*time.Millisecond, 10*time.Second
		o.OnUpgraded = func(took time.Duration) { upgraded <- took }
		o.OnHeartbeat = func(took time.Duration) { answered <- took }
	})
	r := g.dialRaw()
	time.Sleep(300 * time.Millisecond) // a slow client
	r.sends(bearerAlice)
	wantStatus(t, r, 101)
	if took := <-upgraded; took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("the upgrade took %v, want some 300 ms", took)
	}
	time.Sleep(500 * time.Millisecond) // long after the ping
	r.sends(masked(0x8a, ""))          // a pong
	if took := <-answered; took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("the answer took %v, want some 400 ms", took)
	}
}
