// Package deflate is permessage-deflate (RFC 7692) as a gateway can afford it:
// no context takeover in either direction, so that a connection has no state, a
// message is compressed once for everybody, and one inflater serves all
// connections of a loop. What clients send is read with a bound on everything: on
// what comes out, and on the work it takes.
//
// It does no I/O and is not locked: each event loop owns a Deflater and an
// Inflater.
package deflate

import (
	"fmt"

	"github.com/klauspost/compress/flate"
)

const (
	// level weighs time against bytes. A chat message of 1 KB becomes 47 % of
	// itself at level 1 and 46 % at level 6, which takes twice as long.
	level = 3
	// MinWindowBits and MaxWindowBits are RFC 7692 §7.1.2's.
	MinWindowBits, MaxWindowBits = 8, 15
)

// tail is the end of a flushed DEFLATE stream, an empty stored block. It is not
// sent (RFC 7692 §7.2.1).
const tail = "\x00\x00\xff\xff"

// Deflater compresses messages. The zero Deflater is ready; it takes its memory,
// a few hundred KiB, when it is first used.
type Deflater struct {
	writers [MaxWindowBits + 1]*flate.Writer
	out     sink
}

// sink gathers what a flate.Writer writes.
type sink struct{ buf []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.buf = append(s.buf, p...)
	return len(p), nil
}

// Append appends message compressed for a peer whose window has 2^windowBits
// bytes.
func (d *Deflater) Append(dst, message []byte, windowBits uint8) []byte {
	if len(message) <= 1<<windowBits {
		windowBits = MaxWindowBits // no repetition can be further away
	}
	w := d.writer(windowBits)
	d.out.buf = dst
	w.Reset(&d.out)
	_, err := w.Write(message)
	if err == nil {
		err = w.Flush()
	}
	dst, d.out.buf = d.out.buf, nil
	if err != nil {
		panic(fmt.Sprintf("BUG: compressing into memory: %v", err))
	}
	return dst[:len(dst)-len(tail)]
}

func (d *Deflater) writer(windowBits uint8) *flate.Writer {
	if w := d.writers[windowBits]; w != nil {
		return w
	}
	var w *flate.Writer
	var err error
	if windowBits == MaxWindowBits {
		w, err = flate.NewWriter(&d.out, level)
	} else {
		w, err = flate.NewWriterWindow(&d.out, 1<<windowBits)
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: a window of %d bits: %v", windowBits, err))
	}
	d.writers[windowBits] = w
	return w
}
