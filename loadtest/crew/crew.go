package crew

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Crew are the worker processes of a run.
type Crew struct {
	members []*member
	reports chan Report
	seq     uint64
	readers sync.WaitGroup
}

// member is one worker process.
type member struct {
	index  int
	cmd    *exec.Cmd
	stderr *tail
	stdin  io.WriteCloser
	enc    *gob.Encoder
	buf    *bufio.Writer
	ended  chan struct{}
}

// ErrWorkerDied says that a worker ended before it was told to: the figures of a
// run without it would be wrong, so the run ends.
var ErrWorkerDied = errors.New("a worker process of the load tester died")

// startPatience is how long a worker may take to say that it is ready.
const startPatience = 30 * time.Second

// Start starts a worker per job, as argv, and waits until all are ready. The
// caller must Stop what was started.
func Start(argv []string, jobs []Job) (*Crew, error) {
	c := &Crew{reports: make(chan Report, 4*len(jobs)+64), seq: readySeq}
	for i, job := range jobs {
		if err := c.start(i, argv, job); err != nil {
			c.Stop()
			return nil, err
		}
	}
	deadline := time.After(startPatience)
	for range jobs {
		select {
		case r := <-c.reports:
			if r.Err != "" {
				c.Stop()
				return nil, fmt.Errorf("%w: %s", ErrWorkerDied, r.Err)
			}
		case <-deadline:
			c.Stop()
			return nil, fmt.Errorf("%w: not ready after %v", ErrWorkerDied, startPatience)
		}
	}
	return c, nil
}

func (c *Crew) start(index int, argv []string, job Job) error {
	m := &member{index: index, cmd: exec.Command(argv[0], argv[1:]...), stderr: &tail{}, ended: make(chan struct{})}
	// A group of its own: Ctrl-C is for the coordinator, who wants the results.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	m.cmd.Stderr = m.stderr
	stdin, err := m.cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("starting a worker: %w", err)
	}
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("starting a worker: %w", err)
	}
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("starting a worker: %w", err)
	}
	m.stdin, m.buf = stdin, bufio.NewWriterSize(stdin, 1<<16)
	m.enc = gob.NewEncoder(m.buf)
	c.members = append(c.members, m)
	c.readers.Add(1)
	go c.read(m, stdout)
	// A worker that is gone already says why in its last report.
	if err := m.enc.Encode(job); err == nil {
		_ = m.buf.Flush()
	}
	return nil
}

// read passes a worker's reports on until it ends.
func (c *Crew) read(m *member, stdout io.Reader) {
	defer c.readers.Done()
	defer close(m.ended)
	dec := gob.NewDecoder(bufio.NewReaderSize(stdout, 1<<16))
	for {
		var r Report
		err := dec.Decode(&r)
		if err != nil {
			_ = m.cmd.Wait()
			if text := m.stderr.String(); text != "" {
				c.reports <- Report{Worker: m.index, Err: text}
			} else {
				c.reports <- Report{Worker: m.index, Err: "it ended: " + m.cmd.ProcessState.String()}
			}
			return
		}
		r.Worker = m.index
		c.reports <- r
	}
}

// Reports are what workers say. A report with Err is a worker's last.
func (c *Crew) Reports() <-chan Report { return c.reports }

// Len is the number of workers.
func (c *Crew) Len() int { return len(c.members) }

// Pids are the workers' processes.
func (c *Crew) Pids() []int {
	pids := make([]int, len(c.members))
	for i, m := range c.members {
		pids[i] = m.cmd.Process.Pid
	}
	return pids
}

// Seq returns a number for an order that asks for a report.
func (c *Crew) Seq() uint64 {
	c.seq++
	return c.seq
}

// All gives every worker an order.
func (c *Crew) All(o Order) error {
	for i := range c.members {
		if err := c.One(i, o); err != nil {
			return err
		}
	}
	return nil
}

// One gives a worker an order.
func (c *Crew) One(worker int, o Order) error {
	m := c.members[worker]
	err := m.enc.Encode(o)
	if err == nil {
		err = m.buf.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %s", ErrWorkerDied, m.stderr.String())
	}
	return nil
}

// Stop ends all workers, and kills those that do not end.
func (c *Crew) Stop() {
	for _, m := range c.members {
		m.stdin.Close()
	}
	done := make(chan struct{})
	go func() { c.readers.Wait(); close(done) }()
	patience := time.After(10 * time.Second)
	for {
		select {
		case <-c.reports:
		case <-patience:
			for _, m := range c.members {
				select {
				case <-m.ended:
				default:
					_ = m.cmd.Process.Kill()
				}
			}
		case <-done:
			return
		}
	}
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
