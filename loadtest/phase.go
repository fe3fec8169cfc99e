package loadtest

import (
	"context"
	"errors"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/probe"
	"github.com/madang-chat/madang/loadtest/report"
	"github.com/madang-chat/madang/loadtest/swarm"
)

// mark is how things stood when a phase began.
type mark struct {
	at      time.Time
	swarm   swarm.Stats
	acked   uint64
	cpu     map[string]time.Duration
	tester  time.Duration // all workers
	here    time.Duration // those on this machine
	testRSS int64
	machine probe.Machine
	looks   uint64 // at the machine's pace, and how often it was slow
	slow    uint64
	anon    int64
}

func (r *run) mark() mark {
	r.servers.read()
	tester, here, rss := r.tally.cost()
	looks, slow := r.pace.Counts()
	return mark{
		at: time.Now(), swarm: r.tally.receivers(), acked: r.tally.senders().Acked,
		cpu: r.servers.cpu(), tester: tester, here: here, testRSS: rss, machine: probe.ReadMachine(), anon: r.servers.anon(),
		looks: looks, slow: slow,
	}
}

// phase measures what f does. A phase that was cut short is reported too.
func (r *run) phase(name string, f func() error) error {
	if r.part != "" {
		name = r.part + ": " + name
	}
	if err := r.look(); err != nil { // so that what came before is counted before
		return err
	}
	r.tally.beginPhase(name)
	begin := r.mark()
	err := f()
	if errors.Is(err, crew.ErrWorkerDied) {
		r.result.Phases = append(r.result.Phases, r.measured(name, begin)) // as far as reports had come
		return err
	}
	ctx := r.ctx
	r.ctx = context.WithoutCancel(ctx)
	lookErr := r.look()
	r.ctx = ctx
	r.result.Phases = append(r.result.Phases, r.measured(name, begin))
	return errors.Join(err, lookErr)
}

// measured is a phase's report.
func (r *run) measured(name string, begin mark) report.Phase {
	end := r.mark()
	r.tally.endPhase()
	took := end.at.Sub(begin.at)
	p := report.Phase{
		Name: name, Seconds: took.Seconds(),
		Opened: end.swarm.Opened - begin.swarm.Opened, Returned: end.swarm.Returned - begin.swarm.Returned, Live: end.swarm.Live,
		Acked: end.acked - begin.acked, Arrivals: end.swarm.Arrivals - begin.swarm.Arrivals,
		MBRead:    float64(end.swarm.BytesRead-begin.swarm.BytesRead) / 1e6,
		MBWritten: float64(end.swarm.BytesWritten-begin.swarm.BytesWritten) / 1e6, Requests: end.swarm.Requests - begin.swarm.Requests,
		Reads: end.swarm.Reads - begin.swarm.Reads, Frames: end.swarm.Frames - begin.swarm.Frames,
		Behind: r.tally.senders().Behind, CPU: map[string]float64{}, Loop: r.tally.busiest, Starved: r.tally.starved,
	}
	r.tally.meters.times(&p)
	var known, servers time.Duration
	for role, used := range end.cpu {
		used -= begin.cpu[role]
		p.CPU[role] = used.Seconds()
		servers += used
	}
	tester := end.tester - begin.tester
	p.CPU["tester"] = tester.Seconds()
	known = servers + end.here - begin.here
	busy, idle := end.machine.Busy-begin.machine.Busy, end.machine.Idle-begin.machine.Idle
	p.CPU["other"] = max(0, busy-known).Seconds()
	p.Busy = busy.Seconds() / max(0.01, (busy+idle).Seconds())
	p.Slowed = float64(end.slow-begin.slow) / float64(max(1, end.looks-begin.looks))

	gateways := end.cpu[roleGateway] + end.cpu[roleServer] - begin.cpu[roleGateway] - begin.cpu[roleServer]
	apis := end.cpu[roleAPI] + end.cpu[roleServer] - begin.cpu[roleAPI] - begin.cpu[roleServer]
	conns := p.Opened + p.Returned
	p.PerUnit = report.PerUnit{
		ServerPerDelivery: per(servers, p.Arrivals), GatewayPerDelivery: per(gateways, p.Arrivals),
		APIPerSend: per(apis, p.Acked), RedisPerSend: per(end.cpu[roleRedis]-begin.cpu[roleRedis], p.Acked),
		ServerPerConn: per(servers, conns), GatewayPerConn: per(gateways, conns),
		TesterPerDelivery: per(tester, p.Arrivals), TesterPerConn: per(tester, conns),
	}
	if p.Opened > 0 {
		n := float64(p.Opened)
		kernel := end.machine.Slab + end.machine.TCPMem - begin.machine.Slab - begin.machine.TCPMem
		p.Memory = report.Memory{
			GatewayPerConn: float64(end.anon-begin.anon) / n, TesterPerConn: float64(end.testRSS-begin.testRSS) / n,
			KernelPerPair: float64(kernel) / n, MachinePerPair: float64(begin.machine.Available-end.machine.Available) / n,
		}
	}
	return p
}

// addLate adds to the times of the last phase what was sent in it and came since: a
// delay must not be left out because it outlasted the phase.
func (r *run) addLate() {
	if n := len(r.result.Phases); n > 0 {
		r.tally.meters.times(&r.result.Phases[n-1])
	}
}

// per is CPU per piece of work, in µs.
func per(cpu time.Duration, n uint64) float64 {
	if n == 0 {
		return 0
	}
	return cpu.Seconds() * 1e6 / float64(n)
}
