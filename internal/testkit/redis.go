// Package testkit gives tests the servers and programs they need: Redis alone, with
// Sentinels, as a Cluster or embedded; cmd/madang, built; ports and certificates.
// What a test starts here is its own, ends with it, and dies with the test's process
// however that ends. It is part of no binary.
package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds how long a started server may take to answer.
const startTimeout = time.Minute

// RedisServer is a real redis-server (or redis-sentinel) process of its own, on
// a free port of the loopback and in a directory of its own.
type RedisServer struct {
	Port int

	binary string
	dir    string
	args   []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done <-chan struct{} // closed when the process is gone
}

// Redis starts a redis-server that stops with the test. Arguments are given to
// it as they are, for instance "--appendonly", "yes"; without any it persists
// nothing.
func Redis(tb testing.TB, args ...string) *RedisServer {
	tb.Helper()
	s, err := StartRedis(tb.TempDir(), args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Kill)
	return s
}

// StartRedis starts a redis-server that keeps its files in dir.
func StartRedis(dir string, args ...string) (*RedisServer, error) {
	return start("redis-server", dir, func(port int) []string {
		return append([]string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir,
			"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction",
			"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
			"--dbfilename", "dump-" + strconv.Itoa(port) + ".rdb",
			"--logfile", filepath.Join(dir, "redis-"+strconv.Itoa(port)+".log"),
		}, args...)
	})
}

// start tries ports until the server is up: another process may take the port
// between the look and the bind.
func start(binary, dir string, args func(port int) []string) (*RedisServer, error) {
	var last error
	for range 5 {
		port := FreePort()
		s := &RedisServer{Port: port, binary: binary, dir: dir, args: args(port)}
		if last = s.launch(); last == nil {
			return s, nil
		}
	}
	return nil, last
}

func (s *RedisServer) launch() error {
	cmd := exec.Command(s.binary, s.args...)
	cmd.Dir = s.dir
	done, err := Launch(cmd)
	if err != nil {
		return fmt.Errorf("starting %s (is it installed?): %w", s.binary, err)
	}
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()

	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		select {
		case <-done:
			return fmt.Errorf("%s on port %d ended at once: %s", s.binary, s.Port, s.logTail())
		case <-time.After(5 * time.Millisecond):
		}
		// The port may be answered by a stranger: the process ID tells. And a server
		// that answers may still read what it has kept.
		info, err := s.Do("INFO")
		if text := fmt.Sprint(info); err == nil && strings.Contains(text, "process_id:"+strconv.Itoa(cmd.Process.Pid)+"\r") &&
			!strings.Contains(text, "\nloading:1\r") {
			return nil
		}
	}
	s.Kill()
	return fmt.Errorf("%s on port %d does not answer: %s", s.binary, s.Port, s.logTail())
}

func (s *RedisServer) logTail() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "redis-"+strconv.Itoa(s.Port)+".log"))
	return string(b[max(0, len(b)-3000):])
}

// Addr is the server's host:port.
func (s *RedisServer) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.Port) }

// URL is what --redis takes.
func (s *RedisServer) URL() string { return "redis://" + s.Addr() + "/0" }

// PID is the server's process ID.
func (s *RedisServer) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

func (s *RedisServer) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done: // the ID may be another process's by now
	default:
		_ = s.cmd.Process.Signal(sig)
	}
}

// Pause freezes the server (SIGSTOP): connections stay open and say nothing.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *RedisServer) Kill() {
	s.signal(syscall.SIGKILL)
	<-s.done
}

// Restart starts the server again on the same port and files, after Kill when
// it still runs.
func (s *RedisServer) Restart() error {
	s.Kill()
	return s.launch()
}

// Do runs one command on a connection of its own. The answer is a string, an
// int64, nil or a slice of these.
func (s *RedisServer) Do(args ...string) (any, error) {
	conn, err := net.DialTimeout("tcp", s.Addr(), 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	cmd := "*" + strconv.Itoa(len(args)) + "\r\n"
	for _, a := range args {
		cmd += "$" + strconv.Itoa(len(a)) + "\r\n" + a + "\r\n"
	}
	if _, err := io.WriteString(conn, cmd); err != nil {
		return nil, err
	}
	return readReply(bufio.NewReader(conn))
}

// Must is Do for a command that has to succeed.
func (s *RedisServer) Must(tb testing.TB, args ...string) any {
	tb.Helper()
	v, err := s.Do(args...)
	if err != nil {
		tb.Fatal(args, err)
	}
	return v
}

// readReply reads one RESP2 value.
func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty reply")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return nil, errors.New(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return nil, err
	}
	switch kind {
	case '$':
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return string(b[:n]), err
	case '*':
		vs := make([]any, n)
		for i := range vs {
			if vs[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return vs, nil
	}
	return nil, fmt.Errorf("unknown reply %q", line)
}

// AwaitReplicas waits until that many replicas have all that was written so far. A
// replica that is online may have nothing yet: after a synchronisation without a
// disk it gets what is new only when it has said, after a second, that it is there.
func (s *RedisServer) AwaitReplicas(replicas int) error {
	if _, err := s.Do("PUBLISH", "testkit", "counts as a write"); err != nil {
		return err
	}
	return s.awaitOffset(replicas)
}

// awaitOffset is AwaitReplicas for a server that was written to, and may be paused.
func (s *RedisServer) awaitOffset(replicas int) error {
	number := func(text, name string) (n int64) {
		if _, after, ok := strings.Cut(text, name); ok {
			_, _ = fmt.Sscan(after, &n)
		}
		return n
	}
	info, _ := s.Do("INFO", "replication")
	written := number(fmt.Sprint(info), "master_repl_offset:")
	return waitFor(fmt.Sprintf("%d replicas in step with %s", replicas, s.Addr()), func() bool {
		info, err := s.Do("INFO", "replication")
		inStep := 0
		for line := range strings.Lines(fmt.Sprint(info)) {
			if strings.Contains(line, "state=online") && number(strings.ReplaceAll(line, ",", " "), "offset=") >= max(written, 1) {
				inStep++
			}
		}
		return err == nil && inStep >= replicas
	})
}

// waitFor polls until ok says true.
func waitFor(what string, ok func() bool) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return fmt.Errorf("timed out: %s", what)
}

func subdir(dir, name string, i int) string {
	d := filepath.Join(dir, name+strconv.Itoa(i))
	_ = os.MkdirAll(d, 0o700)
	return d
}
