package fleetnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/internal/testkit"
)

// lan is a switch with hosts, 10.77.0.0/24.
type lan struct {
	t     *testing.T
	tag   string // in the names of namespaces and links, so that runs do not meet
	dir   string
	hosts map[string]*host
}

// host is a namespace with an address on the switch.
type host struct {
	lan  *lan
	name string
	ns   string
	addr string
}

const subnet = "10.77.0."

// newLAN makes a switch. It skips the test where namespaces can't be made.
func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l := &lan{t: t, tag: fmt.Sprintf("mdg%d", os.Getpid()%100000), dir: t.TempDir(), hosts: map[string]*host{}}
	if out, err := exec.Command("ip", "netns", "add", l.tag+"-sw").CombinedOutput(); err != nil {
		t.Skipf("network namespaces can't be made here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		// Links go with their namespaces.
		for _, h := range l.hosts {
			_ = exec.Command("ip", "netns", "del", h.ns).Run()
		}
		_ = exec.Command("ip", "netns", "del", l.tag+"-sw").Run()
	})
	l.ip("-n", l.tag+"-sw", "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.tag+"-sw", "link", "set", "br0", "up")
	return l
}

func (l *lan) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// host adds a host; the last byte of its address is given, and of further ones.
func (l *lan) host(name string, addrs ...int) *host {
	l.t.Helper()
	h := &host{lan: l, name: name, ns: l.tag + "-" + name, addr: fmt.Sprint(subnet, addrs[0])}
	l.hosts[name] = h
	l.ip("netns", "add", h.ns)
	l.ip("-n", l.tag+"-sw", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", h.ns)
	l.ip("-n", l.tag+"-sw", "link", "set", name, "master", "br0", "up")
	for _, a := range addrs {
		l.ip("-n", h.ns, "addr", "add", fmt.Sprint(subnet, a, "/24"), "dev", "eth0")
	}
	l.ip("-n", h.ns, "link", "set", "eth0", "up")
	l.ip("-n", h.ns, "link", "set", "lo", "up")
	return h
}

// cut pulls the host's cable: nothing arrives, and nobody is told.
func (h *host) cut() { h.lan.ip("-n", h.lan.tag+"-sw", "link", "set", h.name, "down") }

// mend plugs it in again.
func (h *host) mend() { h.lan.ip("-n", h.lan.tag+"-sw", "link", "set", h.name, "up") }

// inside runs f with sockets being made on the host.
func (h *host) inside(f func() error) error {
	runtime.LockOSThread()
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(here)
	there, err := unix.Open("/run/netns/"+h.ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	result := f()
	if err := unix.Setns(here, unix.CLONE_NEWNET); err != nil {
		return err // the thread stays locked, and ends with the goroutine
	}
	runtime.UnlockOSThread()
	return result
}

// dial connects from the host; from is one of its addresses, or "".
func (h *host) dial(ctx context.Context, from, to string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	err = h.inside(func() error {
		conn, err = d.DialContext(ctx, "tcp", to)
		return err
	})
	return conn, err
}

// program is a process on a host.
type program struct {
	h    *host
	args []string
	env  []string
	log  testkit.Log

	mu   sync.Mutex
	cmd  *exec.Cmd
	done <-chan struct{}
}

// run starts a program on the host. It is killed with the test.
func (h *host) run(env []string, args ...string) *program {
	h.lan.t.Helper()
	p := &program{h: h, args: args, env: append(os.Environ(), env...)}
	h.lan.t.Cleanup(func() {
		p.kill()
		if h.lan.t.Failed() {
			text := p.log.String()
			h.lan.t.Logf("%s on %s said:\n%s", filepath.Base(args[0]), h.name, text[max(0, len(text)-3000):])
		}
	})
	p.start()
	return p
}

func (p *program) start() {
	p.h.lan.t.Helper()
	// ip replaces itself by the program: the process ID is the program's.
	cmd := exec.Command("ip", append([]string{"netns", "exec", p.h.ns}, p.args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, &p.log, &p.log
	cmd.WaitDelay = time.Second
	done, err := testkit.Launch(cmd)
	if err != nil {
		p.h.lan.t.Fatal(err)
	}
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
}

func (p *program) signal(s syscall.Signal) {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	_ = cmd.Process.Signal(s)
}

func (p *program) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended()
}

func (p *program) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}
