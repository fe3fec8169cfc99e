package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size: a number of bytes, or of KiB, MiB or GiB ("64KiB").
type Bytes int64

var units = []struct {
	suffix string
	size   int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	size := int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, size = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return fmt.Errorf("%q is not a size such as 8192, 64KiB or 1MiB", text)
	}
	*b = Bytes(n * size)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String is the shortest exact spelling.
func (b Bytes) String() string {
	for _, u := range []int{2, 1, 0} {
		if b != 0 && int64(b)%units[u].size == 0 {
			return strconv.FormatInt(int64(b)/units[u].size, 10) + units[u].suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
