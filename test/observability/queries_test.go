package observability

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/goccy/go-yaml"

	"github.com/madang-chat/madang/grafana"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

// observed is a fleet of processes under a small load, and a Prometheus that
// scrapes it.
func observed(t *testing.T) *prometheus {
	t.Helper()
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 2, 2, fleet.Flags("gateway", "--heartbeat", "1s"), fleet.Flags("api", "--blob-dir", t.TempDir()))
	p := startPrometheus(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })

	const rooms, members = 6, 5
	users := make([]*fleet.User, rooms*members)
	for i := range users {
		users[i] = f.User(fmt.Sprintf("user-%d", i), fleet.OnAPI(i%2), fleet.OnGateway(i/2%2), fleet.KeepingLogs())
	}
	for r := range rooms {
		group := users[r*members : (r+1)*members]
		var names []string
		for _, u := range group[1:] {
			names = append(names, u.Name)
		}
		group[0].CreatesRoom(fmt.Sprintf("room-%d", r), names...)
		for _, u := range group[1:] { // the first only sends, and comes and goes
			u.Connects()
		}
	}
	// repeat calls f until the test ends, pausing after each.
	repeat := func(pause time.Duration, f func(i int)) {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				f(i)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	for r := range rooms {
		u := users[r*members]
		repeat(time.Duration(20+10*r)*time.Millisecond, func(i int) {
			// A busy quarter and a quiet one: pictures of straight lines show nothing.
			if i/60%4 == 3 {
				time.Sleep(100 * time.Millisecond)
			}
			_, _ = u.Requests(http.MethodPost, fmt.Sprintf("/v1/rooms/room-%d/messages", r), map[string]any{"type": "text", "text": "It is message " + fmt.Sprint(i)})
		})
	}
	repeat(300*time.Millisecond, func(i int) {
		u := users[i%rooms*members]
		_, _ = u.Requests(http.MethodGet, "/v1/rooms", nil)
		_, _ = u.Requests(http.MethodGet, fmt.Sprintf("/v1/rooms/room-%d/messages?limit=10", i%rooms), nil)
		_, _ = u.Requests(http.MethodPost, fmt.Sprintf("/v1/rooms/room-%d/messages", (i+1)%rooms), map[string]any{"type": "text", "text": "not my room"})
	})
	repeat(250*time.Millisecond, func(i int) {
		u := users[i%rooms*members]
		var a struct{ ID string }
		if res, err := u.TryUpload("notes.txt", strings.Repeat("notes ", 200*(i%5))); err == nil && res.Status == http.StatusCreated && json.Unmarshal(res.Body, &a) == nil {
			_, _ = u.Requests(http.MethodPost, fmt.Sprintf("/v1/rooms/room-%d/messages", i%rooms), map[string]any{"attachments": []string{a.ID}})
			_, _ = users[i%rooms*members+1].Requests(http.MethodGet, "/v1/attachments/"+a.ID, nil)
		}
	})
	repeat(200*time.Millisecond, func(i int) { // comes back, looks, goes
		conn, _, err := users[i%rooms*members].Dial("?resume")
		if err == nil {
			_, _, _ = conn.Read(ctx) // hello
			_ = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"resume","rooms":{}}`))
			_, _, _ = conn.Read(ctx) // resumed
			_ = conn.Close(websocket.StatusNormalClosure, "")
		}
	})
	for r := range rooms {
		room := fmt.Sprintf("room-%d", r)
		for m := 1; m < members; m++ {
			u := users[r*members+m]
			_ = u.Say(map[string]any{"type": "focus", "room": room})
			_ = u.Say(map[string]any{"type": "watch", "users": []string{users[(r+1)%rooms*members].Name, users[r*members].Name}})
		}
		u := users[r*members+1]
		repeat(2*time.Second+time.Duration(r)*300*time.Millisecond, func(i int) {
			_ = u.Say(map[string]any{"type": "typing", "room": room})
			if i%3 == 2 {
				_ = u.Say(map[string]any{"type": "typing", "room": "not-mine"})
			}
		})
	}
	repeat(time.Second, func(int) { // nobody's token
		conn, _, err := websocket.Dial(ctx, "ws://"+f.Gateways[0].Addr+"/v1/ws", &websocket.DialOptions{Subprotocols: []string{"madang.v1", "bearer.nonsense"}})
		if err == nil {
			_ = conn.CloseNow()
		}
	})
	return p
}

// rule is one of grafana/rules.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t testing.TB) []rule {
	t.Helper()
	var all []rule
	for _, name := range []string{"recording", "alerts"} {
		text, err := os.ReadFile("../../grafana/rules/" + name + ".yml")
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Groups []struct {
				Name  string
				Rules []rule
			}
		}
		if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
			t.Fatal(err)
		}
		for _, g := range file.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all
}

// Every panel has something to show when there is traffic, and nothing that is
// asked is an error.
func TestEveryQueryIsAnswered(t *testing.T) {
	p := observed(t)
	type question struct {
		where, expr string
		quiet       bool
	}
	var questions []question
	for name, d := range grafana.Dashboards() {
		for _, row := range d.Rows {
			for _, panel := range row.Panels {
				for _, q := range panel.Queries {
					questions = append(questions, question{name + " / " + panel.Title, asGrafana(q.Expr), q.Quiet})
				}
			}
		}
	}
	for _, q := range grafana.AnnotationQueries() {
		questions = append(questions, question{"annotation", q, true})
	}
	for _, r := range rules(t) {
		// An alert's expression is empty while all is well.
		questions = append(questions, question{"rule " + r.Record + r.Alert, r.Expr, r.Alert != ""})
	}
	if len(questions) < 100 {
		t.Fatalf("only %d questions", len(questions))
	}
	sort.Slice(questions, func(i, j int) bool { return questions[i].where < questions[j].where })

	due := questions
	var missing []string
	deadline := time.Now().Add(60 * time.Second)
	for len(due) > 0 && time.Now().Before(deadline) {
		missing = missing[:0]
		var still []question
		for _, q := range due {
			answer, err := p.query(q.expr)
			if err != nil {
				t.Errorf("%s: %v\n%s", q.where, err, q.expr)
				continue
			}
			if !q.quiet && !hasNumber(answer) {
				still = append(still, q)
				missing = append(missing, q.where+"\n    "+q.expr)
			}
		}
		due = still
		time.Sleep(scrapeEvery)
	}
	if len(due) > 0 {
		t.Errorf("%d of %d questions have no answer:\n%s", len(due), len(questions), strings.Join(missing, "\n"))
	}

	var firing struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	if err := p.ask("/api/v1/alerts", nil, &firing); err != nil {
		t.Fatal(err)
	}
	for _, a := range firing.Alerts {
		if a.State == "firing" {
			t.Errorf("%s fires while nothing is wrong: %v", a.Labels["alertname"], a.Labels)
		}
	}
	var health struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.ask("/api/v1/rules", nil, &health); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range health.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if n != len(rules(t)) {
		t.Errorf("Prometheus has %d rules, the files %d", n, len(rules(t)))
	}
}

func hasNumber(answer []series) bool {
	for _, s := range answer {
		if !math.IsNaN(s.Value.Value) && !math.IsInf(s.Value.Value, 0) {
			return true
		}
	}
	return false
}
