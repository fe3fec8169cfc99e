// Command benchtable measures what the gateway's budgets are about and prints it
// as one table, each figure beside its budget, a peer's, and the command that
// prints it alone. It is what `make bench` runs.
//
//	go run ./test/benchtable            all of it, some fourteen minutes
//	go run ./test/benchtable -only TLS  the rows whose text has TLS
//	go run ./test/benchtable -centrifugo PROGRAM   ours and Centrifugo's, one after the other
//
// It wants a quiet machine. Where others use it, processor time per unit still
// says something, and times do not. The budgets and the peers' figures are from
// another machine, "there": what is to be compared is how many times as much a figure
// is as what a bare program takes, here and there.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/madang-chat/madang/internal/testkit"
)

// row is one figure.
type row struct {
	what   string
	from   source
	read   string // of a benchmark: the metric; of a run: phase and field of its result
	factor float64
	unit   string
	budget string
	peer   string
	limit  *limit // nil: nothing that a bare program does is like it
}

// limit is what a bare program takes on the same machine, measured right before: a
// time says little without it, because machines differ by a factor of three.
type limit struct {
	from   source
	read   string
	factor float64
	there  float64 // what it was where the budgets were set
}

var (
	opening = &limit{bench("./gateway/loop", "^BenchmarkLimit$/^open$", "1x"), "cpu-us/open", 1, 11}
	// 5 to 6 µs to 1,000 sockets, 7 to 8 to 10,000.
	writing = &limit{bench("./gateway/loop", "^BenchmarkLimit$/^write-5000$", "50x"), "cpu-ns/write", 1e-3, 6.5}
	// 5 to 6 µs.
	appending = &limit{bench("./internal/redisstore", "^BenchmarkLimit$", "200000x"), "redis-cpu-ns/op", 1e-3, 5.5}
)

var (
	hold    = source{fleet: "--scenario hold --clients 18000 --rooms 1800 --members 10 --rate 0.1 --duration 10s"}
	tens    = source{fleet: "--scenario hold --clients 18000 --rooms 1800 --members 100 --rate 0.1 --duration 10s"}
	flat    = source{fleet: "--scenario fanout --rooms 1 --members 1000 --rate 0 --duration 60s"}
	flatten = source{fleet: "--scenario fanout --rooms 1000 --members 10 --rate 0 --duration 20s"}
	lonely  = source{fleet: "--scenario fanout --rooms 1000 --members 1 --rate 0 --duration 20s"}
	wide    = source{fleet: "--scenario fanout --rooms 1 --members 5000 --rate 20 --duration 20s"}
	narrow  = source{fleet: "--scenario fanout --rooms 1000 --members 10 --rate 1000 --duration 20s"}
	storm   = source{fleet: "--scenario storm --clients 15000 --rooms 1500 --members 10 --rate 1 --duration 5s"}
	stalled = source{fleet: "--scenario slow --clients 10000 --rooms 100 --members 100 --share 0.01 --rate 200 --size 7800 --for 45s --duration 15s --times 5"}
	// What the parts that are not ours take for the loads of narrow and flatten.
	bareNarrow  = bench("./test/bare", "^BenchmarkMessage$/^1000-a-second$", "1x")
	bareFlatten = bench("./test/bare", "^BenchmarkMessage$/^flat-out$", "1x")
	idle        = bench("./gateway/loop", "^BenchmarkIdle$/^plain$", "1x")
	beats       = bench("./gateway/loop", "^BenchmarkHeartbeat$/^plain$", "1x")
	packed      = bench("./gateway/loop", "^BenchmarkIdle$/^compressed$", "1x")
	tls13       = bench("./gateway/loop", "^BenchmarkIdleTLS$/1.3", "1x")
	tls12       = bench("./gateway/loop", "^BenchmarkIdleTLS$/1.2", "1x")
	upgrade     = bench("./gateway/loop", "^BenchmarkUpgrade$", "1x")
	lone        = bench("./gateway/loop", "^BenchmarkDelivery$/^5000-members$", "200x")
	batch       = bench("./gateway/loop", "^BenchmarkDelivery$/^1000-members-100-waiting$", "50x")
	long        = bench("./gateway/loop", "^BenchmarkLongDelivery$/^5000-members-compressed$", "200x")
)

