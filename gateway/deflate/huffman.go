package deflate

import (
	"encoding/binary"
	mathbits "math/bits"
)

// bits reads a message from the lowest bit of its first byte on.
type bits struct {
	data  []byte
	pos   int    // of data: what is not in acc yet
	acc   uint64 // the next n bits
	n     uint
	short bool // more was asked for than there was
}

// fill makes sure that there are 56 bits, or all that are left.
func (b *bits) fill() {
	if b.pos+8 <= len(b.data) {
		b.acc |= binary.LittleEndian.Uint64(b.data[b.pos:]) << b.n
		whole := (63 - b.n) / 8 // bytes that have fitted
		b.pos += int(whole)
		b.n += 8 * whole
		return
	}
	for b.n <= 56 && b.pos < len(b.data) {
		b.acc |= uint64(b.data[b.pos]) << b.n
		b.pos++
		b.n += 8
	}
}

// take takes n bits, which fill has brought in.
func (b *bits) take(n uint8) uint32 {
	if uint(n) > b.n {
		b.short = true
		return 0
	}
	v := uint32(b.acc & (1<<n - 1))
	b.acc >>= n
	b.n -= uint(n)
	return v
}

// align skips what is left of a byte.
func (b *bits) align() {
	b.acc >>= b.n & 7
	b.n &^= 7
}

// empty says whether nothing is left.
func (b *bits) empty() bool { return b.n == 0 && b.pos == len(b.data) }

// bytes takes n bytes, after align.
func (b *bits) bytes(n int) ([]byte, bool) {
	from := b.pos - int(b.n/8)
	if n > len(b.data)-from {
		return nil, false
	}
	b.pos, b.acc, b.n = from+n, 0, 0
	return b.data[from : from+n], true
}

const (
	maxLits, maxDists = 286, 30
	maxCodeBits       = 15
	// maxFastBits is the length up to which codes are looked up at once. Longer
	// ones are rare by their nature; a larger table takes longer to make.
	maxFastBits = 9
)

// huffman is a canonical code.
type huffman struct {
	// fast has, for the next bits, symbol<<4 | length of the code they begin with;
	// 0 when it is longer, or when there is none. Of it fastMask+1 entries are in
	// use.
	fast     [1 << maxFastBits]uint16
	fastMask uint32
	// For longer codes: how many there are of each length, and all symbols in the
	// order of their codes.
	count   [maxCodeBits + 1]uint16
	symbols [288]uint16
}

// build makes the code of which the symbols' lengths are given, and says whether
// there is one: complete, or a single code of one bit, or none at all.
func (h *huffman) build(lengths []uint8) bool {
	h.count = [maxCodeBits + 1]uint16{}
	longest := 0
	for _, n := range lengths {
		h.count[n]++
		longest = max(longest, int(n))
	}
	h.count[0] = 0
	var next, index [maxCodeBits + 2]uint16 // by length: the next code, and its place in symbols
	code := 0
	for n := 1; n <= maxCodeBits; n++ {
		next[n] = uint16(code)
		index[n+1] = index[n] + h.count[n]
		code += int(h.count[n])
		if code > 1<<n {
			return false
		}
		code <<= 1
	}
	if longest > 0 {
		if used := code >> (maxCodeBits + 1 - longest); used != 1<<longest && !(longest == 1 && used == 1) {
			return false
		}
	}
	fastBits := uint8(min(longest, maxFastBits))
	fast := h.fast[:1<<fastBits]
	h.fastMask = uint32(len(fast) - 1)
	clear(fast)
	for s, n := range lengths {
		if n == 0 {
			continue
		}
		h.symbols[index[n]] = uint16(s)
		index[n]++
		c := next[n]
		next[n]++
		if n <= fastBits {
			entry := uint16(s)<<4 | uint16(n)
			for at := int(mathbits.Reverse16(c) >> (16 - n)); at < len(fast); at += 1 << n {
				fast[at] = entry
			}
		}
	}
	return true
}

// lookUp is the table's entry for the next bits.
func (h *huffman) lookUp(acc uint64) uint16 {
	return h.fast[uint32(acc)&h.fastMask&(1<<maxFastBits-1)]
}

// read reads a symbol, -1 when there is none.
func (h *huffman) read(b *bits) int {
	e := h.lookUp(b.acc)
	if n := uint(e & 15); n != 0 && n <= b.n {
		b.acc >>= n
		b.n -= n
		return int(e >> 4)
	}
	return h.readLong(b)
}

func (h *huffman) readLong(b *bits) int {
	acc, code, first, index := b.acc, 0, 0, 0
	for n := uint(1); n <= maxCodeBits && n <= b.n; n++ {
		code |= int(acc & 1)
		acc >>= 1
		count := int(h.count[n])
		if code-first < count {
			b.acc, b.n = acc, b.n-n
			return int(h.symbols[index+code-first])
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return -1
}

// The codes of blocks that have none of their own (RFC 1951 §3.2.6).
var fixedLits, fixedDists = func() (lits, dists huffman) {
	var l [288]uint8
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
	var d [32]uint8
	for i := range d {
		d[i] = 5
	}
	if !lits.build(l[:]) || !dists.build(d[:]) {
		panic("BUG: the fixed codes are none")
	}
	return lits, dists
}()
