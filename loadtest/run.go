package loadtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/madang-chat/madang/loadtest/agents"
	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/probe"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/report"
	"github.com/madang-chat/madang/loadtest/target"
)

// Work is a worker process: `loadtest worker`.
var Work = crew.Work

// run is a run while it lasts. One goroutine owns it.
type run struct {
	spec      Spec
	ctx       context.Context // ends on Ctrl-C
	common    crew.Common
	clock     clock.Clock
	crowd     *crowd.Crowd
	bases     map[uint32]ledger.Pos
	receivers int
	hub       *agents.Hub // nil: the workers are on this machine
	crew      *crew.Crew
	tally     *tally
	servers   *servers
	pace      *probe.Pace
	result    *report.Result
	status    *status
	looking   map[uint64]int // reports asked for and not yet here, by Seq
	placed    []int          // the machine that each worker is on
	judgement *ledger.Judgement
	sending   bool
	part      string // of a comparison: the transport whose clients these are
	settled   bool   // what this crew did is in the result
}

// errInterrupted says that the user had enough; what is there is the result.
var errInterrupted = errors.New("interrupted")

// Run does what the spec asks for. It returns a result, also of a run that was
// interrupted or went wrong, unless nothing could be measured at all.
func Run(ctx context.Context, spec Spec, out Progress) (*report.Result, error) {
	if err := spec.complete(); err != nil {
		return nil, err
	}
	r := &run{spec: spec, ctx: ctx, looking: map[uint64]int{}, bases: map[uint32]ledger.Pos{}, status: newStatus(out)}
	defer r.status.end()
	r.result = &report.Result{
		Tool: spec.Tool, Scenario: spec.Scenario, Target: spec.Target, Command: spec.Command, Began: time.Now(),
		Settings: spec.settings(), Environment: environment(),
	}
	r.pace = probe.WatchPace()
	defer r.pace.Stop()
	err := r.prepare()
	if r.hub != nil {
		defer r.hub.Close() // after the crew's end
	}
	if err != nil {
		return nil, err
	}
	defer func() { r.crew.Stop() }()

	err = scenarios[spec.Scenario](r)
	r.ctx = context.WithoutCancel(ctx) // what follows has its own deadlines
	r.finish(err)
	return r.result, nil
}

// prepare checks what can be checked, makes the rooms and starts the workers.
func (r *run) prepare() (err error) {
	s := &r.spec
	poll, err := reactor.New() // on this system at all? Before rooms are made.
	if err != nil {
		return err
	}
	poll.Close()
	offset := clock.Offset()
	r.clock = clock.New(offset)
	r.common = crew.Common{
		ClockOffset: offset, Shape: s.shape(), Target: s.Target, Options: s.options(), Secret: s.Secret, Host: s.Host,
		Claims: mint.Claims{
			Issued: time.Now().Add(-time.Minute), Expires: time.Now().Add(24*time.Hour + s.longest()), Issuer: s.Issuer, Audience: s.Audience,
		},
	}
	if r.common.Gateways, err = resolve("gateway", s.Gateways); err != nil {
		return err
	}
	if r.common.APIs, err = resolve("api", s.APIs); err != nil {
		return err
	}
	if r.crowd, err = crowd.New(r.common.Shape); err != nil {
		return err
	}
	if err := reach(r.ctx, "gateway", r.common.Gateways); err != nil {
		return err
	}
	if err := reach(r.ctx, "api", r.common.APIs); err != nil {
		return err
	}
	if _, err := mint.New(s.Secret, r.common.Claims); err != nil && s.Target == "madang" {
		return err
	}
	if _, err := target.ByName(s.Target, s.options()); err != nil {
		return err
	}
	if err := r.gather(); err != nil {
		return err
	}
	if err := r.tryUpload(); err != nil {
		return err
	}
	jobs, places, err := r.layout()
	if err != nil {
		return err
	}
	if err := r.makeRooms(); err != nil {
		return err
	}
	r.servers = findServers(r.common.Gateways, r.common.APIs, s.ServerPids)
	return r.man(jobs, places)
}

