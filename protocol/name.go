package protocol

import "unicode/utf8"

// Longest names, in bytes.
const (
	MaxRoomLen = 64
	MaxUserLen = 128
	MaxKeyLen  = 128 // of an Idempotency-Key
)

// ValidRoom says whether s is a room ID: 1–64 characters of [A-Za-z0-9._~-].
func ValidRoom[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > MaxRoomLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.' || c == '_' || c == '~' || c == '-':
		default:
			return false
		}
	}
	return true
}

// ValidUser says whether s is a user's name: 1–128 bytes of UTF-8 without
// control characters (C0, DEL and C1).
func ValidUser(s string) bool {
	if len(s) == 0 || len(s) > MaxUserLen || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}

// ValidKey says whether s can be an Idempotency-Key: 1–128 printable ASCII
// characters.
func ValidKey(s string) bool {
	if len(s) == 0 || len(s) > MaxKeyLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
