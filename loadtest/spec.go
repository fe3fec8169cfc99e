// Package loadtest puts load on a chat backend and judges what it does with it:
// clients by the hundred thousand, senders on an open schedule, every delivery
// accounted for, and figures that say when they must not be believed.
//
// A run is a Spec: a population (who is in which room), what is sent, and a
// scenario, which is a sequence of phases: each is measured by itself, and a
// second by second record runs through all of them. The work is done by worker
// processes (crew); this package decides what happens when, adds up what they
// report and compares it with what the servers' processes used (probe).
package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/target"
)

// Spec is everything that a run is asked to do. Durations and numbers of 0 take
// the scenario's default where one is named.
type Spec struct {
	Scenario string // one of Scenarios

	Target   string   // madang, centrifugo, ws-echo
	Gateways []string // host:port
	APIs     []string // host:port
	Host     string   // Host header; default: the address
	Secret   []byte   // signs the users' tokens
	Issuer   string
	Audience string
	APIKey   string // of targets that want one
	Path     string // ws-echo: of the upgrade

	Transport  string        // by which clients receive: ws, sse, poll, polling
	Transports []string      // compare: those compared; default: all
	PollEvery  time.Duration // polling: from poll to poll
	PollWait   time.Duration // poll: what the server is given to wait for something, in whole seconds

	Prefix  string // of rooms and users; default: new for each run
	Clients int    // default: Rooms × Members
	Rooms   int
	Members int      // per room
	Zipf    float64  // chat: exponent of room sizes, the largest of which has Members
	Sources []string // addresses to connect from

	ConnectRate    float64       // new connections per second; 0: as fast as they are answered
	InFlight       int           // connections being opened at once, over all processes
	ConnectTimeout time.Duration // of one client, from connect to live
	RampTimeout    time.Duration // of the whole ramp
	PingEvery      time.Duration // clients' own heartbeat

	Rate      float64 // sends per second; 0: flat out; below 0: none
	Senders   int     // connections that send
	TextBytes int

	// UploadShare of the sends carry a file of UploadBytes (chat). Targets without
	// files get none, and the report says so.
	UploadShare float64
	UploadBytes int // default 10 KB

	Poisson  bool
	Warmup   time.Duration // sends before what is measured
	Duration time.Duration // of what is measured
	Drain    time.Duration // longest wait for what is still owed

	Times       int           // storm, check: how often all are dropped; slow: how often some stop reading
	StormSpread time.Duration // storm, check: clients return after a random part of this
	SlowShare   float64       // slow: share of clients that stop reading
	SlowFor     time.Duration // slow: for so long

	Idle  time.Duration                   // compare: without sends
	Renew func(ctx context.Context) error // compare: called between two transports, to start the gateways anew, at the same addresses; nil: they go on

	StepFrom, StepTo, StepFactor float64       // capacity: loads tried
	StepTime                     time.Duration // capacity: each

	Receivers       int   // receiving processes; default: as the limit of open files demands
	SenderProcesses int   // default 1
	ServerPids      []int // processes to measure beside those found by their ports
	Objectives      Objectives
	Tolerate        Tolerances

	Agents          int           // machines that run the workers, in place of this one; 0: this one does
	CoordinatorAddr string        // where agents register, as host:port
	AgentSecret     []byte        // that both sides know
	AgentPatience   time.Duration // until all have registered; default 2 min

	WorkerCommand []string // argv of a worker; default: this program, "loadtest worker"
	Tool          string   // version, for the report
	Command       []string // as typed, for the report
}

// Objectives are limits whose breach fails the run; negative: none.
type Objectives struct {
	MaxP50, MaxP99, MaxP999, MaxLatency time.Duration // of deliveries
	MaxAckP99                           time.Duration
	MaxBackP99                          time.Duration // reconnected and resumed
	MaxLoss                             float64       // lost deliveries
	MinRate                             float64       // deliveries per second
	MinSendRate                         float64
	MaxCPUPerDelivery                   float64 // µs, all servers
	MaxMemoryPerConn                    float64 // bytes, gateways
	MaxDrops                            float64 // connections that ended and were not dropped by the tester
}

// NoObjectives sets no limits but that nothing may be lost, which holds for
// every run.
func NoObjectives() Objectives {
	return Objectives{
		MaxP50: -1, MaxP99: -1, MaxP999: -1, MaxLatency: -1, MaxAckP99: -1, MaxBackP99: -1,
		MaxLoss: -1, MinRate: -1, MinSendRate: -1, MaxCPUPerDelivery: -1, MaxMemoryPerConn: -1, MaxDrops: -1,
	}
}

// Tolerances are faults that do not fail the run, because it provokes them.
type Tolerances struct {
	Failures bool // attempts to connect and sends may fail: servers are being killed
	Noticed  bool // losses that a gap told of: Redis may lose its tail
	Doubled  bool // a send may be in the log under two IDs after a failover
}

