package autobahn

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	fin  = 0x80
	rsv1 = 0x40
)

// patience is how long a case waits for what must come.
const patience = 60 * time.Second

// peer is the client's end of a connection.
type peer struct {
	net.Conn
	t   testing.TB
	r   *bufio.Reader
	rnd *rand.Rand
	// agreed is the server's answer to the offered extensions.
	agreed string
}

// dial opens a connection and upgrades it as the public suite does: path "/",
// neither subprotocol nor origin.
func dial(t testing.TB, addr, offers string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	p := &peer{Conn: conn, t: t, r: bufio.NewReader(conn), rnd: rand.New(rand.NewPCG(1, uint64(len(t.Name()))))}
	head := "GET / HTTP/1.1\r\nUser-Agent: cases\r\nHost: " + addr + "\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nPragma: no-cache\r\n" +
		"Cache-Control: no-cache\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	if offers != "" {
		head += "Sec-WebSocket-Extensions: " + offers + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		t.Fatalf("the upgrade was answered %s %v", resp.Status, resp.Header)
	}
	p.agreed = resp.Header.Get("Sec-WebSocket-Extensions")
	return p
}

// frame builds a masked frame; first is FIN, RSV and opcode.
func (p *peer) frame(first byte, payload []byte) []byte {
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], p.rnd.Uint32())
	return appendFrame(make([]byte, 0, len(payload)+14), first, mask, payload)
}

func appendFrame(dst []byte, first byte, mask [4]byte, payload []byte) []byte {
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, first, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, first, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, 0x80|127), uint64(n))
	}
	dst = append(dst, mask[:]...)
	at := len(dst)
	dst = append(dst, payload...)
	masked := dst[at:]
	wide := uint64(binary.LittleEndian.Uint32(mask[:]))
	wide |= wide << 32
	for len(masked) >= 8 {
		binary.LittleEndian.PutUint64(masked, binary.LittleEndian.Uint64(masked)^wide)
		masked = masked[8:]
	}
	for i := range masked {
		masked[i] ^= mask[i&3]
	}
	return dst
}

// fragments builds a message's frames of at most size bytes each.
func (p *peer) fragments(first byte, payload []byte, size int) []byte {
	var stream []byte
	for {
		part := payload[:min(size, len(payload))]
		if payload = payload[len(part):]; len(payload) == 0 {
			return append(stream, p.frame(first|fin, part)...)
		}
		stream = append(stream, p.frame(first, part)...)
		first = opContinuation
	}
}

// sends writes bytes in chops of so many, all at once for 0. That the server has
// had enough is seen when reading.
func (p *peer) sends(b []byte, chop int) {
	if chop == 0 {
		chop = max(1, len(b))
	}
	for len(b) > 0 {
		n := min(chop, len(b))
		if _, err := p.Write(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
}

// read reads a frame and checks what is true of every frame of a server.
func (p *peer) read() (first byte, payload []byte, err error) {
	var head [10]byte
	if _, err := io.ReadFull(p.r, head[:2]); err != nil {
		return 0, nil, err
	}
	first = head[0]
	n := uint64(head[1])
	switch {
	case n >= 0x80:
		return 0, nil, errors.New("a server's frame is masked")
	case n == 126:
		_, err = io.ReadFull(p.r, head[2:4])
		if n = uint64(binary.BigEndian.Uint16(head[2:])); n < 126 {
			return 0, nil, errors.New("length is not minimal")
		}
	case n == 127:
		_, err = io.ReadFull(p.r, head[2:10])
		if n = binary.BigEndian.Uint64(head[2:]); n < 1<<16 {
			return 0, nil, errors.New("length is not minimal")
		}
	}
	if err != nil {
		return 0, nil, err
	}
	op := first & 0x0f
	switch {
	case first&fin == 0:
		return 0, nil, errors.New("an echo is not fragmented")
	case first&0x30 != 0, first&rsv1 != 0 && (p.agreed == "" || op >= opClose):
		return 0, nil, fmt.Errorf("reserved bits: %#x", first)
	case op >= opClose && n > 125:
		return 0, nil, errors.New("a long control frame")
	case n > 32<<20:
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(p.r, payload)
	return first, payload, err
}

// want reads a frame that must be this one.
func (p *peer) want(op byte, payload []byte) {
	p.t.Helper()
	first, got, err := p.read()
	if err != nil {
		p.t.Fatalf("reading: %v", err)
	}
	if first != fin|op || !bytes.Equal(got, payload) {
		p.t.Fatalf("got %#x %s, want %#x %s", first, brief(got), fin|op, brief(payload))
	}
}

func brief(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%q… (%d bytes)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}

// wantNothing makes sure that nothing comes for a while.
func (p *peer) wantNothing() {
	p.t.Helper()
	d := 30 * time.Millisecond
	if full() {
		d = time.Second
	}
	p.SetReadDeadline(time.Now().Add(d))
	_, err := p.r.Peek(1)
	var late net.Error
	if !errors.As(err, &late) || !late.Timeout() {
		p.t.Fatalf("something came, or the connection ended: %v", err)
	}
	p.SetReadDeadline(time.Now().Add(patience))
}

// wantEnd reads a close frame with the code (0: with none), then the end of the
// connection, which is the server's to bring about.
func (p *peer) wantEnd(code uint16) {
	p.t.Helper()
	first, payload, err := p.read()
	if err != nil || first != fin|opClose {
		p.t.Fatalf("got %#x %s, %v, want a close frame with %d", first, brief(payload), err, code)
	}
	got := uint16(0)
	if len(payload) >= 2 {
		got = binary.BigEndian.Uint16(payload)
	}
	if len(payload) == 1 || got != code || !utf8.Valid(payload[min(2, len(payload)):]) {
		p.t.Fatalf("closed with %q, want %d", payload, code)
	}
	p.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := p.r.ReadByte(); err == nil {
		p.t.Fatalf("%#x came after the close frame", b)
	} else if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
		p.t.Fatal("the server does not close the connection")
	}
}

// closes says good-bye and checks the answer.
func (p *peer) closes() {
	p.t.Helper()
	p.sends(p.frame(fin|opClose, closing(1000, "")), 0)
	p.wantEnd(1000)
}

func closing(code uint16, reason string) []byte {
	return append([]byte{byte(code >> 8), byte(code)}, reason...)
}

func full() bool { return os.Getenv("MADANG_TEST_FULL") != "" }
