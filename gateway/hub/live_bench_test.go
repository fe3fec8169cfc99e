package hub_test

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// sockets are loops without sockets: they count what they are told.
type sockets struct {
	hellos, presence atomic.Int64
}

func (s *sockets) Count() int { return 1 }

func (s *sockets) Post(_ int, batch []edge.Cmd) {
	for _, c := range batch {
		if c.Kind != edge.CmdUnicast {
			continue
		}
		switch json := c.Frame.JSON(); {
		case bytes.HasPrefix(json, []byte(`{"type":"hello"`)):
			s.hellos.Add(1)
		case bytes.HasPrefix(json, []byte(`{"type":"presence"`)):
			s.presence.Add(1)
		}
	}
}

// start runs a hub on a Redis of its own connections.
func start(b *testing.B, url string, cfg live.Config) (*hub.Hub, *sockets) {
	b.Helper()
	s, err := redisstore.Open(redisstore.Options{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	h, err := hub.New(hub.Options{Feed: s, Seats: s, Markers: s, Live: cfg})
	if err != nil {
		b.Fatal(err)
	}
	l := &sockets{}
	h.Start(l)
	b.Cleanup(h.Stop)
	return h, l
}

func user(i int) string { return "user" + strconv.Itoa(i) }

// open connects users from..to, in batches as a busy accept does.
func open(h *hub.Hub, from, to int) {
	for from < to {
		n := min(from+1000, to)
		batch := make([]edge.Event, 0, 1000)
		for i := from; i < n; i++ {
			batch = append(batch, edge.Event{Kind: edge.EvOpened, Conn: edge.MakeConnID(0, uint32(i), 1), User: user(i)})
		}
		h.Post(batch)
		from = n
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func redisMemory(r *testkit.RedisServer) float64 {
	n, _ := strconv.ParseFloat(r.Info("memory")["used_memory"], 64)
	return n
}

// BenchmarkPresenceIdle prints what 100,000 users who are online and idle cost
// Redis per second, at the defaults. Everything the gateway does then is counted:
// refreshing, leases, canaries. Scripts count with the commands they run. The
// budget is 1,000.
func BenchmarkPresenceIdle(b *testing.B) {
	const users, window = 100_000, 12 * time.Second
	r := testkit.Redis(b)
	for range b.N {
		h, _ := start(b, r.URL(), live.Config{})
		time.Sleep(time.Second) // its connections and scripts
		memory0, began := redisMemory(r), time.Now()
		open(h, 0, users)
		testkit.Soon(b, 2*time.Minute, "everybody is seated", func() bool { return h.Stats().Live.Taken >= users })
		b.Logf("%d users seated in %v, %v of CPU", users, time.Since(began).Round(time.Millisecond), cpu().Round(time.Millisecond))
		time.Sleep(3 * time.Second) // what they set off
		before := r.Calls()
		cpu0, redis0, at := cpu(), r.CPU(), time.Now()
		time.Sleep(window)
		took := time.Since(at).Seconds()
		after := r.Calls()
		cpu1, redis1 := cpu(), r.CPU()
		total := 0
		for _, name := range slices.Sorted(maps.Keys(after)) {
			if n := after[name] - before[name]; n > 0 {
				total += n
				b.Logf("%-12s %6.1f/s", name, float64(n)/took)
			}
		}
		b.ReportMetric((redisMemory(r)-memory0)/users, "redis-B/user")
		b.ReportMetric(float64(total)/took, "redis-commands/s")
		b.ReportMetric(float64((cpu1-cpu0).Microseconds())/took/1000, "gateway-CPU-ms/s")
		b.ReportMetric(float64((redis1-redis0).Microseconds())/took/1000, "redis-CPU-ms/s")
	}
}

// BenchmarkPresenceLeave prints the CPU of announcing 10,000 users who leave at
// once to a gateway on which all of them are watched.
func BenchmarkPresenceLeave(b *testing.B) {
	const users, perWatcher = 10_000, 500
	r := testkit.Redis(b)
	for range b.N {
		h, _ := start(b, r.URL(), live.Config{GraceMs: 1})
		watching, l := start(b, r.URL(), live.Config{})
		open(h, 0, users)
		open(watching, users, users+users/perWatcher)
		testkit.Soon(b, 2*time.Minute, "everybody is seated", func() bool { return h.Stats().Live.Taken >= users })
		var sets []edge.Event
		for w := range users / perWatcher {
			names := make([]string, perWatcher)
			for i := range names {
				names[i] = user(w*perWatcher + i)
			}
			sets = append(sets, edge.Event{Kind: edge.EvWatch, Conn: edge.MakeConnID(0, uint32(users+w), 1), Users: names})
		}
		watching.Post(sets)
		testkit.Soon(b, 2*time.Minute, "everybody's state was told", func() bool { return l.presence.Load() >= users })
		time.Sleep(time.Second)

		cpu0, redis0, at := cpu(), r.CPU(), time.Now()
		batch := make([]edge.Event, users)
		for i := range batch {
			batch[i] = edge.Event{Kind: edge.EvClosed, Conn: edge.MakeConnID(0, uint32(i), 1)}
		}
		h.Post(batch)
		testkit.Soon(b, 2*time.Minute, "all are announced", func() bool { return l.presence.Load() >= 2*users })
		took := time.Since(at)
		time.Sleep(100 * time.Millisecond) // answers that are still on their way
		b.ReportMetric(float64((cpu()-cpu0).Microseconds())/users, "gateways-CPU-µs/user")
		b.ReportMetric(float64((r.CPU()-redis0).Microseconds())/users, "redis-CPU-µs/user")
		b.ReportMetric(float64(took.Milliseconds()), "ms-for-10,000")
	}
}
