// Command benchtable measures what the gateway's budgets are about and prints it
// as one table, each figure beside its budget, a peer's, and the command that
// prints it alone. It is what `make bench` runs.
//
//	go run ./test/benchtable            all of it, some five minutes
//	go run ./test/benchtable -only TLS  the rows whose text has TLS
//
// It wants a quiet machine. Where others use it, processor time per unit still
// says something, and times do not.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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
}

// source is a command that prints figures. Rows that share one share its run.
type source struct {
	bench string // of package, run by go test
	iters string
	fleet string // arguments of madang loadtest fleet
}

func (s source) command() string {
	if s.fleet != "" {
		return "madang loadtest fleet --gateways 1 --apis 1 " + s.fleet
	}
	return fmt.Sprintf("go test ./gateway/loop -run '^$' -bench '%s' -benchtime %s", s.bench, s.iters)
}

func bench(name, iters string) source { return source{bench: name, iters: iters} }

var (
	hold    = source{fleet: "--scenario hold --clients 18000 --rooms 1800 --members 10 --rate 0.1 --duration 10s"}
	tens    = source{fleet: "--scenario hold --clients 18000 --rooms 1800 --members 100 --rate 0.1 --duration 10s"}
	flat    = source{fleet: "--scenario fanout --rooms 1 --members 1000 --rate 0 --duration 60s"}
	flatten = source{fleet: "--scenario fanout --rooms 1000 --members 10 --rate 0 --duration 20s"}
	lonely  = source{fleet: "--scenario fanout --rooms 1000 --members 1 --rate 0 --duration 20s"}
	wide    = source{fleet: "--scenario fanout --rooms 1 --members 5000 --rate 20 --duration 20s"}
	narrow  = source{fleet: "--scenario fanout --rooms 1000 --members 10 --rate 1000 --duration 20s"}
	storm   = source{fleet: "--scenario storm --clients 15000 --rooms 1500 --members 10 --rate 1 --duration 5s"}
	stalled = source{fleet: "--scenario slow --clients 10000 --rooms 100 --members 100 --share 0.01 --rate 100 --size 2000 --for 15s --duration 15s"}
	idle    = bench("^BenchmarkIdle$/^plain$", "1x")
	packed  = bench("^BenchmarkIdle$/^compressed$", "1x")
	tls13   = bench("^BenchmarkIdleTLS$/1.3", "1x")
	tls12   = bench("^BenchmarkIdleTLS$/1.2", "1x")
	upgrade = bench("^BenchmarkUpgrade$", "1x")
	lone    = bench("^BenchmarkDelivery$/^5000-members$", "200x")
	batch   = bench("^BenchmarkDelivery$/^1000-members-100-waiting$", "50x")
	long    = bench("^BenchmarkLongDelivery$/^5000-members-compressed$", "200x")
)

