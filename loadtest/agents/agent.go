package agents

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/probe"
)

// Agent starts workers on this machine for a coordinator on another.
type Agent struct {
	Coordinator string // host:port
	Secret      []byte
	Name        string // default: the host's
	Version     string
	Sources     []string   // addresses to connect from
	OpenFiles   uint64     // what a worker may open
	Workers     crew.Local // argv of a worker
	Say         func(format string, args ...any)
}

// Errors of a run that an agent could not serve to its end.
var (
	// ErrRefused says that the coordinator does not take this agent, and will not.
	ErrRefused = errors.New("the coordinator refuses this agent")
	// ErrLost says that the coordinator went away during a run.
	ErrLost = errors.New("the coordinator is gone")
)

// Trips are the round trips of a comparison: many when nobody waits, few in a run.
const (
	tripsAtStart = 40
	tripsPerBeat = 4
)

// Serve waits for a run and serves it to its end.
func (a *Agent) Serve(ctx context.Context) error {
	s := &serving{Agent: a, client: &http.Client{
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, MaxResponseHeaderBytes: maxHeaders},
	}}
	defer s.client.CloseIdleConnections()
	if err := s.join(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.workers.Wait() // after cancel: it ends them
	defer cancel()
	return s.beat(ctx)
}

// serving is one run at an agent.
type serving struct {
	*Agent
	client  *http.Client
	id      int
	workers sync.WaitGroup
	machine probe.Machine // at the last beat
}

// join tries until the coordinator is there: agents may be started first.
func (s *serving) join(ctx context.Context) error {
	name, _ := os.Hostname()
	if s.Name != "" {
		name = s.Name
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // unknown: another machine than any
	me := Join{
		Name: name, Version: s.Version, Cores: runtime.NumCPU(), OpenFiles: s.OpenFiles, Sources: s.Sources, Boot: strings.TrimSpace(string(boot)),
	}
	waiting := false
	for {
		err := s.register(ctx, &me)
		if err == nil {
			s.Say("registered at %s as %s; this clock is %s", s.Coordinator, me.Name, me.Clock)
			s.machine = probe.ReadMachine()
			return nil
		}
		if errors.Is(err, ErrRefused) || ctx.Err() != nil {
			return err
		}
		if !waiting {
			s.Say("waiting for a coordinator at %s: %v", s.Coordinator, err)
			waiting = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (s *serving) register(ctx context.Context, me *Join) (err error) {
	if me.Clock, err = s.compare(ctx, tripsAtStart); err != nil {
		return err
	}
	var joined Joined
	if err := s.call(ctx, http.MethodPost, "/v1/agents", me, &joined); err != nil {
		return err
	}
	s.id = joined.ID
	return nil
}

func (s *serving) compare(ctx context.Context, times int) (Reading, error) {
	return compare(times, clock.Monotonic, func() (int64, error) {
		var now struct {
			Now int64 `json:"now_ns"`
		}
		err := s.call(ctx, http.MethodGet, "/v1/clock", nil, &now)
		return now.Now, err
	})
}

// beat calls the coordinator until the run is over.
func (s *serving) beat(ctx context.Context) error {
	heard := time.Now()
	for {
		orders, err := s.beatOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrRefused):
			return fmt.Errorf("%w: %w", ErrLost, err) // another coordinator, or one that gave us up
		case err != nil && time.Since(heard) > silence:
			return fmt.Errorf("%w: %w", ErrLost, err)
		case err == nil:
			heard = time.Now()
		}
		if orders.Over {
			return nil
		}
		for _, n := range orders.Start {
			s.workers.Go(func() { s.work(ctx, n) })
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(beatEvery):
		}
	}
}

func (s *serving) beatOnce(ctx context.Context) (o Orders, err error) {
	reading, err := s.compare(ctx, tripsPerBeat)
	if err != nil {
		return o, err
	}
	now := probe.ReadMachine()
	busy, idle := now.Busy-s.machine.Busy, now.Idle-s.machine.Idle
	s.machine = now
	err = s.call(ctx, http.MethodPost, fmt.Sprintf("/v1/agents/%d/beat", s.id),
		Beat{Clock: reading, Busy: busy.Seconds() / max(0.01, (busy+idle).Seconds())}, &o)
	return o, err
}

// work runs one worker between its process and the coordinator.
func (s *serving) work(ctx context.Context, n int) {
	path := fmt.Sprintf("/v1/agents/%d/workers/%d", s.id, n)
	stream, err := s.open(ctx, path)
	if err != nil {
		s.Say("worker %d: %v", n, err)
		return
	}
	defer stream.Close()
	worker, err := s.Workers.Start(n)
	if err != nil {
		s.Say("worker %d: %v", n, err)
		s.tell(path, err.Error())
		return
	}
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(worker, stream) // to the last order, or until the coordinator is gone
		worker.Finish()
		select {
		case <-ended:
		case <-time.After(workerPatience):
			worker.Kill()
		}
	}()
	_, _ = io.Copy(stream, worker)
	_, _ = io.Copy(io.Discard, worker) // what nobody hears must not keep it from ending
	cause := worker.End()
	close(ended)
	s.tell(path, cause)
}

// workerPatience is what a worker gets to end by itself.
const workerPatience = 10 * time.Second

// tell says what a worker died of, before its connection ends. A coordinator
// that is gone does not need to know.
func (s *serving) tell(path, cause string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.call(ctx, http.MethodPost, path+"/end", End{Cause: cause}, nil)
}

// open makes a worker's connection.
func (s *serving) open(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Coordinator+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", authorization(s.Secret))
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocolName)
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	stream, ok := res.Body.(io.ReadWriteCloser)
	if !ok || res.StatusCode != http.StatusSwitchingProtocols {
		res.Body.Close()
		return nil, fmt.Errorf("the coordinator answered %d", res.StatusCode)
	}
	return stream, nil
}

// callPatience is how long the coordinator may take to answer a call.
const callPatience = 5 * time.Second

// call sends in and reads out, as JSON.
func (s *serving) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Coordinator+path, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", authorization(s.Secret))
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	switch {
	case err != nil:
		return err
	case res.StatusCode/100 == 4:
		return fmt.Errorf("%w: %s", ErrRefused, bytes.TrimSpace(answer))
	case res.StatusCode/100 != 2:
		return fmt.Errorf("the coordinator answered %d: %s", res.StatusCode, bytes.TrimSpace(answer))
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}
