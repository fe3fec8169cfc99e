package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/madang-chat/madang/internal/app"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/loadtest"
)

type loadtestCommand struct {
	Hold     holdCommand     `cmd:"" help:"Open connections and keep them; memory and CPU per connection."`
	Fanout   fanoutCommand   `cmd:"" help:"Send to rooms: latency, rates, CPU per delivery, every delivery accounted."`
	Storm    stormCommand    `cmd:"" help:"Drop all connections at once: how long until all are back, with what they missed."`
	Slow     slowCommand     `cmd:"" help:"Some clients stop reading: what the others notice."`
	Chat     chatCommand     `cmd:"" help:"A believable mix: rooms of many sizes, lulls and bursts, typing, reading, lost networks."`
	Compare  compareCommand  `cmd:"" help:"The same work over WebSocket, event stream, long poll and polling, side by side."`
	Capacity capacityCommand `cmd:"" help:"Raise the rate of sends until an objective breaks, and report the knee."`
	Fleet    fleetCommand    `cmd:"" help:"Start a whole deployment on this machine, run a scenario on it and take it down again."`
	Diff     diffCommand     `cmd:"" help:"Compare two results."`
	Agent    agentCommand    `cmd:"" help:"Run the clients of a load test that is commanded from another machine."`
	Worker   workerCommand   `cmd:"" hidden:"" help:"A worker process of the load tester: started by it."`
}

