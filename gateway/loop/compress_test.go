package loop_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/gateway/deflate"
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

func compressing(o *loop.Options) { o.Compress = true }

// dialDeflate is dial for a client that offers permessage-deflate.
func (g *gateway) dialDeflate(user string) *client {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, g.url(""), &websocket.DialOptions{
		Subprotocols:         []string{protocol.Subprotocol, protocol.BearerPrefix + user},
		CompressionMode:      websocket.CompressionContextTakeover,
		CompressionThreshold: 1,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); !strings.HasPrefix(got, "permessage-deflate; server_no_context_takeover; client_no_context_takeover") {
		g.t.Fatalf("agreed on %q", got)
	}
	conn.SetReadLimit(1 << 20)
	g.t.Cleanup(func() { conn.CloseNow() })
	ev := g.hub.take(g.t, "opening of "+user, func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == user })
	return &client{Conn: conn, t: g.t, id: ev.Conn, ctx: context.Background()}
}

// dialOffer upgrades a client of bytes with these extensions on offer and returns
// what was agreed on.
func (g *gateway) dialOffer(user, offers string) (*raw, edge.ConnID, string) {
	g.t.Helper()
	r := g.dialRaw()
	r.sends(goodHead + "Authorization: Bearer " + user + "\r\nSec-WebSocket-Extensions: " + offers + "\r\n\r\n")
	resp, body := r.answer()
	if resp.StatusCode != 101 {
		g.t.Fatalf("got %d: %s", resp.StatusCode, body)
	}
	ev := g.hub.take(g.t, "opening of "+user, func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == user })
	return r, ev.Conn, resp.Header.Get("Sec-WebSocket-Extensions")
}

// wire reads one frame: its first byte and its payload.
func (r *raw) wire() (first byte, payload []byte) {
	r.t.Helper()
	var head [10]byte
	read := func(b []byte) {
		if _, err := io.ReadFull(r.r, b); err != nil {
			r.t.Fatalf("reading a frame: %v", err)
		}
	}
	read(head[:2])
	n := uint64(head[1])
	switch n {
	case 126:
		read(head[2:4])
		n = uint64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		read(head[2:10])
		n = binary.BigEndian.Uint64(head[2:])
	}
	payload = make([]byte, n)
	read(payload)
	return head[0], payload
}

func (r *raw) wantCloseCode(code protocol.CloseCode) {
	r.t.Helper()
	for {
		first, payload := r.wire()
		if first != 0x88 {
			continue
		}
		if len(payload) < 2 || protocol.CloseCode(binary.BigEndian.Uint16(payload)) != code {
			r.t.Errorf("closed with %q, want %d", payload, code)
		}
		return
	}
}

const offer = "permessage-deflate; client_max_window_bits"

// long is an event that is worth compressing.
func long(n int) string {
	return fmt.Sprintf(`{"n":%d,"text":"%s"}`, n, strings.Repeat("the meeting is at noon ", 40))
}

func TestCompressionIsNegotiatedOnlyWhenWanted(t *testing.T) {
	g := start(t, compressing)
	for offers, want := range map[string]string{
		"": "", "x-other": "", "permessage-deflate; server_max_window_bits=16": "",
		offer: "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
		"permessage-deflate; server_max_window_bits=10": "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
	} {
		if _, _, got := g.dialOffer("u"+fmt.Sprint(len(offers)), offers); got != want {
			t.Errorf("%q: agreed on %q, want %q", offers, got, want)
		}
	}
	g.eventually("two are counted", func() bool { return g.Stats().Compressed == 2 })
	// In two lines; and what is malformed is refused.
	r := g.dialRaw()
	r.sends(goodHead + "Authorization: Bearer x\r\nSec-WebSocket-Extensions: foo\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	if resp, _ := r.answer(); resp.Header.Get("Sec-WebSocket-Extensions") == "" {
		t.Error("an offer in a second line was not seen")
	}
	r = g.dialRaw()
	r.sends(goodHead + "Authorization: Bearer x\r\nSec-WebSocket-Extensions: permessage-deflate;;\r\n\r\n")
	if resp, _ := r.answer(); resp.StatusCode != 400 {
		t.Errorf("malformed: %d", resp.StatusCode)
	}
	off := start(t, nil)
	if _, _, got := off.dialOffer("alice", offer); got != "" {
		t.Errorf("agreed on %q though it is off", got)
	}
}

