package protocol

import (
	"errors"
	"strconv"
)

// ID is a message's position in its room's log: a Redis stream ID. IDs compare
// as two numbers, never as text ("5-10" is newer than "5-9"). The zero ID
// ("0-0") is the position before the first message.
type ID struct {
	Ms  uint64 // milliseconds of the Redis server's clock
	Seq uint64 // ordinal within the millisecond
}

// MaxIDLen is the longest text form of an ID, in bytes.
const MaxIDLen = 20 + 1 + 20

// ErrBadID says that a text is not an ID of the form "<ms>-<seq>".
var ErrBadID = errors.New("not a message ID of the form <ms>-<seq>")

// ParseID parses "<ms>-<seq>". It accepts decimal digits without sign or
// leading zeros only, so that one ID has one spelling.
func ParseID[T string | []byte](s T) (ID, error) {
	dash := -1
	for i := 0; i < len(s); i++ {
		if s[i] == '-' {
			dash = i
			break
		}
	}
	if dash < 0 {
		return ID{}, ErrBadID
	}
	ms, ok1 := parseUint(s[:dash])
	seq, ok2 := parseUint(s[dash+1:])
	if !ok1 || !ok2 {
		return ID{}, ErrBadID
	}
	return ID{ms, seq}, nil
}

func parseUint[T string | []byte](s T) (uint64, bool) {
	if len(s) == 0 || len(s) > 20 || (len(s) > 1 && s[0] == '0') {
		return 0, false
	}
	var v uint64
	for i := 0; i < len(s); i++ {
		d := uint64(s[i] - '0')
		if d > 9 {
			return 0, false
		}
		if v > (1<<64-1-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}

// Less says whether a is older than b.
func (a ID) Less(b ID) bool {
	return a.Ms < b.Ms || a.Ms == b.Ms && a.Seq < b.Seq
}

// IsZero says whether a is "0-0".
func (a ID) IsZero() bool { return a == ID{} }

// AppendTo appends the text form to dst.
func (a ID) AppendTo(dst []byte) []byte {
	dst = strconv.AppendUint(dst, a.Ms, 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, a.Seq, 10)
}

// String returns "<ms>-<seq>".
func (a ID) String() string {
	var buf [MaxIDLen]byte
	return string(a.AppendTo(buf[:0]))
}

// MarshalText implements encoding.TextMarshaler.
func (a ID) MarshalText() ([]byte, error) { return a.AppendTo(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *ID) UnmarshalText(b []byte) error {
	id, err := ParseID(b)
	*a = id
	return err
}
