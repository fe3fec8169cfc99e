package test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// collector is an OpenTelemetry collector: OTLP over HTTP.
type collector struct {
	URL string

	mu    sync.Mutex
	spans []tracedSpan // guarded by mu
	raw   strings.Builder
}

type tracedSpan struct {
	*tracepb.Span
	service string
}

func (s tracedSpan) attribute(key string) string {
	for _, kv := range s.Attributes {
		if kv.Key == key {
			return protojson.Format(kv.Value)
		}
	}
	return ""
}

func startCollector(t *testing.T) *collector {
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req coltracepb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			http.Error(w, "not an export of traces", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		for _, rs := range req.ResourceSpans {
			service := ""
			for _, kv := range rs.Resource.Attributes {
				if kv.Key == "service.name" {
					service = kv.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					c.spans = append(c.spans, tracedSpan{s, service})
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// find returns the spans of a name.
func (c *collector) find(name string) (found []tracedSpan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// traced has every process tell a collector about a share of what it does.
func traced(endpoint string, share float64) []fleet.Option {
	return []fleet.Option{
		fleet.API(func(c *config.API) { c.TraceEndpoint, c.TraceSample = endpoint, share }),
		fleet.Gateway(func(c *config.Gateway) { c.TraceEndpoint, c.TraceSample = endpoint, share }),
	}
}

const sendSpan = "POST /v1/rooms/:room/messages"

func TestOneTraceFromTheRequestToTheSockets(t *testing.T) {
	c := startCollector(t)
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 2, traced(c.URL, 1)...)
	alice, bob, carol := f.User("alice"), f.User("bobby-name", fleet.OnGateway(0)), f.User("carol-name", fleet.OnGateway(1))
	alice.CreatesRoom("secret-yard", "bobby-name", "carol-name")
	bob.Connects()
	carol.Connects()
	const callerTrace, callerSpan = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	if _, err := alice.Requests(http.MethodPost, "/v1/rooms/secret-yard/messages", map[string]string{"type": "text", "text": "nobody's business"},
		"Traceparent", "00-"+callerTrace+"-"+callerSpan+"-01"); err != nil {
		t.Fatal(err)
	}
	bob.WantMessage("secret-yard", "nobody's business")
	carol.WantMessage("secret-yard", "nobody's business")

	fleet.Await(t, "the collector has all spans", func() bool {
		return len(c.find(sendSpan)) == 1 && len(c.find("send")) == 1 && len(c.find("redis send.lua")) == 1 && len(c.find("deliver")) == 2
	})
	request, send, script := c.find(sendSpan)[0], c.find("send")[0], c.find("redis send.lua")[0]
	if len(request.ParentSpanId) != 0 || string(send.ParentSpanId) != string(request.SpanId) || string(script.ParentSpanId) != string(send.SpanId) {
		t.Error("the API's spans do not hang together")
	}
	if got := request.attribute("http.response.status_code"); !strings.Contains(got, "201") {
		t.Errorf("the request's status is %s", got)
	}
	if len(request.Links) != 1 || hex.EncodeToString(request.Links[0].TraceId) != callerTrace || hex.EncodeToString(request.Links[0].SpanId) != callerSpan {
		t.Errorf("the request is not linked to its caller: %v", request.Links)
	}
	within := func(a, b tracedSpan) bool {
		return a.StartTimeUnixNano >= b.StartTimeUnixNano && a.EndTimeUnixNano <= b.EndTimeUnixNano && a.StartTimeUnixNano <= a.EndTimeUnixNano
	}
	if !within(script, send) || !within(send, request) {
		t.Error("the API's spans are not inside each other")
	}
	all := append(c.find("deliver"), request, send, script)
	for i, s := range all {
		if string(s.TraceId) != string(request.TraceId) {
			t.Errorf("%s is in another trace", s.Name)
		}
		if s.EndTimeUnixNano < s.StartTimeUnixNano || time.Since(time.Unix(0, int64(s.StartTimeUnixNano))) > time.Minute {
			t.Errorf("%s: from %d to %d", s.Name, s.StartTimeUnixNano, s.EndTimeUnixNano)
		}
		service := "madang-api"
		if i < 2 {
			service = "madang-gateway"
			if string(s.ParentSpanId) != string(script.SpanId) {
				t.Error("a delivery does not hang on its publication")
			}
		}
		if s.service != service {
			t.Errorf("%s is of %s", s.Name, s.service)
		}
	}
	// What people say and who they are is nobody's who reads traces.
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, secret := range []string{"secret-yard", "business", "alice", "bobby-name", "carol-name", "Bearer", alice.Token} {
		if strings.Contains(c.raw.String(), secret) {
			t.Errorf("the collector was told %q", secret)
		}
	}
}

// A repeated send belongs to the message's trace: one sees that it was repeated,
// and what for.
func TestARepeatedSendIsInTheTraceOfTheFirst(t *testing.T) {
	c := startCollector(t)
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 0, traced(c.URL, 1)...)
	alice := f.User("alice")
	alice.CreatesRoom("yard")
	for range 2 {
		if _, err := alice.TrySend("yard", "hi", "key"); err != nil {
			t.Fatal(err)
		}
	}
	fleet.Await(t, "both are told", func() bool { return len(c.find("redis send.lua")) == 2 && len(c.find(sendSpan)) == 2 })
	a, b := c.find("redis send.lua")[0], c.find("redis send.lua")[1]
	if string(a.TraceId) != string(b.TraceId) || string(a.SpanId) == string(b.SpanId) {
		t.Error("two traces, or one span")
	}
}

// A caller's sampled flag samples nothing: outsiders do not decide what is
// collected.
func TestOutsidersDoNotDecideWhatIsTraced(t *testing.T) {
	c := startCollector(t)
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 1, traced(c.URL, 0)...)
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	bob.Connects()
	for range 50 {
		if _, err := alice.Requests(http.MethodPost, "/v1/rooms/yard/messages", map[string]string{"type": "text", "text": "hi"},
			"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"); err != nil {
			t.Fatal(err)
		}
	}
	bob.WantMessage("yard", "hi")
	for _, n := range append(f.APIs, f.Gateways...) {
		n.Stop() // sends what is queued
	}
	if len(c.spans) != 0 {
		t.Errorf("%d spans at a ratio of 0", len(c.spans))
	}
}

func TestACollectorThatIsAwayIsNoticedByNobody(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 1, traced(gone.URL, 1)...)
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	bob.Connects()
	for range 20 {
		alice.Sends("yard", "hi")
		bob.WantMessage("yard", "hi")
	}
	for _, n := range append(f.APIs, f.Gateways...) {
		fleet.Await(t, "what was dropped is counted", func() bool { return n.Metric(`madang_trace_spans_total{outcome="refused"}`) >= 20 })
	}
}
