package loadtest

import (
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/report"
	"github.com/madang-chat/madang/loadtest/sender"
	"github.com/madang-chat/madang/loadtest/swarm"
)

// tally adds up what workers report: as they are now, since the phase began, and
// second by second.
type tally struct {
	crowd   *crowd.Crowd
	begin   int64 // run time of second 0
	phase   string
	workers []workerTally
	acks    []ledger.Ack
	owed    uint64 // deliveries that the acknowledged sends ask for

	meters  phaseMeters
	busiest float64 // share of an interval that a loop had the CPU, the highest of the phase
	starved float64 // … that a loop had work and no CPU

	seconds []report.Second
	open    map[int]meter.Meter // latencies of seconds that are not complete
}

// workerTally is the latest of one worker.
type workerTally struct {
	receivers *swarm.Stats
	senders   *sender.Stats
	loop      reactor.Share // not yet weighed
	cpu       time.Duration
	rss       int64
	away      bool // on another machine than the coordinator
}

// phaseMeters are emptied when a phase begins.
type phaseMeters struct {
	latency, sinceLog, acked, service, upload, opened, back, lag meter.Meter
}

func newPhaseMeters() phaseMeters {
	return phaseMeters{meter.New(), meter.New(), meter.New(), meter.New(), meter.New(), meter.New(), meter.New(), meter.New()}
}

// times writes what was measured into the phase.
func (m *phaseMeters) times(p *report.Phase) {
	p.Latency, p.SinceLog, p.Curve = m.latency.Dist(), m.sinceLog.Dist(), m.latency.Curve()
	p.AckTime, p.Service, p.UploadTime, p.Lag = m.acked.Dist(), m.service.Dist(), m.upload.Dist(), m.lag.Dist()
	p.OpenTime, p.BackTime = m.opened.Dist(), m.back.Dist()
}

// newTally begins at a whole second before now.
func newTally(c *crowd.Crowd, workers int, now int64) *tally {
	return &tally{
		crowd: c, phase: "start", begin: now - now%int64(time.Second), workers: make([]workerTally, workers),
		meters: newPhaseMeters(), open: make(map[int]meter.Meter),
	}
}

// take adds a report.
func (t *tally) take(r crew.Report) error {
	w := &t.workers[r.Worker]
	w.cpu, w.rss = time.Duration(r.CPUNs), r.RSS
	if w.loop.Add(r.Loop); w.loop.Whole > 500*time.Millisecond {
		t.weighLoop(w)
	}
	second := t.second(r)
	if in := r.Receivers; in != nil {
		var before swarm.Stats
		if w.receivers != nil {
			before = *w.receivers
		}
		w.receivers = &in.Stats
		second.Arrived += in.Stats.Arrivals - before.Arrivals
		second.Opened += in.Stats.Opened + in.Stats.Returned - before.Opened - before.Returned
		second.Drops += in.Stats.Drops.Total() - before.Drops.Total()
		second.Live = t.live()
		if err := t.mergeLatency(r, second.T); err != nil {
			return err
		}
		if err := mergeAll([]pair{{t.meters.sinceLog, in.SinceLog}, {t.meters.opened, in.Opened}, {t.meters.back, in.Back}}); err != nil {
			return err
		}
	}
	if in := r.Senders; in != nil {
		var before sender.Stats
		if w.senders != nil {
			before = *w.senders
		}
		w.senders = &in.Stats
		second.Acked += in.Stats.Acked - before.Acked
		second.Refused += in.Stats.Refused.Total() - before.Refused.Total()
		t.acks = append(t.acks, in.Acks...)
		for _, a := range in.Acks {
			t.owed += uint64(t.crowd.Size(int(a.Room)))
		}
		return mergeAll([]pair{{t.meters.acked, in.Acked}, {t.meters.service, in.Service}, {t.meters.upload, in.Upload}, {t.meters.lag, in.Lag}})
	}
	return nil
}

type pair struct {
	into meter.Meter
	from []byte
}

func mergeAll(pairs []pair) error {
	for _, p := range pairs {
		if err := p.into.Merge(p.from); err != nil {
			return err
		}
	}
	return nil
}

// second returns the second that a report is about: a regular one comes at the
// end of its second, one that was asked for in the middle.
func (t *tally) second(r crew.Report) *report.Second {
	at := r.At
	if r.Seq == 0 {
		at -= int64(time.Second) / 2
	}
	return t.secondAt(at)
}

func (t *tally) secondAt(at int64) *report.Second {
	n := max(0, int((at-t.begin)/int64(time.Second)))
	for len(t.seconds) <= n {
		t.seconds = append(t.seconds, report.Second{
			T: len(t.seconds), Phase: t.phase, CPU: map[string]float64{}, RSSMiB: map[string]float64{}, Live: t.live(),
		})
	}
	return &t.seconds[n]
}

