package fleet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
)

// binary is cmd/madang, built once per test binary, unless the environment has one.
var binary = sync.OnceValues(func() (path string, err error) {
	if builtIn, err = os.MkdirTemp("", "madang-test-"); err != nil {
		return "", err
	}
	return testkit.Program(builtIn)
})

var builtIn string // empty: nothing was asked for

// Main runs a package's tests and removes the binary they built.
func Main(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(builtIn)
	os.Exit(code)
}

// Binary is the path of cmd/madang, built for this test binary.
func Binary(tb testing.TB) string {
	tb.Helper()
	path, err := binary()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// process is a madang process that can be killed and started again at the same
// address.
type process struct {
	tb   testing.TB
	path string
	args []string
	env  []string
	log  testkit.Log

	mu   sync.Mutex
	cmd  *exec.Cmd
	done <-chan struct{} // closed when the process has ended
}

// StartProcesses runs a fleet of processes and returns when all of it is ready.
// It is killed with the test.
func StartProcesses(tb testing.TB, redisURL string, apis, gateways int, options ...Option) *Fleet {
	tb.Helper()
	f := LaunchProcesses(tb, redisURL, apis, gateways, options...)
	f.WaitReady()
	return f
}

// LaunchProcesses is StartProcesses that does not wait.
func LaunchProcesses(tb testing.TB, redisURL string, apis, gateways int, options ...Option) *Fleet {
	tb.Helper()
	f := &Fleet{TB: tb, Redis: redisURL, Secret: rand.Text() + rand.Text()}
	s := settingsOf(options)
	for range gateways {
		f.Gateways = append(f.Gateways, f.launch("gateway", s.flags["gateway"]...))
	}
	for range apis {
		f.APIs = append(f.APIs, f.launch("api", append([]string{"--sends-per-second=0"}, s.flags["api"]...)...))
	}
	return f
}

func (f *Fleet) launch(kind string, flags ...string) *Node {
	f.TB.Helper()
	addr, adminAddr := freeAddr(), freeAddr()
	p := &process{
		tb: f.TB, path: Binary(f.TB),
		args: append([]string{kind, "--redis", f.Redis, "--" + kind + "-addr", addr, "--admin-addr", adminAddr}, flags...),
		env:  append(os.Environ(), "MADANG_JWT_SECRET="+f.Secret),
	}
	f.TB.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		if f.TB.Failed() {
			f.TB.Logf("the log of %s %s:\n%s", kind, addr, p.tail())
		}
	})
	p.start()
	return &Node{Kind: kind, Addr: addr, AdminAddr: adminAddr, tb: f.TB, proc: p}
}

func freeAddr() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort()) }

func (p *process) start() {
	p.tb.Helper()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = p.env
	cmd.Stderr = &p.log
	cmd.Stdout = cmd.Stderr
	done, err := testkit.Launch(cmd)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
}

func (p *process) tail() string {
	text := p.log.String()
	return text[max(0, len(text)-8<<10):]
}

// signal sends one, and waits for the end when it is one that ends.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Errorf("signal %v: %v", sig, err)
	}
	if sig == syscall.SIGKILL {
		<-done
	}
}

func (p *process) terminate() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(timeout):
		p.tb.Errorf("%v does not stop", p.args[0])
		p.signal(syscall.SIGKILL)
	}
}

// Kill ends the process as kill -9 does.
func (n *Node) Kill() { n.process().signal(syscall.SIGKILL) }

// Signal sends a signal and does not wait.
func (n *Node) Signal(sig syscall.Signal) {
	if err := n.process().cmd.Process.Signal(sig); err != nil {
		n.tb.Errorf("signal %v: %v", sig, err)
	}
}

// Pause and Resume stop and continue the process (SIGSTOP, SIGCONT).
func (n *Node) Pause() { n.process().signal(syscall.SIGSTOP) }

// Resume continues a paused process.
func (n *Node) Resume() { n.process().signal(syscall.SIGCONT) }

// Restart starts the process again, at the same address.
func (n *Node) Restart() {
	n.process().start()
}

// Log is what the process has said so far.
func (n *Node) Log() string {
	return n.process().log.String()
}

// ExitCode is the code the process ended with; -1 while it runs.
func (n *Node) ExitCode() int {
	p := n.process()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

func (n *Node) process() *process {
	n.tb.Helper()
	if n.proc == nil {
		n.tb.Fatalf("BUG in the test: the %s is not a process: use StartProcesses", n.Kind)
	}
	return n.proc
}
