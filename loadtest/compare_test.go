package loadtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/internal/fakechat"
	"github.com/madang-chat/madang/loadtest/report"
)

func TestScenariosRunOverEveryTransport(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"sse", "poll", "polling"} {
		for _, scenario := range []string{"storm", "chat"} { // the others are parts of these, and of a comparison
			t.Run(transport+"/"+scenario, func(t *testing.T) {
				server := fakechat.New(t)
				s := spec(server, scenario)
				s.Transport, s.PollEvery, s.Duration = transport, 100*time.Millisecond, 600*time.Millisecond
				if scenario == "chat" { // each kind of chatter is said a few times
					s.Duration = 2 * time.Second
				}
				res := run(t, s)
				wantPassed(t, res)
				if res.Connections.Opened != 30 || res.Deliveries.Owed == 0 || res.Deliveries.Kept != res.Deliveries.Owed || server.Heard("ws") > 0 {
					t.Errorf("%+v %+v", res.Connections, res.Deliveries)
				}
				if scenario == "storm" && res.Connections.Returned != 30 {
					t.Errorf("%d came back", res.Connections.Returned)
				}
				if scenario == "chat" && (server.Heard("typing") == 0 || server.Heard("focus") == 0 || server.Heard("read") == 0 || len(res.Connections.Errors) > 0) {
					t.Errorf("nobody typed, looked or read: %+v", res.Connections)
				}
			})
		}
	}
}

// TestAComparisonSetsTheSameWorkSideBySide also looks at what differs for certain:
// how many requests a delivery takes.
func TestAComparisonSetsTheSameWorkSideBySide(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	s := spec(server, "compare")
	s.Duration, s.Warmup, s.Idle, s.PollEvery, s.Rate = time.Second, 200*time.Millisecond, 500*time.Millisecond, 200*time.Millisecond, 50
	res := run(t, s)
	wantPassed(t, res)
	if len(res.Compared) != 4 || res.Connections.Opened != 120 || res.Connections.LiveEnd != 120 {
		t.Fatalf("%+v %+v", res.Compared, res.Connections)
	}
	var kept, acked uint64
	for i, c := range res.Compared {
		if want := []string{"ws", "sse", "poll", "polling"}[i]; c.Transport != want || c.Clients != 30 {
			t.Errorf("%s with %d clients in place of %s", c.Transport, c.Clients, want)
		}
		if c.Owed < 250 || c.Kept != c.Owed || c.Lost > 0 || c.Latency.Count == 0 || c.OpenTime.Count != 30 || c.ReadPerDelivery < 200 {
			t.Errorf("%+v", c)
		}
		kept += c.Kept
		acked += phase(t, res, c.Transport+": fanout").Acked
	}
	if d := res.Deliveries; d.Kept != kept || d.Owed != 5*res.Sends.Acked || acked > res.Sends.Acked {
		t.Errorf("%d kept by all, of phases %d acknowledged: %+v %+v", kept, acked, d, res.Sends)
	}
	ws, sse, poll, polling := res.Compared[0], res.Compared[1], res.Compared[2], res.Compared[3]
	if ws.RequestsPerDelivery != 0 || sse.RequestsPerDelivery != 0 || poll.RequestsPerDelivery <= 0 || poll.RequestsPerDelivery > 1.3 {
		t.Errorf("requests per delivery: %v %v %v", ws.RequestsPerDelivery, sse.RequestsPerDelivery, poll.RequestsPerDelivery)
	}
	// 30 clients five times a second, for 250 deliveries a second.
	if r := polling.RequestsPerDelivery; r < 0.4 || r > 0.8 || polling.IdleRequests < 3 || polling.IdleRequests > 6 || poll.IdleRequests > 3 {
		t.Errorf("polling: %v requests per delivery, %v a second while idle; long poll %v", r, polling.IdleRequests, poll.IdleRequests)
	}
	if polling.Latency.P50 < 50 { // a WebSocket has a few, or on a busy machine more than that
		t.Errorf("asked every 200 ms, p50 is %v ms", polling.Latency.P50)
	}
	// What the first clients left in the heap is used again: that is no figure.
	if ws.GatewayPerConn < 0 || sse.GatewayPerConn >= 0 {
		t.Errorf("memory: %v, then %v", ws.GatewayPerConn, sse.GatewayPerConn)
	}
	for i := range res.Series {
		if res.Series[i].T != i {
			t.Fatalf("second %d is at %d", res.Series[i].T, i)
		}
	}
	var text, page, diff bytes.Buffer
	res.WriteText(&text)
	if err := res.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	report.WriteDiff(&diff, res, res)
	for _, want := range []string{"side by side, 30 clients each", "server CPU per idle connection and second", "… requests", "the gateways were not started anew"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if !strings.Contains(page.String(), "<h2>Side by side</h2>") || strings.Count(page.String(), "<th>") != 5 || !strings.Contains(diff.String(), "polling, compared") {
		t.Errorf("the page or the difference has no comparison:\n%s", diff.String())
	}
}

func TestGatewaysBeginAnewBetweenTransports(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	s := spec(server, "compare")
	s.Transports = []string{"sse", "ws"}
	s.Duration, s.Warmup, s.Idle, s.Rate = 300*time.Millisecond, 0, 100*time.Millisecond, 50
	var renewed atomic.Int32
	s.Renew = func(context.Context) error {
		for deadline := time.Now().Add(10 * time.Second); server.Conns() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%d clients of the first transport are still there", server.Conns())
				break
			}
		}
		renewed.Add(1)
		return nil
	}
	res := run(t, s)
	wantPassed(t, res)
	if renewed.Load() != 1 || len(res.Compared) != 2 || res.Compared[1].Transport != "ws" {
		t.Errorf("%d times, %+v", renewed.Load(), res.Compared)
	}
}

