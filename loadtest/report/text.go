package report

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/madang-chat/madang/loadtest/meter"
)

// WriteText writes the result for a terminal: the verdict last, where the eye is.
func (r *Result) WriteText(w io.Writer) {
	p := printer{w}
	p.line("\n%s on %s, %s, %.0f s", r.Scenario, r.Target, r.Began.Format("2006-01-02 15:04:05"), r.TookSeconds)
	e := r.Environment
	p.line("%s · %d × %s · %.0f GiB · %s · %d open files", e.Kernel, e.Cores, e.CPU, e.MemoryGiB, e.Go, e.OpenFiles)
	p.settings(r.Settings)
	p.connections(r.Connections)
	p.sends(r.Sends)
	p.deliveries(&r.Deliveries)
	for part := range parts(r.Phases) {
		p.phases(part)
	}
	p.capacity(r.Capacity)
	p.compared(r.Compared)
	p.servers(r.Servers)
	t := r.Tester
	p.line("\ntester: %d receiving and %d sending processes, %.1f s of CPU, %s", t.Receivers, t.Senders, t.CPUSeconds, bytesText(float64(t.RSS)))
	for _, a := range r.Agents {
		p.agent(a)
	}
	for _, n := range r.Notes {
		p.line("note: %s", n)
	}
	p.verdict(r)
}

type printer struct{ w io.Writer }

func (p printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

func (p printer) settings(s map[string]string) {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if s[k] != "" {
			parts = append(parts, k+" "+s[k])
		}
	}
	p.line("%s", strings.Join(parts, " · "))
}

func (p printer) connections(c Connections) {
	p.line("\nconnections: %d asked, %d opened, %d live at the end, %d given up, %d came back", c.Asked, c.Opened, c.LiveEnd, c.GivenUp, c.Returned)
	if c.Pings+c.Pongs+c.Chatter > 0 {
		p.line("  heartbeats: %d pings of the server answered, %d answers to our own; %d other things said", c.Pings, c.Pongs, c.Chatter)
	}
	p.reasons("  failed attempts", c.Failures)
	p.reasons("  dropped", c.Drops)
	p.reasons("  bye", c.Byes)
	p.reasons("  errors", c.Errors)
}

func (p printer) sends(s Sends) {
	if s.Issued == 0 && s.Unsent == 0 {
		return
	}
	p.line("sends: %d issued, %d acknowledged (%d of them found at a retry), %d never begun, %d requests", s.Issued, s.Acked, s.Replayed, s.Unsent, s.Attempts)
	p.reasons("  held back", s.Refused)
	p.reasons("  outcome unknown, tried again", s.Broken)
	p.reasons("  failed", s.Failed)
	if failed := s.NotUploaded.Total(); s.Uploads+failed > 0 {
		p.line("uploads: %d files stored, %d not", s.Uploads, failed)
		p.reasons("  not stored", s.NotUploaded)
	}
}

func (p printer) deliveries(d *Deliveries) {
	if !d.Judged {
		return
	}
	p.line("deliveries: %d owed, %d kept, %d lost, %d lost and told, %d reordered, %d skipped; %d duplicates on the wire, %d doubled sends, %d of unacknowledged sends; %d gaps, %d paged",
		d.Owed, d.Kept, d.Lost, d.Noticed, d.Reordered, d.Skipped, d.Duplicates, d.Doubled, d.Unacked, d.Gaps, d.Paged)
	p.line("  longest silence between two messages of a room at a client: %.0f ms", d.SilenceMs)
	for i, v := range d.Violations {
		if i == 5 {
			p.line("  … %d more in the JSON", len(d.Violations)-i)
			break
		}
		p.line("  %s", v)
	}
}

func (p printer) reasons(title string, m meter.Reasons) {
	if len(m) == 0 {
		return
	}
	keys := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		if m[a] != m[b] {
			return int(m[b]) - int(m[a])
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%s ×%d", k, m[k]))
	}
	p.line("%s: %s", title, strings.Join(parts, ", "))
}

// parts are the phases by what stands before the colon of their names, where that
// is anything: those of four transports are too many for one table. What came
// before the first part goes with it.
func parts(phases []Phase) iter.Seq[[]Phase] {
	return func(yield func([]Phase) bool) {
		begin, now := 0, ""
		for i, ph := range phases {
			part, _, of := strings.Cut(ph.Name, ": ")
			if !of || part == now {
				continue
			}
			if now != "" {
				if !yield(phases[begin:i]) {
					return
				}
				begin = i
			}
			now = part
		}
		yield(phases[begin:])
	}
}

