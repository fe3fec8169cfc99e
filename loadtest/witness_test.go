package loadtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/fleet"
)

// witness is a client that shares no code with the tester: another WebSocket
// library, another parser, Go's own clock.
type witness struct {
	conn *websocket.Conn

	mu      sync.Mutex // guards what follows
	took    []time.Duration
	strange []string
}

func newWitness(t *testing.T, f *fleet.Fleet, user string) *witness {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString(f.Secret)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := websocket.Dial(t.Context(), "ws://"+f.Gateways[0]+"/v1/ws", &websocket.DialOptions{
		Subprotocols: []string{"madang.v1", "bearer." + token},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	w := &witness{conn: conn}
	_, hello, err := conn.Read(t.Context())
	if err != nil || !bytes.Contains(hello, []byte(`"hello"`)) {
		t.Fatalf("no hello: %q %v", hello, err)
	}
	go w.listen()
	return w
}

func (w *witness) listen() {
	for {
		_, b, err := w.conn.Read(context.Background())
		now := time.Now()
		if err != nil {
			return // closed by the test
		}
		w.mu.Lock()
		for line := range bytes.Lines(b) {
			var m struct{ Type, Key string }
			// The key of a send is "lt", and in 16 hex digits the nanosecond of the
			// day's clock at which it was due.
			if json.Unmarshal(line, &m) != nil || m.Type != "message" || len(m.Key) < 18 {
				w.strange = append(w.strange, string(line))
				continue
			}
			due, err := strconv.ParseInt(m.Key[2:18], 16, 64)
			if err != nil {
				w.strange = append(w.strange, string(line))
				continue
			}
			w.took = append(w.took, now.Sub(time.Unix(0, due)))
		}
		w.mu.Unlock()
	}
}

// kernelsCount is the number of connections at a server's end, by ss(8).
func kernelsCount(t *testing.T, addr string) int {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	out, err := exec.Command("ss", "-Htn", "state", "established", "sport", "= :"+port).Output()
	if err != nil {
		t.Fatalf("ss: %v", err)
	}
	return bytes.Count(out, []byte("\n"))
}

// metric adds up a gateway's metric, over the labels that contain with.
func metric(t *testing.T, f *fleet.Fleet, name, with string) (sum int) {
	t.Helper()
	res, err := http.Get("http://" + f.Admins[0] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{.*\})? (\S+)$`).FindAllStringSubmatch(string(b), -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(m[1], with) {
			sum += int(v)
		}
	}
	return sum
}

// TestOthersSeeWhatTheTesterSays compares the tester's figures of a run with those
// of the kernel, the gateway and clients that share no code with it:
//
//	go test ./loadtest -run OthersSee -v
func TestOthersSeeWhatTheTesterSays(t *testing.T) {
	for _, program := range []string{"redis-server", "ss"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	binary, err := testkit.Released(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, over := range []string{"ws", "sse", "poll"} {
		t.Run(over, func(t *testing.T) { othersSee(t, binary, over) })
	}
}

func othersSee(t *testing.T, binary, over string) {
	f, err := fleet.Start(t.Context(), fleet.Options{Binary: binary, Gateways: 1, APIs: 1, APIArgs: []string{"--sends-per-second=0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Stop(false) })

	const clients, rooms, each, witnesses = 200, 10, 20, 10
	// The gateway counts what it says to a new connection, too: how much is seen
	// at one that nobody writes to.
	first := newWitness(t, f, "nobody")
	greetings := 0
	for deadline := time.Now().Add(10 * time.Second); greetings == 0 && time.Now().Before(deadline); {
		greetings = metric(t, f, "madang_deliveries_total", "") // it may count what the client has read already
	}
	first.conn.CloseNow()
	for deadline := time.Now().Add(10 * time.Second); kernelsCount(t, f.Gateways[0]) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection that was closed is still there")
		}
	}
	var all []*witness
	var kernel, gateway int
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for deadline := time.Now().Add(20 * time.Second); kernelsCount(t, f.Gateways[0]) < clients && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond)
		}
		for room := range witnesses { // the first member of each room, at a second device
			all = append(all, newWitness(t, f, fmt.Sprintf("seen-u%d", room*each)))
		}
		time.Sleep(time.Second)
		kernel, gateway = kernelsCount(t, f.Gateways[0]), metric(t, f, "madang_connections", `state="open"`)
		if over == "poll" { // also those that ask again just now
			gateway = metric(t, f, "madang_connections", "")
		}
	}()
	res := run(t, loadtest.Spec{
		Scenario: "fanout", Transport: over, Gateways: f.Gateways, APIs: f.APIs, Secret: f.Secret, Prefix: "seen",
		Clients: clients, Rooms: rooms, Members: each, Rate: 100, Warmup: time.Second, Duration: 5 * time.Second,
		Objectives: loadtest.NoObjectives(), WorkerCommand: workerCommand,
	})
	wantPassed(t, res)
	<-looked
	var took []time.Duration
	for _, w := range all {
		w.mu.Lock()
		took = append(took, w.took...)
		if len(w.strange) > 0 {
			t.Errorf("a witness got %q", w.strange[0])
		}
		w.mu.Unlock()
	}
	if len(took) < 100 {
		t.Fatalf("the witnesses got %d messages", len(took))
	}
	slices.Sort(took)
	at := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1e3 }
	p := phase(t, res, "fanout")
	greeted := 1 + clients + witnesses
	if over == "poll" {
		greeted -= clients // there is no hello in an answer
	}
	delivered := metric(t, f, "madang_deliveries_total", "") - greetings*greeted
	t.Logf("connections: the tester %d, ss %d and the gateway %d less %d witnesses", p.Live, kernel, gateway, witnesses)
	t.Logf("deliveries: the tester %d, the gateway %d less %d to the witnesses (and less %d greeting each)", res.Deliveries.OnTheWire, delivered, len(took), greetings)
	t.Logf("due → arrived: the tester p50 %.2f p99 %.2f ms, the witnesses p50 %.2f p99 %.2f ms (%d messages)",
		p.Latency.P50, p.Latency.P99, at(0.5), at(0.99), len(took))
	if p.Live != clients || kernel != clients+witnesses || gateway != clients+witnesses {
		t.Error("not the same connections")
	}
	if int(res.Deliveries.OnTheWire) != delivered-len(took) {
		t.Error("not the same deliveries")
	}
	if p.Latency.P99 > 1000 {
		t.Log("this machine made both wait for a second and more: their times say nothing of each other")
		return
	}
	// Two programs on shared cores: the medians agree, up to a wake-up's time.
	if apart := p.Latency.P50 - at(0.5); max(apart, -apart) > 1+p.Latency.P50/2 {
		t.Error("not the same latency")
	}
}
