package crew

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Place is where worker processes run: this machine (Local), or another one
// (loadtest/agents).
type Place interface {
	// Start starts the worker of that number.
	Start(worker int) (Process, error)
}

// Process is a worker that runs: its reports are read, its orders written.
type Process interface {
	io.ReadWriter
	Finish()     // no more orders: the worker ends
	Kill()       // at once
	End() string // waits until it has ended, once its reports have; says what it died of
}

// Local starts workers on this machine, as this command line.
type Local []string

// Start starts a worker.
func (argv Local) Start(int) (Process, error) {
	p := &local{cmd: exec.Command(argv[0], argv[1:]...), stderr: &tail{}}
	// A group of its own: Ctrl-C is for the coordinator, who wants the results.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = p.stderr
	var err error
	if p.WriteCloser, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	if p.Reader, err = p.cmd.StdoutPipe(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	return p, nil
}

// local is a worker on this machine, by its stdin and stdout.
type local struct {
	io.WriteCloser
	io.Reader
	cmd    *exec.Cmd
	stderr *tail
}

func (p *local) Finish() { p.Close() }
func (p *local) Kill()   { _ = p.cmd.Process.Kill() }

func (p *local) End() string {
	_ = p.cmd.Wait() // how it ended is what the state says
	if text := p.stderr.String(); text != "" {
		return text
	}
	return "it ended: " + p.cmd.ProcessState.String()
}

// tail keeps the end of what a worker writes to stderr.
type tail struct {
	mu sync.Mutex // guards b
	b  []byte
}

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if extra := len(t.b) - tailBytes; extra > 0 {
		t.b = t.b[extra:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
