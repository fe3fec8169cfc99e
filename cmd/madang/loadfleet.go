package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/fleet"
	"github.com/madang-chat/madang/loadtest/report"
)

// fleetCommand runs a scenario on a deployment of its own.
type fleetCommand struct {
	loadFlags
	compareFlags
	Scenario    string   `help:"What to run: hold, fanout, storm, slow, chat, compare, capacity or check." default:"fanout" enum:"hold,fanout,storm,slow,chat,compare,capacity,check" group:"Fleet"`
	Gateways    int      `help:"Gateway processes." default:"2" group:"Fleet"`
	APIs        int      `name:"apis" help:"API processes." default:"1" group:"Fleet"`
	FleetRedis  string   `help:"An existing Redis, as a URL, instead of a new one." placeholder:"URL" group:"Fleet"`
	AOF         bool     `name:"aof" help:"The new Redis writes to disk, as it should where messages matter." group:"Fleet"`
	GatewayArgs []string `help:"More flags of the gateways." placeholder:"FLAG,..." group:"Fleet"`
	APIArgs     []string `name:"api-args" help:"More flags of the APIs." default:"--sends-per-second=0" placeholder:"FLAG,..." group:"Fleet"`
	KeepLogs    bool     `help:"Keep the logs of a run that went well, too." group:"Fleet"`

	Rate   float64       `help:"Sends per second. 0: as fast as they are acknowledged; negative: none." default:"100" group:"Sends"`
	Warmup time.Duration `help:"fanout, compare: sends before what is measured." default:"2s" group:"Sends"`
	Times  int           `help:"storm, check: how often all clients are dropped; slow: how often some stop reading." default:"1" group:"Connections"`
	Spread time.Duration `help:"storm, check: clients return after a random part of this." default:"0" group:"Connections"`
	Share  float64       `help:"slow: share of clients that stop reading." default:"0.1" group:"Connections"`
	For    time.Duration `name:"for" help:"slow: how long they do not read." default:"10s" group:"Connections"`
	From   float64       `help:"capacity: sends per second of the first step." default:"100" group:"Sends"`
	To     float64       `help:"capacity: beyond which no step goes." default:"1000000" group:"Sends"`
	Factor float64       `help:"capacity: from step to step." default:"1.5" group:"Sends"`
	Step   time.Duration `help:"capacity: how long a step takes." default:"5s" group:"Sends"`
	uploadFlags
}

// Run starts the fleet, runs the scenario and takes the fleet down.
func (c *fleetCommand) Run(ctx context.Context, stdout io.Writer) (err error) {
	f, err := fleet.Start(ctx, fleet.Options{
		RedisURL: c.FleetRedis, AOF: c.AOF, Gateways: c.Gateways, APIs: c.APIs, GatewayArgs: c.GatewayArgs, APIArgs: c.APIArgs,
	})
	if err != nil {
		return err
	}
	defer func() {
		keep := err != nil || c.KeepLogs
		if keep {
			fmt.Fprintf(os.Stderr, "the fleet's logs are in %s\n", f.Dir)
		}
		err = errors.Join(err, f.Stop(keep))
	}()
	spec, err := c.specWith(c.Scenario, f.Secret)
	if err != nil {
		return err
	}
	spec.Gateways, spec.APIs = f.Gateways, f.APIs
	spec.Rate, spec.Warmup, spec.Times, spec.StormSpread = c.Rate, c.Warmup, c.Times, c.Spread
	spec.SlowShare, spec.SlowFor = c.Share, c.For
	spec.Transports, spec.Idle, spec.Renew = c.Transports, c.Idle, f.RenewGateways
	spec.StepFrom, spec.StepTo, spec.StepFactor, spec.StepTime = c.From, c.To, c.Factor, c.Step
	spec.UploadShare, spec.UploadBytes = c.UploadShare, c.UploadSize
	spec.Tolerate = loadtest.Tolerances{Failures: c.Scenario == "check"}
	return c.run(ctx, stdout, spec)
}

type diffCommand struct {
	A string `arg:"" help:"A result as JSON." type:"path"`
	B string `arg:"" help:"Another." type:"path"`
}

// Run compares two results.
func (c *diffCommand) Run(stdout io.Writer) error {
	a, err := report.Read(c.A)
	if err != nil {
		return err
	}
	b, err := report.Read(c.B)
	if err != nil {
		return err
	}
	report.WriteDiff(stdout, a, b)
	return nil
}

// checkCommand is the ledger checker for a live deployment.
type checkCommand struct {
	loadFlags
	Rate         float64       `help:"Sends per second." default:"50" group:"Sends"`
	Drops        int           `help:"How often all clients are dropped and come back with their positions. 0: never, for watching a restart, or on a deployment that people use." default:"2" group:"Connections"`
	Spread       time.Duration `help:"Clients return after a random part of this." default:"1s" group:"Connections"`
	AllowNoticed bool          `help:"Losses that a gap told of do not fail the check: for Redis without acknowledging replicas, through a failover." group:"Objectives"`
	AllowDoubled bool          `help:"A send in the log under two IDs does not fail the check: a retry across a failover may be." group:"Objectives"`
}

// Run checks that every acknowledged message reaches every member, in order,
// whatever is done to the servers meanwhile.
func (c *checkCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.runScenario(ctx, stdout, "check", func(s *loadtest.Spec) {
		s.Rate, s.Times, s.StormSpread = c.Rate, c.Drops, c.Spread
		s.Drain = max(s.Drain, time.Minute)
		s.Tolerate = loadtest.Tolerances{Failures: true, Noticed: c.AllowNoticed, Doubled: c.AllowDoubled}
	})
}
