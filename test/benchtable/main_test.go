package main

import (
	"testing"
)

func TestFiguresAreFound(t *testing.T) {
	f := benchValues([]byte("goos: linux\nBenchmarkIdleTLS/TLS_1.3-2   \t 1\t 387.1 cpu-us/upgrade\t 13016 rss-B/conn\nPASS\n"))
	if f["cpu-us/upgrade"] != 387.1 || f["rss-B/conn"] != 13016 {
		t.Errorf("%v", f)
	}
	r, err := resultValues([]byte(`{"phases":[{"name":"storm 1","cpu_us":{"gateway_per_connection":42.5},"back_ms":{"max":337},"seconds":3}],"notes":["ramp: other programs used 72 % of this machine: do not quote its times"]}`))
	if err != nil || r.values["storm 1 cpu_us.gateway_per_connection"] != 42.5 || r.values["storm 1 back_ms.max"] != 337 || !r.busy {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestValuesAreReadable(t *testing.T) {
	for _, tt := range []struct {
		v, factor float64
		unit      string
		want      string
	}{
		{13016, 1, "B", "13,016 B"}, {912, 1, "B", "912 B"}, {387.1, 1, "µs", "387 µs"}, {42.51, 1, "µs", "42.5 µs"},
		{6570, 1e-3, "µs", "6.57 µs"}, {40, -1e6, "/s", "25,000 /s"}, {0.0001, 1, "", "0.0001"}, {1234567, 1, "", "1,234,567"},
	} {
		r := row{read: "x", factor: tt.factor, unit: tt.unit}
		if got := r.value(figures{values: map[string]float64{"x": tt.v}}); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.v, got, tt.want)
		}
	}
	if got := (row{read: "y"}).value(figures{}); got != "?" {
		t.Error(got)
	}
}

func TestFiguresAreComparedWithABareProgram(t *testing.T) {
	r := row{read: "x", factor: 1, budget: "60", limit: &limit{there: 11}}
	here, there := r.timesLimit(figures{values: map[string]float64{"x": 82}}, 40)
	if here != "2.05 × 40 µs" || there != "≤ 5.45 × 11 µs" {
		t.Errorf("%q, %q", here, there)
	}
	r.limit = nil
	if here, there = r.timesLimit(figures{}, 0); here != "–" || there != "–" {
		t.Errorf("%q, %q", here, there)
	}
}

func TestWhatOthersWaitIsTheMedianOfTheRounds(t *testing.T) {
	f, err := resultValues([]byte(`{"phases":[
		{"name":"all read 1","latency_ms":{"p99":2}},{"name":"some do not read 1","latency_ms":{"p99":2.2}},
		{"name":"all read 2","latency_ms":{"p99":2}},{"name":"some do not read 2","latency_ms":{"p99":9}},
		{"name":"all read 3","latency_ms":{"p99":3}},{"name":"some do not read 3","latency_ms":{"p99":3}}]}`))
	if err != nil || f.values[othersWait] != 1.1 {
		t.Errorf("%v, %v", f.values[othersWait], err)
	}
}

func TestCentrifugosFiguresAreRead(t *testing.T) {
	n := 0
	for _, r := range rows {
		if v, ok := centrifugoThere(r); ok {
			n++
			if v <= 0 {
				t.Errorf("%s: %v of %q", r.what, v, r.peer)
			}
		}
	}
	if n < 8 {
		t.Errorf("%d rows name a figure of Centrifugo's", n)
	}
}
