package autobahn

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// Groups 12 and 13: permessage-deflate. A thousand messages of every size, five
// kinds of data with the usual offer and one kind with seven offers.

// sizes are the lengths of messages, and of the fragments they are sent in.
var sizes = []struct{ message, fragment int }{
	{16, 0}, {64, 0}, {256, 0}, {1024, 0}, {4096, 0}, {8192, 0}, {16384, 0}, {32768, 0}, {65536, 0}, {131072, 0},
	{8192, 256}, {16384, 256}, {32768, 256}, {65536, 256}, {131072, 256}, {131072, 1024}, {131072, 4096}, {131072, 32768},
}

const usual = "permessage-deflate; client_no_context_takeover; client_max_window_bits"

// offers are what group 13's clients ask for, and the answer that honours it.
var offers = []struct{ offer, window string }{
	{usual, ""},
	{usual + "; server_no_context_takeover", ""},
	{usual + "; server_max_window_bits=9", "9"},
	{usual + "; server_max_window_bits=15", "15"},
	{usual + "; server_no_context_takeover; server_max_window_bits=9", "9"},
	{usual + "; server_no_context_takeover; server_max_window_bits=15", "15"},
	{usual + "; server_no_context_takeover; server_max_window_bits=9, " + usual + "; server_no_context_takeover, " + usual, "9"},
}

func compression() (all []play) {
	text := once(jsonText)
	for i, d := range []data{text, once(picture), once(prose), once(html), once(document)} {
		for j, size := range sizes {
			all = append(all, play{fmt.Sprintf("12.%d.%d", 1+i, 1+j), compressed(d, usual, "", size.message, size.fragment)})
		}
	}
	for i, o := range offers {
		for j, size := range sizes {
			all = append(all, play{fmt.Sprintf("13.%d.%d", 1+i, 1+j), compressed(text, o.offer, o.window, size.message, size.fragment)})
		}
	}
	return all
}

func compressed(d data, offer, window string, size, fragment int) func(*testing.T, string) {
	return func(t *testing.T, addr string) {
		p := dial(t, addr, offer)
		want := "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
		if window != "" {
			want += "; server_max_window_bits=" + window
		}
		if p.agreed != want {
			t.Fatalf("agreed on %q, want %q", p.agreed, want)
		}
		count := 3
		if full() {
			count = 1000
		}
		op, source := d()
		z := newCodec(t)
		from := 0
		for range count {
			var message []byte
			message, from = cut(source, from, size, op == opText)
			packed := z.deflate(message)
			n := fragment
			if n == 0 {
				n = len(packed)
			}
			p.sends(p.fragments(op|rsv1, packed, n), 0)
			first, payload, err := p.read()
			if err != nil || first != fin|rsv1|op {
				t.Fatalf("got %#x, %v", first, err)
			}
			if got := z.inflate(payload); !bytes.Equal(got, message) {
				t.Fatalf("got %s, sent %s", brief(got), brief(message))
			}
		}
		p.closes()
	}
}

// codec is the client's compression, without context takeover as agreed.
type codec struct {
	t   *testing.T
	w   *flate.Writer
	r   io.ReadCloser
	out bytes.Buffer
}

const tail = "\x00\x00\xff\xff"

func newCodec(t *testing.T) *codec {
	c := &codec{t: t, r: flate.NewReader(strings.NewReader(""))}
	var err error
	if c.w, err = flate.NewWriter(&c.out, flate.DefaultCompression); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *codec) deflate(message []byte) []byte {
	c.out.Reset()
	c.w.Reset(&c.out)
	if _, err := c.w.Write(message); err != nil {
		c.t.Fatal(err)
	}
	if err := c.w.Flush(); err != nil {
		c.t.Fatal(err)
	}
	packed, ok := bytes.CutSuffix(c.out.Bytes(), []byte(tail))
	if !ok {
		c.t.Fatal("a flushed stream does not end with its marker")
	}
	return packed
}

func (c *codec) inflate(packed []byte) []byte {
	src := io.MultiReader(bytes.NewReader(packed), strings.NewReader(tail+"\x01\x00\x00\xff\xff"))
	if err := c.r.(flate.Resetter).Reset(src, nil); err != nil {
		c.t.Fatal(err)
	}
	message, err := io.ReadAll(c.r)
	if err != nil {
		c.t.Fatalf("the echo can't be decompressed: %v", err)
	}
	return message
}

// data is a kind of payload: how it is sent, and half a megabyte of it.
type data func() (op byte, source []byte)

// once makes it once for all cases.
func once(make data) data {
	both := sync.OnceValues(make)
	return func() (byte, []byte) { return both() }
}

// cut takes size bytes from source, around its end; text begins and ends with
// whole characters, so that it may be a little shorter.
func cut(source []byte, from, size int, text bool) (message []byte, next int) {
	if from+size > len(source) {
		from = 0
	}
	message = source[from : from+size]
	if text {
		for len(message) > 0 && !utf8.RuneStart(message[0]) {
			message = message[1:]
		}
		for len(message) > 0 && !utf8.Valid(message[max(0, len(message)-utf8.UTFMax):]) && !utf8.Valid(message) {
			message = message[:len(message)-1]
		}
	}
	return message, from + size
}

const sourceBytes = 512 << 10

var words = strings.Fields("Habe nun ach die Rede vom Hof vor dem Haus wo Menschen zusammenkommen und reden über alles was größer ist als sie 마당 에서 만나다 und immer wieder schön")

func rnd(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

func jsonText() (byte, []byte) {
	r := rnd(1)
	b := []byte("[")
	for i := 0; len(b) < sourceBytes; i++ {
		b = fmt.Appendf(b, `{"id":%d,"user":"%s","text":"%s %s","score":%.3f},`, i, words[r.IntN(len(words))], words[r.IntN(len(words))], words[r.IntN(len(words))], r.Float64())
	}
	return opText, b
}

// picture is a bitmap: smooth, with a little noise.
func picture() (byte, []byte) {
	r := rnd(2)
	b := make([]byte, sourceBytes)
	for i := range b {
		x, y := i%512, i/512
		b[i] = byte((x*x+y*y)>>10 + r.IntN(3))
	}
	return opBinary, b
}

func prose() (byte, []byte) {
	r := rnd(3)
	var b []byte
	for len(b) < sourceBytes {
		b = append(append(b, words[r.IntN(len(words))]...), " \n"[r.IntN(12)/11])
	}
	return opBinary, b
}

func html() (byte, []byte) {
	r := rnd(4)
	var b []byte
	for i := 0; len(b) < sourceBytes; i++ {
		b = fmt.Appendf(b, "<div class=\"row\" id=\"r%d\"><a href=\"/%s/%d\">%s</a></div>\n", i, words[r.IntN(6)], r.IntN(1000), words[r.IntN(len(words))])
	}
	return opText, b
}

// document is like a PDF: compressed already.
func document() (byte, []byte) {
	r := rnd(5)
	b := make([]byte, sourceBytes)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return opBinary, b
}
