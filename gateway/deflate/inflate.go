package deflate

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/flate"

	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/protocol"
)

// ErrCorrupt: what was sent is no DEFLATE stream, or not all of one. RFC 7692
// leaves the code open; this is RFC 6455's for a payload that is not what it says
// it is.
var ErrCorrupt = &wsframe.Error{Code: protocol.CloseBadUTF8, Reason: "compressed message is corrupt"}

const (
	// last ends every stream for the reader: the tail that was not sent, and an
	// empty final block.
	last = tail + "\x01\x00\x00\xff\xff"
	// maxFinals bounds the final blocks of one message. RFC 7692 §7.2.3.4 allows
	// them; each costs up to a window of copying, and none is needed.
	maxFinals = 16
	// keptBytes bounds the buffers that are kept between messages.
	keptBytes = 64 << 10
	dictBytes = 1 << MaxWindowBits
)

// Inflater decompresses messages, bounded by what comes out. The zero Inflater
// is ready; it takes its memory, some 50 KiB, when it is first used.
type Inflater struct {
	reader io.ReadCloser
	src    bytes.Reader
	in     []byte
	out    []byte
}

// Inflate decompresses a message of at most most bytes; grow, if not nil, is
// asked with what there is once that is reached, and may allow more. The message
// is valid until the next call and may be changed.
func (f *Inflater) Inflate(payload []byte, most int, grow func(sofar []byte) int) ([]byte, *wsframe.Error) {
	f.release()
	f.in = append(append(f.in, payload...), last...)
	f.src.Reset(f.in)
	f.restart(nil)
	f.out = ensure(f.out, min(most, 4*len(payload)+64))
	for finals := 0; ; {
		n, err := f.reader.Read(f.out[len(f.out):cap(f.out)])
		f.out = f.out[:len(f.out)+n]
		if len(f.out) > most {
			if grow != nil {
				most, grow = max(most, grow(f.out)), nil
			}
			if len(f.out) > most {
				return nil, wsframe.ErrTooLarge
			}
		}
		switch {
		case err == io.EOF:
			rest := f.src.Len()
			if rest == 0 || rest == len(last) { // its own final block was the last thing in it
				return f.out, nil
			}
			if finals++; finals > maxFinals || rest < len(last) {
				return nil, ErrCorrupt
			}
			f.restart(f.out[max(0, len(f.out)-dictBytes):])
		case err != nil:
			return nil, ErrCorrupt
		case len(f.out) == cap(f.out):
			f.out = ensure(f.out, min(most, 2*cap(f.out))+1)
		}
	}
}

// Peek decompresses the beginning of a message of which only a part has come:
// up to most bytes of it, as far as they can be told. What it returns is valid
// until the next call.
func (f *Inflater) Peek(part []byte, most int) []byte {
	f.release()
	f.src.Reset(part)
	f.restart(nil)
	f.out = ensure(f.out, most)
	for len(f.out) < most {
		n, err := f.reader.Read(f.out[len(f.out):most])
		f.out = f.out[:len(f.out)+n]
		if err != nil {
			break
		}
	}
	return f.out
}

func (f *Inflater) restart(dict []byte) {
	if f.reader == nil {
		f.reader = flate.NewReaderDict(&f.src, dict)
		return
	}
	// It fails only for what is no reader of flate's.
	_ = f.reader.(flate.Resetter).Reset(&f.src, dict)
}

// release makes the buffers empty, and lets go of large ones.
func (f *Inflater) release() {
	if cap(f.in) > keptBytes {
		f.in = nil
	}
	if cap(f.out) > keptBytes {
		f.out = nil
	}
	f.in, f.out = f.in[:0], f.out[:0]
}

// ensure returns b with room for n bytes in all.
func ensure(b []byte, n int) []byte {
	if n <= cap(b) {
		return b
	}
	return append(make([]byte, 0, n), b...)
}
