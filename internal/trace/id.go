package trace

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/madang-chat/madang/protocol"
)

// traceID is a W3C trace ID.
type traceID struct{ high, low uint64 }

// spanID is a W3C span ID; 0 is none.
type spanID uint64

func (t traceID) bytes() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), t.high), t.low)
}

func (s spanID) bytes() []byte {
	if s == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint64(make([]byte, 0, 8), uint64(s))
}

// messageTrace is the trace of a message: the same in every process and every
// version, or traces fall apart during an upgrade. Only low decides about
// sampling; high is as good as random beside it.
func messageTrace(room string, id protocol.ID) traceID {
	low := messageHash(room, id, 0)
	return traceID{high: messageHash(room, id, 1), low: low}
}

func messageHash(room string, id protocol.ID, salt byte) uint64 {
	var h xxhash.Digest
	h.Reset()
	_, _ = h.WriteString(room)
	var b [17]byte
	binary.BigEndian.PutUint64(b[:], id.Ms)
	binary.BigEndian.PutUint64(b[8:], id.Seq)
	b[16] = salt
	_, _ = h.Write(b[:])
	return h.Sum64()
}

// publication is the span in Redis that deliveries of a message hang on: known to
// gateways as its trace is.
func (t traceID) publication() spanID { return spanID(t.high ^ t.low | 1) }

// parent is what a caller says of its own span.
type parent struct {
	trace traceID
	span  spanID
}

// parseTraceparent reads a header of W3C Trace Context, version 00 or what a later
// one keeps of it. ok is false for anything else: it is then as if nothing came.
func parseTraceparent(s string) (p parent, ok bool) {
	const length = len("00-") + 32 + len("-") + 16 + len("-00")
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' ||
		s[:2] == "00" && len(s) != length || len(s) > length && s[length] != '-' {
		return p, false
	}
	var b [1 + 16 + 8 + 1]byte
	at := 0
	for _, part := range [...]string{s[:2], s[3:35], s[36:52], s[53:55]} {
		if strings.ContainsAny(part, "ABCDEF") { // the standard wants lower case
			return p, false
		}
		n, err := hex.Decode(b[at:], []byte(part))
		if err != nil {
			return p, false
		}
		at += n
	}
	p.trace = traceID{binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}
	p.span = spanID(binary.BigEndian.Uint64(b[17:]))
	return p, b[0] != 0xff && p.trace != traceID{} && p.span != 0
}
