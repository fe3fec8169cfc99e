package trace

import (
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/madang-chat/madang/protocol"
)

// Request is an HTTP request that was answered.
type Request struct {
	Method, Route string // Route is the pattern, empty when none matched
	Status        int
	Began, Ended  time.Time
	Traceparent   string // the caller's header, as it came; empty for none
	Send          *Send  // nil: it was not a send
}

// Send is what a request to send did in Redis.
type Send struct {
	Began, Ended time.Time // the wait for Redis, with all that was repeated or held back
	// Stored: Room and ID say which message it is, and WentOut and CameBack are the
	// ends of the round trip that carried the script.
	Stored            bool
	Replayed          bool // it had been stored before
	Room              string
	ID                protocol.ID
	WentOut, CameBack time.Time
}

// Request takes in a request, for a span of its own and those in Redis.
func (t *Tracer) Request(r Request) {
	if t == nil {
		return
	}
	id := randomTrace()
	if r.Send != nil && r.Send.Stored {
		id = messageTrace(r.Send.Room, r.Send.ID)
	}
	if !t.sampled(id) {
		return
	}
	route, method := r.Route, r.Method
	if route == "" {
		route, method = "none", "_OTHER" // whatever clients invent
	}
	s := newSpan(id, randomSpan(), 0, tracepb.Span_SPAN_KIND_SERVER, method+" "+route, r.Began, r.Ended)
	s.Attributes = attributes(text("http.request.method", method), text("http.route", route), number("http.response.status_code", int64(r.Status)))
	if r.Status >= 500 {
		s.Status = failed
	}
	if p, ok := parseTraceparent(r.Traceparent); ok {
		s.Links = []*tracepb.Span_Link{{TraceId: p.trace.bytes(), SpanId: p.span.bytes()}}
	}
	t.tell(s)
	if r.Send != nil {
		t.send(id, s.SpanId, r.Send)
	}
}

// send tells what a send did in Redis: how long it waited, and in that, how long
// the script was under way.
func (t *Tracer) send(id traceID, within []byte, r *Send) {
	wait := newSpan(id, randomSpan(), 0, tracepb.Span_SPAN_KIND_INTERNAL, "send", r.Began, r.Ended)
	wait.ParentSpanId = within
	defer t.tell(wait)
	if !r.Stored {
		wait.Status = failed
		return
	}
	wait.Attributes = attributes(text("madang.message.id", r.ID.String()), truth("madang.replayed", r.Replayed))
	if r.WentOut.IsZero() {
		return
	}
	span := id.publication()
	if r.Replayed {
		span = randomSpan() // it was another one that published the message
	}
	script := newSpan(id, span, 0, tracepb.Span_SPAN_KIND_CLIENT, "redis send.lua", r.WentOut, r.CameBack)
	script.ParentSpanId = wait.SpanId
	script.Attributes = attributes(text("db.system.name", "redis"))
	t.tell(script)
}

// Delivery is a sampled message on its way to a gateway's sockets.
type Delivery struct {
	t        *Tracer
	trace    traceID
	id       protocol.ID
	received time.Time
}

// Message takes in a message that came from Redis just now. It returns nil when
// the message is not sampled, which costs one hash.
func (t *Tracer) Message(room string, id protocol.ID) *Delivery {
	if t == nil || !t.sampled(traceID{low: messageHash(room, id, 0)}) {
		return nil
	}
	return &Delivery{t, messageTrace(room, id), id, time.Now()}
}

// Delivered says that the last of an event loop's connections has taken the
// message, with how many did. It may be called several times, by all loops.
func (d *Delivery) Delivered(connections int) {
	now := time.Now()
	published := time.UnixMilli(int64(d.id.Ms)) // by Redis's clock
	if published.After(d.received) {
		published = d.received // clocks differ
	}
	s := newSpan(d.trace, randomSpan(), d.trace.publication(), tracepb.Span_SPAN_KIND_CONSUMER, "deliver", published, now)
	s.Attributes = attributes(text("madang.message.id", d.id.String()), number("madang.deliveries", int64(connections)))
	s.Events = []*tracepb.Span_Event{{TimeUnixNano: uint64(d.received.UnixNano()), Name: "received"}}
	d.t.tell(s)
}

// sampledFlags are a span's flags: sampled, by an ID whose low bits are as good as
// random.
const sampledFlags = 0x03

func newSpan(trace traceID, id, within spanID, kind tracepb.Span_SpanKind, name string, began, ended time.Time) *tracepb.Span {
	return &tracepb.Span{
		TraceId: trace.bytes(), SpanId: id.bytes(), ParentSpanId: within.bytes(), Flags: sampledFlags, Kind: kind, Name: name,
		StartTimeUnixNano: uint64(began.UnixNano()), EndTimeUnixNano: uint64(ended.UnixNano()),
	}
}

// failed has no message: errors may name what is not for a trace.
var failed = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}

func attributes(all ...*commonpb.KeyValue) []*commonpb.KeyValue { return all }

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func number(key string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}

func truth(key string, value bool) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: value}}}
}
