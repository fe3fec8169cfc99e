package metrics

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/gateway/loop"
)

// everything is a registry with all collectors, each having counted something.
func everything() (*prometheus.Registry, *API, *Redis, *Gateway) {
	r := NewRegistry("v0")
	a, s, g := NewAPI(r, api.SendOutcomes, api.UploadOutcomes), NewRedis(r), NewGateway(r)
	g.Watch(r, func() loop.Stats { return loop.Stats{Deliveries: 7, Open: 3} }, func() hub.Stats { return hub.Stats{Broken: 1} })
	a.Request("GET", "/v1/rooms/:room", 200, time.Millisecond)
	a.Send(api.SendAccepted, time.Millisecond)
	a.Upload(api.UploadStored, 10, time.Millisecond)
	a.Download(10)
	a.Swept(1)
	o := s.Observer()
	o.Pipeline("send", 3, time.Millisecond)
	o.CommandFailed("network")
	o.LinkUp(1)
	o.CanaryBack(1, time.Millisecond)
	g.Delivered(5, 10)
	g.Turn(time.Microsecond)
	return r, a, s, g
}

func TestNamesFollowTheRules(t *testing.T) {
	r, _, _, _ := everything()
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "madang_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, "madang_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s has no madang_ before it", name)
		}
	}
}

func TestClientsCanNotInventLabels(t *testing.T) {
	r, a, _, _ := everything()
	for _, method := range []string{"BREW", "brew\n", "PROPFIND"} {
		a.Request(method, "", 404, time.Millisecond)
	}
	err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP madang_http_requests_total HTTP requests answered, by method, route and status.
# TYPE madang_http_requests_total counter
madang_http_requests_total{method="GET",route="/v1/rooms/:room",status="200"} 1
madang_http_requests_total{method="other",route="none",status="404"} 3
`), "madang_http_requests_total")
	if err != nil {
		t.Error(err)
	}
}

func TestLinksAreCountedByWhatTheyAre(t *testing.T) {
	_, _, s, _ := everything()
	o := s.Observer()
	o.LinkUp(2)
	o.LinkUp(2)
	o.LinkDown(1, errors.New("gone"))
	o.LinkDown(1, errors.New("still gone"))
	if up := testutil.ToFloat64(s.linksUp); up != 1 {
		t.Errorf("%v links are up, want 1", up)
	}
	if breaks := testutil.ToFloat64(s.linkBreaks); breaks != 1 {
		t.Errorf("%v breaks, want 1", breaks)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	_, a, s, g := everything()
	o := s.Observer()
	allocs := testing.AllocsPerRun(100, func() {
		a.Send(api.SendAccepted, time.Millisecond)
		a.Upload(api.UploadStored, 10, time.Millisecond)
		a.Download(10)
		o.CanaryBack(0, time.Millisecond)
		g.Delivered(3, 4)
		g.Turn(time.Millisecond)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
