package embedded

import (
	"strconv"
	"testing"
	"time"
)

func start(t *testing.T) *Redis {
	t.Helper()
	r := New()
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// With time looked at before each command it took a thousand times as long.
func TestItIsNotSlowedDownByItsKeys(t *testing.T) {
	r := start(t)
	fastest := func() time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			for range 50 {
				if err := r.Set("key", "value"); err != nil {
					t.Fatal(err)
				}
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	empty := fastest()
	for i := range 20_000 {
		r.DB(0).Set(strconv.Itoa(i), "value")
	}
	if full := fastest(); full > 20*empty+time.Millisecond {
		t.Errorf("with 20,000 keys 50 commands take %v, without %v", full, empty)
	}
}

func TestKeysAge(t *testing.T) {
	r := start(t)
	for _, key := range []string{"soon", "later"} {
		if err := r.Set(key, "value"); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	r.SetTTL("soon", time.Second)
	r.SetTTL("later", time.Hour)
	for r.Exists("soon") {
		if time.Since(began) > 10*time.Second {
			t.Fatal("a key of a second is there after ten")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if lived := time.Since(began); lived < time.Second-agesEvery {
		t.Errorf("a key of a second lived for %v", lived)
	}
	if !r.Exists("later") {
		t.Error("a key of an hour has gone")
	}
}
