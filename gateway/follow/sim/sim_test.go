package sim_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/gateway/follow/sim"
)

var (
	first = flag.Uint64("sim.seed", 1, "the first schedule's seed; with sim.n")
	n     = flag.Int("sim.n", 0, "how many schedules are played, one seed after the other; 0: as many as sim.for allows")
	long  = flag.Duration("sim.for", 10*time.Second, "how long schedules are played")
)

// sameEveryTime is how many schedules are the same in every run that is not asked
// for others: what once was found by them is found again.
const sameEveryTime = 3000

// TestSim plays ten seconds of schedules, a million with MADANG_TEST_FULL=1, and
// tells the shortest form of the first that breaks a promise.
func TestSim(t *testing.T) {
	seeds := func(i uint64) (seed uint64, ok bool) { return *first + i, i < uint64(*n) }
	switch until := time.Now().Add(*long); {
	case *n > 0:
	case os.Getenv("MADANG_TEST_FULL") != "":
		*n, *first = 1_000_000, rand.Uint64()>>16
		t.Logf("seeds %d and on", *first)
	case testing.Short():
		*n = sameEveryTime
	default:
		seeds = func(i uint64) (seed uint64, ok bool) {
			if i < sameEveryTime {
				return 1 + i, true
			}
			return rand.Uint64(), time.Now().Before(until)
		}
	}

	var mu sync.Mutex // guards what follows
	var counts sim.Counts
	var drawn uint64
	failed := false
	next := func(done *sim.Counts) (seed uint64, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		counts.Add(done)
		*done = sim.Counts{}
		seed, ok = seeds(drawn)
		drawn++
		return seed, ok && !failed
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var done sim.Counts
			for seed, ok := next(&done); ok; seed, ok = next(&done) {
				s := sim.NewSchedule(seed)
				v := sim.Run(s, follow.New, &done, nil)
				if v == nil {
					continue
				}
				mu.Lock()
				again := failed
				failed = true
				mu.Unlock()
				if !again {
					tell(t, seed, s, v)
				}
			}
		})
	}
	wg.Wait()
	t.Log(counts)
}

// TestSimOfPolls plays a third as many schedules as are the same every time, or sim.n,
// in which half of the clients poll. They are longer: what counts is that these come
// back, again and again.
func TestSimOfPolls(t *testing.T) {
	const parts = 4
	many := sameEveryTime / 3
	if *n > 0 {
		many = min(*n, 50_000) // a million would take an hour
	}
	var counts sim.Counts
	for seed := *first; seed < *first+uint64(many); seed++ {
		s := sim.NewSchedule(seed)
		for part := uint64(1); part < parts; part++ {
			s.Steps = append(s.Steps, sim.NewSchedule(seed+part<<32).Steps...)
		}
		s.Polls = true
		if v := sim.Run(s, follow.New, &counts, nil); v != nil {
			tell(t, seed, s, v)
			break
		}
	}
	t.Log(counts)
}

// tell shrinks a schedule that breaks a promise, and tells its story.
func tell(t *testing.T, seed uint64, s sim.Schedule, v *sim.Violation) {
	short := sim.Shrink(s, follow.New, v.Rule)
	var story strings.Builder
	sim.Run(short, follow.New, nil, func(line string) {
		story.WriteString(line)
		story.WriteByte('\n')
	})
	t.Errorf("seed %d: %v\n%d of %d steps are enough:\n%s\nagain: go test ./gateway/follow/sim -run ^%s$ -sim.seed=%d -sim.n=1",
		seed, v, len(short.Steps), len(s.Steps), story.String(), t.Name(), seed)
}

func BenchmarkSchedule(b *testing.B) {
	var counts sim.Counts
	for i := range b.N {
		if v := sim.Run(sim.NewSchedule(uint64(i)), follow.New, &counts, nil); v != nil {
			b.Fatal(v)
		}
	}
}
