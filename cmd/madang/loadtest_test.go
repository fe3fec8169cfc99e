package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/fleet"
	"github.com/madang-chat/madang/loadtest/report"
)

// TestMain makes this binary the program itself when it is started with a
// subcommand, as a load test's workers and a fleet's processes are.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
	}
	os.Exit(m.Run())
}

// scenarioFiles are the scenarios at the size of a test, as YAML, and as flags.
var scenarioFiles = map[string]struct{ yaml, flags string }{
	"hold": {
		"rate: 20\nduration: 500ms\nping: 200ms\n",
		"--rate=20 --duration=500ms --ping=200ms",
	},
	"fanout": {
		"rate: 40\nwarmup: 200ms\nduration: 600ms\nsize: 50\npoisson: true\nmax-p99: 30s\nmin-rate: 1\n",
		"--rate=40 --warmup=200ms --duration=600ms --size=50 --poisson --max-p99=30s --min-rate=1",
	},
	"storm": {
		"rate: 20\ntimes: 2\nspread: 100ms\nduration: 300ms\nconnect-rate: 2000\n",
		"--rate=20 --times=2 --spread=100ms --duration=300ms --connect-rate=2000",
	},
	"slow": {
		"rate: 40\nshare: 0.25\nfor: 300ms\ntimes: 2\nduration: 300ms\n",
		"--rate=40 --share=0.25 --for=300ms --times=2 --duration=300ms",
	},
	"chat": {
		"rate: 30\nzipf: 1.2\nduration: 400ms\nclients: 30\nmembers: 10\n",
		"--rate=30 --zipf=1.2 --duration=400ms --clients=30 --members=10",
	},
	"compare": {
		"rate: 40\nwarmup: 200ms\nduration: 600ms\nidle: 400ms\ntransports: [polling, ws, poll, sse]\npoll-every: 100ms\npoll-wait: 5s\nmax-loss: 0\n",
		"--rate=40 --warmup=200ms --duration=600ms --idle=400ms --transports=polling,ws,poll,sse --poll-every=100ms --poll-wait=5s --max-loss=0",
	},
	"capacity": {
		"from: 20\nto: 40\nfactor: 2\nstep: 300ms\nmax-p99: 30s\n",
		"--from=20 --to=40 --factor=2 --step=300ms --max-p99=30s",
	},
	"check": {
		"rate: 30\ndrops: 1\nspread: 100ms\nduration: 600ms\nallow-doubled: true\n",
		"--rate=30 --drops=1 --spread=100ms --duration=600ms --allow-doubled",
	},
}

func yamlFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scenario.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// command is a scenario's subcommand.
func command(scenario string) []string {
	if scenario == "check" {
		return []string{"check"}
	}
	return []string{"loadtest", scenario}
}

// watch shows what is asked of the load tester, and runs it or not.
func watch(t *testing.T, runIt bool) *loadtest.Spec {
	t.Helper()
	var asked loadtest.Spec
	before := runLoad
	runLoad = func(ctx context.Context, s loadtest.Spec, p loadtest.Progress) (*report.Result, error) {
		asked = s
		asked.Command = nil // as typed: what differs
		if !runIt {
			return nil, errors.New("not run")
		}
		return loadtest.Run(ctx, s, loadtest.Progress{})
	}
	t.Cleanup(func() { runLoad = before })
	return &asked
}

