package deflate

import (
	"encoding/binary"

	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/protocol"
)

// What a client may have done wrong.
var (
	// ErrCorrupt: what was sent is no DEFLATE stream, or not all of one. RFC 7692
	// leaves the code open; this is RFC 6455's for a payload that is not what it
	// says it is.
	ErrCorrupt = &wsframe.Error{Code: protocol.CloseBadUTF8, Reason: "compressed message is corrupt"}
	// ErrBlocks: blocks without contents, whose tables cost much more to make than
	// to send.
	ErrBlocks = &wsframe.Error{Code: protocol.CloseTooLarge, Reason: "compressed message has too many blocks"}
)

// maxBlocks bounds the blocks of a message of so many compressed bytes. Encoders
// make one per some ten thousand symbols or per flush.
func maxBlocks(n int) int { return 16 + n/256 }

// keptBytes bounds the buffer that is kept between messages.
const keptBytes = 64 << 10

// Inflater decompresses messages (RFC 1951), bounded by what comes out. The zero
// Inflater is ready.
//
// It is neither compress/flate nor klauspost's, because a message is in memory as
// a whole: what has come out is the window, so that there is none to keep and to
// copy, and blocks can be counted. They need 2 ms and more for 16 KiB that were
// made to waste time (1,400 tables, no contents), 20 of which a second are within
// a client's rate; this one refuses them after 0.1 ms, and is as fast otherwise.
type Inflater struct {
	out     []byte
	most    int
	grow    func(sofar []byte) int
	in      bits
	lits    huffman // literals and lengths
	dists   huffman
	codes   huffman // of the lengths of the codes of the other two
	lengths [maxLits + maxDists]uint8
}

// Inflate decompresses a message of at most most bytes; grow, if not nil, is
// asked with what there is once that is reached, and may allow more. The message
// is valid until the next call and may be changed.
func (f *Inflater) Inflate(payload []byte, most int, grow func(sofar []byte) int) ([]byte, *wsframe.Error) {
	f.begin(payload, most, grow)
	for range maxBlocks(len(payload)) {
		ended, bad := f.block()
		if bad != nil {
			return nil, bad
		}
		if ended {
			return f.out, nil
		}
	}
	return nil, ErrBlocks
}

// Peek decompresses the beginning of a message of which only a part has come:
// up to most bytes of it, as far as they can be told. What it returns is valid
// until the next call.
func (f *Inflater) Peek(part []byte, most int) []byte {
	f.begin(part, most, nil)
	for range maxBlocks(len(part)) {
		if ended, bad := f.block(); ended || bad != nil {
			break
		}
	}
	return f.out
}

func (f *Inflater) begin(payload []byte, most int, grow func(sofar []byte) int) {
	if cap(f.out) > keptBytes {
		f.out = nil
	}
	if guess := min(most, 4*len(payload)) + 512; guess > cap(f.out) {
		f.out = make([]byte, 0, guess)
	}
	f.out, f.most, f.grow, f.in = f.out[:0], most, grow, bits{data: payload}
}

// room says whether n more bytes may come out.
func (f *Inflater) room(n int) bool {
	if len(f.out)+n <= f.most {
		return true
	}
	if f.grow != nil {
		f.most, f.grow = max(f.most, f.grow(f.out)), nil
	}
	return len(f.out)+n <= f.most
}

// block reads a block, and says whether the message ends with it.
//
// The tail that was not sent, 00 00 FF FF, is the length of an empty stored block
// whose header is the last thing in the message. A block that says it is the
// final one (RFC 7692 §7.2.3.4) is padded to a byte, and others may follow.
func (f *Inflater) block() (ended bool, bad *wsframe.Error) {
	in := &f.in
	in.fill()
	if in.n < 3 {
		return false, ErrCorrupt
	}
	final, kind := in.take(1), in.take(2)
	switch kind {
	case 0:
		in.align()
		if in.empty() {
			return true, nil
		}
		bad = f.stored()
	case 1:
		bad = f.symbols(&fixedLits, &fixedDists)
	case 2:
		if bad = f.readCodes(); bad == nil {
			bad = f.symbols(&f.lits, &f.dists)
		}
	default:
		bad = ErrCorrupt
	}
	if bad == nil && final == 1 {
		in.align()
		ended = in.empty()
	}
	return ended, bad
}

// stored copies a block that is not compressed.
func (f *Inflater) stored() *wsframe.Error {
	p, ok := f.in.bytes(4)
	if !ok {
		return ErrCorrupt
	}
	n := int(p[0]) | int(p[1])<<8
	if n^0xffff != int(p[2])|int(p[3])<<8 {
		return ErrCorrupt
	}
	if p, ok = f.in.bytes(n); !ok {
		return ErrCorrupt
	}
	if !f.room(n) {
		return wsframe.ErrTooLarge
	}
	f.out = append(f.out, p...)
	return nil
}

// endOfBlock is the symbol; those above it are lengths.
const endOfBlock = 256

// A length or a distance is a base and some further bits (RFC 1951 §3.2.5).
var (
	lengthBase  [29]uint16
	lengthExtra [29]uint8
	distBase    [30]uint16
	distExtra   [30]uint8
)

