package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Of lines with the same message and level, floodLines are kept in a floodWindow.
// More fills disks when a thousand clients make the same mistake; fewer hides who
// they are.
const (
	floodLines  = 20
	floodWindow = time.Second
	// floodMessages bounds the memory for messages. Ours are constants, some
	// hundred; net/http's, on level debug, hold addresses.
	floodMessages = 4096
)

// flood passes some lines of each kind on and counts the rest.
type flood struct {
	next  slog.Handler
	kinds *kinds
}

type kinds struct {
	mu    sync.Mutex
	by    map[kind]*window
	total uint64
}

type kind struct {
	level   slog.Level
	message string
}

type window struct {
	since   time.Time
	passed  int
	leftOut uint64
}

func newFlood(next slog.Handler) *flood { return &flood{next, &kinds{by: map[kind]*window{}}} }

// Enabled implements slog.Handler.
func (f *flood) Enabled(ctx context.Context, l slog.Level) bool { return f.next.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (f *flood) WithAttrs(a []slog.Attr) slog.Handler { return &flood{f.next.WithAttrs(a), f.kinds} }

// WithGroup implements slog.Handler.
func (f *flood) WithGroup(name string) slog.Handler { return &flood{f.next.WithGroup(name), f.kinds} }

// Handle implements slog.Handler.
func (f *flood) Handle(ctx context.Context, r slog.Record) error {
	pass, before := f.kinds.admit(kind{r.Level, r.Message}, r.Time)
	if !pass {
		return nil
	}
	if before > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Uint64("left_out_before", before))
	}
	return f.next.Handle(ctx, r)
}

// admit says whether a line of the kind passes, and how many before it did not.
func (k *kinds) admit(what kind, at time.Time) (pass bool, before uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.by[what]
	if w == nil {
		if len(k.by) >= floodMessages {
			k.forgetOne(at)
		}
		w = &window{since: at}
		k.by[what] = w
	}
	if d := at.Sub(w.since); d >= floodWindow || d < 0 {
		before, w.leftOut = w.leftOut, 0
		w.since, w.passed = at, 0
	}
	if w.passed >= floodLines {
		w.leftOut++
		k.total++
		return false, 0
	}
	w.passed++
	return true, before
}

// forgetOne makes room: for choice a kind that was quiet for a window and has
// nothing to tell, among the few it looks at (a map's order is random).
func (k *kinds) forgetOne(at time.Time) {
	const looks = 8
	looked := 0
	for what, w := range k.by {
		if looked++; looked == looks || w.leftOut == 0 && at.Sub(w.since) >= floodWindow {
			delete(k.by, what)
			return
		}
	}
}

func (f *flood) leftOut() uint64 {
	f.kinds.mu.Lock()
	defer f.kinds.mu.Unlock()
	return f.kinds.total
}
