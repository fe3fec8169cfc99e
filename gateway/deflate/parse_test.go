package deflate_test

import "testing"

// farthest reads a compressed message (RFC 1951) and returns the longest
// distance of its repetitions. It is a second opinion on what is written: no
// decoder at hand tells distances.
func farthest(t testing.TB, z []byte) int {
	t.Helper()
	r := &bitReader{t: t, data: append(append([]byte(nil), z...), 0, 0, 0xff, 0xff)}
	far := 0
	for !r.atEnd() {
		r.bits(1)
		switch r.bits(2) {
		case 0:
			r.align()
			n := r.bits(16)
			if r.bits(16) != n^0xffff {
				t.Fatal("stored block's lengths differ")
			}
			r.skip(n)
		case 1:
			far = max(far, r.block(fixedLiterals, fixedDistances))
		case 2:
			far = max(far, r.block(r.dynamicCodes()))
		default:
			t.Fatal("reserved block type")
		}
	}
	return far
}

type bitReader struct {
	t    testing.TB
	data []byte
	pos  int // in bits
}

// atEnd says whether only padding is left.
func (r *bitReader) atEnd() bool { return r.pos+3 > 8*len(r.data) }

func (r *bitReader) bits(n int) int {
	v := 0
	for i := range n {
		if r.pos>>3 >= len(r.data) {
			r.t.Fatal("the stream ends early")
		}
		v |= int(r.data[r.pos>>3]>>(r.pos&7)&1) << i
		r.pos++
	}
	return v
}

func (r *bitReader) align()     { r.pos = (r.pos + 7) &^ 7 }
func (r *bitReader) skip(n int) { r.pos += 8 * n }

// code is a canonical Huffman code: how many symbols have each length, and the
// symbols in order.
type code struct {
	count   [16]int
	symbols []int
}

func makeCode(lengths []int) (c code) {
	for n := 1; n <= 15; n++ {
		for symbol, length := range lengths {
			if length == n {
				c.count[n]++
				c.symbols = append(c.symbols, symbol)
			}
		}
	}
	return c
}

func (r *bitReader) symbol(c code) int {
	v, first, index := 0, 0, 0
	for n := 1; n <= 15; n++ {
		v |= r.bits(1)
		if v-first < c.count[n] {
			return c.symbols[index+v-first]
		}
		index += c.count[n]
		first = (first + c.count[n]) << 1
		v <<= 1
	}
	r.t.Fatal("no such code")
	return 0
}

var fixedLiterals, fixedDistances = fixedCodes()

func fixedCodes() (literals, distances code) {
	l, d := make([]int, 288), make([]int, 30)
	for i := range l {
		switch {
		case i < 144, i >= 280:
			l[i] = 8
		case i < 256:
			l[i] = 9
		default:
			l[i] = 7
		}
	}
	for i := range d {
		d[i] = 5
	}
	return makeCode(l), makeCode(d)
}

func (r *bitReader) dynamicCodes() (literals, distances code) {
	nl, nd, nc := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
	lengths := make([]int, 19)
	for i := range nc {
		lengths[[...]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[i]] = r.bits(3)
	}
	c := makeCode(lengths)
	var all []int
	for len(all) < nl+nd {
		times, value := 1, 0
		switch s := r.symbol(c); s {
		case 16:
			value, times = all[len(all)-1], 3+r.bits(2)
		case 17:
			times = 3 + r.bits(3)
		case 18:
			times = 11 + r.bits(7)
		default:
			value = s
		}
		for range times {
			all = append(all, value)
		}
	}
	return makeCode(all[:nl]), makeCode(all[nl:])
}

func (r *bitReader) block(literals, distances code) int {
	far := 0
	for {
		s := r.symbol(literals)
		switch {
		case s == 256:
			return far
		case s > 256:
			extra := 0 // of the length, which does not matter here
			if s >= 265 && s < 285 {
				extra = (s - 261) / 4
			}
			r.bits(extra)
			d := r.symbol(distances)
			distance := d + 1
			if d >= 4 {
				n := d/2 - 1
				distance = (2+d&1)<<n + 1 + r.bits(n)
			}
			far = max(far, distance)
		}
	}
}
