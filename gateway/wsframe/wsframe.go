// Package wsframe decodes what WebSocket clients send (RFC 6455 §5), from
// whatever pieces the network delivers: a frame may come byte by byte or forty in
// one read. It unmasks in place, copies only what is incomplete, checks UTF-8 as
// the bytes arrive, and bounds everything before it is kept.
//
// It does no I/O, knows no clock and owns nothing but the rest of a message that
// is not complete yet. Event loops call it with the bytes they have just read.
package wsframe

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/madang-chat/madang/protocol"
)

// Op says what an Item is.
type Op uint8

// Operations. None means that the bytes ended before anything was complete.
const (
	None Op = iota
	Text
	Binary
	Close
	Ping
	Pong
	// Fragment is a data frame that is complete while its message is not. It has
	// no payload, but a Length; it is reported so that frames can be counted.
	Fragment
)

// Item is a whole message or control frame. Payload is unmasked and valid until
// the next call of Next; it may be changed.
type Item struct {
	Op         Op
	Compressed bool // RSV1 was set on the message's first frame (permessage-deflate)
	Length     int  // of a Fragment: bytes on the wire
	Payload    []byte
}

// Error is a violation of the protocol, with the code to close with.
type Error struct {
	Code   protocol.CloseCode
	Reason string // fixed texts: safe as a close reason and as a metric label
}

func (e *Error) Error() string { return e.Reason }

// What a client may do wrong. All are made once: an attack should not allocate.
var (
	ErrReservedBits   = &Error{protocol.CloseProtocolError, "reserved bits are set"}
	ErrReservedOpcode = &Error{protocol.CloseProtocolError, "reserved opcode"}
	ErrUnmasked       = &Error{protocol.CloseProtocolError, "a client's frame must be masked"}
	ErrControlFrame   = &Error{protocol.CloseProtocolError, "control frames are at most 125 bytes and not fragmented"}
	ErrLength         = &Error{protocol.CloseProtocolError, "length is not encoded minimally"}
	ErrContinuation   = &Error{protocol.CloseProtocolError, "continuation of nothing"}
	ErrInterleaved    = &Error{protocol.CloseProtocolError, "a new message inside a fragmented one"}
	ErrTooLarge       = &Error{protocol.CloseTooLarge, "message is too large"}
	ErrBadUTF8        = &Error{protocol.CloseBadUTF8, "text is not UTF-8"}
	ErrCloseFrame     = &Error{protocol.CloseProtocolError, "malformed close frame"}
	ErrCloseReason    = &Error{protocol.CloseBadUTF8, "close reason is not UTF-8"}
)

// Limits bounds messages. It is shared by all connections and not changed.
type Limits struct {
	// MaxMessage is the most bytes of a message, whole or in fragments.
	MaxMessage int
	// MaxLarge is the most bytes of a message that MayBeLarge; never less than
	// MaxMessage.
	MaxLarge int
	// MayBeLarge looks at the first bytes of a text message that declares more
	// than MaxMessage. It sees PeekBytes of them. Nil: none may.
	MayBeLarge func(head []byte) bool
	// Deflate says that permessage-deflate was negotiated: RSV1 is allowed on a
	// message's first frame. UTF-8, and the size of what comes out, are the
	// inflater's business; here only what is sent is bounded.
	Deflate bool
	// Peek decompresses the beginning of a compressed message, of which it sees
	// PeekCompressedBytes, for MayBeLarge. Nil: no compressed message may be
	// large.
	Peek func(head []byte) []byte
}

// PeekBytes is how much of a message must have come before MayBeLarge is asked;
// PeekCompressedBytes of a compressed one, which begins with a table of codes.
const (
	PeekBytes           = 64
	PeekCompressedBytes = 512
)

// onWire is the most bytes that a message of most bytes may take: what can't be
// compressed gets a few longer.
func onWire(most int, compressed bool) uint64 {
	if compressed {
		most += most/64 + 64
	}
	return uint64(most)
}

const (
	maxControl = 125
	maxHeader  = 14 // 2 + 8 of length + 4 of mask
)

// opcodes on the wire
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Decoder is the state of one stream. The zero Decoder is between frames. A loop
// keeps one only while a connection is in the middle of something; see Idle.
type Decoder struct {
	// The frame that is being read.
	inFrame   bool
	fin       bool
	opcode    byte
	mask      [4]byte
	maskPos   uint8 // bytes of payload so far, modulo 4
	length    uint64
	remaining uint64

	// Its header, while that is incomplete.
	header    [maxHeader]byte
	headerLen uint8

	// A control frame's payload, while that is incomplete.
	control    [maxControl]byte
	controlLen uint8

	// The message that is being read.
	inMessage  bool
	message    Op // Text or Binary
	compressed bool
	large      bool   // MayBeLarge has said yes
	returned   bool   // buf was handed out by the last Next
	total      uint64 // bytes that its frames have declared so far
	checked    int    // bytes of buf known to be UTF-8
	buf        []byte // its bytes so far, unmasked; from a Pool
}