// Everybody gets the same events in the same order, compressed or not.
func TestCompressedAndPlainClientsGetTheSame(t *testing.T) {
	g := start(t, compressing)
	var all []*client
	for i := range 3 {
		all = append(all, g.dial(fmt.Sprint("p", i)), g.dialDeflate(fmt.Sprint("z", i)))
	}
	var want []string
	for _, c := range all {
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: room1})
	}
	for i := range 60 {
		text := fmt.Sprintf(`{"short":%d}`, i)
		if i%4 == 0 {
			text = long(i)
		}
		want = append(want, text)
		g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: frame(text), Shed: i%5 == 0})
		if i%10 == 9 {
			for _, c := range all {
				g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: c.id, Frame: frame(long(1000 + i))})
			}
			want = append(want, long(1000+i))
		}
	}
	for _, c := range all {
		c.want(want...)
	}
	for _, c := range all { // and upward
		c.says(`{"type":"ping"}`)
		c.want(protocol.Pong)
		c.says(`{"type":"watch","users":["` + strings.Repeat("u", 100) + `"]}`)
		if ev := g.hub.of(t, c.id, edge.EvWatch); len(ev.Users) != 1 || len(ev.Users[0]) != 100 {
			t.Errorf("got %+v", ev)
		}
	}
	g.eventually("they are counted", func() bool { s := g.Stats(); return s.Inflated == 6 && s.Compressed == 3 })
	for _, c := range all {
		c.Close(websocket.StatusNormalClosure, "")
	}
	g.eventually("they are counted out", func() bool { s := g.Stats(); return s.Compressed == 0 && s.HeldBytes == 0 && s.QueuedBytes == 0 })
}

// A message is compressed once, by whichever loop needs it first, however many
// get it and however often.
func TestCompressedOncePerGateway(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Compress = true; o.Loops = 4 })
	var all []*client
	for i := range 12 {
		c := g.dialDeflate(fmt.Sprint("z", i))
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: room1}, edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: room2})
		all = append(all, c)
	}
	const messages = 50
	for i := range messages {
		f := frame(long(i))
		g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: f}, edge.Cmd{Kind: edge.CmdBroadcast, Room: room2, Frame: f})
		g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: frame(`{"too":"short"}`)})
	}
	for _, c := range all {
		for range 3 * messages {
			c.next()
		}
	}
	g.eventually("it is counted", func() bool { return g.Stats().Deliveries == 12*3*messages })
	s := g.Stats()
	if s.Deflated != messages {
		t.Errorf("compressed %d times, want %d", s.Deflated, messages)
	}
	if s.DeflatedTo*2 > s.DeflatedFrom {
		t.Errorf("%d bytes became %d", s.DeflatedFrom, s.DeflatedTo)
	}
}

// What goes over the wire: short and incompressible events as they are, a
// client's window respected, joined batches as frames in order.
func TestCompressedFramesOnTheWire(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Compress = true; o.Loops = 1 })
	r, id, _ := g.dialOffer("alice", offer)
	small, smallID, _ := g.dialOffer("bob", "permessage-deflate; server_max_window_bits=9")
	var inflater deflate.Inflater
	check := func(r *raw, wantCompressed bool, want string) {
		t.Helper()
		first, payload := r.wire()
		if first&0x40 != 0 {
			var bad error
			text, e := inflater.Inflate(payload, 1<<20, nil)
			if e != nil {
				bad = e
			}
			if bad != nil {
				t.Fatal(bad)
			}
			payload = text
		}
		if first&^0x40 != 0x81 || (first&0x40 != 0) != wantCompressed || string(payload) != want {
			t.Fatalf("got %#x %.60q, want compressed %v %.60q", first, payload, wantCompressed, want)
		}
	}
	noise := make([]byte, 700)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: id, Frame: frame(long(1))}, edge.Cmd{Kind: edge.CmdUnicast, Conn: id, Frame: frame(`{"s":1}`)},
		edge.Cmd{Kind: edge.CmdUnicast, Conn: smallID, Frame: frame(long(1))})
	check(r, true, long(1))
	check(r, false, `{"s":1}`)
	check(small, false, long(1)) // its window has 512 bytes
	g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: id, Frame: frame(string(noise))})
	check(r, false, string(noise)) // compressed it would be longer

	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: room1})
	var batch []edge.Cmd
	for _, text := range []string{`{"s":2}`, `{"s":3}`, long(4), long(5), `{"s":6}`, `{"s":7}`} {
		batch = append(batch, edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: frame(text)})
	}
	g.Post(0, batch)
	check(r, false, "{\"s\":2}\n{\"s\":3}")
	check(r, true, long(4))
	check(r, true, long(5))
	check(r, false, "{\"s\":6}\n{\"s\":7}")
}