var rows = []row{
	{"memory per idle connection, in a room, presence on: whole gateway", hold, "ramp memory.gateway_per_connection", 1, "B", "1,000", "Centrifugo 48,000, nbio 1,450 (no Redis, no JWT)", nil},
	{"… in ten rooms: whole gateway", tens, "ramp memory.gateway_per_connection", 1, "B", "1,536", "", nil},
	{"memory per idle connection, in a room: the loops alone", idle, "rss-B/conn", 1, "B", "", "", nil},
	{"… live heap of it", idle, "live-B/conn", 1, "B", "", "", nil},
	{"… compression negotiated", packed, "rss-B/conn", 1, "B", "", "", nil},
	{"… TLS 1.3", tls13, "rss-B/conn", 1, "B", "14,000", "goroutine per connection 31,500", nil},
	{"… TLS 1.3 after a garbage collection", tls13, "rss-after-GC-B/conn", 1, "B", "", "", nil},
	{"… TLS 1.2", tls12, "rss-B/conn", 1, "B", "", "", nil},
	{"CPU per idle connection and minute, heartbeats of 25 s", beats, "cpu-us/conn/min", 1, "µs", "", "", nil},
	{"CPU per upgrade: the loops alone", upgrade, "cpu-us/upgrade", 1, "µs", "", "nbio 51", opening},
	{"… upgrades per core-second", upgrade, "cpu-us/upgrade", -1e6, "/s", "", "", nil},
	{"… with TLS 1.3, ECDSA P-256", tls13, "cpu-us/upgrade", 1, "µs", "", "", nil},
	{"CPU per connection opened, in a room: whole gateway", hold, "ramp cpu_us.gateway_per_connection", 1, "µs", "60", "Centrifugo 160", opening},
	{"CPU per connection that came back, 15,000 dropped at once", storm, "storm 1 cpu_us.gateway_per_connection", 1, "µs", "60", "Centrifugo 183", opening},
	{"… all back within", storm, "storm 1 back_ms.max", 1, "ms", "1,000", "Centrifugo 1,800", nil},
	{"CPU per delivery, 1 room × 5,000, 20 messages/s", wide, "fanout cpu_us.gateway_per_delivery", 1, "µs", "7.6", "Centrifugo 13.2, nbio 8.8", writing},
	{"… p99 due → arrived", wide, "fanout latency_ms.p99", 1, "ms", "80", "Centrifugo 170", nil},
	{"CPU per delivery, 1,000 rooms × 10, 1,000 messages/s, sends and Redis included", narrow, "fanout cpu_us.server_per_delivery", 1, "µs", "25", "Centrifugo 48, nbio 24.5", writing},
	{"… of Gin, go-redis, Redis and ten writes, with nothing between them", bareNarrow, "cpu-us/delivery", 1, "µs", "", "", nil},
	{"… the gateway's part", narrow, "fanout cpu_us.gateway_per_delivery", 1, "µs", "", "", writing},
	{"… p99 due → arrived", narrow, "fanout latency_ms.p99", 1, "ms", "2", "Centrifugo 2.1", nil},
	{"CPU per delivery, 1 room × 1,000, as fast as it goes, for a minute", flat, "fanout cpu_us.gateway_per_delivery", 1, "µs", "0.9", "Centrifugo 1.84", writing},
	{"… deliveries per second", flat, "fanout delivered_per_second", 1, "/s", "≥ 1,000,000", "Centrifugo 723,000", nil},
	{"… p99 in the log → arrived", flat, "fanout log_to_arrival_ms.p99", 1, "ms", "500", "Centrifugo 2,000–3,000", nil},
	{"CPU per delivery, 1,000 rooms × 10, as fast as it goes, sends and Redis included", flatten, "fanout cpu_us.server_per_delivery", 1, "µs", "11", "Centrifugo 21.8, nbio 11.4", writing},
	{"… of Gin, go-redis, Redis and ten writes, with nothing between them", bareFlatten, "cpu-us/delivery", 1, "µs", "", "", nil},
	{"… deliveries per second", flatten, "fanout delivered_per_second", 1, "/s", "≥ 100,000", "Centrifugo 56,500", nil},
	{"p99 due → arrived, 100 rooms × 100, 200 messages of 8 KB a second", stalled, "all read 1 latency_ms.p99", 1, "ms", "", "", nil},
	{"… at the others, while 100 of the 10,000 do not read: × as much, median of five", stalled, othersWait, 1, "×", "1.2", "", nil},
	{"API CPU per send over HTTP with a JWT, as fast as it goes, one reader a room", lonely, "fanout cpu_us.api_per_send", 1, "µs", "35", "Centrifugo 42, without a JWT", nil},
	{"… Redis CPU per send", lonely, "fanout cpu_us.redis_per_send", 1, "µs", "14", "Centrifugo 22–28", appending},
	{"… sends per second", lonely, "fanout acknowledged_per_second", 1, "/s", "", "Centrifugo 20,400", nil},
	{"CPU per delivery in the loops, 5,000 members, one message at a time", lone, "cpu-ns/delivery", 1e-3, "µs", "", "", writing},
	{"… system calls", lone, "writes/delivery", 1, "", "1", "", nil},
	{"… allocations", lone, "allocs/delivery", 1, "", "0", "", nil},
	{"CPU per delivery in the loops, 1,000 members, 100 messages waiting", batch, "cpu-ns/delivery", 1e-3, "µs", "0.9", "Centrifugo 1.84", nil},
	{"… system calls", batch, "writes/delivery", 1, "", "", "", nil},
	{"CPU per delivery in the loops, 5,000 members, 1 KB, compressed", long, "cpu-ns/delivery", 1e-3, "µs", "", "", writing},
	{"… compressions per message", long, "compressions/message", 1, "", "", "", nil},
}

