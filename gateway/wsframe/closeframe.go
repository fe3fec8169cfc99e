package wsframe

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/madang-chat/madang/protocol"
)

// NoCode stands for a close frame without a code (RFC 6455 §7.1.5). It is never
// sent.
const NoCode protocol.CloseCode = 1005

// ParseClose reads a close frame's payload. The code is NoCode when there is
// none.
func ParseClose(payload []byte) (code protocol.CloseCode, err *Error) {
	switch len(payload) {
	case 0:
		return NoCode, nil
	case 1:
		return 0, ErrCloseFrame
	}
	code = protocol.CloseCode(binary.BigEndian.Uint16(payload))
	if !validCode(code) {
		return 0, ErrCloseFrame
	}
	if !utf8.Valid(payload[2:]) {
		return 0, ErrCloseReason
	}
	return code, nil
}

// validCode says whether a peer may send code: those of RFC 6455 §7.4.1 and of
// IANA's registry, and the ranges for libraries and applications.
func validCode(code protocol.CloseCode) bool {
	switch {
	case code >= 1000 && code <= 1014:
		return code < 1004 || code > 1006
	case code >= 3000 && code <= 4999:
		return true
	}
	return false
}

// AppendClose appends an unmasked close frame. NoCode makes an empty one; reason
// is cut to what fits.
func AppendClose(dst []byte, code protocol.CloseCode, reason string) []byte {
	if code == NoCode {
		return append(dst, 0x88, 0)
	}
	if len(reason) > maxControl-2 {
		reason = reason[:maxControl-2]
		for len(reason) > 0 && !utf8.ValidString(reason) {
			reason = reason[:len(reason)-1]
		}
	}
	dst = append(dst, 0x88, byte(2+len(reason)), byte(code>>8), byte(code))
	return append(dst, reason...)
}

// AppendControl appends an unmasked ping or pong with a payload of at most 125
// bytes.
func AppendControl(dst []byte, op Op, payload []byte) []byte {
	first := byte(0x80 | opPing)
	if op == Pong {
		first = 0x80 | opPong
	}
	dst = append(dst, first, byte(len(payload)))
	return append(dst, payload...)
}

// AppendHeader appends the header of an unmasked, unfragmented data frame.
func AppendHeader(dst []byte, op Op, compressed bool, length int) []byte {
	first := byte(0x80 | opText)
	if op == Binary {
		first = 0x80 | opBinary
	}
	if compressed {
		first |= 0x40
	}
	switch {
	case length < 126:
		return append(dst, first, byte(length))
	case length < 1<<16:
		return append(dst, first, 126, byte(length>>8), byte(length))
	}
	dst = append(dst, first, 127)
	return binary.BigEndian.AppendUint64(dst, uint64(length))
}
