package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/report"
)

func result() *report.Result {
	m := meter.New()
	for i := range int64(2000) {
		m.Record(i * 10_000)
	}
	r := &report.Result{
		Tool: "test", Scenario: "fanout", Target: "madang", Command: []string{"madang", "loadtest", "<script>alert(1)</script>"},
		Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Ended: report.Completed,
		Settings:    map[string]string{"rooms": "3"},
		Connections: report.Connections{Asked: 10, Opened: 10, LiveEnd: 10, Drops: map[string]uint64{"closed by the server: 4008": 2}},
		Sends:       report.Sends{Issued: 5, Acked: 5},
		Deliveries:  report.Deliveries{Judged: true, Owed: 50, Kept: 50},
		Phases: []report.Phase{{
			Name: "fanout", Seconds: 2, Acked: 5, Arrivals: 50, Latency: m.Dist(), Curve: m.Curve(),
			CPU: map[string]float64{"gateway": 1}, PerUnit: report.PerUnit{GatewayPerDelivery: 3.14},
		}},
		Servers: []report.Server{{Role: "gateway", Name: "madang", Pid: 7}},
	}
	for i := range 5 {
		r.Series = append(r.Series, report.Second{T: i, Phase: "fanout", Live: 10, Arrived: 10, P50: 1, P99: 2, Max: 3, CPU: map[string]float64{"gateway": 0.5}})
	}
	return r
}

func TestTextSaysWhatMatters(t *testing.T) {
	r := result()
	var b bytes.Buffer
	r.WriteText(&b)
	for _, want := range []string{"PASSED", "50 owed, 50 kept, 0 lost", "closed by the server: 4008 ×2", "3.14", "gateway (madang, pid 7"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

func TestADifferenceNamesWhatOnlyOneHas(t *testing.T) {
	a, b := result(), result()
	b.Phases = append(b.Phases, report.Phase{Name: "storm 1"})
	b.Compared = []report.Compared{{Transport: "sse"}}
	var ab, ba bytes.Buffer
	report.WriteDiff(&ab, a, b)
	report.WriteDiff(&ba, b, a)
	for _, what := range []string{"storm 1", "sse, compared"} {
		if !strings.Contains(ab.String(), what+": only in B") || !strings.Contains(ba.String(), what+": only in A") {
			t.Errorf("%s is passed over:\n%s\n%s", what, ab.String(), ba.String())
		}
	}
}

func TestAFailureIsNotHidden(t *testing.T) {
	for name, break_ := range map[string]func(*report.Result){
		"a problem":        func(r *report.Result) { r.Problems = []string{"7 lost"} },
		"interrupted":      func(r *report.Result) { r.Ended = "interrupted" },
		"missed objective": func(r *report.Result) { r.Objectives = []report.Objective{{Name: "p99", Limit: 1, Got: 2}} },
	} {
		r := result()
		break_(r)
		var text, html bytes.Buffer
		r.WriteText(&text)
		if err := r.WriteHTML(&html); err != nil {
			t.Fatal(err)
		}
		if r.Passed() || !strings.HasSuffix(text.String(), "FAILED\n") || !strings.Contains(html.String(), "Failed.") {
			t.Errorf("%s: shown as a success", name)
		}
	}
}

func TestJSONComesBackAsItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(result().WriteJSON(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	back, err := report.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	result().WriteText(&a)
	back.WriteText(&b)
	if a.String() != b.String() {
		t.Errorf("written\n%s\nread\n%s", a.String(), b.String())
	}
}

func TestWhatIsNoResultIsRefused(t *testing.T) {
	for _, text := range []string{"", "{}", "[1]", "no json"} {
		path := filepath.Join(t.TempDir(), "x.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := report.Read(path); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestThePageNeedsNothingFromElsewhereAndItsPlotsAreWellFormed(t *testing.T) {
	var b bytes.Buffer
	if err := result().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if strings.Contains(page, "<script") || regexp.MustCompile(`(src|href|url)\s*[=(]`).MatchString(page) {
		t.Error("the page loads or runs something")
	}
	plots := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(plots) < 4 {
		t.Fatalf("%d plots", len(plots))
	}
	for _, svg := range plots {
		dec := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("a point that is no number in %s", svg)
		}
	}
}

func TestDiffMarksWhatChanged(t *testing.T) {
	a, b := result(), result()
	b.Phases[0].PerUnit.GatewayPerDelivery = 6.28
	var out bytes.Buffer
	report.WriteDiff(&out, a, b)
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "gateway CPU") != strings.Contains(line, "◀") {
			t.Errorf("%q", line)
		}
	}
	if !strings.Contains(out.String(), "+100 %") {
		t.Error(out.String())
	}
}

// Phases of several transports stand in a table each, and no phase is left out.
func TestEachTransportHasItsOwnTable(t *testing.T) {
	r := result()
	one := r.Phases[0]
	r.Phases = nil
	for _, name := range []string{"no clients", "ws: ramp", "ws: fanout", "sse: ramp", "sse: fanout"} {
		one.Name = name
		r.Phases = append(r.Phases, one)
	}
	r.Compared = []report.Compared{
		{Transport: "ws", Clients: 10, Kept: 50, IdleCPU: 0.25, GatewayPerConn: 812},
		{Transport: "sse", Clients: 10, Kept: 50, RequestsPerDelivery: 1.125, GatewayPerConn: -1},
	}
	var b bytes.Buffer
	r.WriteText(&b)
	var tables []string
	for line := range strings.Lines(b.String()) {
		if words := strings.Fields(line); len(words) > 0 && (words[0] == "phase" || len(tables) == 2 && words[0] == "ws") {
			tables = append(tables, strings.Join(words, " "))
		}
	}
	want := []string{"phase no clients ws: ramp ws: fanout", "phase sse: ramp sse: fanout", "ws sse"}
	if !slices.Equal(tables, want) {
		t.Errorf("tables %q, want %q", tables, want)
	}
	for _, row := range []string{`gateway memory per connection, bytes\s+812\s+\?`, `… requests\s+0\s+1.12\b`, `idle connection and second, µs\s+0.25\s+0`, `deliveries kept\s+50\s+50`} {
		if !regexp.MustCompile(row).MatchString(b.String()) {
			t.Errorf("no %q in:\n%s", row, b.String())
		}
	}
}
