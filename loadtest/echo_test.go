package loadtest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/loadtest"
)

// echoServer sends back what it is sent; the n-th message of a connection it
// sends back answer(n) times.
func echoServer(t *testing.T, answer func(n int) int) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/echo" {
			http.NotFound(w, r)
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for n := 0; ; n++ {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			for range answer(n) {
				if c.Write(r.Context(), kind, data) != nil {
					return
				}
			}
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func echoSpec(server *httptest.Server) loadtest.Spec {
	s := loadtest.Spec{
		Scenario: "fanout", Target: "ws-echo", Path: "/echo", Gateways: []string{strings.TrimPrefix(server.URL, "http://")},
		Clients: 20, Rate: 200, Duration: time.Second, Receivers: 2, Drain: 3 * time.Second, Objectives: loadtest.NoObjectives(),
	}
	s.WorkerCommand = workerCommand
	return s
}

func once(int) int { return 1 }

func TestEchoesAreAccountedLikeDeliveries(t *testing.T) {
	t.Parallel()
	res := run(t, echoSpec(echoServer(t, once)))
	wantPassed(t, res)
	d, p := res.Deliveries, phase(t, res, "fanout")
	if res.Sends.Issued < 90 || res.Sends.Issued > 400 || d.Owed != res.Sends.Issued || d.Kept != d.Owed || p.Latency.Count == 0 || p.Lag.Count == 0 {
		t.Errorf("%+v %+v %+v", res.Sends, d, p)
	}
}

func TestEchoFlatOutKeepsOneUnderWayPerClient(t *testing.T) {
	t.Parallel()
	s := echoSpec(echoServer(t, once))
	s.Rate = 0
	res := run(t, s)
	wantPassed(t, res)
	if res.Sends.Issued < 200 || res.Deliveries.Kept != res.Sends.Issued {
		t.Errorf("%+v %+v", res.Sends, res.Deliveries)
	}
}

func TestAnEchoThatSwallowsAndRepeatsIsCaught(t *testing.T) {
	t.Parallel()
	var swallowed, repeated atomic.Int64
	res := run(t, echoSpec(echoServer(t, func(n int) int {
		switch n { // 0 is the greeting
		case 3:
			swallowed.Add(1)
			return 0
		case 4:
			repeated.Add(1)
			return 2
		}
		return 1
	})))
	if d := res.Deliveries; res.Passed() || d.Lost != uint64(swallowed.Load()) || d.Duplicates != uint64(repeated.Load()) || d.Lost == 0 {
		t.Errorf("%d swallowed, %d repeated; %+v", swallowed.Load(), repeated.Load(), d)
	}
}

func TestEchoRefusesScenariosThatNeedALog(t *testing.T) {
	t.Parallel()
	s := echoSpec(echoServer(t, once))
	s.Scenario = "check"
	if _, err := loadtest.Run(t.Context(), s, loadtest.Progress{}); err == nil || !strings.Contains(err.Error(), "an echo has no rooms") {
		t.Errorf("got %v", err)
	}
}
