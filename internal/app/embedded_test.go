package app

import (
	"strconv"
	"testing"
	"time"
)

// startEmbedded starts a Redis as `madang dev` has it.
func startEmbedded(t *testing.T) *embedded {
	t.Helper()
	e := newEmbedded()
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.stop)
	return e
}

// With time looked at before each command it took a thousand times as long.
func TestTheEmbeddedRedisIsNotSlowedDownByItsKeys(t *testing.T) {
	e := startEmbedded(t)
	fastest := func() time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			for range 50 {
				if err := e.Set("key", "value"); err != nil {
					t.Fatal(err)
				}
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	empty := fastest()
	for i := range 20_000 {
		e.DB(0).Set(strconv.Itoa(i), "value")
	}
	if full := fastest(); full > 20*empty+time.Millisecond {
		t.Errorf("with 20,000 keys 50 commands take %v, without %v", full, empty)
	}
}

func TestKeysOfTheEmbeddedRedisAge(t *testing.T) {
	e := startEmbedded(t)
	for _, key := range []string{"soon", "later"} {
		if err := e.Set(key, "value"); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	e.SetTTL("soon", time.Second)
	e.SetTTL("later", time.Hour)
	for e.Exists("soon") {
		if time.Since(began) > 10*time.Second {
			t.Fatal("a key of a second is there after ten")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if lived := time.Since(began); lived < time.Second-agesEvery {
		t.Errorf("a key of a second lived for %v", lived)
	}
	if !e.Exists("later") {
		t.Error("a key of an hour has gone")
	}
}