// man starts the workers of a layout.
func (r *run) man(jobs []crew.Job, places []int) error {
	r.status.say("starting %d worker processes", len(jobs))
	next, err := r.start(jobs, places)
	if err != nil {
		return err // a crew before it is still the one to stop
	}
	r.crew = next
	before := r.tally
	r.tally = newTally(r.crowd, len(jobs), r.clock.Now())
	if before != nil { // one record by the second, of all crews
		r.tally.begin, r.tally.seconds = before.begin, before.series()
	}
	for i, machine := range places {
		r.tally.workers[i].away = r.hub != nil && !r.hub.Info(machine).Here
	}
	r.settled = false
	return nil
}

func (r *run) makeRooms() error {
	if r.spec.Target != "madang" || len(r.common.APIs) == 0 || r.crowd.Rooms() == 0 {
		return nil
	}
	began := time.Now()
	err := r.setup().rooms(r.ctx, func(done int) { r.status.say("made %d of %d rooms", done, r.crowd.Rooms()) })
	if err != nil {
		return fmt.Errorf("making rooms: %w", err)
	}
	r.status.say("made %d rooms, %d memberships, in %.1f s", r.crowd.Rooms(), r.crowd.Seats(), time.Since(began).Seconds())
	return nil
}

func (r *run) setup() *setup {
	return &setup{apis: r.common.APIs, host: r.spec.Host, crowd: r.crowd, secret: r.spec.Secret, claims: r.common.Claims, bases: r.bases}
}

// pump hears workers and samples servers until done says so, for at most
// patience. done is asked after every report. What it returns is nil when done
// was true, errTimeout when patience ended, and otherwise why the run must end.
func (r *run) pump(patience time.Duration, done func() bool) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		if done != nil && done() {
			return nil
		}
		select {
		case rep := <-r.crew.Reports():
			if err := r.hear(rep); err != nil {
				return err
			}
		case <-r.servers.ticker.C:
			r.sample()
		case <-timer.C:
			return errTimeout
		case <-r.ctx.Done():
			return errInterrupted
		}
	}
}

var errTimeout = errors.New("time is up")

// rest pumps for a while.
func (r *run) rest(d time.Duration) error {
	if err := r.pump(d, nil); !errors.Is(err, errTimeout) {
		return err
	}
	return nil
}

func (r *run) hear(rep crew.Report) error {
	if rep.Err != "" {
		return fmt.Errorf("%w: %s", crew.ErrWorkerDied, rep.Err)
	}
	if rep.Seq != 0 {
		if r.looking[rep.Seq]--; r.looking[rep.Seq] <= 0 {
			delete(r.looking, rep.Seq)
		}
	}
	if rep.Judgement != nil {
		r.judgement.Merge(*rep.Judgement)
		return nil
	}
	return r.tally.take(rep)
}

// sample measures the servers, once a second, and shows how things stand.
func (r *run) sample() {
	r.servers.sample(r.tally.secondAt(r.clock.Now()))
	r.status.line(r)
}

// workerPatience is how long a worker may take to answer.
const workerPatience = 30 * time.Second

// look asks all workers how things stand and waits for the answers.
func (r *run) look() error {
	seq := r.crew.Seq()
	r.looking[seq] = r.crew.Len()
	if err := r.crew.All(crew.Order{Verb: crew.Look, Seq: seq}); err != nil {
		return err
	}
	return r.answered(seq)
}

func (r *run) answered(seq uint64) error {
	err := r.pump(workerPatience, func() bool { return r.looking[seq] == 0 })
	if errors.Is(err, errTimeout) {
		return fmt.Errorf("%w: a worker did not answer in %v: this machine is overloaded", crew.ErrWorkerDied, workerPatience)
	}
	return err
}

// until looks at the workers again and again until done says so.
func (r *run) until(patience time.Duration, done func() bool) error {
	began := time.Now()
	for deadline := began.Add(patience); ; {
		if err := r.look(); err != nil {
			return err
		}
		if done() {
			return nil
		}
		if time.Now().After(deadline) {
			return errTimeout
		}
		// A twentieth of what has passed: exact where it is short, and no burden
		// on three hundred thousand clients where it is long.
		between := min(max(time.Since(began)/20, 20*time.Millisecond), time.Second)
		if err := r.rest(between); err != nil {
			return err
		}
	}
}
