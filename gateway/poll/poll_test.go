package poll_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/gateway/poll"
)

func newPoller(t *testing.T) *poll.Poller {
	t.Helper()
	p, err := poll.New(16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func pair(t *testing.T) (int, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	return fds[0], fds[1]
}

func TestReadableUntilRead(t *testing.T) {
	p := newPoller(t)
	a, b := pair(t)
	const token = 0xfedcba98_76543210
	if err := p.Add(a, token, poll.Read); err != nil {
		t.Fatal(err)
	}
	if evs, err := p.Wait(0); err != nil || len(evs) != 0 {
		t.Fatalf("before any byte: %v, %v", evs, err)
	}
	if _, err := unix.Write(b, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // level-triggered: reported again while unread
		evs, err := p.Wait(1000)
		if err != nil || len(evs) != 1 || evs[0].Token != token || !evs[0].Readable || evs[0].Writable {
			t.Fatalf("got %+v, %v", evs, err)
		}
	}
}

func TestWritableOnlyWhenAskedFor(t *testing.T) {
	p := newPoller(t)
	a, _ := pair(t)
	if err := p.Add(a, 1, poll.Read); err != nil {
		t.Fatal(err)
	}
	if evs, _ := p.Wait(0); len(evs) != 0 {
		t.Fatalf("got %+v", evs)
	}
	if err := p.Mod(a, 2, poll.Read|poll.Write); err != nil {
		t.Fatal(err)
	}
	evs, err := p.Wait(1000)
	if err != nil || len(evs) != 1 || evs[0].Token != 2 || !evs[0].Writable {
		t.Fatalf("got %+v, %v", evs, err)
	}
	if err := p.Mod(a, 2, 0); err != nil {
		t.Fatal(err)
	}
	if evs, _ := p.Wait(0); len(evs) != 0 {
		t.Fatalf("watched for nothing, got %+v", evs)
	}
}

func TestWakeEndsAWaitAndIsConsumed(t *testing.T) {
	p := newPoller(t)
	go p.Wake()
	start := time.Now()
	evs, err := p.Wait(10_000)
	if err != nil || len(evs) != 0 {
		t.Fatalf("got %+v, %v", evs, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Fatalf("woke after %v", took)
	}
	p.Wake()
	p.Wake()
	if _, err := p.Wait(10_000); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if _, err := p.Wait(20); err != nil {
		t.Fatal(err)
	}
	if time.Since(start) < 10*time.Millisecond {
		t.Fatal("a wake-up was left over")
	}
}

func TestAWakeUpIsNeverLost(t *testing.T) {
	p := newPoller(t)
	const rounds = 2000
	posted := make(chan struct{}, 1)
	go func() {
		for range rounds {
			posted <- struct{}{}
			p.Wake()
		}
	}()
	for seen := 0; seen < rounds; {
		start := time.Now()
		if _, err := p.Wait(5000); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > 4*time.Second {
			t.Fatalf("slept over a wake-up after %d", seen)
		}
		for more := true; more; {
			select {
			case <-posted:
				seen++
			default:
				more = false
			}
		}
	}
	p.Wake()
	if _, err := p.Wait(1000); err != nil {
		t.Fatal(err)
	}
}