// Idle says whether the stream is between messages and frames: nothing would be
// lost if the Decoder were replaced by a new one.
func (d *Decoder) Idle() bool {
	return !d.inFrame && !d.inMessage && d.headerLen == 0
}

// Held is the number of bytes the Decoder keeps of a message.
func (d *Decoder) Held() int { return len(d.buf) }

// Reset returns the Decoder's buffer to the pool and forgets everything.
func (d *Decoder) Reset(pool *Pool) {
	if d.buf != nil {
		pool.Put(d.buf)
	}
	*d = Decoder{}
}

// Next takes bytes from the front of p until something is complete, and returns
// it with what is left of p. It changes p. Op None means: all of p was taken.
// After an error the Decoder must not be used except for Reset.
func (d *Decoder) Next(p []byte, limits *Limits, pool *Pool) (Item, []byte, *Error) {
	if d.returned {
		pool.Put(d.buf)
		d.buf, d.returned = nil, false
	}
	if !d.inFrame {
		rest, err := d.readHeader(p, limits)
		p = rest
		if err != nil || !d.inFrame {
			return Item{}, nil, err
		}
	}
	if d.opcode >= opClose {
		payload, rest, done := d.readControl(p)
		if !done {
			return Item{}, nil, nil
		}
		return Item{Op: controlOp(d.opcode), Payload: payload}, rest, nil
	}
	return d.readData(p, limits, pool)
}

func controlOp(opcode byte) Op {
	switch opcode {
	case opClose:
		return Close
	case opPing:
		return Ping
	}
	return Pong
}

// readHeader reads a frame's header from p, or keeps what there is of it.
func (d *Decoder) readHeader(p []byte, limits *Limits) ([]byte, *Error) {
	head := p
	had := int(d.headerLen)
	if had > 0 {
		n := copy(d.header[had:], p)
		head = d.header[:had+n]
	}
	size, err := d.parseHeader(head, limits)
	if err != nil {
		return nil, err
	}
	if size == 0 { // incomplete
		if had == 0 {
			copy(d.header[:], p)
		}
		d.headerLen = uint8(had + len(p))
		return nil, nil
	}
	d.headerLen = 0
	return p[size-had:], nil
}

// parseHeader checks as much of a header as h holds, so that what is wrong is
// refused at its first wrong byte, and begins the frame when it is whole. It
// returns the header's size, 0 when it is incomplete.
func (d *Decoder) parseHeader(h []byte, limits *Limits) (int, *Error) {
	if len(h) == 0 {
		return 0, nil
	}
	fin, rsv, opcode := h[0]&0x80 != 0, h[0]&0x70, h[0]&0x0f
	isControl := opcode >= opClose
	startsMessage := opcode == opText || opcode == opBinary
	if rsv != 0 && (rsv != 0x40 || !limits.Deflate || !startsMessage) {
		return 0, ErrReservedBits
	}
	switch opcode {
	case opContinuation:
		if !d.inMessage {
			return 0, ErrContinuation
		}
	case opText, opBinary:
		if d.inMessage {
			return 0, ErrInterleaved
		}
	case opClose, opPing, opPong:
		if !fin {
			return 0, ErrControlFrame
		}
	default:
		return 0, ErrReservedOpcode
	}
	if len(h) < 2 {
		return 0, nil
	}
	if h[1]&0x80 == 0 {
		return 0, ErrUnmasked
	}
	length, size := uint64(h[1]&0x7f), 2
	if isControl && length > maxControl {
		return 0, ErrControlFrame
	}
	switch length {
	case 126:
		size = 4
		if len(h) < size {
			return 0, nil
		}
		if length = uint64(binary.BigEndian.Uint16(h[2:])); length < 126 {
			return 0, ErrLength
		}
	case 127:
		size = 10
		if len(h) < size {
			return 0, nil
		}
		if length = binary.BigEndian.Uint64(h[2:]); length < 1<<16 || length >= 1<<63 {
			return 0, ErrLength
		}
	}
	if !isControl {
		most, compressed := limits.MaxMessage, rsv != 0
		total := length
		if opcode == opContinuation {
			total += d.total
			compressed = d.compressed
		}
		if limits.MayBeLarge != nil && (opcode == opText || d.message == Text && opcode == opContinuation) {
			most = limits.MaxLarge
		}
		if total > onWire(most, compressed) {
			return 0, ErrTooLarge // before its mask has come, before a byte is kept
		}
	}
	if len(h) < size+4 {
		return 0, nil
	}
	copy(d.mask[:], h[size:])
	d.inFrame, d.fin, d.opcode, d.length, d.remaining, d.maskPos = true, fin, opcode, length, length, 0
	switch {
	case isControl:
		d.controlLen = 0
	case startsMessage:
		d.inMessage, d.total, d.large, d.checked = true, length, false, 0
		d.message, d.compressed = Text, rsv != 0
		if opcode == opBinary {
			d.message = Binary
		}
	default:
		d.total += length
	}
	return size + 4, nil
}

