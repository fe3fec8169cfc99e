package fleet_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/loadtest/fleet"
)

// script stands in for a program: what a fleet does when one misbehaves does not
// depend on which it is.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// madang is the real program.
func madang(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed: a fleet needs it")
	}
	path, err := testkit.Program(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFleetIsReadyWhenStartedAndGoneWhenStopped(t *testing.T) {
	f, err := fleet.Start(t.Context(), fleet.Options{Binary: madang(t), Gateways: 2, APIs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Gateways) != 2 || len(f.APIs) != 1 || len(f.Pids()) != 4 {
		t.Errorf("%+v", f)
	}
	wantListening := func() {
		t.Helper()
		for _, addr := range append(slices.Clone(f.Gateways), f.APIs...) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				continue
			}
			conn.Close()
		}
	}
	wantListening()
	before := f.Pids()
	if err := f.RenewGateways(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantListening()
	for name, pid := range f.Pids() {
		renewed := strings.HasPrefix(name, "gateway")
		if renewed == (pid == before[name]) {
			t.Errorf("%s was process %d and is %d", name, before[name], pid)
		}
		if renewed {
			wantGone(t, before[name])
		}
	}
	if err := f.Stop(false); err != nil {
		t.Error(err)
	}
	for _, pid := range f.Pids() {
		wantGone(t, pid)
	}
	if _, err := os.Stat(f.Dir); !os.IsNotExist(err) {
		t.Errorf("the logs are still there: %v", err)
	}
}

func TestWhatFailsToStartIsNamedWithItsLogAndNothingIsLeft(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // logs of what failed are kept
	pids := filepath.Join(t.TempDir(), "pids")
	redis := script(t, "echo $$ >> "+pids+"; exec sleep 60")
	broken := script(t, "echo the disk is on fire; exit 3")
	for name, o := range map[string]fleet.Options{
		"api":   {Binary: broken, RedisURL: "redis://127.0.0.1:1/0", Gateways: 1, APIs: 1, Patience: 2 * time.Second},
		"redis": {Binary: broken, Redis: redis, Gateways: 1, APIs: 1, Patience: 300 * time.Millisecond},
	} {
		_, err := fleet.Start(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "logs are kept in") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "api" && !strings.Contains(err.Error(), "the disk is on fire") {
			t.Errorf("no log in %v", err)
		}
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for pid := range strings.FieldsSeq(string(b)) {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s is still there", pid)
		}
	}
}

// The program may be gone by then: it was built anew meanwhile.
func TestAGatewayThatDoesNotStartAgainLeavesAFleetThatCanBeStopped(t *testing.T) {
	program := script(t, "exec "+madang(t)+` "$@"`)
	f, err := fleet.Start(t.Context(), fleet.Options{Binary: program, Gateways: 2, APIs: 1})
	if err != nil {
		t.Fatal(err)
	}
	pids := f.Pids()
	if err := os.Remove(program); err != nil {
		t.Error(err)
	}
	if err := f.RenewGateways(t.Context()); err == nil || !strings.Contains(err.Error(), "starting gateway-1") {
		t.Errorf("got %v", err)
	}
	if err := f.Stop(false); err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		wantGone(t, pid)
	}
}

func TestAnAbsurdFleetIsRefused(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // logs of what failed are kept
	for _, o := range []fleet.Options{{}, {Gateways: 1}, {Gateways: 1000, APIs: 1}, {Gateways: 1, APIs: 1, Redis: "no-such-redis"}} {
		if _, err := fleet.Start(t.Context(), o); err == nil {
			t.Errorf("%+v started", o)
		}
	}
}
