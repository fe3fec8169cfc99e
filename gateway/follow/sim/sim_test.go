package sim_test

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/gateway/follow/sim"
)

var (
	seed = flag.Uint64("sim.seed", 0, "play schedules from this seed on")
	n    = flag.Int("sim.n", 0, "how many schedules; 0: for sim.for")
	long = flag.Duration("sim.for", 20*time.Second, "how long schedules are played")
)

// TestSim plays schedules: the same few thousand every time, then new ones.
func TestSim(t *testing.T) {
	var counts sim.Counts
	defer func() { t.Log(counts) }()
	play := func(seed uint64) {
		s := sim.NewSchedule(seed)
		v := sim.Run(s, follow.New, &counts, nil)
		if v == nil {
			return
		}
		short := sim.Shrink(s, follow.New, v.Rule)
		var story strings.Builder
		sim.Run(short, follow.New, nil, func(line string) {
			story.WriteString(line)
			story.WriteByte('\n')
		})
		t.Fatalf("seed %d: %v\n%d of %d steps are enough:\n%s\nagain: go test ./gateway/follow/sim -run TestSim -sim.seed=%d -sim.n=1",
			seed, v, len(short.Steps), len(s.Steps), story.String(), seed)
	}
	if *n > 0 {
		for i := range uint64(*n) {
			play(*seed + i)
		}
		return
	}
	until := time.Now().Add(*long)
	for i := uint64(1); i <= 3000 && !testing.Short(); i++ {
		play(i)
	}
	for time.Now().Before(until) && !testing.Short() {
		play(rand.Uint64())
	}
}
