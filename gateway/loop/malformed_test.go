package loop_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/madang-chat/madang/gateway/deflate"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

// A corpus of malformed input, made from a seed: each sequence is sent to a
// running gateway by a client of its own, which then ends its side. Nothing may
// come back but HTTP or frames, and the gateway is as before when all are gone.

const (
	corpusSeed = 20261122
	corpusSize = 1500 // MADANG_TEST_FULL: twenty times as many
)

func TestMalformedInputLeavesTheGatewayHealthy(t *testing.T) {
	n := corpusSize
	if os.Getenv("MADANG_TEST_FULL") != "" {
		n *= 20
	}
	g := start(t, func(o *loop.Options) { o.Compress, o.Heartbeat = true, time.Hour })
	bystander := g.dialDeflate("bystander")
	const at = 64 // at a time: most of them wait for the gateway to hang up
	replay := func(from, to int) {
		var wg sync.WaitGroup
		for w := range at {
			wg.Go(func() {
				for i := from + w; i < to; i += at {
					if err := g.provoke(i); err != nil {
						t.Errorf("sequence %d (%s): %v", i, malformed(i).name, err)
					}
				}
			})
		}
		wg.Wait()
		g.eventually("all are gone", func() bool {
			s := g.Stats()
			return s.Open == 1 && s.Heads == 0 && s.Closing == 0 && s.HeldBytes == 0 && s.QueuedBytes == 0
		})
	}
	replay(0, n/10) // until the tables have their size
	goroutines := runtime.NumGoroutine()
	grown := heapGrowth(func() { replay(n/10, n) })
	if grown > 4<<20 {
		t.Errorf("%d bytes are left behind", grown)
	}
	g.eventually("no goroutine is left behind", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	bystander.says(`{"type":"ping"}`)
	bystander.want(protocol.Pong)
	s := g.Stats()
	if s.Bugs != 0 {
		t.Errorf("%d panics", s.Bugs)
	}
	t.Logf("seed %d, %d sequences: upgrades %v, closed %v", corpusSeed, n, s.Upgrades, s.Closed)
}

// provoke sends a sequence and checks what comes back.
func (g *gateway) provoke(i int) error {
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	s := malformed(i)
	for _, part := range s.parts {
		if _, err := conn.Write(part); err != nil {
			break // it has had enough
		}
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		return err
	}
	return checkAnswer(answer)
}

// checkAnswer says whether b is what a gateway may say: nothing, an HTTP answer,
// frames behind a 101.
func checkAnswer(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	head, rest, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found || !bytes.HasPrefix(head, []byte("HTTP/1.1 ")) {
		return fmt.Errorf("no HTTP: %.100q", b)
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(head, []byte("HTTP/1.1 503")) {
			return fmt.Errorf("status %.20q", head)
		}
		return nil
	}
	for len(rest) > 0 {
		if len(rest) < 2 {
			return nil // cut by the end
		}
		first, n, at := rest[0], int(rest[1]), 2
		if n == 126 && len(rest) >= 4 {
			n, at = int(binary.BigEndian.Uint16(rest[2:])), 4
		}
		op := first & 0xf
		if first&0xb0 != 0x80 || rest[1] >= 127 || op != 1 && op != 8 && op != 9 && op != 10 {
			return fmt.Errorf("a strange frame: %.20q", rest)
		}
		if len(rest) < at+n {
			return nil
		}
		payload := rest[at : at+n]
		switch {
		case op == 8 && len(payload) >= 2:
			switch code := binary.BigEndian.Uint16(payload); {
			case code == 1002, code == 1003, code == 1007, code == 1008, code == 1009, code == 4029:
			case code < 1000 || code > 4999 || code == 1005 || code == 1006 || code == 1011:
				return fmt.Errorf("closed with %d", code)
			}
			if len(rest) > at+n {
				return fmt.Errorf("after the close frame: %.20q", rest[at+n:])
			}
		case op == 1 && first&0x40 == 0 && !utf8.Valid(payload):
			return fmt.Errorf("text is not UTF-8: %.40q", payload)
		}
		rest = rest[at+n:]
	}
	return nil
}

// sequenceOf is what one client sends.
type sequenceOf struct {
	name  string
	parts [][]byte // a write each
}

// malformed is sequence i of the corpus: always the same.
func malformed(i int) sequenceOf {
	rnd := rand.New(rand.NewPCG(corpusSeed, uint64(i)))
	m := mutator{rnd}
	user := fmt.Sprint("user", i)
	head := []byte(goodHead + "Authorization: Bearer " + user + "\r\n")
	offered := append(bytes.Clone(head), "Sec-WebSocket-Extensions: "+offer+"\r\n\r\n"...)
	head = append(head, "\r\n"...)
	var s sequenceOf
	switch i % 8 {
	case 0:
		s = sequenceOf{"noise for a head", [][]byte{m.noise(1 + rnd.IntN(4000))}}
	case 1:
		s = sequenceOf{"a broken head", [][]byte{m.damage(head)}}
	case 2:
		s = sequenceOf{"a head with odd lines", [][]byte{m.oddLines(head)}}
	case 3:
		s = sequenceOf{"noise for frames", [][]byte{head, m.noise(1 + rnd.IntN(2000))}}
	case 4:
		s = sequenceOf{"broken frames", [][]byte{head, m.damage(m.frames(false))}}
	case 5:
		s = sequenceOf{"odd frames", [][]byte{head, m.frames(false)}}
	case 6:
		s = sequenceOf{"odd compressed frames", [][]byte{offered, m.frames(true)}}
	default:
		s = sequenceOf{"broken compressed frames", [][]byte{offered, m.damage(m.frames(true))}}
	}
	switch rnd.IntN(3) { // in one segment, or in pieces
	case 0:
		s.parts = [][]byte{bytes.Join(s.parts, nil)}
	case 1:
		last := s.parts[len(s.parts)-1]
		s.parts = s.parts[:len(s.parts)-1]
		for len(last) > 0 {
			n := min(len(last), 1+rnd.IntN(1+len(last)/4))
			s.parts, last = append(s.parts, last[:n]), last[n:]
		}
	}
	return s
}

type mutator struct{ *rand.Rand }

func (m mutator) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return b
}

