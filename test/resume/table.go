package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// printTable says what all storms took, a line each, and their median.
func printTable(out io.Writer, o options, rooms int, all []storm) {
	n := float64(o.clients)
	fmt.Fprintf(out, "%d clients on one gateway, each in %d rooms of %d (%d rooms); all dropped %d times, %d connections opened at once; %s\n\n",
		o.clients, o.each, o.members, rooms, o.times, o.inFlight, cores())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "storm\tall live after\tp50\tp99\tRedis commands\tper client\tround trips\tper client\tgateway CPU\tper client\tRedis CPU\tper client\tclients' CPU\t")
	row := func(name string, of func(f func(storm) float64) float64) {
		per := func(f func(storm) float64) float64 { return of(f) / n }
		commands := func(s storm) float64 { return float64(sum(s.commands)) }
		reads := func(s storm) float64 { return float64(s.reads) }
		gateway := func(s storm) float64 { return s.gateway.Seconds() }
		redis := func(s storm) float64 { return s.redis.Seconds() }
		fmt.Fprintf(w, "%s\t%.3f s\t%.0f ms\t%.0f ms\t%.0f\t%.2f\t%.0f\t%.3f\t%.0f ms\t%.1f µs\t%.0f ms\t%.1f µs\t%.0f ms\t\n", name,
			of(func(s storm) float64 { return s.back.Seconds() }), of(func(s storm) float64 { return s.p50 }), of(func(s storm) float64 { return s.p99 }),
			of(commands), per(commands), of(reads), per(reads),
			of(gateway)*1e3, per(gateway)*1e6, of(redis)*1e3, per(redis)*1e6,
			of(func(s storm) float64 { return float64(s.own) / float64(time.Millisecond) }))
	}
	for i, s := range all {
		row(fmt.Sprint(i+1), func(f func(storm) float64) float64 { return f(s) })
	}
	row("median", func(f func(storm) float64) float64 { return median(all, f) })
	_ = w.Flush()

	// By command, of the storm with the most.
	most := slices.MaxFunc(all, func(a, b storm) int { return cmp.Compare(sum(a.commands), sum(b.commands)) }).commands
	names := slices.SortedFunc(maps.Keys(most), func(a, b string) int { return cmp.Compare(most[b], most[a]) })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %d", name, most[name]))
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	fmt.Fprintf(out, "\ncommands of the storm with the most, those in scripts included, less what Redis does in as long a quiet: %s\n", strings.Join(parts, ", "))
}
