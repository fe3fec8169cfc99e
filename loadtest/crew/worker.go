package crew

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/sender"
	"github.com/madang-chat/madang/loadtest/swarm"
)

// loopPatience is how long a loop may be deaf before its worker gives up on it.
const loopPatience = 20 * time.Second

// Work is a worker process: it reads its job and its orders from in until in
// ends, and reports to out.
func Work(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Garbage is a few histograms a second: collecting rarely costs memory that
	// nobody measures and saves time that is.
	debug.SetGCPercent(400)
	w := &worker{in: gob.NewDecoder(bufio.NewReaderSize(in, 1<<16)), out: gob.NewEncoder(out)}
	var job Job
	if err := w.in.Decode(&job); err != nil {
		return fmt.Errorf("worker: no job: %w", err)
	}
	w.clock = clock.New(job.Common.ClockOffset)
	if err := w.work(ctx, job); err != nil {
		return w.report(Report{Err: err.Error()})
	}
	return nil
}

type worker struct {
	clock  clock.Clock
	in     *gob.Decoder
	swarm  *swarm.Swarm
	sender *sender.Sender
	acks   []ledger.Ack

	// mu guards out. A look holds it from the snapshot on: a report says what happened
	// since the one before, so none may overtake another.
	mu  sync.Mutex
	out *gob.Encoder
}

func (w *worker) work(ctx context.Context, job Job) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loop := make(chan error, 1)
	switch {
	case job.Receive != nil:
		p := newPager(job.Common)
		s, err := job.swarm(p.ask)
		if err != nil {
			return err
		}
		w.swarm = s
		go func() { loop <- s.Run(ctx) }()
		go p.run(ctx, s)
	case job.Send != nil:
		s, err := job.sender()
		if err != nil {
			return err
		}
		w.sender = s
		go func() { loop <- s.Run(ctx) }()
	default:
		return errors.New("a job without work")
	}
	// The orders' reader ends with the process: a read of a pipe can't be called off.
	orders := make(chan error, 1)
	go func() { orders <- w.obey() }()
	if err := w.report(Report{Seq: readySeq}); err != nil {
		return err
	}
	for {
		next := time.Second - time.Duration(w.clock.Now()%int64(time.Second))
		select {
		case err := <-loop:
			return err
		case err := <-orders:
			cancel()
			<-loop
			return err
		case <-time.After(next):
			if err := w.look(0); err != nil {
				return err
			}
		}
	}
}

// readySeq is the Seq of the report that says a worker has begun.
const readySeq = 1

// obey carries out orders until there are no more.
func (w *worker) obey() error {
	for {
		var o Order
		if err := w.in.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("orders: %w", err)
		}
		if err := w.carryOut(o); err != nil {
			return err
		}
	}
}

func (w *worker) carryOut(o Order) error {
	if o.Verb == Look {
		return w.look(o.Seq)
	}
	if s := w.sender; s != nil {
		switch o.Verb {
		case BeginSends:
			s.Begin(o.Rate)
		case EndSends:
			s.End()
		case Abandon:
			s.Abandon()
		}
		return nil
	}
	switch s := w.swarm; o.Verb {
	case Ramp:
		s.Ramp()
	case SendsBegin:
		s.SendsBegin()
	case BeginSends:
		s.EchoBegin(o.Rate)
	case EndSends:
		s.EchoEnd()
	case Drop:
		s.Drop(o.Share, o.Spread, o.Rate)
	case Stall:
		s.Stall(o.Count)
	case Unstall:
		s.Unstall()
	case Chat:
		s.Chat(o.Chatter)
	case Acks:
		w.acks = append(w.acks, o.Acks...)
	case Judge:
		j, ok := s.Judge(w.acks, loopPatience)
		if !ok {
			return errDeaf
		}
		w.acks = w.acks[:0]
		return w.report(Report{Seq: o.Seq, Judgement: &j})
	}
	return nil
}

var errDeaf = errors.New("the worker's loop does not answer: this machine is overloaded")

// look reports what happened since the last report.
func (w *worker) look(seq uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := Report{Seq: seq}
	if w.swarm != nil {
		snap, ok := w.swarm.Snapshot(loopPatience)
		if !ok {
			return errDeaf
		}
		r.Loop = snap.Loop
		r.Receivers = &Receivers{
			Stats:   snap.Stats,
			Latency: snap.Latency.Encode(), SinceLog: snap.SinceLog.Encode(), Opened: snap.Opened.Encode(), Back: snap.Back.Encode(),
		}
		if snap.Echoed > 0 {
			r.Senders = &Senders{
				Stats: sender.Stats{Issued: snap.Echoed, Attempts: snap.Echoed, Acked: snap.Echoed}, Acks: snap.Echoes, Lag: snap.Lag.Encode(),
			}
		}
	} else {
		snap, ok := w.sender.Snapshot(loopPatience)
		if !ok {
			return errDeaf
		}
		r.Loop = snap.Loop
		r.Senders = &Senders{
			Stats: snap.Stats, Acks: snap.Acks,
			Acked: snap.Acked.Encode(), Service: snap.Service.Encode(), Upload: snap.Upload.Encode(), Lag: snap.Lag.Encode(),
		}
	}
	return w.write(r)
}

func (w *worker) report(r Report) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(r)
}

func (w *worker) write(r Report) error {
	r.At = w.clock.Now()
	r.CPUNs, r.RSS = usage()
	if err := w.out.Encode(r); err != nil {
		return fmt.Errorf("reporting: %w", err)
	}
	return nil
}

// usage is this process's CPU time and resident memory.
func usage() (cpuNs, rss int64) {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) == nil {
		cpuNs = ru.Utime.Nano() + ru.Stime.Nano()
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident int64
		if _, err := fmt.Sscan(string(b), &size, &resident); err == nil {
			rss = resident * int64(os.Getpagesize())
		}
	}
	return cpuNs, rss
}
