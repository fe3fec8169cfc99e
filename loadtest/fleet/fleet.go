// Package fleet runs a whole deployment on this machine for the length of a test:
// a Redis server, APIs and gateways, each a process of its own on a free port.
// Nothing outlives it: processes end with Stop, and the kernel ends them when the
// program that started them dies in any other way.
package fleet

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options are what to start.
type Options struct {
	Binary   string // the madang program; default: this one
	Redis    string // the redis-server program; default: redis-server, from PATH
	RedisURL string // an existing Redis instead of a new one
	AOF      bool   // the new Redis writes what it is told to disk
	Gateways int
	APIs     int
	// GatewayArgs and APIArgs are added to the processes' command lines.
	GatewayArgs, APIArgs []string
	Patience             time.Duration // until all are ready; default 30 s
}

// fairShares is how many servers may share the cores with Redis, and their clients,
// before it is favoured. All of them wait for it: with a hundred processes that
// want to run, an equal share is too little for it to answer in seconds, links are
// taken for dead, and what that costs leaves it less still.
const fairShares = 8

// maxProcesses: more on one machine is a typing error.
const maxProcesses = 500

// Fleet is a running deployment.
type Fleet struct {
	Gateways []string // host:port
	Admins   []string // of the gateways: metrics
	APIs     []string
	RedisURL string
	Secret   []byte // what tokens are signed with
	Dir      string // logs and Redis's data

	patience time.Duration // until all are ready
	procs    []*process
	start    chan func() // to the one thread that starts processes
}

type process struct {
	name    string
	argv    []string
	cmd     *exec.Cmd
	log     string
	admin   string // address of its /readyz; empty: it has none
	ended   chan struct{}
	gateway bool
}

// Start starts everything and waits until all of it is ready. What failed to
// start is named, with the end of its log; nothing is left running then.
func Start(ctx context.Context, o Options) (*Fleet, error) {
	switch {
	case o.Gateways < 1 || o.APIs < 1:
		return nil, errors.New("a fleet has at least one gateway and one API")
	case o.Gateways+o.APIs > maxProcesses:
		return nil, fmt.Errorf("%d gateways and %d APIs: more than %d processes are not meant for one machine", o.Gateways, o.APIs, maxProcesses)
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("the program's own path: %w", err)
		}
		o.Binary = self
	}
	o.Redis = cmp.Or(o.Redis, "redis-server")
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	f := &Fleet{RedisURL: o.RedisURL, patience: o.Patience, start: make(chan func())}
	var err error
	if f.Dir, err = os.MkdirTemp("", "madang-fleet-"); err != nil {
		return nil, fmt.Errorf("a directory for logs: %w", err)
	}
	go f.starter()
	if err := f.startAll(ctx, o); err != nil {
		f.stop()
		return nil, fmt.Errorf("%w (logs are kept in %s)", err, f.Dir)
	}
	return f, nil
}

// starter starts processes, on one thread that lives as long as the fleet: the
// kernel kills them when the *thread* that started them ends (PR_SET_PDEATHSIG).
func (f *Fleet) starter() {
	runtime.LockOSThread()
	for start := range f.start {
		start()
	}
}

func (f *Fleet) startAll(ctx context.Context, o Options) error {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("a secret: %w", err)
	}
	f.Secret = []byte(hex.EncodeToString(secret))
	secretFile := filepath.Join(f.Dir, "secret")
	if err := os.WriteFile(secretFile, f.Secret, 0o600); err != nil {
		return fmt.Errorf("a secret: %w", err)
	}
	ports, err := freePorts(1 + 2*(o.Gateways+o.APIs))
	if err != nil {
		return err
	}
	next := func() string {
		p := ports[0]
		ports = ports[1:]
		return fmt.Sprintf("127.0.0.1:%d", p)
	}
	if f.RedisURL == "" {
		if err := f.startRedis(ctx, o, next()); err != nil {
			return err
		}
	}
	for i := range o.APIs {
		addr, admin := next(), next()
		args := append([]string{"api", "--api-addr", addr, "--admin-addr", admin, "--redis", f.RedisURL, "--jwt-secret-file", secretFile}, o.APIArgs...)
		if !slices.ContainsFunc(o.APIArgs, func(a string) bool { return strings.HasPrefix(a, "--blob-") }) {
			args = append(args, "--blob-dir", f.blobDir()) // all APIs share it
		}
		if err := f.launch(fmt.Sprintf("api-%d", i+1), admin, o.Binary, args...); err != nil {
			return err
		}
		f.APIs = append(f.APIs, addr)
	}
	for i := range o.Gateways {
		addr, admin := next(), next()
		args := append([]string{"gateway", "--gateway-addr", addr, "--admin-addr", admin, "--redis", f.RedisURL, "--jwt-secret-file", secretFile}, o.GatewayArgs...)
		if err := f.launch(fmt.Sprintf("gateway-%d", i+1), admin, o.Binary, args...); err != nil {
			return err
		}
		f.procs[len(f.procs)-1].gateway = true
		f.Gateways, f.Admins = append(f.Gateways, addr), append(f.Admins, admin)
	}
	return f.allReady(ctx, o.Patience)
}

