// Package stamp writes into a send's idempotency key what a receiver must know to
// judge it: when the message was meant to be sent (not when the tester got round
// to it: a tester that waits for a slow server and then measures from there
// hides the very delay it was to show), and the number of the send.
//
// The key is at the end of a message event and of fixed width, so reading it
// costs a few nanoseconds and no search.
package stamp

import "github.com/madang-chat/madang/loadtest/ledger"

// Len is the length of a key.
const Len = 2 + 16 + 8

const hexDigits = "0123456789abcdef"

// Append appends the key of a send that was due at the run's time due.
func Append(dst []byte, due int64, send ledger.Send) []byte {
	dst = append(dst, 'l', 't')
	dst = appendHex(dst, uint64(due), 16)
	return appendHex(dst, uint64(send), 8)
}

// Parse reads a key. ok is false for one that Append did not write.
func Parse(key []byte) (due int64, send ledger.Send, ok bool) {
	if len(key) != Len || key[0] != 'l' || key[1] != 't' {
		return 0, 0, false
	}
	d, ok1 := parseHex(key[2:18])
	s, ok2 := parseHex(key[18:])
	return int64(d), ledger.Send(s), ok1 && ok2
}

func appendHex(dst []byte, v uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&15])
	}
	return dst
}

func parseHex(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(c)
	}
	return v, true
}
