package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
)

// WriteDiff compares two runs phase by phase: what differs by more than a tenth
// is marked, since that much is noise on a quiet machine.
func WriteDiff(w io.Writer, a, b *Result) {
	p := printer{w}
	p.line("A: %s on %s, %s, %s\nB: %s on %s, %s, %s", a.Scenario, a.Target, a.Began.Format("2006-01-02 15:04:05"), verdictWord(a),
		b.Scenario, b.Target, b.Began.Format("2006-01-02 15:04:05"), verdictWord(b))
	if a.Environment != b.Environment {
		p.line("the environments differ: compare CPU per unit, not rates or times")
	}
	keys := map[string]bool{}
	for k := range a.Settings {
		keys[k] = true
	}
	for k := range b.Settings {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if k != "prefix" && a.Settings[k] != b.Settings[k] {
			p.line("%s: A %q, B %q", k, a.Settings[k], b.Settings[k])
		}
	}
	paired(p, a.Phases, b.Phases, func(ph Phase) string { return ph.Name }, diffPhase)
	paired(p, a.Compared, b.Compared, func(c Compared) string { return c.Transport + ", compared" }, diffCompared)
	p.line("\nlost: A %d of %d, B %d of %d", a.Deliveries.Lost, a.Deliveries.Owed, b.Deliveries.Lost, b.Deliveries.Owed)
}

// paired compares what has the same name in A and in B, and says what only one has.
func paired[T any](p printer, as, bs []T, name func(T) string, diff func(w io.Writer, a, b T)) {
	in := func(list []T, one T) int {
		return slices.IndexFunc(list, func(v T) bool { return name(v) == name(one) })
	}
	for _, a := range as {
		i := in(bs, a)
		if i < 0 {
			p.line("\n%s: only in A", name(a))
			continue
		}
		p.line("\n%s", name(a))
		diff(p.w, a, bs[i])
	}
	for _, b := range bs {
		if in(as, b) < 0 {
			p.line("\n%s: only in B", name(b))
		}
	}
}

func verdictWord(r *Result) string {
	switch {
	case !r.Passed():
		return "FAILED"
	case len(r.Tester.Saturated) > 0:
		return "passed, but the client was the bottleneck"
	}
	return "passed"
}

func diffPhase(w io.Writer, a, b Phase) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "\tA\tB\tchange\t\n")
	for _, f := range []struct {
		name string
		of   func(Phase) float64
	}{
		{"connections/s", func(p Phase) float64 { return float64(p.Opened+p.Returned) / max(p.Seconds, 1e-3) }},
		{"sends/s", func(p Phase) float64 { return float64(p.Acked) / max(p.Seconds, 1e-3) }},
		{"deliveries/s", func(p Phase) float64 { return float64(p.Arrivals) / max(p.Seconds, 1e-3) }},
		{"latency p50 ms", func(p Phase) float64 { return p.Latency.P50 }},
		{"latency p99 ms", func(p Phase) float64 { return p.Latency.P99 }},
		{"latency max ms", func(p Phase) float64 { return p.Latency.Max }},
		{"ack p99 ms", func(p Phase) float64 { return p.AckTime.P99 }},
		{"open p99 ms", func(p Phase) float64 { return p.OpenTime.P99 }},
		{"back p99 ms", func(p Phase) float64 { return p.BackTime.P99 }},
		{"server CPU µs/delivery", func(p Phase) float64 { return p.PerUnit.ServerPerDelivery }},
		{"gateway CPU µs/delivery", func(p Phase) float64 { return p.PerUnit.GatewayPerDelivery }},
		{"API CPU µs/send", func(p Phase) float64 { return p.PerUnit.APIPerSend }},
		{"Redis CPU µs/send", func(p Phase) float64 { return p.PerUnit.RedisPerSend }},
		{"server CPU µs/connection", func(p Phase) float64 { return p.PerUnit.ServerPerConn }},
		{"gateway bytes/connection", func(p Phase) float64 { return p.Memory.GatewayPerConn }},
		{"bytes read/delivery", func(p Phase) float64 { return p.MBRead * 1e6 / float64(max(1, p.Arrivals)) }},
		{"bytes written/delivery", func(p Phase) float64 { return p.MBWritten * 1e6 / float64(max(1, p.Arrivals)) }},
		{"requests of receivers/s", func(p Phase) float64 { return float64(p.Requests) / max(p.Seconds, 1e-3) }},
	} {
		va, vb := f.of(a), f.of(b)
		diffRow(tw, f.name, va, vb, number0(va), number0(vb))
	}
	tw.Flush()
}

// diffRow is a line of a difference; none where both are nothing.
func diffRow(w io.Writer, name string, a, b float64, textA, textB string) {
	if a == 0 && b == 0 {
		return
	}
	change, mark := "", ""
	if a > 0 && b >= 0 { // less than nothing: not known
		ratio := b/a - 1
		change = fmt.Sprintf("%+.0f %%", 100*ratio)
		if math.Abs(ratio) > 0.1 {
			mark = "◀"
		}
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, textA, textB, change, mark)
}
