package procs

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// at is a state's story: what is used, in percent of a processor, look by look.
func at(s *state, now *time.Time, percent ...int) {
	for _, p := range percent {
		*now = now.Add(lookEvery)
		s.look(*now, float64(p)/100, false)
	}
}

func looks(d time.Duration, percent int) []int {
	all := make([]int, d/lookEvery+1)
	for i := range all {
		all[i] = percent
	}
	return all
}

func TestOneProcessorIsEnoughForLittle(t *testing.T) {
	now := time.Unix(0, 0)
	s := state{all: true, calmSince: now}
	at(&s, &now, looks(calmFor-2*lookEvery, 20)...)
	if !s.all {
		t.Fatal("one processor before it was calm for long enough")
	}
	at(&s, &now, 20, 20)
	if s.all {
		t.Fatal("all processors for little")
	}
	at(&s, &now, looks(time.Minute, 50)...)
	if s.all {
		t.Fatal("all processors although one is not busy")
	}
}

func TestAllProcessorsAreUsedAtOnceForMuch(t *testing.T) {
	now := time.Unix(0, 0)
	s := state{calmSince: now}
	at(&s, &now, 90)
	if !s.all {
		t.Fatal("one processor, and it is busy")
	}
	at(&s, &now, looks(time.Minute, 150)...)
	if !s.all {
		t.Fatal("one processor for the work of more")
	}
	// A pause that is shorter than calmFor takes nothing away.
	at(&s, &now, looks(calmFor/2, 0)...)
	at(&s, &now, 150)
	at(&s, &now, looks(calmFor/2, 0)...)
	if !s.all {
		t.Fatal("one processor after a short pause")
	}
}

// Others on the machine take the processor: the process uses little and is behind.
func TestAllProcessorsAreUsedByWhoIsKeptFromRunning(t *testing.T) {
	now := time.Unix(0, 0)
	s := state{calmSince: now}
	at(&s, &now, 20)
	now = now.Add(lookEvery)
	s.look(now, 0.3, true)
	if s.all {
		t.Fatal("all processors because it was late once")
	}
	now = now.Add(lookEvery)
	s.look(now, 0.3, true)
	if !s.all {
		t.Fatal("one processor, and it comes late")
	}
	for range 2 * calmFor / lookEvery {
		now = now.Add(lookEvery)
		s.look(now, 0.3, true)
	}
	if !s.all {
		t.Fatal("one processor for who still comes late")
	}
}

func TestACrowdGetsAllProcessors(t *testing.T) {
	now := time.Unix(0, 0)
	s := state{calmSince: now}
	s.crowded(now)
	if !s.all {
		t.Fatal("one processor for a crowd")
	}
	at(&s, &now, looks(calmFor-lookEvery, 5)...)
	if s.all {
		t.Fatal("all processors long after it")
	}
}

func TestTheProcessFollows(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	all := runtime.GOMAXPROCS(0)
	g := New()
	if g == nil {
		t.Skip("one processor, or not on this system")
	}
	g.Start()
	wait := func(n int, what string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); runtime.GOMAXPROCS(0) != n; time.Sleep(lookEvery) {
			if time.Now().After(end) {
				t.Fatalf("%s: GOMAXPROCS is %d, want %d", what, runtime.GOMAXPROCS(0), n)
			}
		}
	}
	wait(1, "idle")
	g.Crowd()
	wait(all, "a crowd")
	wait(1, "idle again")
	var stop atomic.Bool
	for range all {
		go func() {
			for !stop.Load() {
			}
		}()
	}
	wait(all, "busy")
	stop.Store(true)
	wait(1, "idle at last")
	g.Stop()
	if n := runtime.GOMAXPROCS(0); n != all {
		t.Errorf("after Stop GOMAXPROCS is %d, want %d", n, all)
	}
}

func TestTheEnvironmentDecides(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	g := New()
	if g != nil {
		t.Fatal("GOMAXPROCS is set, and not left alone")
	}
	g.Start() // a nil one does nothing
	g.Crowd()
	g.Stop()
}

func TestACrowdThatIsHeardCostsNothing(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	g := New()
	if g == nil {
		t.Skip("one processor, or not on this system")
	}
	if n := testing.AllocsPerRun(100, g.Crowd); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
