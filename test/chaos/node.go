package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/test/proxy"
)

// node is one madang process, which can be killed, stopped and started again at
// the same address.
type node struct {
	name        string // "gateway 1"
	addr, admin string
	path        string
	args, env   []string
	// front is between clients and a gateway; nil for an API.
	front *proxy.Proxy
	// redis is between the process and a standalone Redis; nil elsewhere.
	redis *proxy.Proxy

	ready  atomic.Bool // as its /readyz said last, for the balancer
	ending atomic.Bool // we end it
	died   func()      // called when it ends and we did not end it
	log    testkit.Log

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

func (n *node) start() error {
	n.ending.Store(false)
	cmd := exec.Command(n.path, n.args...)
	cmd.Env = n.env
	cmd.Stdout = &n.log
	cmd.Stderr = cmd.Stdout
	ended, err := testkit.Launch(cmd)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		<-ended
		byItself := !n.ending.Load() // before done: who waits for it may start the next
		close(done)
		if byItself {
			n.died()
		}
	}()
	n.mu.Lock()
	n.cmd, n.done = cmd, done
	n.mu.Unlock()
	return nil
}

// panics are the lines of the log that no fault excuses.
func (n *node) panics() (lines []string) {
	for line := range strings.Lines(n.log.String()) {
		if strings.Contains(line, "BUG") || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") {
			lines = append(lines, n.name+": "+strings.TrimSpace(line))
		}
	}
	return lines
}

func (n *node) signal(sig syscall.Signal) (done chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return nil
	}
	select {
	case <-n.done: // the ID may be another process's by now
	default:
		_ = n.cmd.Process.Signal(sig)
	}
	return n.done
}

func (n *node) kill() {
	n.ending.Store(true)
	if done := n.signal(syscall.SIGKILL); done != nil {
		<-done
	}
}

// terminate stops the process as an operator does.
func (n *node) terminate() error {
	n.ending.Store(true)
	select {
	case <-n.signal(syscall.SIGTERM):
		return nil
	case <-time.After(30 * time.Second):
		n.kill()
		return fmt.Errorf("%s did not stop within 30 s of SIGTERM", n.name)
	}
}

// isReady asks the process whether it is.
func (n *node) isReady() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// watch keeps ready up to date, as a balancer's health checks do.
func (n *node) watch(ctx context.Context) {
	for ctx.Err() == nil {
		n.ready.Store(n.isReady())
		sleep(ctx, 250*time.Millisecond)
	}
}

func (n *node) close() {
	n.kill()
	if n.front != nil {
		n.front.Close()
	}
	if n.redis != nil {
		n.redis.Close()
	}
}

// saveLog writes what the process said to a file, for whoever looks into a
// violation.
func (n *node) saveLog(path string) {
	_ = os.WriteFile(path, []byte(n.log.String()), 0o600)
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// until polls a condition; false when it did not come about in time.
func until(ctx context.Context, limit time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(limit); !holds(); sleep(ctx, 20*time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
	}
	return true
}
