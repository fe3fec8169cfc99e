package redisstore

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
)

// A canary that was refused is not waited for; one whose fate is unknown is.
func TestCanariesComeBackInOrder(t *testing.T) {
	var l link
	say := func(whats ...uint64) { l.owed = append(l.owed, whats...) }
	back := func(what uint64, overtaken bool) {
		t.Helper()
		if got := l.settle(what); got != overtaken {
			t.Fatalf("%d overtaken %v, want %v; owed %v", what, got, overtaken, l.owed)
		}
	}
	say(1)
	back(1, false)
	say(2, 3)
	back(2, false)
	back(3, false)
	back(3, false) // nothing is owed
	say(4, 5, 6)
	back(5, true)
	l.owed = nil
	say(7, 8)
	l.settle(7) // refused
	back(8, false)

	for err, want := range map[error]bool{
		errUnsent: true, errDeadline: true, errOverflow: true, errClosed: true, redis.ErrPoolTimeout: true,
		errors.New("read: connection reset by peer"): false,
	} {
		if notRun(err) != want {
			t.Errorf("%v has not run: %v, want %v", err, !want, want)
		}
	}
}

// Links that broke together do not come back together.
func TestLinksPauseForDifferentTimes(t *testing.T) {
	least, most := backoffMax*2, backoffMax*0
	for range 1000 {
		p := pauseOf(backoffMax)
		least, most = min(least, p), max(most, p)
	}
	if least < backoffMax/2 || least > backoffMax*6/10 || most > backoffMax*3/2 || most < backoffMax*14/10 {
		t.Errorf("pauses from %v to %v for %v", least, most, backoffMax)
	}
}
