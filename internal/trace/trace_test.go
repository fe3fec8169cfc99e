package trace

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/madang-chat/madang/protocol"
)

// Gateways and APIs of different versions run side by side: what they agree on
// must not change.
func TestAMessagesTraceIsTheSameInEveryVersion(t *testing.T) {
	id := messageTrace("yard", protocol.ID{Ms: 1_700_000_000_000, Seq: 3})
	if got, want := fmt.Sprintf("%x %x", id.bytes(), id.publication().bytes()), "6dbc1726a1c855552fe803f001243974 425414d6a0ec6c21"; got != want {
		t.Errorf("%s, it was %s", got, want)
	}
	if messageTrace("yard", protocol.ID{Ms: 1_700_000_000_000, Seq: 4}) == id || messageTrace("yarn", protocol.ID{Ms: 1_700_000_000_000, Seq: 3}) == id {
		t.Error("another message has the same trace")
	}
}

func TestTheRatioIsTheShareThatIsSampled(t *testing.T) {
	for _, ratio := range []float64{0, 0.01, 0.5, 1} {
		tracer := New(Options{Endpoint: "http://collector", Ratio: ratio})
		const n = 100_000
		sampled := 0
		for i := range n {
			if tracer.Message("yard", protocol.ID{Ms: 1_700_000_000_000 + uint64(i)*7}) != nil {
				sampled++
			}
		}
		// Six standard deviations: never missed by chance, and none for all or nothing.
		if off := math.Abs(float64(sampled) - ratio*n); off > 6*math.Sqrt(n*ratio*(1-ratio)) {
			t.Errorf("%d of %d are sampled at %v", sampled, n, ratio)
		}
	}
}

func TestWhatIsNotSampledCostsNoMemory(t *testing.T) {
	for _, tracer := range []*Tracer{nil, New(Options{Endpoint: "http://collector"})} {
		if n := testing.AllocsPerRun(100, func() { tracer.Message("yard", protocol.ID{Ms: 1, Seq: 1}) }); n != 0 {
			t.Errorf("%v allocations for a message", n)
		}
		now := time.Now()
		send := &Send{Stored: true, Room: "yard", ID: protocol.ID{Ms: 1}}
		if n := testing.AllocsPerRun(100, func() { tracer.Request(Request{Method: "POST", Route: "/", Began: now, Ended: now, Send: send}) }); n != 0 {
			t.Errorf("%v allocations for a request", n)
		}
	}
}

func TestTraceparent(t *testing.T) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	good := "00-" + trace + "-" + span + "-01"
	for header, ok := range map[string]bool{
		good:                               true,
		"00-" + trace + "-" + span + "-00": true,
		"cc-" + trace + "-" + span + "-01": true,
		"cc-" + trace + "-" + span + "-01-and-more": true,
		"":                         false,
		"00-" + trace + "-" + span: false,
		"00-" + trace + "-" + span + "-01-and-more":           false,
		"cc-" + trace + "-" + span + "-01.and-more":           false,
		"ff-" + trace + "-" + span + "-01":                    false,
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":   false,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01":  false,
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01": false,
		"00-" + trace[1:] + "g-" + span + "-01":               false,
		strings.Repeat("-", len(good)):                        false,
		strings.Repeat("é", 100):                              false,
	} {
		p, got := parseTraceparent(header)
		if got != ok {
			t.Errorf("%q: %v", header, got)
		}
		if ok && fmt.Sprintf("%x %x", p.trace.bytes(), p.span.bytes()) != trace+" "+span {
			t.Errorf("%q: %x %x", header, p.trace.bytes(), p.span.bytes())
		}
	}
}

// collector takes spans as a real one does.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span // guarded by mu
	paths []string        // guarded by mu
	hold  chan struct{}   // nil: it answers at once
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if c.hold != nil {
			select {
			case <-c.hold:
			case <-r.Context().Done():
			}
		}
		var req coltracepb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.paths = append(c.paths, r.URL.Path)
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func start(t *testing.T, endpoint string) *Tracer {
	tracer := New(Options{Endpoint: endpoint, Ratio: 1, Service: "madang-test", Logger: slog.New(slog.DiscardHandler)})
	if err := tracer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tracer
}

func TestStoppingSendsWhatIsQueued(t *testing.T) {
	c := newCollector(t)
	leaks := goleak.IgnoreCurrent()
	tracer := start(t, c.URL)
	now := time.Now()
	const n = mostBatch + 7
	for range n {
		tracer.Request(Request{Method: "GET", Route: "/v1/rooms", Status: 200, Began: now, Ended: now})
	}
	for range 2 {
		if err := tracer.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.Config.SetKeepAlivesEnabled(false)
	goleak.VerifyNone(t, leaks)
	if got := tracer.Stats(); got != (Stats{Exported: n}) || len(c.spans) != n {
		t.Errorf("%+v, the collector has %d", got, len(c.spans))
	}
	if c.paths[0] != "/v1/traces" {
		t.Errorf("sent to %s", c.paths[0])
	}
}

// A collector that stands still costs its queue's memory, and a stop a second.
func TestACollectorThatHangsHarmsNothing(t *testing.T) {
	c := newCollector(t)
	c.hold = make(chan struct{})
	defer close(c.hold)
	tracer := start(t, c.URL)
	now := time.Now()
	const n = 4 * mostQueued
	for range n {
		tracer.Request(Request{Method: "GET", Route: "/v1/rooms", Status: 200, Began: now, Ended: now})
	}
	if took := time.Since(now); took > 2*time.Second {
		t.Errorf("telling took %v", took)
	}
	if got := tracer.Stats(); got.QueueFull < n-mostQueued-2*mostBatch {
		t.Errorf("%+v: who holds all these?", got)
	}
	began := time.Now()
	if err := tracer.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > stopTimeout+2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if got := tracer.Stats(); got.Exported != 0 || got.QueueFull+got.Refused != n {
		t.Errorf("%+v of %d", got, n)
	}
}

func TestACollectorThatIsAwayHarmsNothing(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	tracer := start(t, gone.URL+"/custom")
	tracer.Request(Request{Method: "GET", Status: 404, Began: time.Now(), Ended: time.Now()})
	if err := tracer.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := tracer.Stats(); got != (Stats{Refused: 1}) {
		t.Errorf("%+v", got)
	}
}

func TestATracerThatIsOff(t *testing.T) {
	tracer := New(Options{Ratio: 1})
	if tracer != nil {
		t.Fatal("no endpoint, and it traces")
	}
	if err := tracer.Start(t.Context()); err != nil {
		t.Error(err)
	}
	tracer.Request(Request{})
	if tracer.Message("yard", protocol.ID{}) != nil || tracer.Stats() != (Stats{}) || tracer.Stop(t.Context()) != nil {
		t.Error("it does something")
	}
}
