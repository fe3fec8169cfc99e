// Resume measures what it takes when all clients of a gateway lose their
// connections at the same moment and come back with their positions: the time
// until all receive again, the Redis commands and round trips it took, and the
// CPU of the gateway and of Redis.
//
//	go run ./test/resume -clients 15000
//
// It starts a Redis, an API and a gateway as processes of their own (loadtest's
// fleet) and holds the clients itself (loadtest's swarm); its own CPU is in the
// table, because it has to share the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/fleet"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/swarm"
	"github.com/madang-chat/madang/loadtest/target"
)

type options struct {
	clients, each, members, times, inFlight int
	rest                                    time.Duration
	binary                                  string
	most                                    float64
}

func main() {
	var o options
	flag.IntVar(&o.clients, "clients", 1500, "clients, all on one gateway")
	flag.IntVar(&o.each, "rooms", 10, "rooms that each client is in")
	flag.IntVar(&o.members, "members", 10, "members of a room")
	flag.IntVar(&o.times, "times", 5, "how often all are dropped")
	flag.IntVar(&o.inFlight, "in-flight", 2048, "connections that are being opened at once")
	flag.DurationVar(&o.rest, "rest", 8*time.Second, "quiet before each drop; what Redis does in it is what it does anyway. Longer than the grace time of presence (5 s)")
	flag.StringVar(&o.binary, "binary", "", "a madang program; built when empty")
	flag.Float64Var(&o.most, "most", 2, "Redis round trips per client above which the run fails")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "resume:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "madang-resume-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		o.binary = filepath.Join(dir, "madang")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "github.com/madang-chat/madang/cmd/madang")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building madang: %w", err)
		}
	}
	f, err := fleet.Start(ctx, fleet.Options{Binary: o.binary, Gateways: 1, APIs: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Stop(false)) }()
	people, err := crowd.New(crowd.Shape{
		Prefix: "resume", Users: o.clients, Rooms: max(1, o.clients*o.each/o.members), Each: min(o.members, o.clients),
	})
	if err != nil {
		return err
	}
	minter, err := mint.New(f.Secret, mint.Claims{Issued: time.Now().Add(-time.Minute), Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		return err
	}
	world := &world{api: "http://" + f.APIs[0], people: people, minter: minter}
	if err := world.make(ctx); err != nil {
		return err
	}
	s, err := newSwarm(f, people, minter, o)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	loop, endLoop := context.WithCancel(context.Background())
	go func() { ended <- s.Run(loop) }()
	defer func() {
		endLoop()
		err = errors.Join(err, <-ended)
	}()
	m := &machine{redis: &testkit.RedisServer{}, pids: f.Pids()}
	if _, err := fmt.Sscanf(f.RedisURL, "redis://127.0.0.1:%d/", &m.redis.Port); err != nil {
		return fmt.Errorf("the fleet's Redis: %w", err)
	}
	return storms(ctx, o, s, world, m, out)
}

func newSwarm(f *fleet.Fleet, people *crowd.Crowd, minter *mint.Minter, o options) (*swarm.Swarm, error) {
	gateway, err := netip.ParseAddrPort(f.Gateways[0])
	if err != nil {
		return nil, err
	}
	// An address has 28,000 ports to connect from, and one that was closed rests
	// for a while.
	var sources []netip.Addr
	for i := range 8 {
		sources = append(sources, netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}))
	}
	return swarm.New(swarm.Config{
		Dialect: target.Madang{}, Clock: clock.New(clock.Offset()), Gateways: []netip.AddrPort{gateway}, Sources: sources,
		Mint: minter, Crowd: people, Count: o.clients, InFlight: o.inFlight,
		Base: func(uint32) ledger.Pos { return 0 },
	})
}

// storm is what one storm took.
type storm struct {
	back           time.Duration // until the last client was back
	p50, p99       float64       // ms, of all clients
	commands       map[string]int64
	reads          int64 // requests Redis read: round trips, as far as what came together was read together
	gateway, redis time.Duration
	own            time.Duration
}

