package wsframe_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/protocol"
)

var limits = &wsframe.Limits{MaxMessage: 1000, MaxLarge: 1000}

// frame builds a client's frame: first is FIN, RSV and opcode.
func frame(first byte, payload string) string {
	return maskedWith([4]byte{0x12, 0x9f, 0x33, 0xe1}, first, payload)
}

func maskedWith(mask [4]byte, first byte, payload string) string {
	out := []byte{first}
	switch n := len(payload); {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	out = append(out, mask[:]...)
	body := []byte(payload)
	ws.Cipher(body, mask, 0)
	return string(append(out, body...))
}

const (
	fin                                = 0x80
	cont, text, bin, cls, ping, pongOp = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
	finCont, finText, finBin, finClose = fin | cont, fin | text, fin | bin, fin | cls
	finPing, finPong                   = fin | ping, fin | pongOp
	textA, pingA, pongA, closeA, binA  = "text:", "ping:", "pong:", "close:", "binary:"
	fragmentA                          = "fragment"
)

func script(items []string, item wsframe.Item) []string {
	switch item.Op {
	case wsframe.Text:
		return append(items, textA+string(item.Payload))
	case wsframe.Binary:
		return append(items, binA+string(item.Payload))
	case wsframe.Ping:
		return append(items, pingA+string(item.Payload))
	case wsframe.Pong:
		return append(items, pongA+string(item.Payload))
	case wsframe.Close:
		return append(items, closeA+string(item.Payload))
	case wsframe.Fragment:
		return append(items, fragmentA)
	}
	panic(fmt.Sprint("unexpected item ", item.Op))
}

// decode feeds the chunks and returns what came out.
func decode(t testing.TB, l *wsframe.Limits, chunks ...string) (items []string, err *wsframe.Error, idle bool) {
	var d wsframe.Decoder
	var pool wsframe.Pool
	defer func() {
		d.Reset(&pool)
		if n := pool.Lent(); n != 0 {
			t.Errorf("%d bytes were not returned to the pool", n)
		}
	}()
	for _, chunk := range chunks {
		p := []byte(chunk)
		for {
			item, rest, err := d.Next(p, l, &pool)
			if err != nil {
				return items, err, false
			}
			if item.Op == wsframe.None {
				break
			}
			items, p = script(items, item), rest
		}
	}
	return items, nil, d.Idle()
}

// split cuts a stream into single bytes, not runes.
func split(s string) []string {
	out := make([]string, len(s))
	for i := range len(s) {
		out[i] = s[i : i+1]
	}
	return out
}

func TestWholeStreams(t *testing.T) {
	long := strings.Repeat("한글", 100) // 600 bytes
	for _, tc := range []struct {
		name, stream string
		want         []string
	}{
		{"one text", frame(finText, "hello"), []string{textA + "hello"}},
		{"empty text", frame(finText, ""), []string{textA}},
		{"two texts", frame(finText, "a") + frame(finText, "b"), []string{textA + "a", textA + "b"}},
		{"16-bit length", frame(finText, long), []string{textA + long}},
		{"binary", frame(finBin, "\xff\x00"), []string{binA + "\xff\x00"}},
		{"fragments", frame(text, "he") + frame(cont, "ll") + frame(finCont, "o"), []string{fragmentA, fragmentA, textA + "hello"}},
		{"empty fragments", frame(text, "") + frame(cont, "") + frame(finCont, ""), []string{fragmentA, fragmentA, textA}},
		{"rune across fragments", frame(text, "\xed\x95") + frame(finCont, "\x9c"), []string{fragmentA, textA + "한"}},
		{"ping between fragments", frame(text, "a") + frame(finPing, "p") + frame(finCont, "b"), []string{fragmentA, pingA + "p", textA + "ab"}},
		{"control frames", frame(finPing, "") + frame(finPong, strings.Repeat("x", 125)) + frame(finClose, "\x03\xe8"), []string{pingA, pongA + strings.Repeat("x", 125), closeA + "\x03\xe8"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for how, chunks := range map[string][]string{"at once": {tc.stream}, "byte by byte": split(tc.stream)} {
				items, err, idle := decode(t, limits, chunks...)
				if err != nil || !idle || fmt.Sprint(items) != fmt.Sprint(tc.want) {
					t.Errorf("%s: got %q, %v, idle %v; want %q", how, items, err, idle, tc.want)
				}
			}
		})
	}
}

func TestViolations(t *testing.T) {
	length := func(first, second byte, rest string) string { return string([]byte{first, second}) + rest }
	for _, tc := range []struct {
		name, stream string
		want         *wsframe.Error
	}{
		{"RSV1 without deflate", frame(finText|0x40, "a"), wsframe.ErrReservedBits},
		{"RSV2", frame(finText|0x20, "a"), wsframe.ErrReservedBits},
		{"RSV3 on a ping", frame(finPing|0x10, ""), wsframe.ErrReservedBits},
		{"opcode 3", frame(fin|0x3, ""), wsframe.ErrReservedOpcode},
		{"opcode 15", frame(fin|0xf, ""), wsframe.ErrReservedOpcode},
		{"unmasked", "\x81\x01a", wsframe.ErrUnmasked},
		{"long ping", length(finPing, 0x80|126, "\x00\x7e"), wsframe.ErrControlFrame},
		{"fragmented ping", frame(ping, "a"), wsframe.ErrControlFrame},
		{"stray continuation", frame(finCont, "a"), wsframe.ErrContinuation},
		{"continuation after the end", frame(finText, "a") + frame(cont, "b"), wsframe.ErrContinuation},
		{"text inside a message", frame(text, "a") + frame(finText, "b"), wsframe.ErrInterleaved},
		{"binary inside a message", frame(text, "a") + frame(bin, "b"), wsframe.ErrInterleaved},
		{"16-bit length not minimal", length(finText, 0x80|126, "\x00\x7d"), wsframe.ErrLength},
		{"64-bit length not minimal", length(finText, 0x80|127, "\x00\x00\x00\x00\x00\x00\xff\xff"), wsframe.ErrLength},
		{"length 2^63", length(finText, 0x80|127, "\x80\x00\x00\x00\x00\x00\x00\x00"), wsframe.ErrLength},
		{"length 2^63-1", length(finText, 0x80|127, "\x7f\xff\xff\xff\xff\xff\xff\xff"), wsframe.ErrTooLarge},
		{"one byte too long, refused at the header", length(finText, 0x80|126, "\x03\xe9"), wsframe.ErrTooLarge},
		{"too long by fragments", frame(text, strings.Repeat("a", 600)) + length(finCont, 0x80|126, "\x01\x91"), wsframe.ErrTooLarge},
		{"bad UTF-8", frame(finText, "a\xffb"), wsframe.ErrBadUTF8},
		{"truncated UTF-8", frame(finText, "\xed\x95"), wsframe.ErrBadUTF8},
		{"surrogate", frame(finText, "\xed\xa0\x80"), wsframe.ErrBadUTF8},
		{"overlong", frame(finText, "\xc0\xaf"), wsframe.ErrBadUTF8},
		{"beyond U+10FFFF", frame(finText, "\xf4\x90\x80\x80"), wsframe.ErrBadUTF8},
		{"bad UTF-8 in a first fragment", frame(text, "\xff"), wsframe.ErrBadUTF8},
		{"bad UTF-8 across fragments", frame(text, "\xed\x95") + frame(finCont, "x"), wsframe.ErrBadUTF8},
		{"truncated at the last fragment", frame(text, "\xed") + frame(finCont, "\x95"), wsframe.ErrBadUTF8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for how, chunks := range map[string][]string{"at once": {tc.stream}, "byte by byte": split(tc.stream)} {
				_, err, _ := decode(t, limits, chunks...)
				if err != tc.want {
					t.Errorf("%s: got %v, want %v", how, err, tc.want)
				}
			}
		})
	}
}