var rows = []row{
	{"memory per idle connection, in a room, presence on: whole gateway", hold, "ramp memory.gateway_per_connection", 1, "B", "1,000", "Centrifugo 48,000, nbio 1,450 (no Redis, no JWT)"},
	{"… in ten rooms: whole gateway", tens, "ramp memory.gateway_per_connection", 1, "B", "1,536", ""},
	{"memory per idle connection, in a room: the loops alone", idle, "rss-B/conn", 1, "B", "", ""},
	{"… live heap of it", idle, "live-B/conn", 1, "B", "", ""},
	{"… compression negotiated", packed, "rss-B/conn", 1, "B", "", ""},
	{"… TLS 1.3", tls13, "rss-B/conn", 1, "B", "14,000", "goroutine per connection 31,500"},
	{"… TLS 1.3 after a garbage collection", tls13, "rss-after-GC-B/conn", 1, "B", "", ""},
	{"… TLS 1.2", tls12, "rss-B/conn", 1, "B", "", ""},
	{"CPU per idle connection and minute, heartbeats of 25 s", idle, "cpu-us/conn/min", 1, "µs", "", ""},
	{"CPU per upgrade: the loops alone", upgrade, "cpu-us/upgrade", 1, "µs", "", "nbio 51"},
	{"… upgrades per core-second", upgrade, "cpu-us/upgrade", -1e6, "/s", "", ""},
	{"… with TLS 1.3, ECDSA P-256", tls13, "cpu-us/upgrade", 1, "µs", "", ""},
	{"CPU per connection opened, in a room: whole gateway", hold, "ramp cpu_us.gateway_per_connection", 1, "µs", "60", "Centrifugo 160"},
	{"CPU per connection that came back, 15,000 dropped at once", storm, "storm 1 cpu_us.gateway_per_connection", 1, "µs", "60", "Centrifugo 183"},
	{"… all back within", storm, "storm 1 back_ms.max", 1, "ms", "1,000", "Centrifugo 1,800"},
	{"CPU per delivery, 1 room × 5,000, 20 messages/s", wide, "fanout cpu_us.gateway_per_delivery", 1, "µs", "7.6", "Centrifugo 13.2, nbio 8.8"},
	{"… p99 due → arrived", wide, "fanout latency_ms.p99", 1, "ms", "80", "Centrifugo 170"},
	{"CPU per delivery, 1,000 rooms × 10, 1,000 messages/s, sends and Redis included", narrow, "fanout cpu_us.server_per_delivery", 1, "µs", "25", "Centrifugo 48, nbio 24.5"},
	{"… the gateway's part", narrow, "fanout cpu_us.gateway_per_delivery", 1, "µs", "", ""},
	{"… p99 due → arrived", narrow, "fanout latency_ms.p99", 1, "ms", "2", "Centrifugo 2.1"},
	{"CPU per delivery, 1 room × 1,000, as fast as it goes, for a minute", flat, "fanout cpu_us.gateway_per_delivery", 1, "µs", "0.9", "Centrifugo 1.84"},
	{"… deliveries per second", flat, "fanout delivered_per_second", 1, "/s", "≥ 1,000,000", "Centrifugo 723,000"},
	{"… p99 in the log → arrived", flat, "fanout log_to_arrival_ms.p99", 1, "ms", "500", "Centrifugo 2,000–3,000"},
	{"CPU per delivery, 1,000 rooms × 10, as fast as it goes, sends and Redis included", flatten, "fanout cpu_us.server_per_delivery", 1, "µs", "11", "Centrifugo 21.8, nbio 11.4"},
	{"… deliveries per second", flatten, "fanout delivered_per_second", 1, "/s", "≥ 100,000", "Centrifugo 56,500"},
	{"p99 due → arrived, 100 rooms × 100, 100 messages of 2 KB a second", stalled, "all read latency_ms.p99", 1, "ms", "", ""},
	{"… at the others, while 100 of the 10,000 do not read", stalled, "some do not read latency_ms.p99", 1, "ms", "1.2 × the one before", ""},
	{"API CPU per send over HTTP with a JWT, as fast as it goes, one reader a room", lonely, "fanout cpu_us.api_per_send", 1, "µs", "35", "Centrifugo 42, without a JWT"},
	{"… Redis CPU per send", lonely, "fanout cpu_us.redis_per_send", 1, "µs", "14", "Centrifugo 22–28"},
	{"… sends per second", lonely, "fanout acknowledged_per_second", 1, "/s", "", "Centrifugo 20,400"},
	{"CPU per delivery in the loops, 5,000 members, one message at a time", lone, "cpu-ns/delivery", 1e-3, "µs", "", ""},
	{"… system calls", lone, "writes/delivery", 1, "", "1", ""},
	{"… allocations", lone, "allocs/delivery", 1, "", "0", ""},
	{"CPU per delivery in the loops, 1,000 members, 100 messages waiting", batch, "cpu-ns/delivery", 1e-3, "µs", "0.9", "Centrifugo 1.84"},
	{"… system calls", batch, "writes/delivery", 1, "", "", ""},
	{"CPU per delivery in the loops, 5,000 members, 1 KB, compressed", long, "cpu-ns/delivery", 1e-3, "µs", "", ""},
	{"… compressions per message", long, "compressions/message", 1, "", "", ""},
}