func (p printer) phases(phases []Phase) {
	p.line("")
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(title string, cell func(Phase) string) {
		cells := make([]string, 0, len(phases))
		any := false
		for _, ph := range phases {
			c := cell(ph)
			any = any || c != ""
			cells = append(cells, c)
		}
		if any {
			fmt.Fprintf(tw, "%s\t%s\t\n", title, strings.Join(cells, "\t"))
		}
	}
	row("phase", func(ph Phase) string { return ph.Name })
	row("seconds", func(ph Phase) string { return fmt.Sprintf("%.2f", ph.Seconds) })
	row("connections opened", func(ph Phase) string { return count(ph.Opened) })
	row("… per second", func(ph Phase) string { return rate(ph.Opened, ph.Seconds) })
	row("connections back", func(ph Phase) string { return count(ph.Returned) })
	row("sends", func(ph Phase) string { return count(ph.Acked) })
	row("… per second", func(ph Phase) string { return rate(ph.Acked, ph.Seconds) })
	row("… due and not begun at its end", func(ph Phase) string { return count(ph.Behind) })
	row("deliveries", func(ph Phase) string { return count(ph.Arrivals) })
	row("… per second", func(ph Phase) string { return rate(ph.Arrivals, ph.Seconds) })
	row("… per frame · per read", func(ph Phase) string {
		if ph.Arrivals == 0 {
			return ""
		}
		return fmt.Sprintf("%.1f · %.1f", float64(ph.Arrivals)/float64(max(1, ph.Frames)), float64(ph.Arrivals)/float64(max(1, ph.Reads)))
	})
	row("clients read, bytes per delivery", func(ph Phase) string { return each(ph.MBRead*1e6, ph.Arrivals) })
	row("… wrote", func(ph Phase) string { return each(ph.MBWritten*1e6, ph.Arrivals) })
	row("their requests", func(ph Phase) string { return count(ph.Requests) })
	for _, d := range []struct {
		title string
		of    func(Phase) meter.Dist
	}{
		{"due → arrived", func(ph Phase) meter.Dist { return ph.Latency }},
		{"in the log → arrived", func(ph Phase) meter.Dist { return ph.SinceLog }},
		{"due → acknowledged", func(ph Phase) meter.Dist { return ph.AckTime }},
		{"request → answer", func(ph Phase) meter.Dist { return ph.Service }},
		{"due → file stored", func(ph Phase) meter.Dist { return ph.UploadTime }},
		{"connect → live", func(ph Phase) meter.Dist { return ph.OpenTime }},
		{"lost → live again", func(ph Phase) meter.Dist { return ph.BackTime }},
		{"tester late with sends", func(ph Phase) meter.Dist { return ph.Lag }},
	} {
		row(d.title+", ms: p50", func(ph Phase) string { return ms(d.of(ph).Count, d.of(ph).P50) })
		row("p90", func(ph Phase) string { return ms(d.of(ph).Count, d.of(ph).P90) })
		row("p99", func(ph Phase) string { return ms(d.of(ph).Count, d.of(ph).P99) })
		row("p99.9", func(ph Phase) string { return ms(d.of(ph).Count, d.of(ph).P999) })
		row("max", func(ph Phase) string { return ms(d.of(ph).Count, d.of(ph).Max) })
	}
	for _, u := range []struct {
		title string
		of    func(PerUnit) float64
	}{
		{"CPU µs per delivery: all servers", func(u PerUnit) float64 { return u.ServerPerDelivery }},
		{"gateways", func(u PerUnit) float64 { return u.GatewayPerDelivery }},
		{"tester", func(u PerUnit) float64 { return u.TesterPerDelivery }},
		{"CPU µs per send: API", func(u PerUnit) float64 { return u.APIPerSend }},
		{"Redis", func(u PerUnit) float64 { return u.RedisPerSend }},
		{"CPU µs per connection: all servers", func(u PerUnit) float64 { return u.ServerPerConn }},
		{"gateways", func(u PerUnit) float64 { return u.GatewayPerConn }},
		{"tester", func(u PerUnit) float64 { return u.TesterPerConn }},
	} {
		row(u.title, func(ph Phase) string { return number(u.of(ph.PerUnit)) })
	}
	for _, m := range []struct {
		title string
		of    func(Memory) float64
	}{
		{"bytes per connection: gateways", func(m Memory) float64 { return m.GatewayPerConn }},
		{"tester", func(m Memory) float64 { return m.TesterPerConn }},
		{"kernel, both ends", func(m Memory) float64 { return m.KernelPerPair }},
	} {
		row(m.title, func(ph Phase) string { return number(m.of(ph.Memory)) })
	}
	roles := map[string]bool{}
	for _, ph := range phases {
		for role := range ph.CPU {
			roles[role] = true
		}
	}
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		row("cores used: "+role, func(ph Phase) string { return fmt.Sprintf("%.2f", ph.CPU[role]/max(ph.Seconds, 0.001)) })
	}
	row("machine busy", func(ph Phase) string { return fmt.Sprintf("%.0f %%", 100*ph.Busy) })
	row("… slowed down, by its host", func(ph Phase) string { return fmt.Sprintf("%.0f %%", 100*ph.Slowed) })
	row("tester's busiest loop", func(ph Phase) string { return fmt.Sprintf("%.0f %%", 100*ph.Loop) })
	row("… waiting for a core", func(ph Phase) string { return fmt.Sprintf("%.0f %%", 100*max(0, ph.Starved)) })
	tw.Flush()
}

