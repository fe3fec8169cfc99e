package crew

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"sync"
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
	index   int
	process Process
	enc     *gob.Encoder
	buf     *bufio.Writer
	ended   chan struct{}
	cause   string // why; valid when ended is closed
}

// ErrWorkerDied says that a worker ended before it was told to: the figures of a
// run without it would be wrong, so the run ends.
var ErrWorkerDied = errors.New("a worker process of the load tester died")

// startPatience is how long a worker may take to say that it is ready.
const startPatience = 30 * time.Second

// Start starts a worker per job, each in its place, and waits until all are
// ready. The caller must Stop what was started.
func Start(places []Place, jobs []Job) (*Crew, error) {
	c := &Crew{reports: make(chan Report, 4*len(jobs)+64), seq: readySeq}
	processes, errs := make([]Process, len(jobs)), make([]error, len(jobs))
	var starting sync.WaitGroup
	for i := range jobs { // together: another machine may take a second to hear of it
		starting.Go(func() { processes[i], errs[i] = places[i].Start(i) })
	}
	starting.Wait()
	for i, p := range processes {
		if p != nil {
			c.take(i, p, jobs[i])
		}
	}
	if err := errors.Join(errs...); err != nil {
		c.Stop()
		return nil, err
	}
	deadline := time.After(startPatience)
	for ready := 0; ready < len(jobs); {
		select {
		case r := <-c.reports:
			if r.Err != "" {
				c.Stop()
				return nil, fmt.Errorf("%w: %s", ErrWorkerDied, r.Err)
			}
			if r.Seq == readySeq { // others are of those who were ready a second ago
				ready++
			}
		case <-deadline:
			c.Stop()
			return nil, fmt.Errorf("%w: not ready after %v", ErrWorkerDied, startPatience)
		}
	}
	return c, nil
}

// take makes a process a member and hands it its job.
func (c *Crew) take(index int, p Process, job Job) {
	m := &member{index: index, process: p, buf: bufio.NewWriterSize(p, 1<<16), ended: make(chan struct{})}
	m.enc = gob.NewEncoder(m.buf)
	c.members = append(c.members, m)
	c.readers.Add(1)
	go c.read(m)
	// A worker that is gone already says why in its last report.
	if err := m.enc.Encode(job); err == nil {
		_ = m.buf.Flush()
	}
}

// read passes a worker's reports on until it ends.
func (c *Crew) read(m *member) {
	defer c.readers.Done()
	dec := gob.NewDecoder(bufio.NewReaderSize(m.process, 1<<16))
	for {
		var r Report
		if err := dec.Decode(&r); err != nil {
			m.cause = m.process.End()
			close(m.ended)
			c.reports <- Report{Worker: m.index, Err: m.cause}
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

// endPatience is how long the cause of a worker's death may take to be known
// after orders no longer reach it.
const endPatience = 5 * time.Second

// One gives a worker an order.
func (c *Crew) One(worker int, o Order) error {
	m := c.members[worker]
	err := m.enc.Encode(o)
	if err == nil {
		err = m.buf.Flush()
	}
	if err == nil {
		return nil
	}
	select {
	case <-m.ended:
		return fmt.Errorf("%w: %s", ErrWorkerDied, m.cause)
	case <-time.After(endPatience):
		return fmt.Errorf("%w: an order does not reach it: %w", ErrWorkerDied, err)
	}
}

// Stop ends all workers, and kills those that do not end.
func (c *Crew) Stop() {
	for _, m := range c.members {
		m.process.Finish()
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
					m.process.Kill()
				}
			}
		case <-done:
			return
		}
	}
}