func main() {
	only := flag.String("only", "", "print rows whose text or command contains this")
	flag.Parse()
	if err := run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "benchtable:", err)
		os.Exit(1)
	}
}

func run(only string) error {
	dir, err := os.MkdirTemp("", "benchtable")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "madang")
	if out, err := exec.Command("go", "build", "-tags", "nomsgpack", "-o", binary, "./cmd/madang").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	results := map[source]figures{}
	fmt.Println("| what | measured | budget | peers | command |\n|---|---|---|---|---|")
	var failed []string
	for _, r := range rows {
		if !strings.Contains(r.what+r.from.command(), only) {
			continue
		}
		f, done := results[r.from]
		if !done {
			fmt.Fprintln(os.Stderr, "…", r.from.command())
			if f, err = r.from.run(binary, dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				failed = append(failed, r.from.command())
			}
			results[r.from] = f
		}
		fmt.Printf("| %s | %s | %s | %s | `%s` |\n", r.what, r.value(f), atMost(r.budget), cmp.Or(r.peer, "–"), r.from.command())
	}
	for from, f := range results {
		if f.busy {
			fmt.Printf("\nThe machine was busy with something else during `%s`: its times (≈) say nothing.\n", from.command())
		}
	}
	if failed != nil {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
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

// figures are what a run printed, by the name that rows know them by.
type figures struct {
	values map[string]float64
	busy   bool // others used the machine
}

func (s source) run(binary, dir string) (figures, error) {
	if s.fleet != "" {
		return s.runFleet(binary, dir)
	}
	cmd := exec.Command("go", "test", "-tags", "nomsgpack", "./gateway/loop", "-run", "^$", "-bench", s.bench, "-benchtime", s.iters)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return figures{}, fmt.Errorf("%w\n%s", err, out)
	}
	return figures{values: benchValues(out)}, nil
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark\S+\s+\d+\s+(.*)$`)

// benchValues reads what `go test -bench` prints: value and unit, in turns.
func benchValues(out []byte) map[string]float64 {
	values := map[string]float64{}
	for _, line := range benchLine.FindAllSubmatch(out, -1) {
		fields := strings.Fields(string(line[1]))
		for i := 0; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				values[fields[i+1]] = v
			}
		}
	}
	return values
}

func (s source) runFleet(binary, dir string) (figures, error) {
	file := filepath.Join(dir, "result.json")
	args := append(strings.Fields("loadtest fleet --gateways 1 --apis 1 "+s.fleet), "--json", file)
	// It ends with an error when an objective or the machine was missed; the
	// figures are there all the same, with notes.
	out, runErr := exec.Command(binary, args...).CombinedOutput()
	text, err := os.ReadFile(file)
	if err != nil {
		return figures{}, fmt.Errorf("%w\n%s", cmp.Or(runErr, err), out)
	}
	defer os.Remove(file)
	return resultValues(text)
}

// resultValues reads a result of the load tester: every number of every phase, as
// "phase field.field".
func resultValues(text []byte) (figures, error) {
	var result struct {
		Phases          []map[string]json.RawMessage
		Notes, Problems []string
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return figures{}, fmt.Errorf("result: %w", err)
	}
	f := figures{values: map[string]float64{}}
	for _, note := range append(result.Problems, result.Notes...) {
		f.busy = f.busy || strings.Contains(note, "do not quote its times")
	}
	for _, phase := range result.Phases {
		name := string(bytes.Trim(phase["name"], `"`))
		var counts struct{ Seconds, Delivered, Acknowledged float64 }
		if whole, err := json.Marshal(phase); err == nil && json.Unmarshal(whole, &counts) == nil && counts.Seconds > 0 {
			f.values[name+" delivered_per_second"] = counts.Delivered / counts.Seconds
			f.values[name+" acknowledged_per_second"] = counts.Acknowledged / counts.Seconds
		}
		for field, raw := range phase {
			var numbers map[string]float64
			if json.Unmarshal(raw, &numbers) == nil {
				for k, v := range numbers {
					f.values[name+" "+field+"."+k] = v
				}
			}
		}
	}
	return f, nil
}
