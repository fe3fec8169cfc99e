package loadtest_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/agents"
	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/internal/fakechat"
)

// asAgent makes this test binary an agent process: coordinator and name follow.
const asAgent = "as-a-loadtest-agent"

var agentSecret = []byte("between-coordinator-and-agents")

func beAgent(args []string) error {
	return loadtest.Serve(context.Background(), agents.Agent{
		Coordinator: args[0], Name: args[1], Secret: agentSecret, Version: "test", Workers: crew.Local(workerCommand),
		Say: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	})
}

// agentProcess is an agent, as a process of its own.
type agentProcess struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan error
}

func startAgent(t *testing.T, coordinator, name string, before ...string) *agentProcess {
	t.Helper()
	argv := append(before, os.Args[0], asAgent, coordinator, name)
	a := &agentProcess{cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan error, 1)}
	a.cmd.Stderr = &a.stderr
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.ended <- a.cmd.Wait() }()
	t.Cleanup(func() { _ = syscall.Kill(-a.cmd.Process.Pid, syscall.SIGKILL) })
	return a
}

func (a *agentProcess) wantEnd(t *testing.T, ok bool) {
	t.Helper()
	select {
	case err := <-a.ended:
		if (err == nil) != ok {
			t.Errorf("the agent ended with %v:\n%s", err, a.stderr.String())
		}
	case <-time.After(30 * time.Second):
		t.Error("the agent does not end")
	}
}

// agentSpec is a run with two agents, one of which has the sender.
func agentSpec(t *testing.T, s *fakechat.Server, scenario string) loadtest.Spec {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sp := spec(s, scenario)
	sp.Agents, sp.CoordinatorAddr, sp.AgentSecret, sp.AgentPatience = 2, l.Addr().String(), agentSecret, 30*time.Second
	sp.Receivers, sp.Tool = 0, "test"
	return sp
}

func TestAgentsDoTheWorkOfOneMachine(t *testing.T) {
	t.Parallel()
	s := agentSpec(t, fakechat.New(t), "fanout")
	a, b := startAgent(t, s.CoordinatorAddr, "a"), startAgent(t, s.CoordinatorAddr, "b")
	res := run(t, s)
	wantPassed(t, res)
	d := res.Deliveries
	if res.Connections.Opened != 30 || res.Sends.Acked < 45 || d.Owed != 5*res.Sends.Acked || d.Kept != d.Owed || d.OnTheWire != d.Owed {
		t.Errorf("%+v %+v %+v", res.Connections, res.Sends, d)
	}
	if len(res.Agents) != 2 || res.Agents[0].Workers+res.Agents[1].Workers != 3 || res.Tester.Receivers != 2 {
		t.Fatalf("%+v %+v", res.Agents, res.Tester)
	}
	for _, a := range res.Agents {
		// On one machine the clocks agree: what is measured must say so.
		if a.ErrorMs <= 0 || math.Abs(a.AheadMs) > a.ErrorMs+1 || !a.Here || a.Gone != "" {
			t.Errorf("%+v", a)
		}
	}
	var text bytes.Buffer
	res.WriteText(&text)
	for _, want := range []string{"agent a (", "agent b (", "its clock was", "right to ±"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, text.String())
		}
	}
	a.wantEnd(t, true)
	b.wantEnd(t, true)
}