// damage flips, cuts, doubles, swaps.
func (m mutator) damage(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + m.IntN(4) {
		if len(b) < 2 {
			return b
		}
		at := m.IntN(len(b))
		n := min(1+m.IntN(40), len(b)-at)
		switch m.IntN(7) {
		case 0:
			b[at] ^= 1 << m.IntN(8)
		case 1:
			b[at] = byte(m.Uint32())
		case 2:
			b = append(b[:at], b[at+n:]...)
		case 3:
			b = b[:at]
		case 4:
			b = append(b[:at+n], append(bytes.Clone(b[at:at+n]), b[at+n:]...)...)
		case 5:
			b = append(b[:at], append(m.noise(n), b[at:]...)...)
		case 6:
			other := m.IntN(len(b))
			b[at], b[other] = b[other], b[at]
		}
	}
	return b
}

var oddLines = []string{
	"Host: other", "Host:", "Content-Length: 5", "Content-Length: -1", "Transfer-Encoding: chunked", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 8",
	"Sec-WebSocket-Version: 13", "Upgrade: h2c", "Connection: close", "Origin: null", "Origin: http://h.evil", "Authorization: Basic eA==", "Authorization: Bearer",
	"Authorization: Bearer a b", "Sec-WebSocket-Protocol: bearer.x, bearer.y", "Sec-WebSocket-Protocol: ,,,", "Sec-WebSocket-Protocol: \x7f",
	"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7", "Sec-WebSocket-Extensions: permessage-deflate;;", "Sec-WebSocket-Extensions: \"",
	" folded: line", ": no name", "no colon", "Na me: x", "Name : x", "X: \x00", "X: \x01\x02", "X: a\rb", "X: \xff\xfe", "X:" + strings.Repeat(" ", 3000), "PRI * HTTP/2.0",
	"Expect: 100-continue", "Upgrade: websocket", "Cookie: " + strings.Repeat("a=b; ", 500),
}

