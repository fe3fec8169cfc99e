package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// source is a command that prints figures. Rows that share one share its run.
type source struct {
	bench string // of package, run by go test
	pkg   string
	iters string
	fleet string // arguments of madang loadtest fleet
}

func (s source) command() string {
	if s.fleet != "" {
		return "madang loadtest fleet --gateways 1 --apis 1 " + s.fleet
	}
	return fmt.Sprintf("go test %s -run '^$' -bench '%s' -benchtime %s", s.pkg, s.bench, s.iters)
}

func bench(pkg, name, iters string) source { return source{bench: name, pkg: pkg, iters: iters} }

// figures are what a run printed, by the name that rows know them by.
type figures struct {
	values map[string]float64
	busy   bool // others used the machine, or its host slowed it down
}

func (s source) run(binary, dir string) (figures, error) {
	if s.fleet != "" {
		return s.runFleet(binary, dir)
	}
	cmd := exec.Command("go", "test", "-tags", "nomsgpack", s.pkg, "-run", "^$", "-bench", s.bench, "-benchtime", s.iters)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return figures{}, fmt.Errorf("%w\n%s", err, out)
	}
	return figures{values: benchValues(out)}, nil
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark\S+\s+\d+\s+(.*)$`)

// benchValues reads what `go test -bench` prints: value and unit, in turns.
func benchValues(out []byte) map[string]float64 {
	values := map[string]float64{}
	for _, line := range benchLine.FindAllSubmatch(out, -1) {
		fields := strings.Fields(string(line[1]))
		for i := 0; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				values[fields[i+1]] = v
			}
		}
	}
	return values
}

func (s source) runFleet(binary, dir string) (figures, error) {
	file := filepath.Join(dir, "result.json")
	args := append(strings.Fields("loadtest fleet --gateways 1 --apis 1 "+s.fleet), "--json", file)
	// It ends with an error when an objective or the machine was missed; the
	// figures are there all the same, with notes.
	out, runErr := exec.Command(binary, args...).CombinedOutput()
	text, err := os.ReadFile(file)
	if err != nil {
		return figures{}, fmt.Errorf("%w\n%s", cmp.Or(runErr, err), out)
	}
	defer os.Remove(file)
	return resultValues(text)
}

// resultValues reads a result of the load tester: every number of every phase, as
// "phase field.field".
func resultValues(text []byte) (figures, error) {
	var result struct {
		Phases          []map[string]json.RawMessage
		Notes, Problems []string
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return figures{}, fmt.Errorf("result: %w", err)
	}
	f := figures{values: map[string]float64{}}
	for _, note := range append(result.Problems, result.Notes...) {
		f.busy = f.busy || strings.Contains(note, "do not quote its times")
	}
	for _, phase := range result.Phases {
		name := string(bytes.Trim(phase["name"], `"`))
		var counts struct{ Seconds, Delivered, Acknowledged float64 }
		if whole, err := json.Marshal(phase); err == nil && json.Unmarshal(whole, &counts) == nil && counts.Seconds > 0 {
			f.values[name+" delivered_per_second"] = counts.Delivered / counts.Seconds
			f.values[name+" acknowledged_per_second"] = counts.Acknowledged / counts.Seconds
		}
		for field, raw := range phase {
			var numbers map[string]float64
			if json.Unmarshal(raw, &numbers) == nil {
				for k, v := range numbers {
					f.values[name+" "+field+"."+k] = v
				}
			}
		}
	}
	f.values[othersWait] = othersWaitOf(f.values)
	return f, nil
}

// othersWait is a figure of the scenario slow: how many times as long the others'
// 99th percentile is while some do not read.
const othersWait = "others wait"

// othersWaitOf is the median over the rounds.
func othersWaitOf(values map[string]float64) float64 {
	var ratios []float64
	for round := 1; ; round++ {
		before, during := values[fmt.Sprintf("all read %d latency_ms.p99", round)], values[fmt.Sprintf("some do not read %d latency_ms.p99", round)]
		if before == 0 {
			break
		}
		ratios = append(ratios, during/before)
	}
	if len(ratios) == 0 {
		return 0
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}
