package app

import (
	"log/slog"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/trace"
	"github.com/madang-chat/madang/protocol"
)

// newTracer is nil, and so is what follows from it, when tracing is off: then
// nobody asks and nothing is measured.
func newTracer(c config.Process, role string, log *slog.Logger) *trace.Tracer {
	return trace.New(trace.Options{
		Endpoint: c.TraceEndpoint, Ratio: c.TraceSample, Service: "madang-" + role, Version: Version(), Logger: log,
	})
}

// traceRequests translates what the API tells.
func traceRequests(t *trace.Tracer) func(api.Answered) {
	if t == nil {
		return nil
	}
	return func(a api.Answered) {
		r := trace.Request{
			Method: a.Method, Route: a.Route, Status: a.Status, Traceparent: a.Traceparent,
			Began: a.Began, Ended: a.Began.Add(a.Took),
		}
		if s := a.Sending; s != nil {
			r.Send = &trace.Send{
				Began: s.Began, Ended: s.Ended, Stored: s.Stored, Replayed: s.Replayed, Room: s.Room, ID: s.ID,
				WentOut: s.WentOut, CameBack: s.CameBack,
			}
		}
		t.Request(r)
	}
}

// traceDeliveries translates what a gateway asks.
func traceDeliveries(t *trace.Tracer) func(room string, id protocol.ID) edge.Trace {
	if t == nil {
		return nil
	}
	return func(room string, id protocol.ID) edge.Trace {
		if d := t.Message(room, id); d != nil {
			return d
		}
		return nil // not a nil *Delivery, which would be somebody
	}
}