func TestBadCompressedInput(t *testing.T) {
	var d deflate.Deflater
	z := func(s string) string { return string(d.Append(nil, []byte(s), deflate.MaxWindowBits)) }
	bomb := z(strings.Repeat("a", 8<<20))
	const textZ, contFin, pingZ = 0x81 | 0x40, 0x80, 0x89 | 0x40
	for name, tc := range map[string]struct {
		frames string
		code   protocol.CloseCode
	}{
		"bomb":                      {masked(textZ, bomb), protocol.CloseTooLarge},
		"bomb in fragments":         {masked(textZ&^0x80, bomb[:5000]) + masked(contFin, bomb[5000:]), protocol.CloseTooLarge},
		"one byte too much":         {masked(textZ, z(`{"type":"`+strings.Repeat("a", 16<<10))), protocol.CloseTooLarge},
		"binary bomb":               {masked(0x82|0x40, bomb), protocol.CloseTooLarge},
		"corrupt":                   {masked(textZ, "\x06\x06"), protocol.CloseBadUTF8},
		"truncated":                 {masked(textZ, z(long(1))[:50]), protocol.CloseBadUTF8},
		"not UTF-8 inside":          {masked(textZ, z("abc\xff")), protocol.CloseBadUTF8},
		"nothing":                   {masked(textZ, ""), protocol.CloseBadUTF8},
		"RSV1 on a ping":            {masked(pingZ, "x"), protocol.CloseProtocolError},
		"RSV1 on a close":           {masked(0x88|0x40, "\x03\xe8"), protocol.CloseProtocolError},
		"RSV1 on a continuation":    {masked(0x01, `{"ty`) + masked(contFin|0x40, `pe":"ping"}`), protocol.CloseProtocolError},
		"RSV2":                      {masked(0x81|0x20, "x"), protocol.CloseProtocolError},
		"RSV1 and RSV3":             {masked(0x81|0x50, "x"), protocol.CloseProtocolError},
		"too much on the wire":      {masked(textZ, string(z("x"))+strings.Repeat("x", 20_000)), protocol.CloseTooLarge},
		"a thousand final blocks":   {masked(textZ, strings.Repeat("\x03\x00", 1000)), protocol.CloseTooLarge},
		"well compressed, bad JSON": {masked(textZ, z("hello")), protocol.CloseMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, compressing)
			r, _, _ := g.dialOffer("alice", offer)
			r.sends(tc.frames)
			r.wantCloseCode(tc.code)
			r.Close()
			g.eventually("nothing is held", func() bool { s := g.Stats(); return s.HeldBytes == 0 && s.Open == 0 && s.Closing == 0 })
		})
	}
	// Without an agreement RSV1 is an error even on the first frame.
	g := start(t, compressing)
	r, _ := g.dialWS("bob")
	r.sends(masked(textZ, z(`{"type":"ping"}`)))
	r.wantCloseCode(protocol.CloseProtocolError)
}

// A long resume may come compressed, in one frame or many; what only begins
// like one on the wire may not be larger than others.
func TestCompressedResume(t *testing.T) {
	g := start(t, compressing)
	var d deflate.Deflater
	resume := []byte(`{"type":"resume","rooms":{"first":"1-1"`)
	for i := 0; len(resume) < 200_000; i++ {
		resume = fmt.Appendf(resume, `,"%08x-%08x":"%d-0"`, i*2654435761, i*40503, 1732281234567+i*i)
	}
	resume = append(resume, "}}"...)
	z := string(d.Append(nil, resume, deflate.MaxWindowBits))
	if len(z) < 40_000 {
		t.Fatalf("only %d bytes: no test", len(z))
	}
	for i, pieces := range []int{1, 2, 30} {
		r := g.dialRaw()
		user := fmt.Sprint("alice", i)
		r.sends(strings.Replace(goodHead, "/v1/ws", "/v1/ws?resume", 1) + "Authorization: Bearer " + user + "\r\nSec-WebSocket-Extensions: " + offer + "\r\n\r\n")
		if resp, _ := r.answer(); resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		var stream strings.Builder
		for n, rest := (len(z)+pieces-1)/pieces, z; len(rest) > 0; {
			part := rest[:min(n, len(rest))]
			first := byte(0)
			if len(rest) == len(z) {
				first = 0x41
			}
			if rest = rest[len(part):]; len(rest) == 0 {
				first |= 0x80
			}
			stream.WriteString(maskedLong(first, part))
		}
		r.sends(stream.String())
		ev := g.hub.kind(t, edge.EvPositions)
		if len(ev.Positions) < 3000 || ev.Positions["first"].String() != "1-1" {
			t.Errorf("%d pieces: %d positions", pieces, len(ev.Positions))
		}
	}
	r, _, _ := g.dialOffer("bob", offer)
	focus := append([]byte(`{"type":"focus","room":"`), bytes.Repeat([]byte("resume"), 30_000)...)
	r.sends(maskedLong(0xc1, string(d.Append(nil, focus, deflate.MaxWindowBits))))
	r.wantCloseCode(protocol.CloseTooLarge)
}

// maskedLong is masked for any length.
func maskedLong(first byte, payload string) string {
	if len(payload) < 1<<16 {
		return masked(first, payload)
	}
	head := binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, uint64(len(payload)))
	return string(append(head, 0, 0, 0, 0)) + payload
}

// Bombs cost the gateway neither memory nor anybody's time.
func TestBombsDoNotGrowTheProcess(t *testing.T) {
	g := start(t, compressing)
	bystander := g.dialDeflate("carol")
	var d deflate.Deflater
	bomb := d.Append(nil, make([]byte, 15<<20), deflate.MaxWindowBits) // 15 KiB: within the limit of a frame
	if len(bomb) > 16<<10 {
		t.Fatalf("%d bytes", len(bomb))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range 50 {
		r, _, _ := g.dialOffer(fmt.Sprint("m", i), offer)
		r.sends(masked(0xc2, string(bomb)))
		r.wantCloseCode(protocol.CloseTooLarge)
		r.Close()
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 20<<20 { // the test's own clients included
		t.Errorf("50 bombs of 15 MiB made it allocate %d bytes", n)
	}
	bystander.says(`{"type":"ping"}`)
	bystander.want(protocol.Pong)
}
