package agents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/clock"
)

var secret = []byte("0123456789abcdef")

func hub(t *testing.T) *Hub {
	t.Helper()
	h, err := Listen("127.0.0.1:0", secret, "v1", 1, clock.New(clock.Offset()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func post(t *testing.T, h *Hub, path, auth string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+h.Addr()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", auth)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

const join = `{"name":"a","version":"v1","cores":2,"open_files":1000,"clock":{"round_trip_ns":1000}}`

func TestOnlyWhoKnowsTheSecretIsHeard(t *testing.T) {
	h := hub(t)
	ours := authorization(secret)
	for name, c := range map[string]struct {
		path, auth, body string
		status           int
		says             string
	}{
		"no secret":         {"/v1/agents", "", join, 401, "the agents' secret is wrong"},
		"wrong secret":      {"/v1/agents", "Bearer 0123456789abcdeg", join, 401, "the agents' secret is wrong"},
		"too long":          {"/v1/agents", ours, `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 400, "too large"},
		"no JSON":           {"/v1/agents", ours, "hello", 400, "invalid"},
		"unknown key":       {"/v1/agents", ours, `{"nam":"a"}`, 400, `"nam"`},
		"nameless":          {"/v1/agents", ours, strings.Replace(join, `"a"`, `""`, 1), 409, "not what an agent says"},
		"an absurd clock":   {"/v1/agents", ours, strings.Replace(join, "1000}", "-1}", 1), 409, "not what an agent says"},
		"another version":   {"/v1/agents", ours, strings.Replace(join, "v1", "v0", 1), 409, "run the same program"},
		"a beat of nobody":  {"/v1/agents/7/beat", ours, "{}", 404, "no such agent"},
		"nobody's worker":   {"/v1/agents/7/workers/0", ours, "", 404, "no such agent"},
		"a beat of no name": {"/v1/agents/x/beat", ours, "{}", 404, "no such agent"},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := post(t, h, c.path, c.auth, strings.NewReader(c.body))
			if status != c.status || !strings.Contains(text, c.says) {
				t.Errorf("%d %q", status, text)
			}
		})
	}
	status, text := post(t, h, "/v1/agents", ours, strings.NewReader(join))
	var joined Joined
	if err := json.Unmarshal([]byte(text), &joined); status != 200 || err != nil {
		t.Errorf("%d %q", status, text)
	}
	if another := hub(t); another.nextID == h.nextID-1 {
		t.Error("two coordinators give the same numbers")
	}
	if status, _ := post(t, h, fmt.Sprintf("/v1/agents/%d/workers/0", joined.ID), ours, nil); status != 404 {
		t.Errorf("a worker that nobody asked for: %d", status)
	}
	if status, text := post(t, h, "/v1/agents", ours, strings.NewReader(join)); status != 503 {
		t.Errorf("one agent too many: %d %q", status, text)
	}
}

func TestAShortSecretIsRefused(t *testing.T) {
	if _, err := Listen("127.0.0.1:0", []byte("short"), "", 1, clock.Clock{}); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestAWrongSecretEndsTheAgent(t *testing.T) {
	h := hub(t)
	a := Agent{Coordinator: h.Addr(), Secret: bytes.Repeat([]byte("x"), 20), Version: "v1", OpenFiles: 100, Say: t.Logf}
	if err := a.Serve(t.Context()); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
}

// TestAnAgentThatIsNotHeardOfIsGone: a machine without power closes no
// connection.
func TestAnAgentThatIsNotHeardOfIsGone(t *testing.T) {
	h := hub(t)
	if status, text := post(t, h, "/v1/agents", authorization(secret), strings.NewReader(join)); status != 200 {
		t.Fatalf("%d %q", status, text)
	}
	if err := h.Wait(t.Context(), time.Second, t.Logf); err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	defer there.Close()
	p := &process{hub: h, agent: h.agents[0], connected: make(chan struct{}), cause: make(chan string, 1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p.connect(here, here) {
		t.Fatal("a connection that is no TCP connection was taken")
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil || !p.connect(conn, conn) {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.agents[0].processes[0] = p
	h.agents[0].heard = time.Now().Add(-2 * silence)
	h.mu.Unlock()
	if _, err := p.Read(make([]byte, 1)); err == nil { // the watch ends it
		t.Error("read something")
	}
	if why := p.End(); !strings.Contains(why, "agent a (") || !strings.Contains(why, "not been heard of") {
		t.Errorf("says %q", why)
	}
}

// network is two clocks and a way between them, on fake time.
type network struct {
	now      int64 // ns
	offset   int64 // hub's time before the agent's
	out, in  []int64
	question int
}

func (n *network) monotonic() int64 { return n.now }

func (n *network) ask() (int64, error) {
	i := n.question % len(n.out)
	n.question++
	n.now += n.out[i]
	hub := n.now + n.offset
	n.now += n.in[i]
	return hub, nil
}

func TestTheQuickestTripTellsTheTimeWithinHalfOfIt(t *testing.T) {
	const ms = int64(time.Millisecond)
	for name, n := range map[string]*network{
		"even":             {offset: 12345 * ms, out: []int64{ms, 9 * ms}, in: []int64{ms, ms}},
		"all of it out":    {offset: -77 * ms, out: []int64{5 * ms}, in: []int64{0}},
		"all of it back":   {offset: 1 << 50, out: []int64{0, 40 * ms}, in: []int64{3 * ms, 0}},
		"a quick one last": {offset: 5, out: []int64{30 * ms, 20 * ms, ms}, in: []int64{10 * ms, 10 * ms, ms}},
	} {
		r, err := compare(7, n.monotonic, n.ask)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := r.Offset - n.offset; max(wrong, -wrong) > r.Trip/2 || r.Trip > 5*ms {
			t.Errorf("%s: wrong by %d ns, a trip of %d", name, wrong, r.Trip)
		}
	}
}

func TestAReadingAgesAndDriftIsWhatErrorsDoNotExplain(t *testing.T) {
	r := Reading{Offset: 1000, Trip: 200, At: 0}
	if got := r.Error(int64(time.Minute)); got < 5*time.Millisecond || got > 7*time.Millisecond {
		t.Errorf("after a minute: %v", got)
	}
	if got := r.Drift(Reading{Offset: 1150, Trip: 100}); got != 0 {
		t.Errorf("explained by the trips, and yet %v", got)
	}
	if got := r.Drift(Reading{Offset: 500, Trip: 100}); got != 350 {
		t.Errorf("drift %d", got)
	}
	later := remote{clock: r}
	later.take(Reading{Offset: 990, Trip: 5000, At: int64(time.Minute)}, int64(time.Minute))
	if later.clock.Offset != 990 {
		t.Error("a minute old and still the better reading")
	}
	later.fixed = 1
	later.take(Reading{Offset: 99_000, Trip: 10}, 0)
	if later.clock.Offset != 990 || later.drift == 0 {
		t.Errorf("%+v", later)
	}
}
