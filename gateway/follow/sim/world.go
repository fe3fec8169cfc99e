package sim

import (
	"fmt"
	"math/rand/v2"

	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/protocol"
)

// NewCore makes a gateway's core.
type NewCore func(follow.Config, follow.Out) *follow.Core

// Schedule is a world and what happens in it. Every step draws its choices from
// a number of its own, so that leaving one out changes the others little.
type Schedule struct {
	World uint64
	Steps []uint64
	Polls bool // half of the clients poll
}

// NewSchedule draws a schedule from a seed.
func NewSchedule(seed uint64) Schedule {
	rng := rand.New(rand.NewPCG(seed, 0x6d6164616e67))
	s := Schedule{World: rng.Uint64(), Steps: make([]uint64, 30+rng.IntN(120))}
	for i := range s.Steps {
		s.Steps[i] = rng.Uint64()
	}
	return s
}

// Violation is a promise that was broken.
type Violation struct {
	Rule string // a word for the promise
	What string
	Step int
}

func (v *Violation) Error() string { return fmt.Sprintf("%s: %s (step %d)", v.Rule, v.What, v.Step) }

// Counts say what schedules have exercised.
type Counts struct {
	Schedules, Steps, Sends, Received int
	Gaps, SlowReaders, CutOff         int
	Failovers, Flushes, Kills         int
	Duplicates, Timed                 int
}

// String tells the counts.
func (c Counts) String() string {
	return fmt.Sprintf("%d schedules, %d steps, %d sends, %d deliveries (%d twice), %d gaps, %d slow readers, %d cut off, %d failovers, %d flushes, %d gateways killed, %d resumes from a time",
		c.Schedules, c.Steps, c.Sends, c.Received, c.Duplicates, c.Gaps, c.SlowReaders, c.CutOff, c.Failovers, c.Flushes, c.Kills, c.Timed)
}

// Add adds another's counts.
func (c *Counts) Add(o *Counts) {
	c.Schedules += o.Schedules
	c.Steps += o.Steps
	c.Sends += o.Sends
	c.Received += o.Received
	c.Gaps += o.Gaps
	c.SlowReaders += o.SlowReaders
	c.CutOff += o.CutOff
	c.Failovers += o.Failovers
	c.Flushes += o.Flushes
	c.Kills += o.Kills
	c.Duplicates += o.Duplicates
	c.Timed += o.Timed
}

type world struct {
	newCore         NewCore
	cfg             follow.Config
	loopsPerGateway int
	faults          bool // links and Redis fail, too
	warm            bool // begins with everybody connected

	pcg   *rand.PCG
	rng   *rand.Rand
	now   int64
	step  int
	seq   int
	trace func(string)

	shards   []*shard
	gateways []*gateway
	clients  []*client
	rooms    []struct{} // len: how many there are
	users    []struct{}

	used     [maxRooms]map[protocol.ID]bool
	parent   [maxRooms]map[protocol.ID]protocol.ID
	aged     [maxRooms]map[protocol.ID]bool // trimmed once, if only on a primary that was lost
	left     [maxRooms][maxUsers]bool       // once
	versions map[uint64]bool
	epochs   int
	settling bool
	count    Counts
}

// Run plays a schedule and returns the first promise that was broken, if any.
// trace, when given, is told what happens.
func Run(s Schedule, newCore NewCore, counts *Counts, trace func(string)) (v *Violation) {
	w := newWorld(s.World, newCore)
	for i, c := range w.clients {
		c.polls = s.Polls && i%2 == 0
	}
	w.warm = w.warm || s.Polls
	w.trace = trace
	defer func() {
		if r := recover(); r != nil {
			if v, _ = r.(*Violation); v == nil {
				panic(fmt.Sprintf("step %d: %v", w.step, r))
			}
		}
	}()
	if w.warm {
		w.settling = true
		w.deliverAll()
		w.settling = false
	}
	for _, seed := range s.Steps {
		w.step++
		w.pcg.Seed(seed, 1)
		w.now += int64(w.rng.IntN(4))
		w.play()
	}
	w.pcg.Seed(s.World, 2)
	w.settle()
	if counts != nil {
		w.count.Schedules, w.count.Steps = 1, w.step
		counts.Add(&w.count)
	}
	return nil
}

