package deflate_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/madang-chat/madang/gateway/deflate"
	"github.com/madang-chat/madang/gateway/wsframe"
)

const anySize = 64 << 20

// samples are messages of many lengths and kinds.
func samples() map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	prose := strings.Repeat("the yard in front of the house, where people gather and talk; 마당. ", 3000)
	return map[string][]byte{
		"empty": {}, "one byte": {'x'}, "hello": []byte("Hello"), "zeros": make([]byte, 300_000), "noise": noise, "short noise": noise[:700],
		"prose": []byte(prose), "short prose": []byte(prose[:1000]), "far repetition": append(append([]byte(prose[:5000]), noise[:30_000]...), prose[:5000]...),
	}
}

func TestRoundTripsForEveryWindow(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	for name, message := range samples() {
		for bits := uint8(deflate.MinWindowBits); bits <= deflate.MaxWindowBits; bits++ {
			z := d.Append([]byte("before"), message, bits)
			if string(z[:6]) != "before" {
				t.Fatal("what was there was changed")
			}
			z = z[6:]
			got, bad := f.Inflate(z, anySize, nil)
			if bad != nil || !bytes.Equal(got, message) {
				t.Fatalf("%s, %d bits: %v, %d bytes of %d", name, bits, bad, len(got), len(message))
			}
			// Somebody else's reader, which ends with the sync marker.
			std := flate.NewReader(io.MultiReader(bytes.NewReader(z), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
			if got, err := io.ReadAll(std); err != nil || !bytes.Equal(got, message) {
				t.Fatalf("%s, %d bits: compress/flate: %v", name, bits, err)
			}
			if far := farthest(t, z); far > 1<<bits {
				t.Errorf("%s, %d bits: a repetition is %d bytes away", name, bits, far)
			} else if name == "far repetition" && bits == deflate.MaxWindowBits && far < 30_000 {
				t.Errorf("%s: the farthest is %d bytes away: can it be seen at all?", name, far)
			}
		}
	}
}

// RFC 7692 §7.2.3's examples.
func TestExamplesOfTheRFC(t *testing.T) {
	var f deflate.Inflater
	for name, z := range map[string]string{
		"one compressed block":  "\xf2\x48\xcd\xc9\xc9\x07\x00",
		"no compression":        "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
		"BFINAL":                "\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
		"two blocks":            "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
		"BFINAL and no padding": "\xf3\x48\xcd\xc9\xc9\x07\x00", // not an example: zlib users send it
		"several final blocks":  "\xf3\x48\x05\x00\xcb\xc9\xc9\x07\x00\x00",
	} {
		if got, bad := f.Inflate([]byte(z), 5, nil); bad != nil || string(got) != "Hello" {
			t.Errorf("%s: %q, %v", name, got, bad)
		}
		if _, bad := f.Inflate([]byte(z), 4, nil); bad != wsframe.ErrTooLarge {
			t.Errorf("%s: %v with a limit of 4", name, bad)
		}
	}
	if got, bad := f.Inflate([]byte{0}, 5, nil); bad != nil || len(got) != 0 {
		t.Errorf("empty: %q, %v", got, bad)
	}
}

func TestBombsAreRefusedWithoutTheirMemory(t *testing.T) {
	var d deflate.Deflater
	bomb := d.Append(nil, make([]byte, 256<<20), deflate.MaxWindowBits)
	var f deflate.Inflater
	f.Inflate([]byte{0}, 10, nil) // has its own memory by now
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		if _, bad := f.Inflate(bomb[:16<<10], 16<<10, nil); bad != wsframe.ErrTooLarge {
			t.Fatal(bad)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 512<<10 {
		t.Errorf("%d bytes allocated for ten bombs of 16 KiB", n)
	}
	if _, bad := f.Inflate(bomb, 1<<20, func([]byte) int { return 2 << 20 }); bad != wsframe.ErrTooLarge {
		t.Errorf("with twice as much allowed: %v", bad)
	}
}

func TestMoreMayBeAllowed(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	message := bytes.Repeat([]byte("abcdefghi "), 1000)
	z := d.Append(nil, message, deflate.MaxWindowBits)
	asked := 0
	got, bad := f.Inflate(z, 100, func(sofar []byte) int {
		asked++
		if !bytes.HasPrefix(message, sofar) || len(sofar) > 100 {
			t.Errorf("asked with %q", sofar)
		}
		return len(message)
	})
	if bad != nil || !bytes.Equal(got, message) || asked != 1 {
		t.Errorf("%v, %d bytes, asked %d times", bad, len(got), asked)
	}
	if _, bad := f.Inflate(z, 100, func([]byte) int { return len(message) - 1 }); bad != wsframe.ErrTooLarge {
		t.Errorf("one byte too long: %v", bad)
	}
}

func TestTruncatedAndCorrupt(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	// DEFLATE has no checksum: now and then what is left of a message is a shorter
	// one. It is never the whole.
	cut, unnoticed := 0, 0
	for name, message := range samples() {
		if len(message) < 2 || len(message) > 50_000 {
			continue
		}
		z := d.Append(nil, message, deflate.MaxWindowBits)
		for n := 0; n < len(z)-1; n += 1 + n/100 {
			got, bad := f.Inflate(z[:n], anySize, nil)
			if cut++; bad == nil {
				unnoticed++
				if bytes.Equal(got, message) {
					t.Errorf("%s: %d bytes of %d were taken for all", name, n, len(z))
				}
			} else if bad != deflate.ErrCorrupt {
				t.Errorf("%s, %d bytes: %v", name, n, bad)
			}
		}
	}
	if unnoticed > cut/50 {
		t.Errorf("%d of %d truncated messages were not noticed", unnoticed, cut)
	}
	for name, z := range map[string]string{
		"nothing":             "",
		"reserved block type": "\x06",
		"stored length and its complement differ": "\x00\x05\x00\xfb\xff\x48\x65\x6c\x6c\x6f\x00",
		"stored block cut short":                  "\x00\x05\x00\xfa\xff\x48\x65",
		"too far back":                            "\x4a\x04\x21\x00",
		"text":                                    `{"type":"ping"}`,
		"garbage behind the end":                  "\xf3\x48\xcd\xc9\xc9\x07\x00garbage",
	} {
		if got, bad := f.Inflate([]byte(z), 1<<20, nil); bad != deflate.ErrCorrupt {
			t.Errorf("%s: %q, %v", name, got, bad)
		}
	}
}

func TestPeek(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	rnd := rand.New(rand.NewPCG(3, 4))
	message := []byte(`{"type":"resume","rooms":{`)
	for len(message) < 100_000 {
		message = fmt.Appendf(message, `"%x":"%d-0",`, rnd.Uint64(), rnd.Uint64N(1e13))
	}
	z := d.Append(nil, message, deflate.MaxWindowBits)
	got := f.Peek(z[:wsframe.PeekCompressedBytes], wsframe.PeekBytes)
	if len(got) != wsframe.PeekBytes || !bytes.HasPrefix(message, got) {
		t.Errorf("got %q", got)
	}
	if got := f.Peek([]byte("\x06\x06\x06"), 64); len(got) != 0 {
		t.Errorf("got %q of nothing", got)
	}
}

func TestNoAllocationsOnceWarm(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	message := []byte(strings.Repeat(`{"type":"message","body":"hi"}`, 40))
	var z []byte
	if n := testing.AllocsPerRun(100, func() {
		z = d.Append(z[:0], message, deflate.MaxWindowBits)
		if _, bad := f.Inflate(z, 16<<10, nil); bad != nil {
			t.Fatal(bad)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Blocks with tables and nothing else are refused before they take long.
func TestEmptyBlocksAreBounded(t *testing.T) {
	var f deflate.Inflater
	for name, z := range map[string][]byte{
		"with tables": emptyBlocks(16 << 10), "final ones": bytes.Repeat([]byte("\x03\x00"), 1000), "stored ones": bytes.Repeat([]byte("\x00\x00\x00\xff\xff"), 1000),
	} {
		if _, bad := f.Inflate(z, 16<<10, nil); bad != deflate.ErrBlocks {
			t.Errorf("%s: %v", name, bad)
		}
	}
	if _, bad := f.Inflate(emptyBlocks(100), 16<<10, nil); bad != nil {
		t.Errorf("a few: %v", bad)
	}
}

// emptyBlocks is n bytes of the shortest blocks that come with their own codes.
func emptyBlocks(n int) []byte {
	var b []byte
	pos := 0
	put := func(v, bits int) {
		for i := range bits {
			if pos%8 == 0 {
				b = append(b, 0)
			}
			b[pos/8] |= byte(v>>i&1) << (pos % 8)
			pos++
		}
	}
	for len(b) < n {
		put(0b100, 3) // not final, own codes
		put(0, 5)     // 257 literals
		put(0, 5)     // 1 distance
		put(18-4, 4)  // 18 lengths of codes: 18 and 1 have one bit
		for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1} {
			length := 0
			if symbol == 18 || symbol == 1 {
				length = 1
			}
			put(length, 3)
		}
		put(1, 1) // 138 zeros and 118 zeros, then 1 for the end and 1 for the distance
		put(138-11, 7)
		put(1, 1)
		put(118-11, 7)
		put(0, 1)
		put(0, 1)
		put(0, 1) // the end
	}
	put(0, 3) // the beginning of the tail
	return b
}

// oracle decompresses with compress/flate. It says no to what it refuses and to
// what is longer than most.
func oracle(z []byte, most int) (message []byte, ok bool) {
	const last = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
	src := bytes.NewReader(append(bytes.Clone(z), last...))
	for {
		window := message[max(0, len(message)-1<<15):]
		part, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(src, window), int64(most+1-len(message))))
		message = append(message, part...)
		switch rest := src.Len(); {
		case err != nil || len(message) > most:
			return nil, false
		case rest == 0, rest == 5, rest == len(last): // the tail, or a final block before it, was the last thing in it
			return message, true
		case rest < len(last):
			return nil, false
		}
	}
}

// FuzzInflate: whatever comes, what goes out is bounded and nothing panics; an
// inflater that has seen it is as good as new; and it agrees with compress/flate.
func FuzzInflate(f *testing.F) {
	var d deflate.Deflater
	for _, s := range []string{"", "Hello", strings.Repeat("abc", 500)} {
		f.Add(d.Append(nil, []byte(s), 15), uint16(1000))
	}
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), uint16(3))
	f.Add([]byte("\xf3\x48\x05\x00\xcb\xc9\xc9\x07\x00\x00"), uint16(300))
	hello := d.Append(nil, []byte("Hello"), 15)
	var used deflate.Inflater
	f.Fuzz(func(t *testing.T, z []byte, limit uint16) {
		most := int(limit) + 1
		got, bad := used.Inflate(z, most, nil)
		if len(got) > most || bad != nil && bad != deflate.ErrCorrupt && bad != wsframe.ErrTooLarge && bad != deflate.ErrBlocks {
			t.Fatalf("%d bytes with a limit of %d, %v", len(got), most, bad)
		}
		want, ok := oracle(z, most)
		if ok && bytes.HasSuffix(want, []byte("\x00\x00\xff\xff")) {
			return // perhaps the tail that was not sent, taken for a stored block's contents
		}
		if bad != deflate.ErrBlocks && (ok != (bad == nil) || !bytes.Equal(got, want)) {
			t.Fatalf("%x: got %q, %v, compress/flate %q, %v", z, got, bad, want, ok)
		}
		if got := used.Peek(z, 64); len(got) > 64 {
			t.Fatalf("peeked at %d bytes", len(got))
		}
		if got, bad := used.Inflate(hello, 5, nil); bad != nil || string(got) != "Hello" {
			t.Fatalf("afterwards: %q, %v", got, bad)
		}
	})
}

// FuzzDeflate: what is compressed comes back, and stays within the window.
func FuzzDeflate(f *testing.F) {
	f.Add([]byte("Hello"), uint8(15))
	f.Add([]byte(strings.Repeat("abcdefgh", 200)), uint8(8))
	var d deflate.Deflater
	var back deflate.Inflater
	f.Fuzz(func(t *testing.T, message []byte, bits uint8) {
		message = message[:min(len(message), 2<<10)]
		bits = deflate.MinWindowBits + bits%(deflate.MaxWindowBits-deflate.MinWindowBits+1)
		z := d.Append(nil, message, bits)
		got, bad := back.Inflate(z, len(message)+1, nil)
		if bad != nil || !bytes.Equal(got, message) {
			t.Fatalf("%v, %q", bad, got)
		}
		if far := farthest(t, z); far > 1<<bits {
			t.Fatalf("%d bytes back with %d bits", far, bits)
		}
	})
}

func BenchmarkDeflate(b *testing.B) {
	for _, n := range []int{512, 1024, 4096} {
		message := chat(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var d deflate.Deflater
			var z []byte
			b.ReportAllocs()
			for b.Loop() {
				z = d.Append(z[:0], message, deflate.MaxWindowBits)
			}
			b.ReportMetric(float64(len(z))/float64(n), "ratio")
		})
	}
}

func BenchmarkInflate(b *testing.B) {
	var d deflate.Deflater
	z := d.Append(nil, chat(1024), deflate.MaxWindowBits)
	var f deflate.Inflater
	b.ReportAllocs()
	for b.Loop() {
		if _, bad := f.Inflate(z, 16<<10, nil); bad != nil {
			b.Fatal(bad)
		}
	}
}

// chat is a message event of n bytes.
func chat(n int) []byte {
	words := strings.Fields("how are you today the meeting is at noon build green again please look at my review 오늘 회의 deploy tomorrow thanks server latency graph")
	b := []byte(`{"type":"message","room":"01J8Z3K5X9QW7E4R2T6Y8U1I0P","id":"1732281234567-0","prev":"1732281230000-0","n":42,"from":"bob","sent_at":"2026-11-22T10:00:00.123Z","body":{"type":"text","text":"`)
	const end = `"},"key":"3f0c9a52-7d1e-4b60-9f52-1f2b3c4d5e6f"}`
	rnd := rand.New(rand.NewPCG(5, 6))
	for len(b) < n-len(end) {
		b = append(append(b, words[rnd.IntN(len(words))]...), ' ')
	}
	return append(b[:n-len(end)], end...)
}