func init() {
	for i, base := 0, uint16(3); i < 28; i++ {
		if i >= 8 {
			lengthExtra[i] = uint8(i/4 - 1)
		}
		lengthBase[i] = base
		base += 1 << lengthExtra[i]
	}
	lengthBase[28] = 258
	for i, base := 0, uint16(1); i < 30; i++ {
		if i >= 4 {
			distExtra[i] = uint8(i/2 - 1)
		}
		distBase[i] = base
		base += 1 << distExtra[i]
	}
}

// symbols reads literals and repetitions up to the end of the block.
func (f *Inflater) symbols(lits, dists *huffman) *wsframe.Error {
	in := &f.in
	for {
		f.easy(lits, dists)
		in.fill() // 48 bits are the most that a repetition takes
		s := lits.read(in)
		switch {
		case s < endOfBlock:
			if s < 0 {
				return ErrCorrupt
			}
			if len(f.out) == f.most && !f.room(1) {
				return wsframe.ErrTooLarge
			}
			f.out = append(f.out, byte(s))
			continue
		case s == endOfBlock:
			return nil
		case s-257 >= len(lengthBase):
			return ErrCorrupt
		}
		s -= 257
		length := int(lengthBase[s]) + int(in.take(lengthExtra[s]))
		d := dists.read(in)
		if d < 0 || d >= len(distBase) {
			return ErrCorrupt
		}
		distance := int(distBase[d]) + int(in.take(distExtra[d]))
		if in.short || distance > len(f.out) {
			return ErrCorrupt
		}
		if !f.room(length) {
			return wsframe.ErrTooLarge
		}
		for length > 0 { // what is copied may be copied again
			n := min(length, distance)
			from := len(f.out) - distance
			f.out = append(f.out, f.out[from:from+n]...)
			length -= n
		}
	}
}

// easy reads symbols as long as they are easily had: with bytes to spare on both
// sides, and codes in the tables. It is most of the work, so it works on copies of
// what changes, and leaves whatever is odd, and errors, to symbols.
func (f *Inflater) easy(lits, dists *huffman) {
	const longest = 258 + 2 // what one round appends
	data, pos, acc, n, out := f.in.data, f.in.pos, f.in.acc, f.in.n, f.out
	for last := min(cap(out), f.most) - longest; len(out) <= last && pos+8 <= len(data); {
		acc |= binary.LittleEndian.Uint64(data[pos:]) << n
		whole := (63 - n) / 8
		pos += int(whole)
		n += 8 * whole // at least 56: two literals of 9 bits, a length of 14, a distance of 22
		e := lits.lookUp(acc)
		for range 2 {
			if e == 0 || e >= endOfBlock<<4 {
				break
			}
			out = append(out, byte(e>>4))
			acc >>= e & 15
			n -= uint(e & 15)
			e = lits.lookUp(acc)
		}
		s := int(e>>4) - (endOfBlock + 1)
		if s < 0 && e != 0 && e>>4 != endOfBlock {
			continue // a third literal
		}
		if s < 0 || s >= len(lengthBase) {
			break
		}
		rest := acc >> (e & 15)
		length := int(lengthBase[s]) + int(rest&(1<<lengthExtra[s]-1))
		rest >>= lengthExtra[s]
		d := dists.lookUp(rest)
		if d == 0 || int(d>>4) >= len(distBase) {
			break
		}
		rest >>= d & 15
		distance := int(distBase[d>>4]) + int(rest&(1<<distExtra[d>>4]-1))
		if distance > len(out) {
			break
		}
		acc = rest >> distExtra[d>>4]
		n -= uint(e&15) + uint(lengthExtra[s]) + uint(d&15) + uint(distExtra[d>>4])
		to := len(out)
		out = out[:to+length]
		if distance >= length {
			copy(out[to:], out[to-distance:to-distance+length])
			continue
		}
		for i := to; i < len(out); i++ { // what is copied is copied again
			out[i] = out[i-distance]
		}
	}
	f.in.pos, f.in.acc, f.in.n, f.out = pos, acc, n, out
}

// codesOrder is in which order the lengths of the code lengths' codes come.
var codesOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readCodes reads a block's own codes.
func (f *Inflater) readCodes() *wsframe.Error {
	in := &f.in
	nlits, ndists, ncodes := int(in.take(5))+257, int(in.take(5))+1, int(in.take(4))+4
	if in.short || nlits > maxLits || ndists > maxDists {
		return ErrCorrupt
	}
	var lengths [len(codesOrder)]uint8
	for _, at := range codesOrder[:ncodes] {
		in.fill()
		lengths[at] = uint8(in.take(3))
	}
	if in.short || !f.codes.build(lengths[:]) {
		return ErrCorrupt
	}
	all := f.lengths[:nlits+ndists]
	for i := 0; i < len(all); {
		in.fill()
		s := f.codes.read(in)
		var times int
		var value uint8
		switch {
		case s < 0:
			return ErrCorrupt
		case s < 16:
			all[i] = uint8(s)
			i++
			continue
		case s == 16:
			if i == 0 {
				return ErrCorrupt
			}
			value, times = all[i-1], 3+int(in.take(2))
		case s == 17:
			times = 3 + int(in.take(3))
		default:
			times = 11 + int(in.take(7))
		}
		if in.short || i+times > len(all) {
			return ErrCorrupt
		}
		for range times {
			all[i] = value
			i++
		}
	}
	if !f.lits.build(all[:nlits]) || !f.dists.build(all[nlits:]) {
		return ErrCorrupt
	}
	return nil
}
