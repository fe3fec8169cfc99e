package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/report"
)

// problem notes why the run's figures can't be taken for a success.
func (r *run) problem(format string, args ...any) {
	r.result.Problems = append(r.result.Problems, r.ofPart(fmt.Sprintf(format, args...)))
}

// ofPart says which part of a comparison something is about.
func (r *run) ofPart(what string) string {
	if r.part == "" {
		return what
	}
	return r.part + ": " + what
}

// finish ends what still goes on, has everything judged and fills the report.
func (r *run) finish(err error) {
	res := r.result
	res.Ended = report.Completed
	switch {
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		res.Ended = "interrupted: these are the results so far"
		r.spec.Drain = min(r.spec.Drain, 5*time.Second)
	case err != nil:
		res.Ended = "failed: " + err.Error()
	}
	if err := r.settle(!errors.Is(err, crew.ErrWorkerDied)); err != nil && res.Ended == report.Completed {
		res.Ended = "failed: " + err.Error()
	}
	r.servers.read()
	res.Servers = r.servers.report()
	for _, s := range res.Servers {
		if s.Died && !r.spec.Tolerate.Failures {
			r.problem("the %s process %d ended during the run", s.Role, s.Pid)
		}
	}
	res.Series = r.tally.series()
	res.TookSeconds = time.Since(res.Began).Seconds()
	r.accountAgents()
	r.suspectTester()
	r.weighObjectives()
}

// settle has what the crew's clients got judged, if its workers live, and adds all
// that the crew did to the result, once.
func (r *run) settle(alive bool) (err error) {
	if r.settled {
		return nil
	}
	r.settled = true
	var d report.Deliveries
	if alive {
		err = errors.Join(r.drain(), r.judge(&d))
		r.addLate()
	}
	r.tally.settle(math.MaxInt)
	r.accountConnections()
	r.accountSends()
	r.accountDeliveries(&d)
	cpu, _, rss := r.tally.cost()
	t := &r.result.Tester
	t.Receivers, t.Senders = r.receivers, r.crew.Len()-r.receivers
	t.CPUSeconds += cpu.Seconds()
	t.RSS = max(t.RSS, rss)
	return err
}

// judge has every worker compare what its clients got with what was acknowledged.
func (r *run) judge(d *report.Deliveries) error {
	if len(r.tally.acks) == 0 {
		return nil
	}
	// A message that was delivered and not acknowledged can make the count look
	// complete while another is on its way: what looks lost gets more time.
	for try := 0; ; try++ {
		if err := r.judgeOnce(); err != nil {
			return err
		}
		if r.judgement.Lost == 0 || try == 3 {
			break
		}
		if err := r.rest(time.Second); err != nil {
			return err
		}
	}
	d.Take(*r.judgement)
	return r.look()
}

// acksPerOrder bounds an order's size.
const acksPerOrder = 50_000

func (r *run) judgeOnce() error {
	r.judgement = &ledger.Judgement{}
	seq := r.crew.Seq()
	r.looking[seq] = r.receivers
	for worker := range r.receivers {
		mine := r.acksOf(worker)
		for part := range slices.Chunk(mine, acksPerOrder) {
			if err := r.crew.One(worker, crew.Order{Verb: crew.Acks, Acks: part}); err != nil {
				return err
			}
		}
		if err := r.crew.One(worker, crew.Order{Verb: crew.Judge, Seq: seq}); err != nil {
			return err
		}
	}
	return r.answered(seq)
}

// acksOf are the acknowledged sends to rooms that a worker's clients are in.
func (r *run) acksOf(worker int) []ledger.Ack {
	if r.receivers == 1 {
		return r.tally.acks
	}
	first, end := worker*r.spec.Clients/r.receivers, (worker+1)*r.spec.Clients/r.receivers
	here := roomsOf(r.crowd, first, end)
	var mine []ledger.Ack
	for _, a := range r.tally.acks {
		if here[a.Room] {
			mine = append(mine, a)
		}
	}
	return mine
}

func roomsOf(c *crowd.Crowd, first, end int) []bool {
	here := make([]bool, c.Rooms())
	var rooms []uint32
	for user := first; user < end; user++ {
		for _, room := range c.AppendRoomsOf(rooms[:0], user) {
			here[room] = true
		}
	}
	return here
}

func (r *run) accountConnections() {
	now := r.tally.receivers()
	r.result.Connections.Add(report.Connections{
		Asked: r.spec.Clients, Opened: now.Opened, LiveEnd: now.Live, GivenUp: now.Gone, Returned: now.Returned,
		Failures: now.Failures, Drops: now.Drops, Byes: now.Byes, Errors: now.Errors, Pings: now.Pings, Pongs: now.Pongs, Chatter: now.Chatter,
	})
	if missing := r.spec.Clients - now.Live; missing > 0 && r.result.Ended == report.Completed && !r.spec.Tolerate.Failures {
		r.problem("%d of %d clients were not connected at the end", missing, r.spec.Clients)
	}
}