// A violation is noticed at the first byte that shows it, not at the frame's end.
func TestFailsFast(t *testing.T) {
	whole := frame(finText, "ok \xf4\x90\x80\x80 and a long rest that never comes")
	header := 6
	for n := 1; n <= len(whole); n++ {
		_, err, _ := decode(t, limits, split(whole[:n])...)
		if bad := n >= header+len("ok \xf4\x90"); bad != (err == wsframe.ErrBadUTF8) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if _, err, _ := decode(t, limits, "\xf1"); err != wsframe.ErrReservedBits {
		t.Errorf("reserved bits: %v at the first byte", err)
	}
	if _, err, _ := decode(t, limits, "\x89", "\xfe"); err != wsframe.ErrControlFrame {
		t.Errorf("long ping: %v at the second byte", err)
	}
}

func TestLargeMessagesByTheirBeginning(t *testing.T) {
	l := &wsframe.Limits{MaxMessage: 100, MaxLarge: 10_000, MayBeLarge: func(head []byte) bool { return bytes.HasPrefix(head, []byte("big")) }}
	big := "big" + strings.Repeat("x", 5000)
	small := "sml" + strings.Repeat("x", 5000)
	for how, chunk := range map[string]func(string) []string{"at once": func(s string) []string { return []string{s} }, "byte by byte": split} {
		if items, err, _ := decode(t, l, chunk(frame(finText, big))...); err != nil || items[0] != textA+big {
			t.Errorf("%s: a large one: %v", how, err)
		}
		if _, err, _ := decode(t, l, chunk(frame(text, big[:80])+frame(cont, big[80:3000])+frame(finCont, big[3000:]))...); err != nil {
			t.Errorf("%s: a large one in fragments: %v", how, err)
		}
		if _, err, _ := decode(t, l, chunk(frame(finText, small))...); err != wsframe.ErrTooLarge {
			t.Errorf("%s: not a large one: %v", how, err)
		}
		if _, err, _ := decode(t, l, chunk(frame(finBin, big))...); err != wsframe.ErrTooLarge {
			t.Errorf("%s: binary: %v", how, err)
		}
	}
	// The beginning is enough: its bytes are not gathered first.
	stream := frame(finText, small)
	if _, err, _ := decode(t, l, stream[:8+wsframe.PeekBytes]); err != wsframe.ErrTooLarge {
		t.Errorf("after %d bytes: %v", wsframe.PeekBytes, err)
	}
}

func TestDeclaredLengthAllocatesNothing(t *testing.T) {
	l := &wsframe.Limits{MaxMessage: 1 << 30, MaxLarge: 1 << 30}
	head := frame(finText, strings.Repeat("a", 100_000))[:14]
	var d wsframe.Decoder
	var pool wsframe.Pool
	if item, _, err := d.Next([]byte(head), l, &pool); err != nil || item.Op != wsframe.None {
		t.Fatal(item, err)
	}
	if pool.Lent() != 0 {
		t.Errorf("%d bytes for a header", pool.Lent())
	}
	if _, _, err := d.Next([]byte("x"), l, &pool); err != nil {
		t.Fatal(err)
	}
	if pool.Lent() > 512 {
		t.Errorf("%d bytes for one byte", pool.Lent())
	}
}

func TestFragmentsTellTheirLength(t *testing.T) {
	var d wsframe.Decoder
	var pool wsframe.Pool
	var got []int
	stream := frame(text, strings.Repeat("a", 700)) + frame(finPing, "x") + frame(cont, "") + frame(cont, "abc") + frame(finCont, "d")
	for _, chunk := range split(stream) { // whatever pieces they come in
		item, _, err := d.Next([]byte(chunk), limits, &pool)
		if err != nil {
			t.Fatal(err)
		}
		if item.Op == wsframe.Fragment {
			got = append(got, item.Length)
		}
	}
	if fmt.Sprint(got) != "[700 0 3]" {
		t.Errorf("got %v", got)
	}
}

func TestEndlessEmptyFragmentsKeepNothing(t *testing.T) {
	var d wsframe.Decoder
	var pool wsframe.Pool
	first := true
	for range 10_000 {
		opcode := byte(cont)
		if first {
			opcode, first = text, false
		}
		if item, _, err := d.Next([]byte(frame(opcode, "")), limits, &pool); err != nil || item.Op != wsframe.Fragment {
			t.Fatal(item, err)
		}
	}
	if pool.Lent() != 0 || d.Held() != 0 {
		t.Errorf("holds %d bytes, lent %d", d.Held(), pool.Lent())
	}
}

func TestDecodingInPlaceDoesNotAllocate(t *testing.T) {
	stream := []byte(frame(finText, `{"type":"ping"}`) + frame(finPong, "") + frame(finText, strings.Repeat("a", 500)))
	work := make([]byte, len(stream))
	var d wsframe.Decoder
	var pool wsframe.Pool
	if n := testing.AllocsPerRun(100, func() {
		copy(work, stream)
		for p := work; ; {
			item, rest, err := d.Next(p, limits, &pool)
			if err != nil {
				t.Fatal(err)
			}
			if item.Op == wsframe.None {
				break
			}
			p = rest
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCloseFrames(t *testing.T) {
	for payload, want := range map[string]*wsframe.Error{
		"":                                   nil,
		"\x03":                               wsframe.ErrCloseFrame,
		"\x03\xe8":                           nil,
		"\x03\xe8bye":                        nil,
		"\x03\xe8\xff":                       wsframe.ErrCloseReason,
		"\x03\xec":                           wsframe.ErrCloseFrame, // 1004
		"\x03\xed":                           wsframe.ErrCloseFrame, // 1005
		"\x03\xee":                           wsframe.ErrCloseFrame, // 1006
		"\x03\xef":                           nil,                   // 1007
		"\x03\xf7":                           wsframe.ErrCloseFrame, // 1015
		"\x03\xe7":                           wsframe.ErrCloseFrame, // 999
		"\x07\xd0":                           wsframe.ErrCloseFrame, // 2000
		"\x0b\xb8":                           nil,                   // 3000
		"\x13\x87":                           nil,                   // 4999
		"\x13\x88":                           wsframe.ErrCloseFrame, // 5000
		"\xff\xff":                           wsframe.ErrCloseFrame,
		"\x03\xe8" + strings.Repeat("é", 60): nil,
	} {
		_, err := wsframe.ParseClose([]byte(payload))
		if err != want {
			t.Errorf("%q: got %v, want %v", payload, err, want)
		}
	}
}

func TestOwnFramesAreValid(t *testing.T) {
	long := strings.Repeat("한", 100)
	b := wsframe.AppendClose(nil, 4012, long)
	r := bytes.NewReader(b)
	h, err := ws.ReadHeader(r)
	payload := b[len(b)-r.Len():]
	if err != nil || h.OpCode != ws.OpClose || h.Length > 125 || h.Length != int64(len(payload)) || !utf8.Valid(payload[2:]) {
		t.Fatalf("close: %+v, %v", h, err)
	}
	if code, reason := ws.ParseCloseFrameData(payload); code != 4012 || !strings.HasPrefix(long, reason) {
		t.Errorf("close: %v %q", code, reason)
	}
	if b := wsframe.AppendClose(nil, wsframe.NoCode, ""); string(b) != "\x88\x00" {
		t.Errorf("empty close: %x", b)
	}
	for _, n := range []int{0, 125, 126, 65535, 65536} {
		b := append(wsframe.AppendHeader(nil, wsframe.Text, false, n), make([]byte, n)...)
		r := bytes.NewReader(b)
		h, err := ws.ReadHeader(r)
		if err != nil || int(h.Length) != n || r.Len() != n || h.OpCode != ws.OpText {
			t.Errorf("length %d: %+v, %v, %d bytes left", n, h, err, r.Len())
		}
	}
}

// FuzzFrames feeds the same bytes at once and in pieces: what comes out must be
// the same, bounded and returned to the pool.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{
		frame(finText, "hello"), frame(text, "he") + frame(finPing, "x") + frame(finCont, "llo"),
		frame(finText, "\xed\x95\x9c"), frame(finText, "\xff"), frame(finClose, "\x03\xe8"), "\x81\xff\x80", "\x89\xfe",
		frame(finText, strings.Repeat("x", 300)), frame(finText|0x40, "a"),
	} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		l := &wsframe.Limits{MaxMessage: 200, MaxLarge: 400, MayBeLarge: func(h []byte) bool { return len(h) > 0 && h[0] == '{' }, Deflate: seed%2 == 0}
		whole, wholeErr, wholeIdle := decode(t, l, string(stream))
		var chunks []string
		rnd := rand.New(rand.NewPCG(seed, 0))
		for rest := string(stream); len(rest) > 0; {
			n := min(len(rest), 1+rnd.IntN(40))
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		pieces, piecesErr, piecesIdle := decode(t, l, chunks...)
		if wholeErr != nil && piecesErr != nil {
			piecesErr = wholeErr // of two mistakes in one frame either may be seen first
		}
		if fmt.Sprintf("%q", whole) != fmt.Sprintf("%q", pieces) || wholeErr != piecesErr || wholeIdle != piecesIdle {
			t.Fatalf("at once: %q, %v, %v; in pieces: %q, %v, %v", whole, wholeErr, wholeIdle, pieces, piecesErr, piecesIdle)
		}
		for _, item := range whole {
			if strings.HasPrefix(item, textA) && seed%2 != 0 && !utf8.ValidString(item) {
				t.Fatalf("text is not UTF-8: %q", item)
			}
			if len(item) > 400+len(binA) {
				t.Fatalf("an item of %d bytes", len(item))
			}
		}
		if wholeErr != nil && wholeErr.Code != protocol.CloseProtocolError && wholeErr.Code != protocol.CloseTooLarge && wholeErr.Code != protocol.CloseBadUTF8 {
			t.Fatalf("code %d", wholeErr.Code)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	stream := []byte(frame(finText, `{"type":"read","room":"01J8Z3K5X9","id":"1732281234567-0"}`))
	work := make([]byte, len(stream))
	var d wsframe.Decoder
	var pool wsframe.Pool
	b.ReportAllocs()
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		copy(work, stream)
		if item, _, err := d.Next(work, limits, &pool); err != nil || item.Op != wsframe.Text {
			b.Fatal(item, err)
		}
	}
}