// readControl takes a control frame's payload from p; in place when it is there
// in one piece.
func (d *Decoder) readControl(p []byte) (payload, rest []byte, done bool) {
	need := int(d.remaining)
	if d.controlLen == 0 && len(p) >= need {
		payload = p[:need:need]
		ws.Cipher(payload, d.mask, 0)
		d.inFrame = false
		return payload, p[need:], true
	}
	n := min(need, len(p))
	part := d.control[d.controlLen : int(d.controlLen)+n]
	copy(part, p)
	ws.Cipher(part, d.mask, int(d.maskPos))
	d.controlLen += uint8(n)
	d.maskPos = uint8(int(d.maskPos)+n) & 3
	d.remaining -= uint64(n)
	if d.remaining > 0 {
		return nil, nil, false
	}
	d.inFrame = false
	return d.control[:d.controlLen], p[n:], true
}

// readData takes a data frame's payload from p. A message that is in p as a
// whole is returned in place; anything else is gathered in buf.
func (d *Decoder) readData(p []byte, limits *Limits, pool *Pool) (Item, []byte, *Error) {
	n := len(p)
	if uint64(n) > d.remaining {
		n = int(d.remaining)
	}
	part, rest := p[:n:n], p[n:]
	ws.Cipher(part, d.mask, int(d.maskPos))
	d.maskPos = uint8(int(d.maskPos)+n) & 3
	d.remaining -= uint64(n)

	if d.remaining == 0 && d.fin && len(d.buf) == 0 {
		d.inFrame = false
		if err := d.checkLarge(part, limits, true); err != nil {
			return Item{}, nil, err
		}
		if d.checksUTF8() && !utf8.Valid(part) {
			return Item{}, nil, ErrBadUTF8
		}
		d.inMessage = false
		return Item{Op: d.message, Compressed: d.compressed, Payload: part}, rest, nil
	}

	d.buf = pool.Append(d.buf, part)
	complete := d.remaining == 0 && d.fin
	if err := d.checkLarge(d.buf, limits, complete); err != nil {
		return Item{}, nil, err
	}
	if d.checksUTF8() {
		checked, ok := validPrefix(d.buf, d.checked)
		if !ok || complete && checked != len(d.buf) {
			return Item{}, nil, ErrBadUTF8
		}
		d.checked = checked
	}
	if d.remaining > 0 {
		return Item{}, nil, nil
	}
	d.inFrame = false
	if !d.fin {
		return Item{Op: Fragment, Length: int(d.length)}, rest, nil
	}
	d.inMessage, d.returned = false, d.buf != nil
	return Item{Op: d.message, Compressed: d.compressed, Payload: d.buf}, rest, nil
}

func (d *Decoder) checksUTF8() bool { return d.message == Text && !d.compressed }

// checkLarge refuses a message that declares more than MaxMessage unless its
// first bytes say that it may be large.
func (d *Decoder) checkLarge(sofar []byte, limits *Limits, complete bool) *Error {
	if d.total <= onWire(limits.MaxMessage, d.compressed) || d.large || limits.MayBeLarge == nil {
		return nil
	}
	need := PeekBytes
	if d.compressed {
		need = PeekCompressedBytes
	}
	if len(sofar) < need && !complete {
		return nil
	}
	head := sofar[:min(len(sofar), need)]
	if d.compressed {
		if limits.Peek == nil {
			return ErrTooLarge
		}
		head = limits.Peek(head)
	}
	if !limits.MayBeLarge(head) {
		return ErrTooLarge
	}
	d.large = true
	return nil
}

// validPrefix says whether b, known to be UTF-8 up to from, can be the beginning
// of UTF-8 text, and up to where it is complete.
func validPrefix(b []byte, from int) (checked int, ok bool) {
	end := len(b)
	// The last rune may be incomplete: step back over at most three bytes to
	// where it begins.
	for i := end - 1; i >= from && i >= end-utf8.UTFMax+1; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:end]) { // false only for what can still become a rune
				end = i
			}
			break
		}
	}
	return end, utf8.Valid(b[from:end])
}