// TestAnotherMachinesClockIsTakenOff: a time namespace gives an agent and its
// workers a CLOCK_MONOTONIC of another machine.
func TestAnotherMachinesClockIsTakenOff(t *testing.T) {
	t.Parallel()
	elsewhere := []string{"unshare", "-T", "--monotonic", "100000", "--fork", "--kill-child"}
	if out, err := exec.Command(elsewhere[0], append(elsewhere[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no time namespaces here: %v %s", err, out)
	}
	s := agentSpec(t, fakechat.New(t), "fanout")
	startAgent(t, s.CoordinatorAddr, "here")
	startAgent(t, s.CoordinatorAddr, "elsewhere", elsewhere...)
	res := run(t, s)
	wantPassed(t, res)
	// A day's difference would be recorded as the longest or the shortest there is.
	if p := phase(t, res, "fanout"); p.Latency.Count < 200 || p.Latency.Max > 20_000 || p.Latency.P50 <= 2*0.001 {
		t.Errorf("%+v", p.Latency)
	}
}

func TestAnAgentThatDiesEndsTheRunWithTheResultsSoFar(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	s := agentSpec(t, server, "fanout")
	s.Duration, s.Warmup = time.Hour, 0
	survivor, victim := startAgent(t, s.CoordinatorAddr, "survivor"), startAgent(t, s.CoordinatorAddr, "victim")
	orphans := make(chan []int, 1)
	go func() {
		for server.Conns() < 30 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(2500 * time.Millisecond) // two reports of every worker
		orphans <- childrenOf(victim.cmd.Process.Pid)
		_ = victim.cmd.Process.Kill()
	}()
	res := run(t, s)
	if res.Passed() || !strings.Contains(res.Ended, "agent victim (") || !strings.Contains(res.Ended, "is gone") {
		t.Errorf("ended %q", res.Ended)
	}
	if p := phase(t, res, "fanout"); p.Arrivals == 0 || p.Latency.Count == 0 || res.Sends.Acked == 0 {
		t.Errorf("results so far: %+v %+v", p, res.Sends)
	}
	for _, a := range res.Agents {
		if (a.Name == "victim") != (a.Gone != "") {
			t.Errorf("%+v", a)
		}
	}
	survivor.wantEnd(t, true)
	victim.wantEnd(t, false)
	pids := <-orphans
	if len(pids) == 0 {
		t.Fatal("the victim had no workers")
	}
	for deadline := time.Now().Add(20 * time.Second); alive(pids); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("workers %v outlived their agent", pids)
		}
	}
}

func TestAWorkerThatDiesAtAnAgentIsNamedWithItsCause(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	s := agentSpec(t, server, "fanout")
	s.Duration = time.Hour
	startAgent(t, s.CoordinatorAddr, "a")
	b := startAgent(t, s.CoordinatorAddr, "b")
	go func() {
		for server.Conns() < 30 {
			time.Sleep(5 * time.Millisecond)
		}
		for _, pid := range childrenOf(b.cmd.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	res := run(t, s)
	if res.Passed() || !strings.Contains(res.Ended, "agent b (") || !strings.Contains(res.Ended, "signal: killed") {
		t.Errorf("ended %q", res.Ended)
	}
}

func alive(pids []int) bool {
	for _, pid := range pids {
		// A process that has ended and that nobody has asked for has no command line.
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(b) > 0 {
			return true
		}
	}
	return false
}

func childrenOf(parent int) (pids []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func TestARunWithoutItsAgentsSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*loadtest.Spec)
		says   string
	}{
		"too few":         {func(s *loadtest.Spec) { s.AgentPatience = 100 * time.Millisecond }, "0 of 2 agents registered"},
		"no secret":       {func(s *loadtest.Spec) { s.AgentSecret = nil }, "--agent-secret-file must be given"},
		"no address":      {func(s *loadtest.Spec) { s.CoordinatorAddr = "" }, "--coordinator-addr must be given"},
		"taken address":   {func(s *loadtest.Spec) { s.CoordinatorAddr = s.Gateways[0] }, "address already in use"},
		"absurdly many":   {func(s *loadtest.Spec) { s.Agents = 1_000_000 }, "--agents 1000000 is not between"},
		"negative":        {func(s *loadtest.Spec) { s.Agents = -1 }, "--agents -1 is not between"},
		"too few workers": {func(s *loadtest.Spec) { s.Receivers = 1 }, "--receivers 1 are fewer than --agents 2"},
		"sources":         {func(s *loadtest.Spec) { s.Sources = []string{"127.0.0.9"} }, "give each agent its own"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := agentSpec(t, fakechat.New(t), "fanout")
			c.change(&s)
			if _, err := loadtest.Run(t.Context(), s, loadtest.Progress{}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something with %q", err, c.says)
			}
		})
	}
}