func (m mutator) oddLines(head []byte) []byte {
	lines := strings.Split(strings.TrimSuffix(string(head), "\r\n\r\n"), "\r\n")
	for range 1 + m.IntN(3) {
		at := 1 + m.IntN(len(lines))
		switch m.IntN(4) {
		case 0:
			if at < len(lines) {
				lines = append(lines[:at], lines[at+1:]...)
			}
		case 1:
			lines[0] = []string{
				"GET /v1/ws HTTP/1.0", "POST /v1/ws HTTP/1.1", "GET /v1/ws?token=x HTTP/1.1", "GET /v1/ws?resume=maybe HTTP/1.1", "GET  /v1/ws HTTP/1.1", "GET /v1/ws",
				"get /v1/ws HTTP/1.1", "GET http://h/v1/ws HTTP/1.1", "GET /../v1/ws HTTP/1.1", "GET /v1/ws?resume HTTP/1.1", "", "CONNECT h:1 HTTP/1.1", "GET * HTTP/1.1",
			}[m.IntN(13)]
		default:
			lines = append(lines[:at], append([]string{oddLines[m.IntN(len(oddLines))]}, lines[at:]...)...)
		}
	}
	end := "\r\n"
	if m.IntN(8) == 0 {
		end = "\n"
	}
	return []byte(strings.Join(lines, end) + end + end)
}

var oddPayloads = []string{
	"", "x", `{"type":"ping"}`, `{"type":"ping"`, `{"type":"resume","rooms":{"r":"1-1"}}`, `{"type":"focus","room":"{r}:*"}`, `{"type":"watch","users":["\ud800"]}`,
	`{"type":"read","room":"r1","id":"99999999999999999999-0"}`, `{"type":"auth","token":"bad"}`, `{"type":"auth","token":"other"}`, "null", "[[[[", `{"type":1e999}`, `{"type":"ping","type":"focus"}`, "\xff\xfe", "\xed\xa0\x80",
	`{"__proto__":{}}`, "{\"type\":\"ping\x00\"}", strings.Repeat("[", 5000), strings.Repeat(`{"a":`, 2000), "\x03\xe8", "\x03\xee", "\x03", "\x03\xe8\xff", strings.Repeat("p", 125), strings.Repeat("p", 126),
	`{"type":"typing","room":"` + strings.Repeat("r", 300) + `"}`, strings.Repeat(" ", 17_000), `{"type":"resume","rooms":{` + strings.Repeat(`"a":"1-1",`, 3000) + "}}",
}

// bomb is 4 MiB, compressed once: with the race detector that takes longer than all
// the rest of the corpus.
var bomb = sync.OnceValue(func() []byte {
	var d deflate.Deflater
	return d.Append(nil, make([]byte, 4<<20), 15)
})

// frames are a few frames, most of which should not be as they are.
func (m mutator) frames(compressed bool) []byte {
	var stream []byte
	var d deflate.Deflater
	for range 1 + m.IntN(6) {
		payload := []byte(oddPayloads[m.IntN(len(oddPayloads))])
		first := []byte{0x81, 0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a, 0x09, 0x08}[m.IntN(12)]
		if m.IntN(6) == 0 {
			first = byte(m.Uint32())
		}
		if compressed && m.IntN(4) > 0 {
			first |= 0x40
			switch m.IntN(4) {
			case 0: // as it is: no DEFLATE
			case 1:
				payload = m.damage(d.Append(nil, payload, 15))
			case 2:
				payload = bomb()
			default:
				payload = d.Append(nil, payload, 15)
			}
		}
		frame := []byte(maskedLong(first, string(payload)))
		if m.IntN(8) == 0 {
			frame[1] ^= 0x80 // the mask bit
		}
		if m.IntN(8) == 0 { // a length that is not the payload's
			frame = append([]byte{first, 0x80 | 127}, m.noise(8)...)
			if m.IntN(2) == 0 {
				frame[2] &= 0x7f
			}
		}
		stream = append(stream, frame...)
	}
	return stream
}