func (r *run) accountSends() {
	s := r.tally.senders()
	r.result.Sends.Add(report.Sends{
		Issued: s.Issued, Unsent: s.Unsent, Acked: s.Acked, Replayed: s.Replayed, Attempts: s.Attempts,
		Refused: s.Refused, Broken: s.Broken, Failed: s.Failed,
		Uploads: s.Uploads, NotUploaded: s.NotUploaded,
	})
	if r.spec.Tolerate.Failures {
		if s.Acked == 0 && s.Issued+s.Unsent > 0 {
			r.problem("not one of %d sends was acknowledged, so that nothing could be checked: %s", s.Issued+s.Unsent, cmp.Or(s.Failed.Most(), s.Refused.Most(), s.Broken.Most()))
		}
		return
	}
	if failed := s.Failed.Total(); failed > 0 {
		r.problem("%d sends failed: %s", failed, s.Failed.Most())
	}
	if failed := s.NotUploaded.Total(); failed > 0 {
		r.problem("%d uploads failed: %s", failed, s.NotUploaded.Most())
	}
	if s.Unsent > 0 {
		r.problem("%d of %d scheduled sends were never begun: all %d connections waited for the server (more: --senders)", s.Unsent, s.Unsent+s.Issued, r.spec.Senders)
	}
}

func (r *run) accountDeliveries(d *report.Deliveries) {
	now := r.tally.receivers()
	d.OnTheWire, d.Duplicates, d.Reordered = now.Ledger.Delivered, now.Ledger.Duplicates, now.Ledger.Reordered
	d.Skipped, d.Broken, d.Gaps, d.Paged = now.Ledger.Skipped, now.Ledger.Broken, now.Ledger.Gaps, now.Ledger.Filled
	d.Strays = now.Strays
	d.SilenceMs = float64(now.LongestSilence) / 1e6
	d.Wrong += now.Ledger.Wrong
	if now.Paging > 0 {
		r.problem("%d clients were told of a gap and had not read all of it from history %v after the sends: they count as lost; give more time (--drain)", now.Paging, r.spec.Drain)
	}
	if r.tally.owed > 0 && !d.Judged {
		r.problem("deliveries could not be judged")
	}
	for _, v := range []struct {
		n    uint64
		what string
	}{
		{d.Lost, "acknowledged deliveries were lost"},
		{zeroIf(r.spec.Tolerate.Noticed, d.Noticed), "acknowledged deliveries were lost, and the clients told so (gap)"},
		{d.Reordered, "messages came after a newer one of their room"},
		{d.Skipped, "messages were passed over on the wire without a gap being told"},
		{d.Wrong, "messages came under another's ID"},
		{zeroIf(r.spec.Tolerate.Doubled, d.Doubled), "sends are in the log twice"},
		{d.Strays, "messages came to clients that are not in the room"},
	} {
		if v.n > 0 {
			r.problem("%d %s", v.n, v.what)
		}
	}
	r.result.Deliveries.Add(*d)
}

func zeroIf(cond bool, n uint64) uint64 {
	if cond {
		return 0
	}
	return n
}

// Above these the tester may be what was measured.
const (
	loopTooBusy   = 0.85
	loopStarved   = 0.3
	lagTooLong    = 10.0 // ms, p99 of the tester's own lateness with sends
	othersTooBusy = 0.05 // of the machine
	slowTooLong   = 0.01 // of the time: what a p99 is made of
)

// suspectTester looks for signs that the client was the bottleneck.
func (r *run) suspectTester() {
	t := &r.result.Tester
	for _, p := range r.result.Phases {
		if p.Loop > loopTooBusy {
			t.Saturated = append(t.Saturated, fmt.Sprintf("%s: a loop of the tester was busy %.0f %% of a second: more --receivers or --sender-processes, or another machine", p.Name, 100*p.Loop))
		}
		if p.Starved > loopStarved {
			r.result.Notes = append(r.result.Notes, fmt.Sprintf("%s: the tester had work and no core for %.0f %% of a second: its times include that", p.Name, 100*p.Starved))
		}
		if p.Lag.P99 > lagTooLong {
			t.Saturated = append(t.Saturated, fmt.Sprintf("%s: the tester itself was %.1f ms late with sends (p99)", p.Name, p.Lag.P99))
		}
		whole := p.Seconds * float64(r.result.Environment.Cores)
		if p.Seconds > 1 && len(r.servers.procs) > 0 && p.CPU["other"] > othersTooBusy*whole {
			r.result.Notes = append(r.result.Notes, fmt.Sprintf("%s: other programs used %.0f %% of this machine: do not quote its times", p.Name, 100*p.CPU["other"]/whole))
		}
		if p.Slowed > slowTooLong && p.Seconds > 1 {
			r.result.Notes = append(r.result.Notes, fmt.Sprintf("%s: for %.0f %% of the time this machine ran at less than a quarter of its speed (a virtual machine's host does that): do not quote its times", p.Name, 100*p.Slowed))
		}
		if p.Busy > 0.95 && p.Seconds > 1 {
			r.result.Notes = append(r.result.Notes, fmt.Sprintf("%s: this machine was %.0f %% busy, %.0f %% of it the tester: quote CPU per unit, not rates or times", p.Name, 100*p.Busy, 100*p.CPU["tester"]/(whole*p.Busy)))
		}
	}
}