// TestEveryScenarioRunsFromAFile: a file is a run, and the same run as its flags'.
func TestEveryScenarioRunsFromAFile(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed: a fleet needs it")
	}
	f, err := fleet.Start(t.Context(), fleet.Options{Gateways: 1, APIs: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(false); err != nil {
			t.Error(err)
		}
	})
	for _, scenario := range loadtest.Scenarios() {
		t.Run(scenario, func(t *testing.T) {
			c, known := scenarioFiles[scenario]
			if !known {
				t.Fatalf("no file for %s: add one", scenario)
			}
			out := filepath.Join(t.TempDir(), "result.json")
			population := "rooms: 6\nmembers: 5\n"
			if strings.Contains(c.yaml, "members:") {
				population = "rooms: 6\n"
			}
			yaml := fmt.Sprintf("gateway: [%s]\napi: %s\njwt-secret-file: %s/secret\nsenders: 4\nprefix: %s\njson: %s\n%s%s",
				f.Gateways[0], f.APIs[0], f.Dir, scenario, out, population, c.yaml)
			fromFile := watch(t, true)
			code, stdout, stderr := madang(t, append([]string{"--config", yamlFile(t, yaml)}, command(scenario)...)...)
			if code != 0 || !strings.Contains(stdout, "PASSED") {
				t.Fatalf("code %d: %s\n%s", code, stderr, stdout)
			}
			res, err := report.Read(out)
			if err != nil {
				t.Fatal(err)
			}
			opened := uint64(30)
			if scenario == "compare" {
				opened *= 4
			}
			if res.Scenario != scenario || res.Connections.Opened != opened || res.Deliveries.Owed == 0 || res.Deliveries.Lost != 0 {
				t.Errorf("%s: %+v %+v", res.Scenario, res.Connections, res.Deliveries)
			}
			fromFlags := watch(t, false)
			args := append(command(scenario), "--gateway="+f.Gateways[0], "--api="+f.APIs[0], "--jwt-secret-file="+f.Dir+"/secret",
				"--senders=4", "--prefix="+scenario, "--json="+out, "--rooms=6")
			if strings.Contains(population, "members") {
				args = append(args, "--members=5")
			}
			madang(t, append(args, strings.Fields(c.flags)...)...)
			if !reflect.DeepEqual(fromFlags, fromFile) {
				t.Errorf("flags ask for\n%+v\nthe file for\n%+v", *fromFlags, *fromFile)
			}
		})
	}
}

// TestReportsHaveNoSecrets: they tell how they were made, to whoever reads them.
func TestReportsHaveNoSecrets(t *testing.T) {
	before, beforeRun := os.Args, runLoad
	t.Cleanup(func() { os.Args, runLoad = before, beforeRun })
	var told []string
	runLoad = func(_ context.Context, s loadtest.Spec, _ loadtest.Progress) (*report.Result, error) {
		told = s.Command
		return nil, errors.New("not run")
	}
	for _, args := range [][]string{
		{"loadtest", "fanout", "--jwt-secret", secret, "--api-key=" + secret, "--rooms", "3"},
		{"check", "--jwt-secret=" + secret, "--api-key", secret, "--rooms=3"},
	} {
		os.Args = append([]string{"madang"}, args...)
		madang(t, args...)
		if line := strings.Join(told, " "); strings.Contains(line, secret) || !strings.Contains(line, "--jwt-secret") || !strings.HasPrefix(line, "madang "+args[0]) || !strings.Contains(line, "3") {
			t.Errorf("the report has %q", line)
		}
		if !strings.Contains(strings.Join(os.Args, " "), secret) {
			t.Error("the command line itself was changed")
		}
	}
}

