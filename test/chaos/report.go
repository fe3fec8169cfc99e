package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/madang-chat/madang/loadtest/ledger"
)

// result is what one arrangement's run showed.
type result struct {
	opt      options
	began    time.Time
	took     time.Duration
	calm     window
	outcomes []outcome

	verdict  ledger.Judgement
	counts   ledger.Counts
	sent     int // sends begun
	acked    int
	stored   int // messages in the logs at the end
	unacked  int // of these, never acknowledged
	moved    int // acknowledged under another ID than they have
	vanished int // acknowledged and not in the log
	connects int

	flushTold time.Duration
	flushGaps uint64

	violations []string
}

// faultCount is how many faults there were.
func (r *result) faultCount() (n int) {
	for _, o := range r.outcomes {
		n += len(o.step.faults)
	}
	return n
}

// print writes the account of one run.
func (r *result) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s, seed %d, %v, --min-replicas-ack %d: %d faults\n", r.opt.redis, r.opt.seed, r.took.Round(time.Second), r.opt.ack, r.faultCount())
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  fault\ttimes\tlongest silence\tlatest message\tslowest answer\tattempts that failed\tgaps")
	row := func(name string, times int, w window, gaps uint64) {
		fmt.Fprintf(t, "  %s\t%d\t%v\t%v\t%v\t%s\t%d\n", name, times, round(w.silence), round(w.late), round(w.slowest), list(w.failed), gaps)
	}
	row("(none)", 1, r.calm, 0)
	rows := map[string]*faultRow{}
	for _, o := range r.outcomes {
		name := o.step.faults[0].name
		if len(o.step.faults) > 1 {
			name = "several at once"
		}
		if rows[name] == nil {
			rows[name] = &faultRow{name: name, window: window{failed: map[string]int{}}}
		}
		rows[name].add(o)
	}
	for _, fr := range slices.SortedFunc(maps.Values(rows), func(a, b *faultRow) int { return cmp.Compare(a.name, b.name) }) {
		row(fr.name, fr.times, fr.window, fr.gaps)
	}
	_ = t.Flush()
	v, c := r.verdict, r.counts
	fmt.Fprintf(out, "  sends: %d begun, %d acknowledged, %d in the logs (%d of them never acknowledged), %d acknowledged and gone, %d moved\n",
		r.sent, r.acked, r.stored, r.unacked, r.vanished, r.moved)
	fmt.Fprintf(out, "  deliveries: %d owed, %d kept (%d of them paged after a gap), %d lost, %d reordered, %d duplicates on the wire, 0 after the filter (%d messages came under two IDs)\n",
		v.Owed, v.Kept, c.Filled, v.Lost+v.Noticed, c.Reordered, c.Duplicates, v.Doubled)
	fmt.Fprintf(out, "  connections: %d; gaps told: %d\n", r.connects, c.Gaps)
	if r.flushTold > 0 {
		fmt.Fprintf(out, "  FLUSHALL: all %d rooms of all receivers were told within %v, no socket was closed\n", r.flushGaps, round(r.flushTold))
	}
	for _, line := range r.violations {
		fmt.Fprintf(out, "  VIOLATION: %s\n", line)
	}
}

// faultRow sums up the outcomes of one kind.
type faultRow struct {
	name   string
	times  int
	window window
	gaps   uint64
}

func (f *faultRow) add(o outcome) {
	f.times++
	f.window.silence = max(f.window.silence, o.window.silence)
	f.window.late = max(f.window.late, o.window.late)
	f.window.slowest = max(f.window.slowest, o.window.slowest)
	for what, n := range o.window.failed {
		f.window.failed[what] += n
	}
	f.gaps += o.gaps
}

// list writes counts by name.
func list(counts map[string]int) (text string) {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%d × %s", counts[name], name)
	}
	return cmp.Or(text, "none")
}
