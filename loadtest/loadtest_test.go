package loadtest_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/internal/fakechat"
	"github.com/madang-chat/madang/loadtest/report"
)

// asWorker makes this test binary a worker process.
const asWorker = "as-a-loadtest-worker"

var workerCommand = []string{os.Args[0], asWorker}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asWorker {
		if err := loadtest.Work(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 3 && os.Args[1] == asAgent {
		if err := beAgent(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func spec(s *fakechat.Server, scenario string) loadtest.Spec {
	return loadtest.Spec{
		Scenario: scenario, Gateways: []string{s.Addr().String()}, APIs: []string{s.Addr().String()}, Secret: fakechat.Secret,
		Rooms: 6, Members: 5, Rate: 50, Duration: time.Second, Receivers: 2, Senders: 4,
		Objectives: loadtest.NoObjectives(), WorkerCommand: workerCommand,
	}
}

func run(t *testing.T, spec loadtest.Spec) *report.Result {
	t.Helper()
	res, err := loadtest.Run(t.Context(), spec, loadtest.Progress{})
	if err != nil {
		t.Fatal(err)
	}
	if t.Failed() || testing.Verbose() {
		res.WriteText(os.Stderr)
	}
	return res
}

func phase(t *testing.T, res *report.Result, name string) report.Phase {
	t.Helper()
	for _, p := range res.Phases {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no phase %q in %+v", name, res.Phases)
	return report.Phase{}
}

func wantPassed(t *testing.T, res *report.Result) {
	t.Helper()
	if !res.Passed() {
		t.Errorf("ended %q, problems %q", res.Ended, res.Problems)
	}
}

func TestFanoutAccountsForEveryDelivery(t *testing.T) {
	t.Parallel()
	res := run(t, spec(fakechat.New(t), "fanout"))
	wantPassed(t, res)
	d, p := res.Deliveries, phase(t, res, "fanout")
	if res.Connections.Opened != 30 || res.Sends.Acked < 25 || d.Owed != 5*res.Sends.Acked || d.Kept != d.Owed || d.OnTheWire != d.Owed {
		t.Errorf("%+v %+v %+v", res.Connections, res.Sends, d)
	}
	if p.Latency.Count == 0 || p.Latency.P99 <= 0 || p.AckTime.Count == 0 || p.OpenTime.Count != 0 || phase(t, res, "ramp").OpenTime.Count != 30 {
		t.Errorf("%+v", p)
	}
	var arrived uint64
	for _, s := range res.Series {
		arrived += s.Arrived
	}
	if arrived != d.OnTheWire {
		t.Errorf("%d arrivals in the series, %d delivered", arrived, d.OnTheWire)
	}
}

func TestFlatOutEndsWhenAllIsDelivered(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "fanout")
	s.Rate, s.Duration = 0, time.Second
	res := run(t, s)
	wantPassed(t, res)
	if p := phase(t, res, "fanout"); p.Acked < 10 || p.Arrivals != 5*p.Acked {
		t.Errorf("%+v", p)
	}
}

func TestStormBringsAllBack(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "storm")
	s.Times, s.Duration = 2, 300*time.Millisecond
	res := run(t, s)
	wantPassed(t, res)
	if res.Connections.Returned != 60 || phase(t, res, "storm 2").BackTime.Count != 30 || res.Deliveries.Lost != 0 {
		t.Errorf("%+v %+v", res.Connections, res.Deliveries)
	}
}

func TestSlowReadersGetEverythingInTheEnd(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "slow")
	s.Duration, s.SlowFor, s.SlowShare = 200*time.Millisecond, 300*time.Millisecond, 0.5
	res := run(t, s)
	wantPassed(t, res)
	if late := phase(t, res, "all read again").Latency.Max; late < 100 {
		t.Errorf("who did not read for 300 ms was at most %v ms late", late)
	}
}

func TestHoldWithoutSends(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "hold")
	s.Rate, s.Duration, s.PingEvery = -1, 400*time.Millisecond, 100*time.Millisecond
	res := run(t, s)
	wantPassed(t, res)
	if res.Connections.Pongs < 30 || res.Sends.Issued != 0 {
		t.Errorf("%+v %+v", res.Connections, res.Sends)
	}
}

func TestCapacityFindsTheKnee(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	server.Answer(func(http.ResponseWriter, *http.Request) bool {
		time.Sleep(10 * time.Millisecond) // 4 connections: 400 sends per second at most
		return false
	})
	s := spec(server, "capacity")
	s.StepFrom, s.StepFactor, s.StepTime = 50, 3, 500*time.Millisecond
	s.Objectives.MaxP99 = 2 * time.Second // this machine may be busy: what breaks is the backlog
	res := run(t, s)
	if c := res.Capacity; c == nil || c.Knee > 450 || c.Broke == 0 || c.Why == "" {
		t.Errorf("%+v", c)
	}
}

// What is delivered and was never acknowledged is more than was owed.
func TestAStepThatDeliversMoreThanIsOwedSaysWhatBrokeIt(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	var once sync.Once
	server.Answer(func(w http.ResponseWriter, r *http.Request) (answered bool) {
		once.Do(func() {
			server.Post(r.PathValue("room"), "somebody", r.Header.Get("Idempotency-Key"))
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"code":"forbidden"}`))
			answered = true
		})
		return answered
	})
	s := spec(server, "capacity")
	s.StepFrom, s.StepTo, s.StepTime, s.Objectives.MaxP99 = 50, 50, 300*time.Millisecond, 10*time.Second
	if c := run(t, s).Capacity; c.Why != "1 sends failed" {
		t.Errorf("%+v", c)
	}
}

func TestCheckSurvivesDropsAndCountsNothingTwice(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	s := spec(server, "check")
	s.Tolerate.Failures, s.Times = true, 2
	go func() { // a server that loses its sockets besides
		for server.Conns() < 30 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(150 * time.Millisecond)
		server.DropAll()
	}()
	res := run(t, s)
	wantPassed(t, res)
	if res.Connections.Returned < 60 || res.Deliveries.Owed < 100 || res.Deliveries.SilenceMs <= 0 {
		t.Errorf("%+v %+v", res.Connections, res.Deliveries)
	}
}

// Failures are for the time in which servers are away: a check in which no send ever
// succeeds has checked nothing.
func TestACheckOfNothingIsNoSuccess(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	server.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"code":"forbidden"}`))
		return true
	})
	s := spec(server, "check")
	s.Tolerate.Failures, s.Duration = true, 300*time.Millisecond
	res := run(t, s)
	if res.Passed() || !strings.Contains(strings.Join(res.Problems, "\n"), "403 forbidden") {
		t.Errorf("problems %q, %+v %+v", res.Problems, res.Sends, res.Deliveries)
	}
}

func TestChatMixesAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "chat")
	s.Clients, s.Members, s.Duration = 40, 12, 400*time.Millisecond
	res := run(t, s)
	wantPassed(t, res)
	if res.Connections.Returned == 0 || res.Connections.Chatter == 0 || phase(t, res, "burst 3").Acked == 0 || res.Deliveries.Owed == 0 {
		t.Errorf("%+v %+v", res.Connections, res.Deliveries)
	}
}

// TestAChatIsWhatItSaysItIs looks from the server's side: rooms of many sizes,
// bursts, all that people do besides sending, and networks that are lost.
func TestAChatIsWhatItSaysItIs(t *testing.T) {
	server := fakechat.New(t)
	s := spec(server, "chat")
	s.Clients, s.Rooms, s.Members, s.Zipf, s.Duration, s.Rate = 60, 12, 24, 1, 1600*time.Millisecond, 30
	res := run(t, s)
	wantPassed(t, res)
	if sizes := server.RoomSizes(); len(sizes) != 12 || sizes[0] != 24 || sizes[1] != 12 || sizes[5] != 4 || sizes[11] != 2 {
		t.Errorf("rooms of %v", sizes)
	}
	for _, kind := range []string{"typing", "focus", "read"} {
		if server.Heard(kind) == 0 {
			t.Errorf("nobody said %q", kind)
		}
	}
	var lulls, bursts, lullSeconds, burstSeconds float64
	for _, p := range res.Phases {
		switch {
		case strings.HasPrefix(p.Name, "lull"):
			lulls, lullSeconds = lulls+float64(p.Acked), lullSeconds+p.Seconds
		case strings.HasPrefix(p.Name, "burst"):
			bursts, burstSeconds = bursts+float64(p.Acked), burstSeconds+p.Seconds
		}
	}
	if lull, burst := lulls/lullSeconds, bursts/burstSeconds; burst < 1.2*lull { // three times as many are due; a busy machine is late with some
		t.Errorf("%.0f sends a second in lulls, %.0f in bursts", lull, burst)
	}
	// A twentieth of the clients, thrice.
	if back := res.Connections.Returned; back == 0 || back > 60 {
		t.Errorf("%d clients came back", back)
	}
}

func TestLossFailsTheRun(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	server.Misdeliver = func(user, room string, n uint64) int {
		if strings.HasSuffix(user, "-u7") && n == 3 {
			return 0
		}
		return 1
	}
	s := spec(server, "fanout")
	s.Drain = 2 * time.Second
	res := run(t, s)
	if res.Passed() || res.Deliveries.Lost != 1 || len(res.Deliveries.Violations) != 1 {
		t.Errorf("%+v, problems %q", res.Deliveries, res.Problems)
	}
	if v := res.Deliveries.Violations[0]; !strings.Contains(v, "-u7 never got ") {
		t.Errorf("%q", v)
	}
}

