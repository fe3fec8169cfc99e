package api

import (
	"strconv"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	l := newRateLimit(10, 3)
	at := l.start
	take := func(user string, want time.Duration) {
		t.Helper()
		if got := l.take(user, at); got != want {
			t.Fatalf("at %v: wait %v, want %v", at.Sub(l.start), got, want)
		}
	}
	for range 3 {
		take("a", 0)
	}
	take("a", 100*time.Millisecond)
	take("a", 100*time.Millisecond) // refusals cost nothing
	take("b", 0)
	at = at.Add(99 * time.Millisecond)
	take("a", time.Millisecond)
	at = at.Add(time.Millisecond)
	take("a", 0)
	take("a", 100*time.Millisecond)
	at = at.Add(time.Hour) // fills up to the burst, not more
	for range 3 {
		take("a", 0)
	}
	take("a", 100*time.Millisecond)
}

// One token may be a whole load: a bridge, a test. Who is a stranger is for those to
// say who run it.
func TestNobodyIsLimitedByDefault(t *testing.T) {
	if l := (Limits{}).withDefaults(); l.SendsPerSecond != 0 {
		t.Errorf("%v sends a second", l.SendsPerSecond)
	}
}

func TestBucketsAreBounded(t *testing.T) {
	l := newRateLimit(10, 3)
	for i := range rateShards * rateShardUsers * 2 {
		l.take(strconv.Itoa(i), l.start.Add(time.Duration(i)*time.Microsecond))
	}
	for i := range l.shards {
		if n := len(l.shards[i].fullAt); n > rateShardUsers || n < rateShardUsers/2 {
			t.Fatalf("shard %d has %d users", i, n)
		}
	}
}
