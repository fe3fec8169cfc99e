package loadtest

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Progress is where a run shows how it stands: one line per second, which is
// rewritten when Terminal.
type Progress struct {
	Out      io.Writer // nil: nothing is shown
	Terminal bool
}

type status struct {
	Progress
	began time.Time
	open  bool // the line has no newline yet
	last  struct {
		arrived, acked uint64
		at             time.Time
	}
}

func newStatus(p Progress) *status {
	if p.Out == nil {
		p.Out = io.Discard
	}
	return &status{Progress: p, began: time.Now()}
}

// say shows a line that is not a figure.
func (s *status) say(format string, args ...any) {
	s.print(fmt.Sprintf("%4.0fs  ", time.Since(s.began).Seconds()) + fmt.Sprintf(format, args...))
}

// line shows how the run stands.
func (s *status) line(r *run) {
	now := r.tally.receivers()
	sends := r.tally.senders()
	took := time.Since(s.last.at).Seconds()
	if s.last.at.IsZero() {
		took = 1
	}
	rate := func(now, before uint64) float64 { return float64(now-before) / max(took, 0.001) }
	text := fmt.Sprintf("%-16s live %d/%d", r.tally.phase, now.Live, r.spec.Clients)
	if sends.Issued > 0 {
		latest := lastWith(r)
		text += fmt.Sprintf("  sends %.0f/s  deliveries %.0f/s  p50 %s p99 %s ms",
			rate(sends.Acked, s.last.acked), rate(now.Arrivals, s.last.arrived), short(latest[0]), short(latest[1]))
		if owed := int64(r.tally.owed) - int64(now.Arrivals); owed > int64(r.tally.owed/100) {
			text += fmt.Sprintf("  owed %d", owed)
		}
	}
	bad := now.Failures.Total() + sends.Failed.Total() + sends.Broken.Total()
	text += fmt.Sprintf("  errors %d", bad)
	if n := sends.Refused.Total(); n > 0 {
		text += fmt.Sprintf("  held back %d", n)
	}
	s.last.arrived, s.last.acked, s.last.at = now.Arrivals, sends.Acked, time.Now()
	s.say("%s", text)
}

// lastWith are p50 and p99 of the newest second that has any.
func lastWith(r *run) [2]float64 {
	for i := len(r.tally.seconds) - 1; i >= 0 && i > len(r.tally.seconds)-8; i-- {
		if s := r.tally.seconds[i]; s.Max > 0 {
			return [2]float64{s.P50, s.P99}
		}
	}
	return [2]float64{}
}

func short(ms float64) string {
	switch {
	case ms == 0:
		return "–"
	case ms < 10:
		return fmt.Sprintf("%.2f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

func (s *status) print(text string) {
	if !s.Terminal {
		fmt.Fprintln(s.Out, text)
		return
	}
	fmt.Fprint(s.Out, "\r\x1b[K"+strings.TrimRight(text, "\n"))
	s.open = true
}

func (s *status) end() {
	if s.open {
		fmt.Fprintln(s.Out)
	}
}
