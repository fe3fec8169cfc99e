package wsframe

import "math/bits"

// Pool lends buffers in sizes of powers of two. It belongs to one loop and is
// not locked. It keeps a bounded number of bytes for reuse; the rest goes to the
// garbage collector.
type Pool struct {
	free [classes][][]byte
	kept int // bytes in free
	out  int // bytes lent
}

const (
	minClass = 9  // 512 bytes: a half frame of a chat client
	maxClass = 18 // 256 KiB: a long resume; larger buffers are not kept
	classes  = maxClass - minClass + 1
	// maxKept bounds what an idle loop holds on to after a burst.
	maxKept = 4 << 20
)

func classOf(n int) int {
	if n <= 1<<minClass {
		return 0
	}
	return bits.Len(uint(n-1)) - minClass
}

// Get returns an empty buffer with room for n bytes.
func (p *Pool) Get(n int) []byte {
	class := classOf(n)
	if class >= classes {
		p.out += n
		return make([]byte, 0, n)
	}
	size := 1 << (class + minClass)
	p.out += size
	if k := len(p.free[class]); k > 0 {
		b := p.free[class][k-1]
		p.free[class][k-1] = nil
		p.free[class] = p.free[class][:k-1]
		p.kept -= size
		return b
	}
	return make([]byte, 0, size)
}

// Put takes a buffer back.
func (p *Pool) Put(b []byte) {
	size := cap(b)
	p.out -= size
	class := classOf(size)
	if class >= classes || size != 1<<(class+minClass) || p.kept+size > maxKept {
		return
	}
	p.kept += size
	p.free[class] = append(p.free[class], b[:0])
}

// Append appends to b, moving it to a larger buffer of the pool when it is full.
// A nil b and nothing to append stays nil.
func (p *Pool) Append(b, more []byte) []byte {
	if len(more) == 0 {
		return b
	}
	if need := len(b) + len(more); need > cap(b) {
		grown := append(p.Get(max(need, 2*cap(b))), b...)
		if b != nil {
			p.Put(b)
		}
		b = grown
	}
	return append(b, more...)
}

// Lent is the number of bytes in buffers that have not come back.
func (p *Pool) Lent() int { return p.out }