func newWorld(seed uint64, newCore NewCore) *world {
	pcg := rand.NewPCG(seed, 0)
	w := &world{newCore: newCore, pcg: pcg, rng: rand.New(pcg), versions: map[uint64]bool{}}
	w.loopsPerGateway = 1 + w.rng.IntN(2)
	w.rooms = make([]struct{}, 1+w.rng.IntN(maxRooms))
	w.users = make([]struct{}, 1+w.rng.IntN(maxUsers))
	w.faults = w.pick(4) != 0
	w.warm = w.pick(3) != 0
	w.cfg = follow.Config{
		ResumeRoom:  2 + w.rng.IntN(6),
		ResumeConn:  3 + w.rng.IntN(9),
		TailEntries: 1 + w.rng.IntN(4),
		TailBytes:   1 << 20,
		PendBytes:   200 + w.rng.IntN(800),
		CreditBytes: 1 + w.rng.IntN(900),
		HelloMs:     20 + w.rng.Int64N(100),
		RetryMs:     5,
		// Clocks differ by 60 ms.
		SinceMarginMs: 61,
		// Few enough that audits wait for their turn.
		AuditsPerSecond: 20 << w.rng.IntN(8),
	}
	if w.pick(2) == 0 {
		w.cfg.LingerMs = 30
	}
	for i := range 1 + w.rng.IntN(2) {
		s := &shard{id: i, history: make([]dataset, 1)}
		if w.pick(3) == 0 {
			s.skew = int64(w.rng.IntN(60)) - 30
		}
		w.shards = append(w.shards, s)
	}
	for room := range w.rooms {
		w.used[room] = map[protocol.ID]bool{}
		w.aged[room] = map[protocol.ID]bool{}
		w.parent[room] = map[protocol.ID]protocol.ID{}
		var members [maxUsers]bool
		for u := range w.users {
			members[u] = w.pick(4) != 0
		}
		s := w.roomShard(room)
		w.create(room, members, s.node)
		for len(s.data().outbox) > 0 {
			w.sweep(s, 0, false)
		}
	}
	for i := range 1 + w.rng.IntN(2) {
		w.gateways = append(w.gateways, w.newGateway(i))
	}
	for i := range 1 + w.rng.IntN(4) {
		w.clients = append(w.clients, &client{w: w, id: i, user: i % len(w.users), lazy: w.pick(3) == 0})
	}
	return w
}

// pick draws a number below n.
func (w *world) pick(n int) int { return w.rng.IntN(n) }

func (w *world) logf(format string, args ...any) {
	w.trace(fmt.Sprintf("%4d %5dms  ", w.step, w.now) + fmt.Sprintf(format, args...))
}

func (w *world) violate(rule, format string, args ...any) {
	v := &Violation{Rule: rule, What: fmt.Sprintf(format, args...), Step: w.step}
	if w.trace != nil {
		w.logf("VIOLATION %v", v)
	}
	panic(v)
}

// everLed says whether b was sent after a, in one lineage of the log.
func (w *world) everLed(room int, a, b protocol.ID) bool {
	for b != a {
		if b.IsZero() {
			return false
		}
		b = w.parent[room][b]
	}
	return true
}

// losses counts the occasions on which Redis may have lost data.
func (w *world) losses() int { return w.count.Failovers + w.count.Flushes }

// lost says whether a message is not in the log's lineage.
func (w *world) lost(room int, id protocol.ID) bool {
	return !w.roomShard(room).data().rooms[room].has(id)
}
