package loadtest

import (
	"fmt"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/report"
)

// capacity raises the rate of sends step by step until an objective breaks, then
// looks between the last rate that held and the first that did not, and tries
// the one it names twice more: a knee that was seen once may have been noise.
func capacity(r *run) error {
	if err := r.ramp(); err != nil {
		return err
	}
	c := &report.Capacity{Unit: "sends/s"}
	r.result.Capacity = c
	knee, broke := 0.0, 0.0
	for load := r.spec.StepFrom; load <= r.spec.StepTo; load *= r.spec.StepFactor {
		held, err := r.step(c, load)
		if err != nil {
			return err
		}
		if !held {
			broke = load
			break
		}
		knee = load
	}
	for range 3 { // bisect: the knee within a fifteenth of a step
		if knee == 0 || broke == 0 {
			break
		}
		middle := (knee + broke) / 2
		held, err := r.step(c, middle)
		if err != nil {
			return err
		}
		if held {
			knee = middle
		} else {
			broke = middle
		}
	}
	agreed, tries := 0, 0
	for ; knee > 0 && tries < 2; tries++ {
		held, err := r.step(c, knee)
		if err != nil {
			return err
		}
		if held {
			agreed++
		}
	}
	c.Knee, c.Broke = knee, broke
	switch {
	case knee == 0:
		c.Sure = "even the first step did not hold"
	case broke == 0:
		c.Sure = fmt.Sprintf("no step broke it: the knee is above %.0f", knee)
	default:
		c.Sure = fmt.Sprintf("held again in %d of %d repetitions; the next load tried that broke was %.0f %% higher", agreed, tries, 100*(broke/knee-1))
	}
	for _, s := range c.Steps {
		if !s.Held && s.Load == broke {
			c.Why = s.Why
		}
	}
	return nil
}

// open is how many deliveries are owed and have not come, by the socket or from
// history; below 0 where more came than was acknowledged.
func (r *run) open() int64 {
	now := r.tally.receivers()
	return int64(r.tally.owed) - int64(now.Arrivals+now.Ledger.Filled)
}

// step tries one load.
func (r *run) step(c *report.Capacity, load float64) (held bool, err error) {
	name := fmt.Sprintf("%.0f/s", load)
	before := r.tally.senders()
	openBefore := r.open()
	err = r.phase(name, func() error {
		if err := r.beginSends(load); err != nil {
			return err
		}
		if err := r.rest(r.spec.StepTime); err != nil {
			return err
		}
		return r.crew.All(crew.Order{Verb: crew.EndSends})
	})
	if err != nil {
		return false, err
	}
	if err := r.drain(); err != nil {
		return false, err
	}
	r.addLate()
	p := r.lastPhase()
	after := r.tally.senders()
	s := report.Step{Load: load, Achieved: float64(p.Acked) / p.Seconds, Latency: p.Latency, Held: true}
	limit := r.spec.Objectives.MaxP99
	if limit < 0 {
		limit = 200 * time.Millisecond
	}
	fail := func(format string, args ...any) {
		if s.Held {
			s.Held, s.Why = false, fmt.Sprintf(format, args...)
		}
	}
	if ms := float64(limit) / 1e6; p.Latency.P99 > ms {
		fail("p99 was %.1f ms, more than %.0f ms", p.Latency.P99, ms)
	}
	if late := r.open() - openBefore; late > 0 {
		fail("%d deliveries had not come when the step was over", late)
	}
	if n := after.Failed.Total() - before.Failed.Total(); n > 0 {
		fail("%d sends failed", n)
	}
	if float64(p.Behind) > load/10 {
		fail("%d sends were due and could not be begun: all connections waited for the server", p.Behind)
	}
	if n := after.Refused.Total() - before.Refused.Total(); n > 0 {
		fail("%d sends were held back (%s)", n, after.Refused.Most())
	}
	if s.Held && p.Loop > loopTooBusy {
		r.result.Notes = append(r.result.Notes, name+": the tester was near its own limit")
	}
	c.Steps = append(c.Steps, s)
	return s.Held, nil
}