// loadFlags are what all scenarios have in common.
type loadFlags struct {
	Gateway       []string `help:"Gateways, as host:port." default:"127.0.0.1:8081" placeholder:"HOST:PORT,..." group:"Target"`
	API           []string `name:"api" help:"APIs, as host:port: for sends and to make rooms." default:"127.0.0.1:8080" placeholder:"HOST:PORT,..." group:"Target"`
	Target        string   `help:"Protocol: madang, centrifugo, or ws-echo: any WebSocket server that sends back what it is sent." default:"madang" enum:"madang,centrifugo,ws-echo" group:"Target"`
	APIKey        string   `name:"api-key" help:"API key of a target that wants one." group:"Target"`
	Path          string   `help:"Of the upgrade, for ws-echo." default:"/" group:"Target"`
	Host          string   `help:"Host header. Empty: the address." group:"Target"`
	config.Secret `embed:"" group:"Target"`
	JWTIssuer     string `name:"jwt-issuer" help:"The tokens' iss." placeholder:"ISS" group:"Target"`
	JWTAudience   string `name:"jwt-audience" help:"The tokens' aud." placeholder:"AUD" group:"Target"`
	ServerPid     []int  `help:"Processes to measure beside those found behind the targets' ports on this machine." placeholder:"PID,..." group:"Target"`

	Transport string        `help:"How clients receive: ws, sse (event stream), poll (long poll) or polling." default:"ws" enum:"ws,sse,poll,polling" group:"Connections"`
	PollEvery time.Duration `help:"polling: from poll to poll." default:"1s" group:"Connections"`
	PollWait  time.Duration `help:"poll: how long the gateway may wait for something to answer with." default:"25s" group:"Connections"`

	Clients int    `help:"Clients. 0: rooms × members." default:"0" group:"Population"`
	Rooms   int    `help:"Rooms. 0: as many as put each client in one." default:"0" group:"Population"`
	Members int    `help:"Members of each room." default:"10" group:"Population"`
	Prefix  string `help:"Of the names of rooms and users. Empty: new for each run." group:"Population"`

	ConnectRate    float64       `help:"New connections per second. 0: as fast as they are answered." default:"0" group:"Connections"`
	InFlight       int           `help:"Connections being opened at once." default:"512" group:"Connections"`
	ConnectTimeout time.Duration `help:"Of one client, from connect to live." default:"30s" group:"Connections"`
	Ping           time.Duration `help:"The clients' own heartbeat. 0: none; the server's pings are answered anyway." default:"0" group:"Connections"`
	Source         []string      `help:"Addresses to connect from. Empty: many of 127.0.0.0/8 on the loopback, else the kernel's choice." placeholder:"IP,..." group:"Connections"`
	Receivers      int           `help:"Receiving processes. 0: as many as the limit of open files demands." default:"0" group:"Connections"`

	Senders         int           `help:"Connections that send." default:"32" group:"Sends"`
	SenderProcesses int           `help:"Sending processes." default:"1" group:"Sends"`
	Size            int           `help:"Bytes of a message's text." default:"100" group:"Sends"`
	Poisson         bool          `help:"Random gaps between sends instead of even ones." group:"Sends"`
	Duration        time.Duration `help:"Of each measured phase." default:"10s" group:"Sends"`
	Drain           time.Duration `help:"Longest wait for what is still owed." default:"20s" group:"Sends"`

	Agents          int           `help:"Machines that run the clients, in place of this one: \"madang loadtest agent\" on each. 0: this one runs them." default:"0" group:"Agents"`
	CoordinatorAddr string        `help:"Where agents register: keep it off the internet." default:":7070" placeholder:"HOST:PORT" group:"Agents"`
	AgentSecretFile string        `help:"File with a secret that this program and its agents share, at least 16 bytes." type:"path" placeholder:"FILE" group:"Agents"`
	AgentWait       time.Duration `help:"Until all agents have registered." default:"2m" group:"Agents"`

	JSON string `name:"json" help:"File for the result as JSON." type:"path" placeholder:"FILE" group:"Results"`
	HTML string `name:"html" help:"File for the result as one HTML page with plots." type:"path" placeholder:"FILE" group:"Results"`

	MaxP50            time.Duration `help:"Fail when the median delivery takes longer. Negative: no limit; so for all limits." default:"-1ns" group:"Objectives"`
	MaxP99            time.Duration `name:"max-p99" help:"… when the 99th percentile does." default:"-1ns" group:"Objectives"`
	MaxP999           time.Duration `name:"max-p999" help:"… when the 99.9th percentile does." default:"-1ns" group:"Objectives"`
	MaxLatency        time.Duration `help:"… when any delivery does." default:"-1ns" group:"Objectives"`
	MaxAckP99         time.Duration `name:"max-ack-p99" help:"… when acknowledgements do (99th percentile)." default:"-1ns" group:"Objectives"`
	MaxBackP99        time.Duration `name:"max-back-p99" help:"… when coming back after a drop does." default:"-1ns" group:"Objectives"`
	MaxLoss           float64       `help:"Lost deliveries (any loss fails a run in any case)." default:"-1" group:"Objectives"`
	MinRate           float64       `help:"Least deliveries per second." default:"-1" group:"Objectives"`
	MinSendRate       float64       `help:"Least acknowledged sends per second." default:"-1" group:"Objectives"`
	MaxCPUPerDelivery float64       `name:"max-cpu-per-delivery" help:"Most server CPU per delivery, in µs." default:"-1" group:"Objectives"`
	MaxMemoryPerConn  float64       `help:"Most gateway memory per connection, in bytes." default:"-1" group:"Objectives"`
	MaxDrops          float64       `help:"Most connections that end without the tester's doing." default:"-1" group:"Objectives"`
}

func (f *loadFlags) spec(scenario string) (loadtest.Spec, error) {
	secret, err := f.Secret.Bytes()
	if err != nil {
		return loadtest.Spec{}, err
	}
	if secret == nil && f.Target == "madang" {
		return loadtest.Spec{}, errors.New("--jwt-secret-file or --jwt-secret must be given: the clients' tokens are signed with it")
	}
	return f.specWith(scenario, secret)
}

