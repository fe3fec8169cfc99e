package logs

import (
	"encoding/json"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// page is a reader of a log that may stand still.
type page struct {
	mu   sync.Mutex
	text strings.Builder
	hold chan struct{} // closed: it reads
}

func (p *page) Write(b []byte) (int, error) {
	<-p.hold
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Split(strings.TrimSuffix(p.text.String(), "\n"), "\n")
}

func reading() *page {
	p := &page{hold: make(chan struct{})}
	close(p.hold)
	return p
}

func TestLinesComeInOrderAndWhole(t *testing.T) {
	p := reading()
	l := New(Options{Out: p, JSON: true})
	log := l.Logger().With("process", "a")
	for i := range 1000 {
		// Different messages: none is left out.
		log.Info("line "+string(rune('a'+i%26))+strings.Repeat("x", i/26), "i", i)
	}
	l.Close()
	lines := p.lines()
	if len(lines) != 1000 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		var got struct {
			I       int
			Process string
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.I != i || got.Process != "a" {
			t.Fatalf("line %d is %s (%v)", i, line, err)
		}
	}
}

// A log that nobody reads holds nobody up, holds bounded memory, and says
// afterwards what it lost.
func TestNobodyWaitsForWhoReadsTheLog(t *testing.T) {
	p := &page{hold: make(chan struct{})}
	l := New(Options{Out: p, JSON: true, Level: "info"})
	log := l.Logger()
	start := time.Now()
	long := strings.Repeat("y", 10_000)
	for i := range 1000 {
		log.Info("line " + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + long)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("logging took %v while nobody read", d)
	}
	if l.Lost() == 0 {
		t.Error("ten megabytes were kept in memory")
	}
	l.sink.mu.Lock()
	held := len(l.sink.pending)
	l.sink.mu.Unlock()
	if held > sinkBytes {
		t.Errorf("%d bytes wait", held)
	}
	close(p.hold)
	l.Close()
	last := p.lines()[len(p.lines())-1]
	if !strings.Contains(last, `"lines_lost":`) {
		t.Errorf("the last line is %.100s", last)
	}
}

// disk is a log's file whose disk may be full.
type disk struct {
	*page
	full  atomic.Bool
	asked chan struct{} // one for each try to write
}

func (d *disk) Write(b []byte) (int, error) {
	defer func() { d.asked <- struct{}{} }()
	if d.full.Load() {
		return 0, syscall.ENOSPC
	}
	return d.page.Write(b)
}

// What can't be written is counted as lost, and the log says so when it can again.
func TestWhatCanNotBeWrittenIsLostAndTold(t *testing.T) {
	d := &disk{page: reading(), asked: make(chan struct{}, 100)}
	d.full.Store(true)
	l := New(Options{Out: d, JSON: true})
	l.Logger().Info("a line")
	<-d.asked // the line
	<-d.asked // that it is lost
	if n := l.Lost(); n != 1 {
		t.Errorf("%d lines are lost, want 1", n)
	}
	d.full.Store(false)
	l.Logger().Info("another")
	l.Close()
	if text := strings.Join(d.lines(), "\n"); strings.Contains(text, "a line") || !strings.Contains(text, "another") || !strings.Contains(text, `"lines_lost":1`) {
		t.Errorf("the log is %s", text)
	}
	if n := l.Lost(); n != 1 {
		t.Errorf("%d lines are lost, want 1", n)
	}
}

func TestCloseEndsThoughNobodyReads(t *testing.T) {
	p := &page{hold: make(chan struct{})}
	l := New(Options{Out: p})
	l.Logger().Info("never read")
	start := time.Now()
	l.Close()
	l.Close()
	if d := time.Since(start); d > 10*closeTimeout {
		t.Errorf("Close took %v", d)
	}
	close(p.hold)
}

func TestAFloodOfOneMessageIsThinned(t *testing.T) {
	p := reading()
	l := New(Options{Out: p, JSON: true})
	h := l.Logger().Handler()
	now := time.Unix(1000, 0)
	say := func(at time.Time, message string) {
		if err := h.Handle(t.Context(), slog.NewRecord(at, slog.LevelWarn, message, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for range 10_000 {
		say(now, "a client's mistake")
	}
	say(now, "another message")
	say(now.Add(floodWindow), "a client's mistake")
	l.Close()
	lines := p.lines()
	if len(lines) != floodLines+2 {
		t.Errorf("%d lines of 10,000", len(lines))
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, `"left_out_before":9980`) {
		t.Errorf("the next one says %s", last)
	}
	if l.LeftOut() != 9980 {
		t.Errorf("%d left out", l.LeftOut())
	}
}

// Messages that hold what clients send (net/http's do) fill the memory for them, and
// take nothing from the others for it.
func TestAFloodIsThinnedAfterManyMessages(t *testing.T) {
	p := reading()
	l := New(Options{Out: p, JSON: true})
	h := l.Logger().Handler()
	now := time.Unix(1000, 0)
	say := func(message string) {
		if err := h.Handle(t.Context(), slog.NewRecord(now, slog.LevelWarn, message, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 * floodMessages {
		say("http: TLS handshake error from " + strconv.Itoa(i))
	}
	now = now.Add(floodWindow)
	for range 10_000 {
		say("a client's mistake")
	}
	l.Close()
	if n := l.LeftOut(); n != 10_000-floodLines {
		t.Errorf("%d lines of 10,000 were left out", n)
	}
	if n := len(l.flood.kinds.by); n > floodMessages {
		t.Errorf("%d messages are remembered", n)
	}
}

func TestDurationsAreReadable(t *testing.T) {
	p := reading()
	l := New(Options{Out: p, JSON: true})
	l.Logger().Info("drained", "took", 1500*time.Millisecond, slog.Group("of", "most", time.Minute))
	l.Close()
	if line := p.lines()[0]; !strings.Contains(line, `"took":"1.5s","of":{"most":"1m0s"}`) {
		t.Error(line)
	}
}

func TestTheLevelChangesWhileItRuns(t *testing.T) {
	p := reading()
	l := New(Options{Out: p, Level: "warn"})
	log := l.Logger()
	log.Info("not yet")
	if From(log) != l || From(slog.Default()) != nil {
		t.Error("From does not find the log of its own loggers only")
	}
	if err := From(log.With("a", 1)).SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	log.Debug("now")
	if err := l.SetLevel("loud"); err == nil || l.Level() != "debug" {
		t.Errorf("a level that there is not: %v, and it is %s", err, l.Level())
	}
	l.Close()
	if text := strings.Join(p.lines(), "\n"); strings.Contains(text, "not yet") || !strings.Contains(text, "now") {
		t.Errorf("the log is %q", text)
	}
}

func BenchmarkLine(b *testing.B) {
	l := New(Options{Out: io.Discard, JSON: true})
	defer l.Close()
	log := l.Logger()
	b.ReportAllocs()
	for b.Loop() {
		log.LogAttrs(b.Context(), slog.LevelInfo, "a line", slog.Int("n", 1))
	}
}
