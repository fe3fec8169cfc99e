package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

// TestNothingIsLostWhateverDies is the short form of `make chaos`: half a minute
// of faults on each arrangement of Redis, those first that matter most.
func TestNothingIsLostWhateverDies(t *testing.T) {
	const seed = 1
	for redis, kinds := range map[string]string{
		standalone: "primary killed,gateway killed,API killed,reset,half open,stalled,rolled,FLUSHALL",
		sentinel:   "promoted,failover,gateway killed,primary stopped",
		cluster:    "promoted,failover,slots,API killed,scripts",
	} {
		t.Run(redis, func(t *testing.T) {
			opt := defaults()
			opt.seed, opt.during = seed, 20*time.Second
			opt.users, opt.rooms, opt.rate, opt.senders = 12, 6, 80, 12
			opt.binary, opt.dir = fleet.Binary(t), t.TempDir()
			var account strings.Builder
			opt.out = &account
			res, err := run(t.Context(), opt.on(redis, kinds))
			if err != nil {
				t.Fatal(err)
			}
			res.print(&account)
			t.Logf("seed %d\n%s", seed, account.String())
			if len(res.violations) > 0 {
				t.Errorf("%d violations; go run ./test/chaos -redis %s -seed %d plays the same schedule", len(res.violations), redis, seed)
			}
			if res.acked == 0 || res.verdict.Kept != res.verdict.Owed {
				t.Errorf("%d acknowledged, %d of %d deliveries", res.acked, res.verdict.Kept, res.verdict.Owed)
			}
		})
	}
}

// TestTheSeedReproducesTheSchedule: what a run did can be done again.
func TestTheSeedReproducesTheSchedule(t *testing.T) {
	schedule := func(seed uint64) (text string) {
		p := newPlan(seed, faultsOn(cluster, 1))
		for range 100 {
			s := p.next()
			text += fmt.Sprintln(s.name(), s.seed)
		}
		return text
	}
	if first, again := schedule(7), schedule(7); first != again {
		t.Error("the same seed gave two schedules")
	}
	if schedule(7) == schedule(8) {
		t.Error("two seeds gave the same schedule")
	}
	for _, f := range faultsOn(cluster, 1) {
		if !strings.Contains(schedule(7), f.name) {
			t.Errorf("%q never happens", f.name)
		}
	}
}
