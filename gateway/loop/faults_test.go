package loop_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

// What clients may do to a gateway, as far as other tests do not have it yet:
// much of something, or something for ever.

// heapGrowth is how many bytes f leaves behind.
func heapGrowth(f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

func TestHugeHeadsAreCutAtTheLimit(t *testing.T) {
	g := start(t, nil)
	header := func(n int) string { return "X-Junk: " + strings.Repeat("x", n) + "\r\n" }
	for name, junk := range map[string]string{
		"16 MB of headers":         strings.Repeat(header(990), 16<<10),
		"a line of 2 MB":           header(2 << 20),
		"5,000 headers":            strings.Repeat(header(1), 5000),
		"100 kB of protocols":      "Sec-WebSocket-Protocol: " + strings.Repeat("a, ", 33_000) + "madang.v1\r\n",
		"ten thousand extensions":  "Sec-WebSocket-Extensions: " + strings.Repeat("x;a=b, ", 10_000) + "permessage-deflate\r\n",
		"100 kB of window bits":    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=" + strings.Repeat("9", 100_000) + "\r\n",
		"100 kB of request target": "",
	} {
		t.Run(name, func(t *testing.T) {
			before := g.Stats().BytesIn
			r := g.dialRaw()
			r.t = t
			head := goodHead + junk
			if junk == "" {
				head = "GET /v1/ws?" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\n"
			}
			go io.WriteString(r.Conn, head) // it will not get all of it out
			resp, body := r.answer()
			if resp.StatusCode != 431 || !strings.Contains(body, "too_large") {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			if read := g.Stats().BytesIn - before; read > 4<<20 { // what is read after the refusal is thrown away
				t.Errorf("%d bytes were read", read)
			}
		})
	}
	// Not a byte more than the limit is needed to know.
	r := g.dialRaw()
	r.sends((goodHead + strings.Repeat(header(100), 200))[:16<<10])
	if resp, _ := r.answer(); resp.StatusCode != 431 {
		t.Errorf("after 16 KiB: %d", resp.StatusCode)
	}
	g.eventually("nothing is held", func() bool { s := g.Stats(); return s.HeldBytes == 0 && s.Heads == 0 })
}

// A token in a URL is refused, and no log has it.
func TestTokensAreNotLogged(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	g := start(t, func(o *loop.Options) {
		o.Logger = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(p)
		}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	const secret = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0"
	for _, head := range []string{
		strings.Replace(goodHead, "/v1/ws", "/v1/ws?token="+secret, 1) + "\r\n",
		strings.Replace(goodHead, "/v1/ws", "/v1/ws?x="+secret, 1) + "\r\n",
		strings.Replace(goodHead, "/v1/ws", "/"+secret, 1) + "\r\n",
		goodHead + "Authorization: Bearer bad." + secret + "\r\n\r\n",
		goodHead + "Authorization: Bearer " + secret + " \x01\r\n\r\n",
		goodHead + "Sec-WebSocket-Protocol: bearer." + secret + ", bearer." + secret + "\r\n\r\n",
	} {
		r := g.dialRaw()
		r.sends(head)
		resp, body := r.answer()
		if resp.StatusCode < 400 || strings.Contains(body, secret) || strings.Contains(fmt.Sprint(resp.Header), secret) {
			t.Errorf("%.60q: %d %v %s", head, resp.StatusCode, resp.Header, body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(log.String(), secret) {
		t.Errorf("the log has a token: %s", log.String())
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Floods of frames, read by nobody: they are cut by the frame rate, and what
// they leave behind is nothing.
func TestFloodsAreCutAndLeaveNothing(t *testing.T) {
	for name, flood := range map[string]struct{ first, again string }{
		"pings":                    {"", masked(0x89, strings.Repeat("p", 125))},
		"pongs":                    {"", masked(0x8a, "x")},
		"empty fragments":          {masked(0x01, ""), masked(0x00, "")},
		"fragments of a byte":      {masked(0x01, "a"), masked(0x00, "a")},
		"pings inside a message":   {masked(0x01, "a"), masked(0x89, "x")},
		"JSON pings":               {"", masked(0x81, `{"type":"ping"}`)},
		"errors to be told":        {"", masked(0x81, `{"type":"typing","room":"a b"}`)},
		"empty compressed frames":  {masked(0x41, ""), masked(0x00, "")},
		"compressed pieces of one": {masked(0x41, "\x00"), masked(0x00, "\x00")},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, compressing)
			bystander := g.dial("bystander")
			r, _, _ := g.dialOffer("flooder", offer)
			r.t = t
			stream := flood.first + strings.Repeat(flood.again, 10_000)
			grown := heapGrowth(func() {
				go io.WriteString(r.Conn, stream)
				r.wantCloseCode(protocol.CloseRateLimit)
				if s := g.Stats(); s.QueuedBytes > 300<<10 || s.HeldBytes > 300<<10 {
					t.Errorf("queued %d, held %d", s.QueuedBytes, s.HeldBytes)
				}
				r.Close()
				g.eventually("it is gone", func() bool { s := g.Stats(); return s.Open == 1 && s.Closing == 0 && s.HeldBytes == 0 })
			})
			if grown > 2<<20 {
				t.Errorf("%d bytes are left", grown)
			}
			g.eventually("it is counted", func() bool { return g.Stats().Closed[loop.ClosedRateLimit] == 1 })
			bystander.says(`{"type":"ping"}`)
			bystander.want(protocol.Pong)
		})
	}
}

// A message that trickles in below every rate is cut all the same, and its bytes
// are bounded by the message's limit meanwhile.
func TestEndlessMessagesAreCut(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.MessageTimeout = 400 * time.Millisecond })
	r, _ := g.dialWS("alice")
	r.sends(masked(0x01, `{"type":"`))
	trickle := r.Conn // r becomes another below
	go func() {
		for range 100 {
			if _, err := io.WriteString(trickle, masked(0x00, "a")); err != nil {
				return
			}
			time.Sleep(60 * time.Millisecond) // 16 a second: below the limit
		}
	}()
	r.wantCloseCode(protocol.CloseMalformed)
	r.Close()
	g.eventually("it is counted", func() bool { return g.Stats().Closed[loop.ClosedMessageTimeout] == 1 })

	// By fragments beyond the limit: at the header that goes beyond it.
	r, _ = g.dialWS("bob")
	r.sends(masked(0x01, strings.Repeat("a", 10<<10)) + masked(0x00, strings.Repeat("a", 7<<10))[:8])
	r.wantCloseCode(protocol.CloseTooLarge)
	r.Close()
	g.eventually("nothing is held", func() bool { s := g.Stats(); return s.HeldBytes == 0 && s.Open == 0 && s.Closing == 0 })
}

// Whoever does not answer a close frame is gone after the closing time.
func TestDefaultsCutWithinFiveSeconds(t *testing.T) {
	t.Parallel() // it waits, mostly
	g := start(t, nil)
	silent, half := g.dialRaw(), g.dialRaw()
	half.sends(goodHead)
	closing, _ := g.dialWS("alice")
	closing.sends(masked(0x88, "\x03\xee")) // and never ends its side
	began := time.Now()
	g.eventually("all three are there", func() bool { s := g.Stats(); return s.Accepted == 3 && s.Heads == 2 && s.Open == 0 })
	g.eventually("all three are gone", func() bool { s := g.Stats(); return s.Heads == 0 && s.Closing == 0 && s.Open == 0 })
	if took := time.Since(began); took > 7*time.Second { // 5 s, and a busy machine
		t.Errorf("it took %v", took)
	}
	silent.Close()
}