// complete fills in defaults and reports everything that is wrong, at once.
func (s *Spec) complete() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if scenarios[s.Scenario] == nil {
		wrong("scenario %q is not known: give one of %s", s.Scenario, strings.Join(Scenarios(), ", "))
	}
	if len(s.Gateways) == 0 {
		wrong("--gateway: the address of a gateway must be given, as host:port")
	}
	if s.echoes() { // each client is alone with itself, and sends on its own socket
		if s.Clients == 0 {
			s.Clients = s.Rooms * cmp.Or(s.Members, 10)
		}
		s.Rooms, s.Members, s.APIs, s.Senders, s.SenderProcesses = s.Clients, 1, nil, 1, 1
		if s.Scenario == "chat" || s.Scenario == "storm" && s.sends() || s.Scenario == "check" {
			wrong("--target ws-echo: an echo has no rooms and keeps nothing, so that there is nothing for %s to judge: run hold, fanout, slow, capacity, or storm without sends", s.Scenario)
		}
	}
	s.Members = cmp.Or(s.Members, 10)
	if s.Rooms == 0 && s.Clients > 0 {
		s.Rooms = max(1, s.Clients/s.Members)
	}
	if s.Clients == 0 {
		s.Clients = s.Rooms * s.Members
	}
	if s.Scenario == "chat" {
		s.Zipf, s.Poisson = cmp.Or(s.Zipf, 1), true
		if s.flatOut() {
			wrong("--rate 0: a chat is never flat out; give sends per second")
		}
	}
	if s.Scenario == "check" && !s.sends() {
		wrong("--rate %v: what is checked are sends; give some per second", s.Rate)
	}
	s.Target = cmp.Or(s.Target, "madang")
	s.Senders = cmp.Or(s.Senders, 32)
	s.SenderProcesses = cmp.Or(s.SenderProcesses, 1)
	s.InFlight = cmp.Or(s.InFlight, 512)
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, 30*time.Second)
	s.Duration = cmp.Or(s.Duration, 10*time.Second)
	s.Drain = cmp.Or(s.Drain, 20*time.Second)
	s.TextBytes = cmp.Or(s.TextBytes, 100)
	s.UploadBytes = cmp.Or(s.UploadBytes, 10_000)
	if s.Scenario != "chat" {
		s.UploadShare = 0
	}
	if s.Scenario == "storm" || s.Scenario == "slow" {
		s.Times = cmp.Or(s.Times, 1)
	}
	s.completeTransports(wrong)
	s.SlowShare = cmp.Or(s.SlowShare, 0.1)
	s.SlowFor = cmp.Or(s.SlowFor, s.Duration)
	s.StepFrom = cmp.Or(s.StepFrom, 100)
	s.StepTo = cmp.Or(s.StepTo, 1e6)
	s.StepFactor = cmp.Or(s.StepFactor, 1.5)
	s.StepTime = cmp.Or(s.StepTime, 5*time.Second)
	if s.RampTimeout == 0 {
		s.RampTimeout = 60*time.Second + time.Duration(s.Clients)*time.Millisecond
		if s.ConnectRate > 0 {
			s.RampTimeout += time.Duration(min(float64(s.Clients)/s.ConnectRate*1e9, float64(maxRunDuration)))
		}
	}
	if s.Prefix == "" {
		s.Prefix = newPrefix()
	}
	if len(s.WorkerCommand) == 0 {
		self, err := os.Executable()
		if err != nil {
			wrong("the program's own path is not known, and workers can't be started: %w", err)
		}
		s.WorkerCommand = []string{self, "loadtest", "worker"}
	}
	s.AgentPatience = cmp.Or(s.AgentPatience, 2*time.Minute)
	s.checkBounds(wrong)
	if s.Agents > 0 {
		s.checkAgents(wrong)
	}
	if s.sends() && len(s.APIs) == 0 && !s.echoes() {
		wrong("--api: the address of an API must be given, as host:port, to send messages and to make rooms")
	}
	if len(errs) > 0 { // what is absurd must not be tried
		return errors.Join(errs...)
	}
	if _, err := crowd.New(s.shape()); err != nil {
		wrong("%w (--clients, --rooms, --members)", err)
	}
	return errors.Join(errs...)
}

func (s *Spec) sends() bool { return s.Rate >= 0 }

// echoes says whether the target sends back what its clients send.
func (s *Spec) echoes() bool { return s.Target == "ws-echo" }

func (s *Spec) options() target.Options { return target.Options{APIKey: s.APIKey, Path: s.Path} }

// flatOut says whether senders go as fast as they are answered.
func (s *Spec) flatOut() bool { return s.Rate == 0 }

// shape is the population. Chats have rooms of many sizes, the other scenarios
// rooms that are all alike.
func (s *Spec) shape() crowd.Shape {
	shape := crowd.Shape{Prefix: s.Prefix, Users: s.Clients, Rooms: s.Rooms}
	if s.Zipf > 0 && s.Rooms > 0 && s.Rooms <= crowd.MaxRooms {
		shape.Sizes = crowd.ZipfSizes(s.Rooms, min(s.Members, s.Clients), s.Zipf)
	} else {
		shape.Each = s.Members
	}
	return shape
}

// resolve turns host:port into addresses.
func resolve(flag string, hostports []string) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, hp := range hostports {
		hp = strings.TrimPrefix(strings.TrimPrefix(hp, "http://"), "ws://")
		if strings.Contains(hp, "://") {
			return nil, fmt.Errorf("--%s %s: the tester speaks plain HTTP and WebSocket, no TLS: aim it behind the balancer that ends TLS", flag, hp)
		}
		if strings.HasPrefix(hp, ":") {
			hp = "127.0.0.1" + hp
		}
		addr, err := net.ResolveTCPAddr("tcp", hp)
		if err != nil {
			return nil, fmt.Errorf("--%s %q: give host:port: %w", flag, hp, err)
		}
		ap := addr.AddrPort()
		all = append(all, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	return all, nil
}

// newPrefix names a run's rooms and users apart from every other run's.
func newPrefix() string {
	return fmt.Sprintf("lt%x", uint32(time.Now().UnixNano()/int64(time.Millisecond)))
}