func TestObjectivesHoldForEachTransport(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "compare")
	s.Transports = []string{"ws", "polling"}
	s.Duration, s.Idle, s.PollEvery, s.Rate = 600*time.Millisecond, 100*time.Millisecond, 400*time.Millisecond, 50
	s.Objectives.MaxP50, s.Objectives.MaxLoss = 100*time.Millisecond, 0
	res := run(t, s)
	met := map[string]bool{}
	for _, o := range res.Objectives {
		met[o.Name] = o.Met
	}
	if len(met) != 4 || !met["ws: p50 latency"] || met["polling: p50 latency"] || !met["polling: lost deliveries"] || res.Passed() {
		t.Errorf("%+v", res.Objectives)
	}
}

func TestALossIsOfItsTransport(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	var second, swallowed atomic.Bool
	server.Misdeliver = func(string, string, uint64) int {
		if second.Load() && swallowed.CompareAndSwap(false, true) {
			return 0
		}
		return 1
	}
	s := spec(server, "compare")
	s.Renew = func(context.Context) error { second.Store(true); return nil }
	s.Transports, s.Drain = []string{"ws", "sse"}, 2*time.Second
	s.Duration, s.Idle, s.Rate = 600*time.Millisecond, 100*time.Millisecond, 50
	res := run(t, s)
	if res.Passed() || len(res.Compared) != 2 || res.Compared[0].Lost != 0 || res.Compared[1].Lost != 1 || res.Deliveries.Lost != 1 {
		t.Errorf("%+v", res.Compared)
	}
	if len(res.Problems) == 0 || !strings.HasPrefix(res.Problems[0], "sse: ") {
		t.Errorf("problems %q", res.Problems)
	}
	path := filepath.Join(t.TempDir(), "a.json")
	if err := writeJSON(res, path); err != nil {
		t.Fatal(err)
	}
	back, err := report.Read(path)
	if err != nil || len(back.Compared) != 2 || back.Compared[1] != res.Compared[1] {
		t.Errorf("%v %+v", err, back)
	}
}

