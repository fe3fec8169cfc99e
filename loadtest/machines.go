package loadtest

import (
	"context"
	"fmt"
	"os"

	"github.com/madang-chat/madang/loadtest/agents"
	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/report"
)

// gather waits for the run's agents.
func (r *run) gather() (err error) {
	s := &r.spec
	if s.Agents == 0 {
		return nil
	}
	if r.hub, err = agents.Listen(s.CoordinatorAddr, s.AgentSecret, s.Tool, s.Agents, r.clock); err != nil {
		return err
	}
	return r.hub.Wait(r.ctx, s.AgentPatience, r.status.say)
}

// machines are those that workers run on: how many, and how many files a process
// may open on the most limited.
func (r *run) machines() (n int, files uint64) {
	if r.hub == nil {
		return 1, openFiles()
	}
	for i := range r.hub.Agents() {
		if f := r.hub.Info(i).OpenFiles; i == 0 || f < files {
			files = f
		}
	}
	return r.hub.Agents(), files
}

// start starts the workers, with the time of the machine that each is on.
func (r *run) start(jobs []crew.Job, machines []int) (*crew.Crew, error) {
	places := make([]crew.Place, len(jobs))
	for i := range jobs {
		if r.hub == nil {
			places[i] = crew.Local(r.spec.WorkerCommand)
			continue
		}
		places[i] = r.hub.Place(machines[i])
		jobs[i].Common.ClockOffset = r.hub.ClockOffset(machines[i])
	}
	r.placed = machines
	return crew.Start(places, jobs)
}

// accountAgents reports the agents, and how far times across them can be trusted.
func (r *run) accountAgents() {
	if r.hub == nil {
		return
	}
	var errs []float64 // of the clocks of different machines, in ms
	for i := range r.hub.Agents() {
		info := r.hub.Info(i)
		a := report.Agent{
			Name: info.Name, Addr: info.Addr, Cores: info.Cores, OpenFiles: info.OpenFiles, Here: info.Here,
			AheadMs: float64(info.Clock.Ahead) / 1e6, ErrorMs: info.Error.Seconds() * 1e3, DriftMs: info.Drift.Seconds() * 1e3,
			Busiest: info.Busiest, Gone: info.Gone,
		}
		for _, machine := range r.placed {
			if machine == i {
				a.Workers++
			}
		}
		r.result.Agents = append(r.result.Agents, a)
		errs = append(errs, a.ErrorMs)
		if a.Busiest > machineTooBusy && !a.Here {
			r.result.Notes = append(r.result.Notes, fmt.Sprintf("the machine of agent %s was %.0f %% busy: its times include waiting for a core", a.Name, 100*a.Busiest))
		}
	}
	if worst := twoLargest(errs); worst > 0 {
		r.result.ClockErrorMs = worst
		r.result.Notes = append(r.result.Notes, fmt.Sprintf("clocks of several machines: \"due → arrived\" is right to ± %.3f ms, \"in the log → arrived\" as far as Redis's machine and this one agree on the time of day", worst))
	}
}

// machineTooBusy is a share above which a machine makes what runs on it wait.
const machineTooBusy = 0.95

// twoLargest is what a time from one machine to another can be wrong by: one
// sends, another receives.
func twoLargest(errs []float64) float64 {
	var a, b float64
	for _, e := range errs {
		switch {
		case e > a:
			a, b = e, a
		case e > b:
			b = e
		}
	}
	return a + b
}

// Serve is an agent: it runs workers for a coordinator elsewhere until that run is
// over.
func Serve(ctx context.Context, a agents.Agent) error {
	if len(a.Workers) == 0 {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("the program's own path is not known, and workers can't be started: %w", err)
		}
		a.Workers = crew.Local{self, "loadtest", "worker"}
	}
	a.OpenFiles = openFiles()
	return a.Serve(ctx)
}