func (p printer) capacity(c *Capacity) {
	if c == nil {
		return
	}
	p.line("\ncapacity: %.0f %s held", c.Knee, c.Unit)
	if c.Why != "" {
		p.line("  %.0f did not: %s", c.Broke, c.Why)
	}
	p.line("  %s", c.Sure)
	for _, s := range c.Steps {
		held := "held"
		if !s.Held {
			held = s.Why
		}
		p.line("  %8.0f  achieved %.0f, p50 %.1f, p99 %.1f ms: %s", s.Load, s.Achieved, s.Latency.P50, s.Latency.P99, held)
	}
}

func (p printer) servers(servers []Server) {
	if len(servers) == 0 {
		p.line("\nservers: none found on this machine: CPU and memory of the servers are not known")
		return
	}
	p.line("")
	for _, s := range servers {
		died := ""
		if s.Died {
			died = ", DIED"
		}
		p.line("%s (%s, pid %d, port %d): %.2f s of CPU, resident %s → %s, at most %s%s", s.Role, s.Name, s.Pid, s.Port, s.CPUSeconds,
			bytesText(float64(s.RSSBegin)), bytesText(float64(s.RSSEnd)), bytesText(float64(s.RSSMost)), died)
	}
}

func (p printer) agent(a Agent) {
	side, by := "ahead", a.AheadMs
	if by < 0 {
		side, by = "behind", -by
	}
	p.line("  agent %s (%s): %d cores, %d open files, %d workers, at most %.0f %% busy; its clock was %.3f ms %s, taken off, right to ± %.3f ms (drift %.3f ms)",
		a.Name, a.Addr, a.Cores, a.OpenFiles, a.Workers, 100*a.Busiest, by, side, a.ErrorMs, a.DriftMs)
	if a.Gone != "" {
		p.line("    IT LEFT THE RUN: %s", a.Gone)
	}
}

func (p printer) verdict(r *Result) {
	for _, o := range r.Objectives {
		verb := "met"
		if !o.Met {
			verb = "MISSED"
		}
		p.line("objective %s: %s, limit %s, got %s", verb, o.Name, number0(o.Limit), o.GotText())
	}
	for _, s := range r.Tester.Saturated {
		p.line("THE CLIENT WAS THE BOTTLENECK, DO NOT QUOTE THIS: %s", s)
	}
	for _, s := range r.Problems {
		p.line("PROBLEM: %s", s)
	}
	if r.Ended != Completed {
		p.line("%s", strings.ToUpper(r.Ended[:1])+r.Ended[1:])
	}
	if r.Passed() {
		p.line("PASSED")
	} else {
		p.line("FAILED")
	}
}

func count(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func rate(n uint64, seconds float64) string {
	if n == 0 || seconds <= 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", float64(n)/seconds)
}

// each is an amount per piece of work.
func each(amount float64, n uint64) string {
	if n == 0 || amount == 0 {
		return ""
	}
	return number0(amount / float64(n))
}

func ms(count int64, v float64) string {
	switch {
	case count == 0:
		return ""
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func number(v float64) string {
	if v == 0 {
		return ""
	}
	return number0(v)
}

func number0(v float64) string {
	if v > -100 && v < 100 && v != float64(int64(v)) {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func bytesText(b float64) string {
	switch {
	case b >= 1<<30:
		return fmt.Sprintf("%.2f GiB", b/(1<<30))
	case b >= 1<<20:
		return fmt.Sprintf("%.1f MiB", b/(1<<20))
	}
	return fmt.Sprintf("%.0f KiB", b/(1<<10))
}