func TestAMissedObjectiveFailsTheRun(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "fanout")
	s.Objectives.MaxP99, s.Objectives.MinRate = time.Nanosecond, 1
	res := run(t, s)
	if res.Passed() || len(res.Objectives) != 2 || res.Objectives[0].Met || !res.Objectives[1].Met {
		t.Errorf("%+v", res.Objectives)
	}
}

// Processes that are elsewhere use nothing that can be seen from here.
func TestAnObjectiveThatCouldNotBeMeasuredIsNotMet(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "fanout")
	elsewhere := strings.Replace(s.Gateways[0], "127.0.0.1", "0.0.0.0", 1) // this machine, by an address that need not be
	s.Gateways, s.APIs, s.Duration = []string{elsewhere}, []string{elsewhere}, 300*time.Millisecond
	s.Objectives.MaxCPUPerDelivery, s.Objectives.MaxMemoryPerConn = 1000, 1e6
	res := run(t, s)
	if res.Passed() || len(res.Objectives) != 2 || res.Objectives[0].Met || res.Objectives[1].Met || len(res.Servers) > 0 {
		t.Errorf("%+v of %+v", res.Objectives, res.Servers)
	}
	var text, page bytes.Buffer
	res.WriteText(&text)
	if err := res.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	if want := "it was not measured"; strings.Count(text.String(), want) != 2 || !strings.Contains(page.String(), want) {
		t.Errorf("the report does not say why:\n%s", text.String())
	}
}

// A server that stops before the end and goes on after it was late all the same.
func TestADelayThatOutlastsThePhaseIsInItsTimes(t *testing.T) {
	t.Parallel()
	for scenario, phaseName := range map[string]string{"fanout": "fanout", "compare": "ws: fanout", "capacity": "50/s"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			server := fakechat.New(t)
			thaw := make(chan struct{})
			var frozen sync.Once
			server.Answer(func(http.ResponseWriter, *http.Request) bool {
				if server.Messages() >= 25 { // half of the phase
					frozen.Do(func() { time.AfterFunc(1500*time.Millisecond, func() { close(thaw) }) })
					<-thaw
				}
				return false
			})
			s := spec(server, scenario)
			s.Transports, s.Idle, s.Objectives.MaxP99 = []string{"ws"}, 100*time.Millisecond, 400*time.Millisecond
			s.StepFrom, s.StepTo, s.StepTime = 50, 50, time.Second
			res := run(t, s)
			p := phase(t, res, phaseName)
			if p.Latency.P90 < 600 || p.AckTime.P90 < 600 || p.Latency.Count != int64(res.Deliveries.OnTheWire) {
				t.Errorf("nearly half was a second late, and p90 is %v ms (acknowledged %v ms) of %d", p.Latency.P90, p.AckTime.P90, p.Latency.Count)
			}
			if res.Passed() {
				t.Errorf("p99 met: %+v", res.Objectives)
			}
			if c := res.Compared; scenario == "compare" && c[0].Latency != p.Latency {
				t.Errorf("side by side %+v", c[0].Latency)
			}
			if c := res.Capacity; scenario == "capacity" && c.Steps[0].Held {
				t.Errorf("it held: %+v", c)
			}
		})
	}
}

func TestAServerThatDiesMidRunIsReportedNotHidden(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	s := spec(server, "fanout")
	s.Drain = time.Second
	go func() {
		for server.Conns() < 30 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		server.HTTP.Listener.Close()
		server.DropAll()
		server.HTTP.CloseClientConnections()
	}()
	res := run(t, s)
	if res.Passed() || res.Connections.LiveEnd == 30 || len(res.Connections.Drops) == 0 {
		t.Errorf("%+v", res.Connections)
	}
}