func (t *tally) mergeLatency(r crew.Report, second int) error {
	if len(r.Receivers.Latency) == 0 {
		return nil
	}
	m, ok := t.open[second]
	if !ok {
		m = meter.New()
		t.open[second] = m
	}
	err := mergeAll([]pair{{t.meters.latency, r.Receivers.Latency}, {m, r.Receivers.Latency}})
	t.settle(second - 3) // workers report within a second or two of each other
	return err
}

// settle turns the latencies of seconds up to n into percentiles.
func (t *tally) settle(n int) {
	for second, m := range t.open {
		if second > n {
			continue
		}
		d := m.Dist()
		s := &t.seconds[second]
		s.P50, s.P99, s.Max = d.P50, d.P99, d.Max
		delete(t.open, second)
	}
}

// series is the record by the second, without a last one that only just began.
// A second in which the tester had no core to look at the servers is part of the
// next look's average: it is shown as that, and not as one in which nothing ran.
func (t *tally) series() []report.Second {
	all := t.seconds
	for len(all) > 0 && len(all[len(all)-1].CPU) == 0 && all[len(all)-1].Arrived == 0 {
		all = all[:len(all)-1]
	}
	for i := len(all) - 2; i >= 0; i-- {
		if s, next := &all[i], &all[i+1]; len(s.CPU) == 0 {
			s.CPU, s.RSSMiB, s.TCPMiB = next.CPU, next.RSSMiB, next.TCPMiB
		}
	}
	return all
}

// weighLoop compares how a worker's loop spent its last half second or more with
// the busiest of the phase.
func (t *tally) weighLoop(w *workerTally) {
	whole := w.loop.Whole.Seconds()
	if whole > 0 {
		cpu := w.loop.CPU.Seconds() / whole
		t.busiest = max(t.busiest, cpu)
		t.starved = max(t.starved, w.loop.Working.Seconds()/whole-cpu)
	}
	w.loop = reactor.Share{}
}

// endPhase weighs what is left of the loops' time.
func (t *tally) endPhase() {
	for i := range t.workers {
		if w := &t.workers[i]; w.loop.Whole > 100*time.Millisecond {
			t.weighLoop(w)
		}
	}
}

// beginPhase empties what counts by the phase.
func (t *tally) beginPhase(name string) {
	t.phase = name
	t.meters = newPhaseMeters()
	t.busiest, t.starved = 0, 0
	for i := range t.workers {
		t.workers[i].loop = reactor.Share{}
	}
}

func (t *tally) live() (n int) {
	for _, w := range t.workers {
		if w.receivers != nil {
			n += w.receivers.Live
		}
	}
	return n
}

// receivers adds up all receiving workers.
func (t *tally) receivers() (all swarm.Stats) {
	for _, w := range t.workers {
		if w.receivers == nil {
			continue
		}
		s := w.receivers
		all.Live += s.Live
		all.Gone += s.Gone
		all.Waiting += s.Waiting
		all.Attempts += s.Attempts
		all.Opened += s.Opened
		all.Returned += s.Returned
		all.Arrivals += s.Arrivals
		all.BytesRead += s.BytesRead
		all.BytesWritten += s.BytesWritten
		all.Requests += s.Requests
		all.Reads += s.Reads
		all.Frames += s.Frames
		all.Pings += s.Pings
		all.Pongs += s.Pongs
		all.Chatter += s.Chatter
		all.Strays += s.Strays
		all.Ledger.Add(s.Ledger)
		all.Paging += s.Paging
		all.LongestSilence = max(all.LongestSilence, s.LongestSilence)
		all.Failures.Add(s.Failures)
		all.Drops.Add(s.Drops)
		all.Byes.Add(s.Byes)
		all.Errors.Add(s.Errors)
	}
	return all
}

// senders adds up all sending workers.
func (t *tally) senders() (all sender.Stats) {
	for _, w := range t.workers {
		if w.senders == nil {
			continue
		}
		s := w.senders
		all.Issued += s.Issued
		all.Unsent += s.Unsent
		all.Behind += s.Behind
		all.Attempts += s.Attempts
		all.Acked += s.Acked
		all.Replayed += s.Replayed
		all.InFlight += s.InFlight
		all.Held += s.Held
		all.Refused.Add(s.Refused)
		all.Broken.Add(s.Broken)
		all.Failed.Add(s.Failed)
		all.Uploads += s.Uploads
		all.NotUploaded.Add(s.NotUploaded)
	}
	return all
}

// cost is the tester's own CPU time and memory, and how much of the CPU is this
// machine's.
func (t *tally) cost() (cpu, here time.Duration, rss int64) {
	for _, w := range t.workers {
		cpu += w.cpu
		rss += w.rss
		if !w.away {
			here += w.cpu
		}
	}
	return cpu, here, rss
}
