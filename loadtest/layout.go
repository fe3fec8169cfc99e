package loadtest

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/swarm"
	"github.com/madang-chat/madang/loadtest/target"
)

const (
	// spareFiles are a worker's own descriptors, with room to spare.
	spareFiles = 100
	// maxPerReceiver keeps one loop's work, and the loss when it dies, within bounds.
	maxPerReceiver = 100_000
	// portsPerSource: the kernel finds a free port of 28,000 quickly while most
	// are free.
	portsPerSource = 8_000
	// connectTries is how often a client tries before it is given up.
	connectTries = 10
)

// openFiles is the limit of descriptors of a process.
func openFiles() uint64 {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	return uint64(lim.Cur) // Go raises it to the hard limit at start
}

// layout divides the work among processes, and says for each on which machine it
// runs: in turn.
func (r *run) layout() (jobs []crew.Job, places []int, err error) {
	s := &r.spec
	machines, files := r.machines()
	perReceiver := min(int(min(files, math.MaxInt32))-spareFiles, maxPerReceiver)
	if perReceiver < 1 {
		return nil, nil, fmt.Errorf("a process may open %d files, too few for any client: raise the limit (ulimit -n)", files)
	}
	receivers := (s.Clients + perReceiver - 1) / perReceiver
	receivers = min((receivers+machines-1)/machines*machines, s.Clients) // as many on each
	receivers = cmp.Or(s.Receivers, receivers)
	if receivers > maxProcesses {
		return nil, nil, fmt.Errorf("%d clients would take %d processes, as each may open %d files: raise the limit (ulimit -n)", s.Clients, receivers, files)
	}
	if (s.Clients+receivers-1)/receivers > perReceiver {
		return nil, nil, fmt.Errorf("%d clients on %d processes: a process may open %d files; give more --receivers or raise the limit (ulimit -n)", s.Clients, receivers, files)
	}
	if s.Senders/s.SenderProcesses > perReceiver {
		return nil, nil, fmt.Errorf("%d senders: a process may open %d files; give more --sender-processes", s.Senders, files)
	}
	// Where servers are being killed, a client that gives up would hide what the
	// run is for.
	retries, tries := connectTries, 0
	if s.Tolerate.Failures {
		retries, tries = 0, math.MaxInt32
	}
	transport, err := target.ParseTransport(s.Transport)
	if err != nil {
		return nil, nil, err
	}
	for i := range receivers {
		first, end := i*s.Clients/receivers, (i+1)*s.Clients/receivers
		sources, err := r.sources(i, i%machines, end-first)
		if err != nil {
			return nil, nil, err
		}
		places = append(places, i%machines)
		jobs = append(jobs, crew.Job{Common: r.common, Receive: &crew.Receive{
			First: first, Count: end - first, Sources: sources, Bases: r.bases,
			Rate: s.ConnectRate / float64(receivers), InFlight: max(1, s.InFlight/receivers),
			Timeout: s.ConnectTimeout, PingEvery: s.PingEvery, Retries: retries,
			Transport: transport, PollEvery: s.PollEvery, PollWait: s.PollWait, Chatty: s.Scenario == "chat",
			Echo: swarm.Echo{First: ledger.Send(i + 1), Stride: receivers, TextBytes: s.TextBytes},
		}})
	}
	r.receivers = receivers
	if !s.sends() || s.echoes() {
		return jobs, places, nil
	}
	for i := range s.SenderProcesses {
		places = append(places, i%machines)
		jobs = append(jobs, crew.Job{Common: r.common, Send: &crew.Send{
			Conns: s.Senders / s.SenderProcesses, Poisson: s.Poisson, BySize: s.Zipf > 0,
			First: ledger.Send(i + 1), Stride: s.SenderProcesses, TextBytes: s.TextBytes, Tries: tries,
			UploadShare: s.UploadShare, UploadBytes: s.UploadBytes,
		}})
	}
	return jobs, places, nil
}

// sources are the addresses that a worker connects from: given ones, or, when
// the gateways are on the loopback, as many of 127.0.0.0/8 as keep ports free.
func (r *run) sources(worker, machine, clients int) ([]netip.Addr, error) {
	var given []netip.Addr
	own := r.spec.Sources
	if r.hub != nil {
		own = r.hub.Info(machine).Sources
	}
	for _, s := range own {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--source %q is not an address: %w", s, err)
		}
		given = append(given, a)
	}
	if len(given) > 0 {
		return given, nil
	}
	for _, g := range r.common.Gateways {
		if !g.Addr().Is4() || !g.Addr().IsLoopback() {
			return nil, nil
		}
	}
	var many []netip.Addr
	for k := range clients/portsPerSource + 1 {
		many = append(many, netip.AddrFrom4([4]byte{127, byte(16 + worker/250), byte(1 + worker%250), byte(1 + k)}))
	}
	return many, nil
}