func TestCtrlCGivesTheResultsSoFar(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := fakechat.New(t)
	s := spec(server, "fanout")
	s.Duration = time.Hour
	var out bytes.Buffer
	go func() {
		for server.Messages() < 20 {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	res, err := loadtest.Run(ctx, s, loadtest.Progress{Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if res.Passed() || !strings.HasPrefix(res.Ended, "interrupted") || res.Deliveries.Kept == 0 || res.Deliveries.Lost != 0 {
		t.Errorf("ended %q, %+v", res.Ended, res.Deliveries)
	}
}

func TestAWorkerThatDiesFailsTheRun(t *testing.T) {
	t.Parallel()
	s := spec(fakechat.New(t), "fanout")
	s.WorkerCommand = []string{"/bin/sh", "-c", "echo out of luck >&2; exit 3"}
	if _, err := loadtest.Run(t.Context(), s, loadtest.Progress{}); err == nil || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("got %v", err)
	}
}

func TestBadInputIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	cases := map[string]struct {
		change func(*loadtest.Spec)
		says   string
	}{
		"nobody listens at the gateway": {func(s *loadtest.Spec) { s.Gateways = []string{"127.0.0.1:1"} }, "--gateway 127.0.0.1:1: nobody can be reached"},
		"nobody listens at the API":     {func(s *loadtest.Spec) { s.APIs = []string{"127.0.0.1:1"} }, "--api 127.0.0.1:1: nobody can be reached"},
		"no address":                    {func(s *loadtest.Spec) { s.Gateways = []string{"nonsense"} }, "give host:port"},
		"TLS":                           {func(s *loadtest.Spec) { s.Gateways = []string{"wss://x:1"} }, "no TLS"},
		"wrong secret":                  {func(s *loadtest.Spec) { s.Secret = bytes.Repeat([]byte("x"), 40) }, "give the secret that the servers run with"},
		"short secret":                  {func(s *loadtest.Spec) { s.Secret = []byte("x") }, "shorter than 32 bytes"},
		"absurd rate":                   {func(s *loadtest.Spec) { s.Rate = 1e12 }, "--rate"},
		"no clients":                    {func(s *loadtest.Spec) { s.Clients, s.Rooms = 0, 0 }, "give --clients, or --rooms and --members"},
		"a rate that is no number":      {func(s *loadtest.Spec) { s.Rate = math.NaN() }, "--rate NaN is not between"},
		"a limit without end":           {func(s *loadtest.Spec) { s.Objectives.MaxDrops = math.Inf(1) }, "--max-drops +Inf is not a number"},
		"negative members":              {func(s *loadtest.Spec) { s.Members = -1 }, "--members -1 is not between"},
		"negative drain":                {func(s *loadtest.Spec) { s.Drain = -1 }, "--drain -1ns is not between"},
		"negative ping":                 {func(s *loadtest.Spec) { s.PingEvery = -1 }, "--ping -1ns is not between"},
		"nothing in flight":             {func(s *loadtest.Spec) { s.InFlight = -1 }, "--in-flight -1 is not between"},
		"absurd processes":              {func(s *loadtest.Spec) { s.Clients, s.Receivers = 100_000, 100_000 }, "--receivers 100000 is not between"},
		"steps that go down":            {func(s *loadtest.Spec) { s.StepFrom, s.StepTo = 100, 1 }, "--to 1 is not between 100"},
		"two mistakes, both named":      {func(s *loadtest.Spec) { s.Rate, s.TextBytes = 1e12, 1<<30 }, "--size"},
		"absurd clients":                {func(s *loadtest.Spec) { s.Clients = 1 << 40 }, "clients"},
		"more members than clients":     {func(s *loadtest.Spec) { s.Clients, s.Members = 3, 5 }, "members"},
		"a check without sends":         {func(s *loadtest.Spec) { s.Scenario, s.Rate = "check", -1 }, "--rate -1: what is checked are sends"},
		"unknown scenario":              {func(s *loadtest.Spec) { s.Scenario = "dance" }, "give one of capacity, chat"},
		"unknown target":                {func(s *loadtest.Spec) { s.Target = "irc" }, "not known"},
		"source that is no address":     {func(s *loadtest.Spec) { s.Sources = []string{"eth0"} }, "--source"},
		"too few files":                 {func(s *loadtest.Spec) { s.Clients, s.Rooms, s.Receivers = 9_000_000, 1, 2 }, "open"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := spec(server, "fanout")
			c.change(&s)
			began := time.Now()
			_, err := loadtest.Run(t.Context(), s, loadtest.Progress{})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something with %q", err, c.says)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A low limit of open files is made up for by processes, but not by any number: a
// thousand is what may be asked for, too.
func TestAFileLimitThatAsksForTooManyProcessesIsNamed(t *testing.T) {
	s := spec(fakechat.New(t), "hold")
	s.Clients, s.Rooms, s.Receivers, s.WorkerCommand = 150_000, 1, 0, []string{"/bin/false"}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	low := before
	low.Cur = 200
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err := loadtest.Run(t.Context(), s, loadtest.Progress{})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err == nil || !strings.Contains(err.Error(), "would take 1500 processes") {
		t.Errorf("got %.300v", err)
	}
}

func TestAGatewayThatRefusesAllIsAnErrorWithItsRemedy(t *testing.T) {
	t.Parallel()
	refusing := fakechat.New(t)
	refusing.RefuseSockets(http.StatusUnauthorized)
	s := spec(refusing, "fanout")
	res := run(t, s)
	if !strings.Contains(res.Ended, "the gateway does not accept our tokens") {
		t.Errorf("ended %q", res.Ended)
	}
}
