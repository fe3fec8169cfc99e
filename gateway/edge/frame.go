package edge

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/madang-chat/madang/protocol"
)

// Trace follows one message to the sockets.
type Trace interface {
	// Delivered: the last of the loop's connections has taken it, with how many got
	// it. Called inside loops, by several of them; it must not block.
	Delivered(connections int)
}

// Frame is one event, encoded once and shared by every connection that gets it.
// It is immutable once posted.
type Frame struct {
	// ID and Prev are a message's, zero for other events. A loop that leaves the
	// frame out for a slow connection reports Prev.
	ID, Prev protocol.ID
	// SentAtMs is when the message entered the log (Unix ms, Redis's clock); 0
	// for other events. It feeds the delivery latency histogram.
	SentAtMs int64
	// Time is a Redis time (Unix ms): who has the event has everything that is
	// older, in all rooms, and may resume from it. 0: the event says nothing of it.
	Time uint64
	// Trace is told when a loop's connections have taken a broadcast; nil for all
	// but the few messages that are traced.
	Trace Trace

	ws []byte // an unmasked WebSocket text frame, header included

	once     sync.Once
	hdr      uint8  // length of ws's header
	deflated []byte // guarded by once
}

// maxHeader is the longest header of an unmasked frame (RFC 6455 §5.2).
const maxHeader = 10

// NewFrame encodes an event: build appends its JSON to the slice it is given.
// sizeHint is the JSON's expected length in bytes.
func NewFrame(sizeHint int, build func(dst []byte) []byte) *Frame {
	buf := build(make([]byte, maxHeader, maxHeader+sizeHint))
	return wrap(buf)
}

// FrameOf encodes an event that is JSON already; it copies it.
func FrameOf(event []byte) *Frame {
	buf := make([]byte, maxHeader+len(event))
	copy(buf[maxHeader:], event)
	return wrap(buf)
}

// wrap writes the header right before the payload at buf[maxHeader:].
func wrap(buf []byte) *Frame {
	n := len(buf) - maxHeader
	const finText = 0x81
	var start int
	switch {
	case n < 126:
		start = maxHeader - 2
		buf[start+1] = byte(n)
	case n < 1<<16:
		start = maxHeader - 4
		buf[start+1] = 126
		binary.BigEndian.PutUint16(buf[start+2:], uint16(n))
	default:
		start = 0
		buf[1] = 127
		binary.BigEndian.PutUint64(buf[2:], uint64(n))
	}
	buf[start] = finText
	return &Frame{ws: buf[start:], hdr: uint8(maxHeader - start)}
}

// JSON is the event. It must not be changed.
func (f *Frame) JSON() []byte { return f.ws[f.hdr:] }

// WS is the event as a WebSocket text frame. It must not be changed.
func (f *Frame) WS() []byte { return f.ws }

// Deflated is the event as a compressed WebSocket frame (RSV1), header included,
// for everybody who negotiated that; nil when it is better sent as it is. The
// first who asks makes it, with compress, which gets the JSON and returns the
// frame; whoever asks meanwhile waits the few microseconds that it takes.
func (f *Frame) Deflated(compress func(json []byte) []byte) []byte {
	f.once.Do(func() { f.deflated = compress(f.JSON()) })
	return f.deflated
}

var processStart = time.Now()

// NowMs is this process's monotonic time, in milliseconds; never 0.
func NowMs() int64 { return time.Since(processStart).Milliseconds() + 1 }