func (f *Fleet) startRedis(ctx context.Context, o Options, addr string) error {
	host, port, _ := net.SplitHostPort(addr)
	aof := "no"
	if o.AOF {
		aof = "yes"
	}
	err := f.launch("redis", "", o.Redis, "--bind", host, "--port", port, "--dir", f.Dir, "--save", "", "--appendonly", aof,
		"--maxmemory-policy", "noeviction")
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed: install it (Debian: apt-get install redis-server), or give a running one with --fleet-redis: %w", o.Redis, err)
	}
	if err != nil {
		return err
	}
	f.RedisURL = "redis://" + addr + "/0"
	p := f.procs[len(f.procs)-1]
	if o.Gateways+o.APIs > fairShares {
		favour(p.cmd.Process.Pid)
	}
	return f.poll(ctx, p, o.Patience, func() bool {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// launch starts a process with a log of its own.
func (f *Fleet) launch(name, admin, binary string, args ...string) error {
	p := &process{name: name, argv: append([]string{binary}, args...), admin: admin, log: filepath.Join(f.Dir, name+".log")}
	if err := f.begin(p); err != nil {
		return err
	}
	f.procs = append(f.procs, p)
	return nil
}

// begin starts a process, for the first time or again.
func (f *Fleet) begin(p *process) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("a log for %s: %w", p.name, err)
	}
	defer log.Close()
	cmd, ended := exec.Command(p.argv[0], p.argv[1:]...), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = cleanEnv()
	cmd.SysProcAttr = tied()
	started := make(chan error)
	f.start <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err) // it stays the one that ended, if there was one
	}
	p.cmd, p.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // how it ended is asked for in poll
		close(ended)
	}()
	return nil
}

// RenewGateways ends the gateways and starts them anew, where they were, and waits
// until they are ready.
func (f *Fleet) RenewGateways(ctx context.Context) error {
	for _, p := range f.procs {
		if p.gateway {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	patience := time.After(stopPatience)
	for _, p := range f.procs {
		if !p.gateway {
			continue
		}
		select {
		case <-p.ended:
		case <-patience:
			patience = time.After(0)
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		if err := f.begin(p); err != nil {
			return err
		}
	}
	return f.allReady(ctx, f.patience)
}

// cleanEnv leaves out settings of the environment: they are the tester's, and a
// server that is given a tester's would refuse to start.
func cleanEnv() (env []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MADANG_") {
			env = append(env, e)
		}
	}
	return env
}

func (f *Fleet) allReady(ctx context.Context, patience time.Duration) error {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	deadline := time.Now().Add(patience)
	for _, p := range f.procs {
		if p.admin == "" {
			continue
		}
		err := f.poll(ctx, p, time.Until(deadline), func() bool {
			res, err := client.Get("http://" + p.admin + "/readyz")
			if err != nil {
				return false
			}
			res.Body.Close()
			return res.StatusCode == http.StatusOK
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// poll waits until a process is ready, has ended, or time is up.
func (f *Fleet) poll(ctx context.Context, p *process, patience time.Duration, ready func() bool) error {
	deadline := time.Now().Add(patience)
	for !ready() {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended (%s) before it was ready:\n%s", p.name, p.cmd.ProcessState, tailOf(p.log))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", p.name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s was not ready after %v:\n%s", p.name, patience.Round(time.Second), tailOf(p.log))
		}
	}
	return nil
}

func tailOf(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}

// Pids are the processes by name: redis, api-1 …, gateway-1 ….
func (f *Fleet) Pids() map[string]int {
	pids := make(map[string]int, len(f.procs))
	for _, p := range f.procs {
		pids[p.name] = p.cmd.Process.Pid
	}
	return pids
}

// blobDir is where the APIs keep attachments.
func (f *Fleet) blobDir() string { return filepath.Join(f.Dir, "blobs") }

// Stop ends all processes. The logs go too, unless keep; attachments in any case.
func (f *Fleet) Stop(keep bool) error {
	f.stop()
	if keep {
		if err := os.RemoveAll(f.blobDir()); err != nil {
			return fmt.Errorf("removing the fleet's attachments: %w", err)
		}
		return nil
	}
	if err := os.RemoveAll(f.Dir); err != nil {
		return fmt.Errorf("removing the fleet's logs: %w", err)
	}
	return nil
}

// stopPatience is what a process gets to end by itself.
const stopPatience = 5 * time.Second

// stop ends processes in reverse order, receivers before what they read from.
func (f *Fleet) stop() {
	for i := len(f.procs) - 1; i > 0; i-- {
		_ = f.procs[i].cmd.Process.Signal(syscall.SIGTERM)
	}
	deadline := time.After(stopPatience)
	for i := len(f.procs) - 1; i >= 0; i-- {
		p := f.procs[i]
		if i == 0 {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
		select {
		case <-p.ended:
		case <-deadline:
			deadline = time.After(0)
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
	close(f.start)
}

// freePorts finds ports that nobody has now. Somebody may take one before it is
// used; the process that wanted it then says so.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("free ports: %w", err)
		}
		defer l.Close() // only when all are known, so that none is found twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