func main() {
	only := flag.String("only", "", "print rows whose text or command contains this")
	peer := flag.String("centrifugo", "", "a Centrifugo program (go install github.com/centrifugal/centrifugo/v6@latest): measure it, too, on the same machine")
	flag.Parse()
	if err := run(*only, *peer); err != nil {
		fmt.Fprintln(os.Stderr, "benchtable:", err)
		os.Exit(1)
	}
}

func run(only, peer string) error {
	dir, err := os.MkdirTemp("", "benchtable")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := testkit.Released(dir)
	if err != nil {
		return err
	}
	if peer != "" {
		return comparePeer(peer, binary, dir, only)
	}
	results := map[source]figures{}
	limits := map[source]map[*limit]float64{} // by the figures that they are measured before
	fmt.Println("| what | measured | × a bare program here | budget | × a bare program there | peers, there | command |\n|---|---|---|---|---|---|---|")
	var failed []string
	for _, r := range rows {
		if !strings.Contains(r.what+r.from.command(), only) {
			continue
		}
		f, done := results[r.from]
		if !done {
			limits[r.from] = map[*limit]float64{}
			for _, l := range limitsOf(r.from) {
				if limits[r.from][l], err = l.measure(binary, dir); err != nil {
					fmt.Fprintln(os.Stderr, err)
					failed = append(failed, l.from.command())
				}
			}
			fmt.Fprintln(os.Stderr, "…", r.from.command())
			if f, err = r.from.run(binary, dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				failed = append(failed, r.from.command())
			}
			results[r.from] = f
		}
		here, there := r.timesLimit(f, limits[r.from][r.limit])
		fmt.Printf("| %s | %s | %s | %s | %s | %s | `%s` |\n", r.what, r.value(f), here, atMost(r.budget), there, cmp.Or(r.peer, "–"), r.from.command())
	}
	for from, f := range results {
		if f.busy {
			fmt.Printf("\nThe machine was busy with something else, or slowed down by its host, during `%s`: its times (≈) say nothing.\n", from.command())
		}
	}
	if failed != nil {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
}

// limitsOf are the limits that a source's figures are compared with.
func limitsOf(from source) (of []*limit) {
	for _, r := range rows {
		if r.from == from && r.limit != nil && !slices.Contains(of, r.limit) {
			of = append(of, r.limit)
		}
	}
	return of
}

func (l *limit) measure(binary, dir string) (float64, error) {
	fmt.Fprintln(os.Stderr, "…", l.from.command())
	f, err := l.from.run(binary, dir)
	if err != nil {
		return 0, err
	}
	return f.values[l.read] * l.factor, nil
}

// timesLimit is a figure as so many times the limit here, and its budget as so many
// times what the limit was where it was set.
func (r row) timesLimit(f figures, limit float64) (here, there string) {
	here, there = "–", "–"
	if r.limit == nil || limit == 0 {
		return here, there
	}
	here = fmt.Sprintf("%.2f × %.3g µs", f.values[r.read]*r.factor/limit, limit)
	if budget, err := strconv.ParseFloat(r.budget, 64); err == nil {
		there = fmt.Sprintf("≤ %.2f × %.3g µs", budget/r.limit.there, r.limit.there)
	}
	return here, there
}

func atMost(budget string) string {
	if budget == "" {
		return "–"
	}
	if strings.HasPrefix(budget, "≥") {
		return budget
	}
	return "≤ " + budget
}

// value formats a row's figure. A negative factor is a rate: so much by it.
func (r row) value(f figures) string {
	v, ok := f.values[r.read]
	switch {
	case !ok:
		return "?"
	case r.factor < 0 && v != 0:
		v = -r.factor / v
	default:
		v *= r.factor
	}
	digits := 0
	switch {
	case v < 0.01:
		digits = 4
	case v < 10:
		digits = 2
	case v < 100:
		digits = 1
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	about := ""
	if f.busy && (r.unit == "ms" || r.unit == "/s") {
		about = "≈ "
	}
	if digits == 0 { // thousands apart
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
	}
	return about + strings.TrimSpace(s+" "+r.unit)
}
