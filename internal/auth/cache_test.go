package auth

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// counting answers every token "u<n>" until it is told otherwise.
type counting struct {
	mu    sync.Mutex
	calls int
	exp   int64
	err   error
}

func (c *counting) Verify(token string) (Claims, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	return Claims{User: token, Expires: c.exp}, c.err
}

func TestCacheAsksOnce(t *testing.T) {
	next := &counting{exp: 10_000}
	c := Cached(next, 1000)
	at := time.Unix(5_000, 0)
	c.now = func() time.Time { return at }
	step := func(seconds int64, wantCalls int) {
		t.Helper()
		at = at.Add(time.Duration(seconds) * time.Second)
		if got, err := c.Verify("alice"); err != nil || got.User != "alice" || got.Expires != next.exp {
			t.Fatalf("got %+v, %v", got, err)
		}
		if next.calls != wantCalls {
			t.Fatalf("asked %d times, want %d", next.calls, wantCalls)
		}
	}
	step(0, 1)
	step(0, 1)
	step(59, 1)
	step(1, 2) // a minute is over
	c.Purge()
	step(0, 3)
	next.exp = at.Unix() + 10 // ends sooner than the minute
	c.Purge()
	step(0, 4)
	step(9, 4)
	step(1, 5) // at its expiry it is asked about again
	step(0, 6) // and, being past, not kept (it is within its verifier's leeway)
}

// midway is a verifier during whose work something happens.
type midway struct{ happens func() }

func (m *midway) Verify(token string) (Claims, error) {
	m.happens()
	return Claims{User: token, Expires: time.Now().Unix() + 60}, nil
}

func TestWhatWasVerifiedBeforeAPurgeIsNotRememberedAfterIt(t *testing.T) {
	next := &midway{}
	c := Cached(next, 1000)
	next.happens = c.Purge // its key is withdrawn while the signature is checked
	if _, err := c.Verify("alice"); err != nil {
		t.Fatal(err)
	}
	asked := false
	next.happens = func() { asked = true }
	if _, err := c.Verify("alice"); err != nil || !asked {
		t.Fatalf("it was remembered; %v", err)
	}
}

func TestCacheForgetsNothingWrong(t *testing.T) {
	next := &counting{err: ErrInvalid}
	c := Cached(next, 1000)
	for range 3 {
		if _, err := c.Verify("bad"); !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	}
	if next.calls != 3 {
		t.Fatalf("a refusal was remembered: asked %d times", next.calls)
	}
	if _, err := c.Verify(strings.Repeat("x", MaxTokenBytes+1)); !errors.Is(err, ErrInvalid) || next.calls != 3 {
		t.Fatal("a token over the limit was looked at")
	}
}

func TestCacheIsBounded(t *testing.T) {
	next := &counting{exp: time.Now().Unix() + 3600}
	const size = 160
	c := Cached(next, size)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2_000 {
				token := strconv.Itoa(g*1_000 + i)
				if got, err := c.Verify(token); err != nil || got.User != token {
					t.Errorf("%s: %+v, %v", token, got, err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for i := range c.shards {
		total += len(c.shards[i].entries)
	}
	if total > size || total < size/2 {
		t.Fatalf("%d entries, want at most %d and not far below", total, size)
	}
}

func TestServerKeys(t *testing.T) {
	key1, key2 := strings.Repeat("k", 32), strings.Repeat("l", 40)
	next := &counting{exp: 10}
	v, err := WithServerKeys(next, []string{key1, key2})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{key1, key2} {
		if c, err := v.Verify(key); err != nil || c != (Claims{Server: true}) {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	if next.calls != 0 {
		t.Fatal("a server key was passed on")
	}
	for _, token := range []string{"", key1 + "x", key1[:31], strings.ToUpper(key1), "alice"} {
		if c, err := v.Verify(token); err != nil || c.Server || c.User != token {
			t.Fatalf("%q: %+v, %v", token, c, err)
		}
	}
	if only, err := WithServerKeys(nil, []string{key1}); err != nil {
		t.Fatal(err)
	} else if _, err := only.Verify("alice"); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	if _, err := WithServerKeys(next, []string{key1, "short"}); err == nil || strings.Contains(err.Error(), "short\"") {
		t.Fatalf("a short key: %v", err)
	}
	if _, err := WithServerKeys(nil, nil); err == nil {
		t.Fatal("a verifier of nothing was made")
	}
	if same, err := WithServerKeys(next, nil); err != nil || same != Verifier(next) {
		t.Fatalf("%v, %v", same, err)
	}
}

func TestCachedVerifyDoesNotAllocate(t *testing.T) {
	c := Cached(&counting{exp: time.Now().Unix() + 3600}, 1000)
	token := strings.Repeat("t", 300)
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Verify(token) }); n != 0 {
		t.Fatalf("%v allocations per hit", n)
	}
}
