package loadtest

import (
	"fmt"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/report"
)

// compare does the same work over one transport after the other: the same rooms
// and members, the same sends, through the same gateways and APIs, for clients
// that are new each time and judged by themselves. What the servers use without
// any client is measured first, so that an idle connection's cost can be told
// from it.
func compare(r *run) error {
	err := r.phase("no clients", func() error { return r.rest(r.spec.Idle) })
	if err != nil {
		return err
	}
	nobody := r.lastPhase()
	for i, transport := range r.spec.Transports {
		if i > 0 {
			if err := r.renew(transport); err != nil {
				return err
			}
		}
		r.part = transport
		c, err := r.compared(transport, nobody)
		if err != nil {
			return err
		}
		if i > 0 && r.spec.Renew == nil {
			// What earlier clients left in the gateways' heaps is used again.
			c.GatewayPerConn = unknown
		}
		r.result.Compared = append(r.result.Compared, c)
	}
	if r.spec.Renew == nil && len(r.spec.Transports) > 1 && len(r.servers.procs) > 0 {
		r.result.Notes = append(r.result.Notes, "the gateways were not started anew for each transport, so that only the first tells memory per connection: see the fleet, or compare one at a time")
	}
	return nil
}

// unknown is a figure that was not, or can't be, measured.
const unknown = -1

// compared does the work over one transport.
func (r *run) compared(transport string, nobody report.Phase) (c report.Compared, err error) {
	if err := r.ramp(); err != nil {
		return c, err
	}
	ramp := r.lastPhase()
	if err := r.phase("idle", func() error { return r.rest(r.spec.Idle) }); err != nil {
		return c, err
	}
	idle := r.lastPhase()
	if err := r.warmUp(); err != nil {
		return c, err
	}
	err = r.phase("fanout", func() error {
		if err := r.ensureSends(); err != nil {
			return err
		}
		return r.rest(r.spec.Duration)
	})
	if err != nil {
		return c, err
	}
	before := r.result.Deliveries
	if err := r.settle(true); err != nil {
		return c, err
	}
	work, after := r.lastPhase(), r.result.Deliveries
	c = report.Compared{
		Transport: transport, Clients: ramp.Live,
		Owed: after.Owed - before.Owed, Kept: after.Kept - before.Kept, Lost: after.Lost - before.Lost, Duplicates: after.Duplicates - before.Duplicates,
		Latency: work.Latency, OpenTime: ramp.OpenTime,
		CPUPerDelivery: unknown, GatewayPerDelivery: unknown, IdleCPU: unknown, CPUPerOpen: unknown, GatewayPerConn: unknown, KernelPerPair: ramp.Memory.KernelPerPair,
		ReadPerDelivery: ratio(work.MBRead*1e6, float64(work.Arrivals)), WrittenPerDelivery: ratio(work.MBWritten*1e6, float64(work.Arrivals)),
		RequestsPerDelivery: ratio(float64(work.Requests), float64(work.Arrivals)),
	}
	waited := float64(idle.Live) * idle.Seconds
	c.IdleRead, c.IdleWritten = ratio(idle.MBRead*1e6, waited), ratio(idle.MBWritten*1e6, waited)
	c.IdleRequests = ratio(float64(idle.Requests), waited)
	if len(r.servers.procs) == 0 {
		return c, nil // they are elsewhere
	}
	c.CPUPerDelivery, c.GatewayPerDelivery = work.PerUnit.ServerPerDelivery, work.PerUnit.GatewayPerDelivery
	c.CPUPerOpen, c.GatewayPerConn = ramp.PerUnit.ServerPerConn, max(0, ramp.Memory.GatewayPerConn)
	used := serverCPU(idle) - serverCPU(nobody)/nobody.Seconds*idle.Seconds
	c.IdleCPU = max(0, ratio(used*1e6, waited)) // less than nothing is less than can be measured
	return c, nil
}

func (r *run) lastPhase() report.Phase { return r.result.Phases[len(r.result.Phases)-1] }

// serverCPU is what the servers used in a phase, in seconds.
func serverCPU(p report.Phase) (seconds float64) {
	for role, used := range p.CPU {
		if role != "tester" && role != "other" {
			seconds += used
		}
	}
	return seconds
}

func ratio(amount, n float64) float64 {
	if n == 0 {
		return 0
	}
	return amount / n
}

// renew makes way for the clients of the next transport: those of the last go,
// the gateways begin anew if somebody can see to that, and the next owe their
// rooms nothing that was there before.
func (r *run) renew(transport string) error {
	r.crew.Stop()
	if r.spec.Renew != nil {
		r.status.say("starting the gateways anew")
		r.servers.leave(roleGateway)
		if err := r.spec.Renew(r.ctx); err != nil {
			return fmt.Errorf("starting the gateways anew: %w", err)
		}
		r.servers.find(r.common.Gateways, r.common.APIs)
	}
	r.spec.Transport = transport
	r.bases = map[uint32]ledger.Pos{}
	if err := r.setup().heads(r.ctx); err != nil {
		return fmt.Errorf("reading where the rooms are: %w", err)
	}
	jobs, places, err := r.layout()
	if err != nil {
		return err
	}
	return r.man(jobs, places)
}