// TestAScenarioFileThatIsWrongIsNamed: nothing is run, and the mistake is named as
// it is written in the file.
func TestAScenarioFileThatIsWrongIsNamed(t *testing.T) {
	ours := "jwt-secret: " + secret + "\nrooms: 5\ngateway: 127.0.0.1:1\napi: 127.0.0.1:1\n"
	for name, c := range map[string]struct {
		scenario, yaml string
		want           []string
	}{
		"unknown key":            {"fanout", "ratte: 5\n", []string{"ratte"}},
		"a key of nobody":        {"chat", "uploads: 5\n", []string{"uploads"}},
		"two unknown keys":       {"hold", "clints: 5\nduratoin: 5s\n", []string{"clints", "duratoin"}},
		"no number":              {"fanout", "clients: many\n", []string{"clients", "many"}},
		"no duration":            {"fanout", "duration: 5\n", []string{"duration"}},
		"a list for a number":    {"fanout", "clients: [1, 2]\n", []string{"clients"}},
		"no YAML":                {"fanout", "clients: [1\n", []string{"scenario.yaml"}},
		"too many clients":       {"hold", "clients: 99999999999\n", []string{"--clients 99999999999 is not between"}},
		"negative clients":       {"hold", "clients: -5\n", []string{"--clients -5 is not between"}},
		"an absurd rate":         {"fanout", "rate: 1e12\n", []string{"--rate 1e+12 is not between"}},
		"a rate that is none":    {"fanout", "rate: .nan\n", []string{"rate"}},
		"a negative duration":    {"storm", "duration: -5s\n", []string{"--duration -5s is not between"}},
		"a week too long":        {"storm", "spread: 900h\n", []string{"--spread 900h0m0s is not between"}},
		"more than all":          {"slow", "share: 1.5\n", []string{"--share 1.5 is not between"}},
		"a transport of nobody":  {"storm", "transport: pigeon\n", []string{"--transport", "pigeon"}},
		"one of several":         {"compare", "transports: [ws, pigeon]\n", []string{"--transports", `"pigeon" is not known`}},
		"polls without a pause":  {"hold", "transport: polling\npoll-every: 1ms\n", []string{"--poll-every 1ms is not between"}},
		"an absurd wait":         {"hold", "poll-wait: 1h\n", []string{"--poll-wait 1h0m0s is not between"}},
		"a comparison flat out":  {"compare", "rate: 0\n", []string{"--rate 0", "the same work for all"}},
		"steps that stand still": {"capacity", "factor: 1\n", []string{"--factor 1 is not between"}},
		"absurd drops":           {"check", "drops: 1000000000\n", []string{"--drops", "1000000000 is not between"}},
		"an absurd exponent":     {"chat", "zipf: 99\n", []string{"--zipf 99 is not between"}},
		"a chat flat out":        {"chat", "rate: 0\n", []string{"--rate 0", "never flat out"}},
		"two mistakes":           {"fanout", "rate: 1e12\nsize: -1\n", []string{"--rate", "--size -1"}},
		"absurd agents":          {"fanout", "agents: 5000\nagent-secret-file: /dev/null\n", []string{"--agent-secret-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			watch(t, true)
			code, stdout, stderr := madang(t, append([]string{"--config", yamlFile(t, ours+c.yaml)}, command(c.scenario)...)...)
			if code == 0 || stdout != "" {
				t.Errorf("code %d, printed %q", code, stdout)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("does not say %q:\n%s", w, stderr)
				}
			}
		})
	}
}

// A run of hours whose result can't be written is one in vain.
func TestAResultThatCannotBeWrittenIsNamedBeforeTheRun(t *testing.T) {
	asked := watch(t, false)
	nowhere := filepath.Join(t.TempDir(), "nowhere", "result")
	for _, flag := range []string{"--json", "--html"} {
		code, _, stderr := madang(t, "loadtest", "hold", "--jwt-secret="+secret, flag+"="+nowhere)
		if code == 0 || asked.Scenario != "" || !strings.Contains(stderr, flag+" "+nowhere) {
			t.Errorf("code %d, ran %q: %s", code, asked.Scenario, stderr)
		}
	}
}

// timeout(1) signals the program and then its whole group, and so do other wrappers:
// one signal comes twice, and must not be taken for two.
func TestASignalThatComesTwiceStillGivesTheResults(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed: a fleet needs it")
	}
	cmd := exec.Command(os.Args[0], "loadtest", "fleet", "--gateways=1", "--rooms=2", "--members=2", "--rate=20", "--warmup=0", "--duration=1h")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // logs of what failed are kept
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(progress); lines.Scan(); {
		if strings.Contains(lines.Text(), "deliveries ") {
			for range 2 {
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond) // or they are one to the kernel
			}
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, progress) }()
	_ = cmd.Wait() // an interrupted run is no success
	if !strings.Contains(stdout.String(), "Interrupted: these are the results so far") {
		t.Errorf("ended with %v and said %q", cmd.ProcessState, stdout.String())
	}
}