// storms drops everybody, again and again.
func storms(ctx context.Context, o options, s *swarm.Swarm, w *world, m *machine, out io.Writer) error {
	s.Ramp()
	if err := await(ctx, s, "all are connected", func(st swarm.Stats) bool { return st.Live == o.clients }); err != nil {
		return err
	}
	// A position in every room, and a hot tail behind it.
	if err := w.speak(ctx); err != nil {
		return err
	}
	total := uint64(w.people.Seats())
	if err := await(ctx, s, "all have what was said", func(st swarm.Stats) bool { return st.Arrivals >= total }); err != nil {
		return err
	}
	var all []storm
	for range o.times {
		st, err := oneStorm(ctx, o, s, m)
		if err != nil {
			return err
		}
		all = append(all, st)
	}
	snap, ok := s.Snapshot(30 * time.Second)
	if !ok {
		return errors.New("the clients' loop does not answer")
	}
	printTable(out, o, w.people.Rooms(), all)
	if l := snap.Stats.Ledger; l.Duplicates+l.Reordered+l.Skipped+l.Gaps+l.Broken+l.Wrong > 0 || len(snap.Stats.Errors) > 0 || len(snap.Stats.Failures) > 0 {
		fmt.Fprintf(out, "on the way: %+v; errors %v, failed attempts %v\n", l, snap.Stats.Errors, snap.Stats.Failures)
	}
	if per := median(all, func(s storm) float64 { return float64(s.reads) }) / float64(o.clients); per > o.most {
		return fmt.Errorf("%.2f Redis round trips per client, want at most %v", per, o.most)
	}
	return nil
}

// oneStorm measures a storm. What happens in as long a time of quiet is taken off:
// canaries, the lease, a part of the refreshing of presence.
func oneStorm(ctx context.Context, o options, s *swarm.Swarm, m *machine) (st storm, err error) {
	quiet, err := m.look()
	if err != nil {
		return st, err
	}
	select {
	case <-time.After(o.rest):
	case <-ctx.Done():
		return st, ctx.Err()
	}
	snap, ok := s.Snapshot(30 * time.Second) // empties the meters
	if !ok {
		return st, errors.New("the clients' loop does not answer")
	}
	want := snap.Stats.Returned + uint64(o.clients)
	before, err := m.look()
	if err != nil {
		return st, err
	}
	s.Drop(1, 0, 0)
	began := time.Now()
	err = await(ctx, s, "all are back", func(now swarm.Stats) bool { return now.Returned >= want && now.Live == o.clients }, &snap)
	if err != nil {
		return st, err
	}
	after, err := m.look()
	if err != nil {
		return st, err
	}
	idle := float64(after.at.Sub(before.at)) / float64(before.at.Sub(quiet.at))
	less := func(after, before, quiet int64) int64 {
		return after - before - int64(float64(before-quiet)*idle)
	}
	st.commands = map[string]int64{}
	for name, n := range after.commands {
		if d := less(int64(n), int64(before.commands[name]), int64(quiet.commands[name])); d > 0 {
			st.commands[name] = d
		}
	}
	st.reads = less(after.reads, before.reads, quiet.reads)
	st.gateway = time.Duration(less(int64(after.gateway), int64(before.gateway), int64(quiet.gateway)))
	st.redis = time.Duration(less(int64(after.redis), int64(before.redis), int64(quiet.redis)))
	st.own = after.own - before.own
	d := snap.Back.Dist()
	st.back, st.p50, st.p99 = time.Since(began), d.P50, d.P99
	if d.Max > 0 { // the clients' own clock: without our looking now and then
		st.back = time.Duration(d.Max * float64(time.Millisecond))
	}
	return st, nil
}

// await waits until something is so. Of what the looks emptied, the meter of those
// who came back is gathered in last.
func await(ctx context.Context, s *swarm.Swarm, what string, holds func(swarm.Stats) bool, last ...*swarm.Snapshot) error {
	deadline := time.Now().Add(3 * time.Minute)
	back := meter.New()
	for {
		snap, ok := s.Snapshot(30 * time.Second)
		if !ok {
			return errors.New("the clients' loop does not answer")
		}
		if err := back.Merge(snap.Back.Encode()); err != nil {
			return err
		}
		if holds(snap.Stats) {
			for _, l := range last {
				*l = snap
				l.Back = back
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain until %s: %+v", what, snap.Stats)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func median(all []storm, of func(storm) float64) float64 {
	values := make([]float64, len(all))
	for i, s := range all {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func sum(commands map[string]int64) (n int64) {
	for _, v := range commands {
		n += v
	}
	return n
}

func cores() string { return fmt.Sprintf("%d cores, %s", runtime.NumCPU(), runtime.Version()) }
