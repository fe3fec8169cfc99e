package probe_test

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/probe"
)

func TestAProcessIsFoundByItsPortAndMeasured(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	found := probe.Listeners("api", port)
	if len(found) != 1 || found[0].Pid != os.Getpid() || found[0].Port != port || found[0].Role != "api" {
		t.Fatalf("found %+v, want this process", found)
	}
	before, err := probe.Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := before
	for began := time.Now(); after.CPU-before.CPU < 10*time.Millisecond && time.Since(began) < 30*time.Second; {
		if after, err = probe.Read(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if used := after.CPU - before.CPU; used < 10*time.Millisecond || after.RSS < 1<<20 || after.Anon <= 0 {
		t.Errorf("used %v, now %+v", used, after)
	}
}

func TestTheMachineIsRead(t *testing.T) {
	m := probe.ReadMachine()
	if m.Busy <= 0 || m.Idle <= 0 || m.Available <= 0 || m.Slab <= 0 {
		t.Errorf("%+v", m)
	}
}

func TestAProcessThatEndedIsAnError(t *testing.T) {
	if _, err := probe.Read(1 << 22); err == nil {
		t.Error("read")
	}
}