func TestWhatCanNotBeComparedIsRefused(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	for name, c := range map[string]struct {
		scenario string
		change   func(*loadtest.Spec)
		says     string
	}{
		"unknown transport":        {"fanout", func(s *loadtest.Spec) { s.Transport = "pigeon" }, `--transport: transport "pigeon" is not known: give one of ws, sse`},
		"one unknown of several":   {"compare", func(s *loadtest.Spec) { s.Transports = []string{"ws", "pigeon"} }, `--transports: transport "pigeon"`},
		"twice the same":           {"compare", func(s *loadtest.Spec) { s.Transports = []string{"ws", "ws"} }, "ws is named twice"},
		"another's protocol":       {"fanout", func(s *loadtest.Spec) { s.Target, s.Transport = "centrifugo", "sse" }, "--target centrifugo have WebSockets only"},
		"one instead of several":   {"compare", func(s *loadtest.Spec) { s.Transport = "sse" }, "--transport sse: a comparison has --transports"},
		"an echo":                  {"compare", func(s *loadtest.Spec) { s.Target = "ws-echo" }, "nothing to compare"},
		"flat out":                 {"compare", func(s *loadtest.Spec) { s.Rate = 0 }, "the same work for all"},
		"without sends":            {"compare", func(s *loadtest.Spec) { s.Rate = -1 }, "the same work for all"},
		"a wait without end":       {"fanout", func(s *loadtest.Spec) { s.PollWait = time.Hour }, "--poll-wait 1h0m0s is not between"},
		"half a second's wait":     {"fanout", func(s *loadtest.Spec) { s.PollWait = 1500 * time.Millisecond }, "in whole seconds"},
		"polls without a pause":    {"fanout", func(s *loadtest.Spec) { s.PollEvery = time.Microsecond }, "--poll-every 1µs is not between"},
		"a heartbeat of a stream":  {"fanout", func(s *loadtest.Spec) { s.Transport, s.PingEvery = "sse", time.Second }, "--ping"},
		"a negative time of idle":  {"compare", func(s *loadtest.Spec) { s.Idle = -1 }, "--idle -1ns is not between"},
		"two mistakes, both named": {"compare", func(s *loadtest.Spec) { s.Rate, s.PollWait = 0, time.Hour }, "--poll-wait"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(server, c.scenario)
			c.change(&s)
			if _, err := loadtest.Run(t.Context(), s, loadtest.Progress{}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something with %q", err, c.says)
			}
		})
	}
}

func writeJSON(res *report.Result, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(res.WriteJSON(file), file.Close())
}

// What the first transport's clients found out is reported, also when those of the
// next could not be started.
func TestWorkersThatDoNotStartForTheNextTransportLeaveTheReport(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "compare")
	s.Transports, s.Receivers, s.Duration, s.Idle = []string{"ws", "sse"}, 1, 300*time.Millisecond, 100*time.Millisecond
	// The third process of this command has no luck: the first transport has one that
	// receives and one that sends.
	first := t.TempDir()
	s.WorkerCommand = []string{"/bin/sh", "-c", `mkdir "$0/1" 2>/dev/null || mkdir "$0/2" 2>/dev/null || { echo out of luck >&2; exit 3; }; exec "$1" "$2"`,
		first, workerCommand[0], workerCommand[1]}
	res := run(t, s)
	if res.Passed() || !strings.Contains(res.Ended, "out of luck") || len(res.Compared) != 1 || res.Compared[0].Kept == 0 {
		t.Errorf("ended %q, %+v", res.Ended, res.Compared)
	}
}

func TestCtrlCBetweenTwoTransportsIsAnInterruption(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := spec(fakechat.New(t), "compare")
	s.Transports, s.Duration, s.Idle = []string{"ws", "sse"}, 300*time.Millisecond, 100*time.Millisecond
	s.Renew = func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return fmt.Errorf("waiting for a gateway: %w", ctx.Err())
	}
	res, err := loadtest.Run(ctx, s, loadtest.Progress{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Passed() || !strings.HasPrefix(res.Ended, "interrupted") || len(res.Compared) != 1 {
		t.Errorf("ended %q, %+v", res.Ended, res.Compared)
	}
}
