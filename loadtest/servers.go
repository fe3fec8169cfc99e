package loadtest

import (
	"net/netip"
	"slices"
	"time"

	"github.com/madang-chat/madang/loadtest/probe"
	"github.com/madang-chat/madang/loadtest/report"
)

// servers are the processes under test that are on this machine, and how they
// were at the start and at the last look.
type servers struct {
	procs  []probe.Proc
	first  []probe.Sample
	last   []probe.Sample
	most   []int64 // resident bytes
	died   []bool
	left   []bool // ended as it was meant to
	ticker *time.Ticker
	before probe.Machine
	at     time.Time
}

// Roles of processes. One that is API and gateway at once is a server.
const (
	roleAPI     = "api"
	roleGateway = "gateway"
	roleRedis   = "redis"
	roleServer  = "server"
)

// findServers looks for the processes behind the targets' ports, and for the
// Redis servers behind those.
func findServers(gateways, apis []netip.AddrPort, pids []int) *servers {
	s := &servers{ticker: time.NewTicker(time.Second), at: time.Now(), before: probe.ReadMachine()}
	var more []probe.Proc
	for _, pid := range pids {
		more = append(more, probe.Proc{Pid: pid, Role: roleServer})
	}
	s.find(gateways, apis, more...)
	return s
}

// find looks for processes that are not known yet.
func (s *servers) find(gateways, apis []netip.AddrPort, more ...probe.Proc) {
	local := func(addrs []netip.AddrPort) (ports []int) {
		for _, a := range addrs {
			if a.Addr().IsLoopback() { // elsewhere the port would be somebody else's
				ports = append(ports, int(a.Port()))
			}
		}
		return ports
	}
	s.add(probe.Listeners(roleGateway, local(gateways)...))
	s.add(probe.Listeners(roleAPI, local(apis)...))
	s.add(more)
	s.add(probe.Redises(s.procs))
	for _, p := range s.procs[len(s.first):] {
		sample, err := probe.Read(p.Pid)
		s.first = append(s.first, sample)
		s.last = append(s.last, sample)
		s.most = append(s.most, sample.RSS)
		s.died = append(s.died, err != nil)
	}
}

// leave takes its leave of all processes of a role, which are about to end: what
// they used stays on the account.
func (s *servers) leave(role string) {
	s.read()
	for i, p := range s.procs {
		if p.Role == role {
			s.left[i] = true
		}
	}
}

func (s *servers) add(procs []probe.Proc) {
	for _, p := range procs {
		i := slices.IndexFunc(s.procs, func(q probe.Proc) bool { return q.Pid == p.Pid })
		switch {
		case i < 0:
			s.procs, s.left = append(s.procs, p), append(s.left, false)
		case s.procs[i].Role != p.Role && !s.left[i]:
			s.procs[i].Role = roleServer
		}
	}
}

// sample reads all processes and writes what they used since the last time into
// second.
func (s *servers) sample(second *report.Second) {
	now := time.Now()
	took := now.Sub(s.at).Seconds()
	before := slices.Clone(s.last)
	s.read()
	if took < 0.2 {
		return
	}
	clear(second.CPU)
	clear(second.RSSMiB)
	for i, p := range s.procs {
		second.CPU[p.Role] += (s.last[i].CPU - before[i].CPU).Seconds() / took
		if !s.left[i] {
			second.RSSMiB[p.Role] += float64(s.last[i].RSS) / (1 << 20)
		}
	}
	m := probe.ReadMachine()
	second.CPU["machine"] = (m.Busy - s.before.Busy).Seconds() / took
	second.TCPMiB = float64(m.TCPMem) / (1 << 20)
	s.before, s.at = m, now
}

// read reads all processes.
func (s *servers) read() {
	for i, p := range s.procs {
		if s.left[i] {
			continue
		}
		sample, err := probe.Read(p.Pid)
		if err != nil {
			s.died[i] = true
			continue
		}
		s.last[i] = sample
		s.most[i] = max(s.most[i], sample.RSS)
	}
}

// cpu is what all processes of each role have used since the run began.
func (s *servers) cpu() map[string]time.Duration {
	used := map[string]time.Duration{}
	for i, p := range s.procs {
		used[p.Role] += s.last[i].CPU - s.first[i].CPU
	}
	return used
}

// anon is the private memory of all gateways.
func (s *servers) anon() (bytes int64) {
	for i, p := range s.procs {
		if !s.left[i] && (p.Role == roleGateway || p.Role == roleServer) {
			bytes += s.last[i].Anon
		}
	}
	return bytes
}

// seesGateways says whether a gateway is among the processes that are measured.
func (s *servers) seesGateways() bool {
	return slices.ContainsFunc(s.procs, func(p probe.Proc) bool { return p.Role == roleGateway || p.Role == roleServer })
}

func (s *servers) report() []report.Server {
	var all []report.Server
	for i, p := range s.procs {
		all = append(all, report.Server{
			Role: p.Role, Name: p.Name, Pid: p.Pid, Port: p.Port, CPUSeconds: (s.last[i].CPU - s.first[i].CPU).Seconds(),
			RSSBegin: s.first[i].RSS, RSSEnd: s.last[i].RSS, RSSMost: s.most[i], Died: s.died[i],
		})
	}
	return all
}
