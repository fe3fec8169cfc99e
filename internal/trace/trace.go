// Package trace tells an OpenTelemetry collector where a few of the requests and
// messages spent their time: in the API, in Redis, and on the way from Redis to
// the sockets. It is the only package that knows of OpenTelemetry; whoever has
// something to tell does so through a callback of its own, when it is over.
//
// API and gateway agree on a message's trace without telling each other: its ID is
// a hash of the room and the message's ID, which both know, and the hash decides
// whether it is sampled. So nothing travels with a message, and no client can have
// its requests sampled more often: message IDs are Redis's to give. For the same
// reason a caller's traceparent becomes a link, and its sampled flag is not
// followed.
//
// A span holds what an operator may know: routes, statuses, counts, times and
// message IDs. It never holds users, rooms, texts, tokens or addresses.
//
// Nothing here blocks those who tell: what finds the queue full is dropped and
// counted, and so is what the collector does not take.
package trace

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Options say what is told to whom.
type Options struct {
	// Endpoint is the collector's URL for OTLP over HTTP; without a path,
	// /v1/traces is meant.
	Endpoint string
	// Ratio is the share of requests and messages that are traced, 0 to 1. All
	// processes of a deployment should have the same: traces that only some of them
	// sample have holes.
	Ratio float64
	// Service and Version name the process to the collector.
	Service, Version string
	Logger           *slog.Logger
}

// Tracer collects spans and sends them. Make one with New; nil is a Tracer, too,
// one that is off.
type Tracer struct {
	threshold uint64 // of the hash's low 56 bits: those from here on are sampled
	resource  *resourcepb.Resource
	scope     *commonpb.InstrumentationScope
	log       *slog.Logger

	transport *http.Transport
	client    otlptrace.Client

	queue chan *tracepb.Span
	quit  chan struct{}
	done  chan struct{} // closed when the sending goroutine has ended
	once  sync.Once     // guards the end

	started                 atomic.Bool
	exported, full, refused atomic.Uint64
}

const (
	// mostQueued bounds what waits for the collector: at about 1 KB a span, 2 MB.
	mostQueued = 2048
	// mostBatch is how many spans a request to the collector carries.
	mostBatch = 512
	// sendEvery is how long a span waits for company. Longer means fewer requests
	// and more that is lost when the process dies.
	sendEvery = time.Second
	// uploadTimeout is how long the collector may take. A batch is not tried
	// again: what is new is worth more than what is old.
	uploadTimeout = 5 * time.Second
	// maxAnswer bounds what is read of the collector's answers: it ends in a log.
	maxAnswer = 16 << 10
	// stopTimeout is how much longer a process may take to stop for what is still
	// queued; a drain has better use for the time.
	stopTimeout = time.Second
)

// hashBits is how much of a trace ID is compared with the threshold: as much as W3C
// Trace Context's random flag promises, so that a collector that samples further by
// the same rule takes a share of ours.
const hashBits = 56

// New makes a Tracer that sends nothing before Start; nil when o has no endpoint.
func New(o Options) *Tracer {
	if o.Endpoint == "" {
		return nil
	}
	transport := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		MaxIdleConns:    1, // one batch at a time
		IdleConnTimeout: 90 * time.Second,
	}
	host, _ := os.Hostname()
	return &Tracer{
		threshold: uint64(math.Round((1 - o.Ratio) * (1 << hashBits))),
		resource: &resourcepb.Resource{Attributes: attributes(
			text("service.name", o.Service), text("service.version", o.Version), text("host.name", host), number("process.pid", int64(os.Getpid())))},
		scope:     &commonpb.InstrumentationScope{Name: "github.com/madang-chat/madang", Version: o.Version},
		log:       o.Logger,
		transport: transport,
		client:    newClient(o.Endpoint, transport),
		queue:     make(chan *tracepb.Span, mostQueued),
		quit:      make(chan struct{}),
		done:      make(chan struct{}),
	}
}

// Stats is what became of spans.
type Stats struct {
	Exported  uint64 // the collector took them
	QueueFull uint64 // dropped: the collector is slower than they come
	Refused   uint64 // dropped: the collector is away, or did not want them
}

// Stats returns counts so far.
func (t *Tracer) Stats() Stats {
	if t == nil {
		return Stats{}
	}
	return Stats{t.exported.Load(), t.full.Load(), t.refused.Load()}
}

// sampled says whether what has this trace ID is told.
func (t *Tracer) sampled(id traceID) bool { return id.low&(1<<hashBits-1) >= t.threshold }

// tell queues a span. It does not wait.
func (t *Tracer) tell(s *tracepb.Span) {
	select {
	case t.queue <- s:
	default:
		t.full.Add(1)
	}
}

// randomTrace is for what no other process tells of.
func randomTrace() traceID { return traceID{rand.Uint64(), rand.Uint64()} }

func randomSpan() spanID { return spanID(rand.Uint64() | 1) } // 0 is none