func (f *loadFlags) specWith(scenario string, secret []byte) (spec loadtest.Spec, err error) {
	var agentSecret []byte
	if f.Agents > 0 {
		if agentSecret, err = readAgentSecret(f.AgentSecretFile); err != nil {
			return spec, err
		}
	}
	return loadtest.Spec{
		Agents: f.Agents, CoordinatorAddr: f.CoordinatorAddr, AgentSecret: agentSecret, AgentPatience: f.AgentWait,
		Scenario: scenario, Target: f.Target, Gateways: f.Gateway, APIs: f.API, Host: f.Host, APIKey: f.APIKey, Path: f.Path,
		Secret: secret, Issuer: f.JWTIssuer, Audience: f.JWTAudience, ServerPids: f.ServerPid,
		Prefix: f.Prefix, Clients: f.Clients, Rooms: f.Rooms, Members: f.Members,
		ConnectRate: f.ConnectRate, InFlight: f.InFlight, ConnectTimeout: f.ConnectTimeout, PingEvery: f.Ping,
		Sources: f.Source, Receivers: f.Receivers, Transport: f.Transport, PollEvery: f.PollEvery, PollWait: f.PollWait,
		Senders: f.Senders, SenderProcesses: f.SenderProcesses, TextBytes: f.Size, Poisson: f.Poisson,
		Duration: f.Duration, Drain: f.Drain,
		Objectives: loadtest.Objectives{
			MaxP50: f.MaxP50, MaxP99: f.MaxP99, MaxP999: f.MaxP999, MaxLatency: f.MaxLatency, MaxAckP99: f.MaxAckP99,
			MaxBackP99: f.MaxBackP99, MaxLoss: f.MaxLoss, MinRate: f.MinRate, MinSendRate: f.MinSendRate,
			MaxCPUPerDelivery: f.MaxCPUPerDelivery, MaxMemoryPerConn: f.MaxMemoryPerConn, MaxDrops: f.MaxDrops,
		},
		Tool: app.Version(), Command: withoutSecrets(os.Args),
	}, nil
}

// withoutSecrets is a command line as a report may have it: reports are shown to
// others.
func withoutSecrets(args []string) []string {
	const hidden = "…"
	args = slices.Clone(args)
	for i, arg := range args {
		flag, _, joined := strings.Cut(arg, "=")
		switch flag {
		case "--jwt-secret", "--api-key", "--fleet-redis":
			if joined {
				args[i] = flag + "=" + hidden
			} else if i+1 < len(args) {
				args[i+1] = hidden
			}
		}
	}
	return args
}

// errRunFailed is a run that ended and whose report says what is wrong.
var errRunFailed = errors.New("the run failed: see above")

// runLoad is a variable so that a test sees what a command line asks for.
var runLoad = loadtest.Run

// runScenario runs a scenario with what its own flags make of the common ones.
func (f *loadFlags) runScenario(ctx context.Context, stdout io.Writer, name string, own func(*loadtest.Spec)) error {
	spec, err := f.spec(name)
	if err != nil {
		return err
	}
	own(&spec)
	return f.run(ctx, stdout, spec)
}

// run runs a spec and writes its results.
func (f *loadFlags) run(ctx context.Context, stdout io.Writer, spec loadtest.Spec) error {
	if err := errors.Join(writable("json", f.JSON), writable("html", f.HTML)); err != nil {
		return err
	}
	res, err := runLoad(ctx, spec, loadtest.Progress{Out: os.Stderr, Terminal: isatty.IsTerminal(os.Stderr.Fd())})
	if err != nil {
		return err
	}
	res.WriteText(stdout)
	if err := errors.Join(writeTo(f.JSON, res.WriteJSON), writeTo(f.HTML, res.WriteHTML)); err != nil {
		return err
	}
	if !res.Passed() {
		return errRunFailed
	}
	return nil
}

// writable looks, before a run of hours, whether there is a place for its result.
func writable(flag, path string) error {
	if path == "" {
		return nil
	}
	if dir, err := os.Stat(filepath.Dir(path)); err != nil || !dir.IsDir() {
		return fmt.Errorf("--%s %s: there is no such directory to write to", flag, path)
	}
	return nil
}

func writeTo(path string, write func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return errors.Join(write(file), file.Close())
}

type holdCommand struct {
	loadFlags
	Rate float64 `help:"Sends per second meanwhile. Negative: none." default:"-1" group:"Sends"`
}

// Run opens connections and keeps them.
func (c *holdCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "hold", func(s *loadtest.Spec) { s.Rate = c.Rate })
}

