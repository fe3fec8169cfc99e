package clock

import (
	"testing"
	"time"
)

// A process that is put aside between its two readings has the same time as others.
func TestReadingsApartDoNotMakeAClockWrong(t *testing.T) {
	const aside = 20 * time.Millisecond
	readings := 0
	at, now := together(func() int64 {
		readings++
		switch readings {
		case 1, 4: // after the first of a pair, before the second of another
			defer time.Sleep(aside)
		case 6:
			time.Sleep(aside)
		}
		return Monotonic()
	})
	clock, other := Clock{base: at, start: now}, New(0)
	if apart := time.Duration(clock.Now() - other.Now()).Abs(); apart > aside/4 {
		t.Errorf("two clocks of a machine are %v apart", apart)
	}
}