type fanoutCommand struct {
	loadFlags
	Rate   float64       `help:"Sends per second. 0: as fast as they are acknowledged." default:"100" group:"Sends"`
	Warmup time.Duration `help:"Sends before what is measured." default:"2s" group:"Sends"`
}

// Run sends to rooms.
func (c *fanoutCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "fanout", func(s *loadtest.Spec) { s.Rate, s.Warmup = c.Rate, c.Warmup })
}

type stormCommand struct {
	loadFlags
	Rate   float64       `help:"Sends per second meanwhile. Negative: none." default:"-1" group:"Sends"`
	Times  int           `help:"How often all are dropped." default:"1" group:"Connections"`
	Spread time.Duration `help:"Clients return after a random part of this." default:"0" group:"Connections"`
}

// Run drops all and waits until they are back.
func (c *stormCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "storm", func(s *loadtest.Spec) {
		s.Rate, s.Times, s.StormSpread = c.Rate, c.Times, c.Spread
	})
}

type slowCommand struct {
	loadFlags
	Rate  float64       `help:"Sends per second." default:"100" group:"Sends"`
	Share float64       `help:"Share of clients that stop reading: some of each room." default:"0.1" group:"Connections"`
	For   time.Duration `name:"for" help:"How long they do not read." default:"10s" group:"Connections"`
	Times int           `help:"How often they stop." default:"1" group:"Connections"`
}

// Run stalls some clients.
func (c *slowCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "slow", func(s *loadtest.Spec) {
		s.Rate, s.SlowShare, s.SlowFor, s.Times = c.Rate, c.Share, c.For, c.Times
	})
}

type chatCommand struct {
	loadFlags
	Rate float64 `help:"Sends per second in a lull; three times as many in a burst." default:"50" group:"Sends"`
	Zipf float64 `help:"Exponent of room sizes: the k-th largest has members/k^zipf." default:"1" group:"Population"`
	uploadFlags
}

// uploadFlags are about the files that some sends of a chat carry.
type uploadFlags struct {
	UploadShare float64 `help:"chat: share of the sends that carry a file, where the target takes files." default:"0.01" group:"Sends"`
	UploadSize  int     `help:"chat: bytes of such a file." default:"10000" group:"Sends"`
}

// Run is the mix.
func (c *chatCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "chat", func(s *loadtest.Spec) {
		s.Rate, s.Zipf = c.Rate, c.Zipf
		s.UploadShare, s.UploadBytes = c.UploadShare, c.UploadSize
	})
}

// compareFlags are what a comparison has beside.
type compareFlags struct {
	Transports []string      `help:"compare: what is compared." default:"ws,sse,poll,polling" placeholder:"NAME,..." group:"Connections"`
	Idle       time.Duration `help:"compare: how long connections only wait, before the sends. A gateway's heartbeats are 25 s apart." default:"30s" group:"Connections"`
}

type compareCommand struct {
	loadFlags
	compareFlags
	Rate   float64       `help:"Sends per second." default:"100" group:"Sends"`
	Warmup time.Duration `help:"Sends before what is measured." default:"2s" group:"Sends"`
}

// Run does the same work over one transport after the other.
func (c *compareCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "compare", func(s *loadtest.Spec) {
		s.Rate, s.Warmup, s.Transports, s.Idle = c.Rate, c.Warmup, c.Transports, c.Idle
	})
}

type capacityCommand struct {
	loadFlags
	From   float64       `help:"Sends per second of the first step." default:"100" group:"Sends"`
	To     float64       `help:"Sends per second beyond which no step goes." default:"1000000" group:"Sends"`
	Factor float64       `help:"From step to step." default:"1.5" group:"Sends"`
	Step   time.Duration `help:"How long a step takes." default:"5s" group:"Sends"`
}

// Run looks for the highest rate that holds.
func (c *capacityCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "capacity", func(s *loadtest.Spec) {
		s.StepFrom, s.StepTo, s.StepFactor, s.StepTime = c.From, c.To, c.Factor, c.Step
	})
}

type workerCommand struct{}

// Run is a worker process.
func (workerCommand) Run(ctx context.Context) error { return loadtest.Work(ctx, os.Stdin, os.Stdout) }
