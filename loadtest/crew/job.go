// Package crew runs the tester's worker processes: the program starts itself
// again, as often as the limit of open files or the work demands, hands each a
// Job, and hears from it once a second. Orders go down a worker's stdin, reports
// come up its stdout (gob); a worker on another machine has an agent there who
// carries both. A worker whose stdin ends, ends: whatever kills the
// coordinator, nothing is left behind.
//
// The package moves work and figures; what they mean is the run's business.
package crew

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/sender"
	"github.com/madang-chat/madang/loadtest/swarm"
	"github.com/madang-chat/madang/loadtest/target"
)

// Common is what all workers of a run are told.
type Common struct {
	ClockOffset int64
	Shape       crowd.Shape
	Target      string
	Options     target.Options
	Secret      []byte // of the tokens; nil: no tokens
	Claims      mint.Claims
	Gateways    []netip.AddrPort
	APIs        []netip.AddrPort
	Host        string
}

// Receive is a receiving worker's part.
type Receive struct {
	First, Count int
	Sources      []netip.Addr
	Bases        map[uint32]ledger.Pos // heads before the run, of rooms that had one
	Rate         float64
	InFlight     int
	Timeout      time.Duration
	PingEvery    time.Duration
	Transport    target.Transport
	PollEvery    time.Duration
	PollWait     time.Duration
	Chatty       bool // they will be told to chat
	Retries      int
	Echo         swarm.Echo // of targets whose clients send themselves
}

// Send is a sending worker's part.
type Send struct {
	Conns     int
	Poisson   bool
	BySize    bool
	First     ledger.Send
	Stride    int
	TextBytes int
	Timeout   time.Duration
	Tries     int

	UploadShare float64
	UploadBytes int
}

// Job is a worker's work: one of Receive and Send is set.
type Job struct {
	Common  Common
	Receive *Receive
	Send    *Send
}

// made is what a job's values come to.
type made struct {
	dialect target.Dialect
	crowd   *crowd.Crowd
	mint    *mint.Minter
	clock   clock.Clock
}

func (c Common) make() (m made, err error) {
	if m.dialect, err = target.ByName(c.Target, c.Options); err != nil {
		return m, err
	}
	if m.crowd, err = crowd.New(c.Shape); err != nil {
		return m, err
	}
	if c.Secret != nil {
		if m.mint, err = mint.New(c.Secret, c.Claims); err != nil {
			return m, err
		}
	}
	m.clock = clock.New(c.ClockOffset)
	return m, nil
}

func (j Job) swarm(onGap func(user int, room uint32, after, head ledger.Pos)) (*swarm.Swarm, error) {
	m, err := j.Common.make()
	if err != nil {
		return nil, err
	}
	r := j.Receive
	var apis []netip.AddrPort // clients that never chat have nothing to say to it
	if r.Chatty {
		apis = j.Common.APIs
	}
	s, err := swarm.New(swarm.Config{
		Dialect: m.dialect, Transport: r.Transport, PollEvery: r.PollEvery, PollWait: r.PollWait,
		Clock: m.clock, Gateways: j.Common.Gateways, APIs: apis, Host: j.Common.Host, Sources: r.Sources,
		Mint: m.mint, Crowd: m.crowd, First: r.First, Count: r.Count,
		Base: func(room uint32) ledger.Pos { return r.Bases[room] },
		Rate: r.Rate, InFlight: r.InFlight, Timeout: r.Timeout, PingEvery: r.PingEvery, Retries: r.Retries, Echo: r.Echo,
		OnGap: onGap,
	})
	if err != nil {
		return nil, fmt.Errorf("receiving clients: %w", err)
	}
	return s, nil
}

func (j Job) sender() (*sender.Sender, error) {
	m, err := j.Common.make()
	if err != nil {
		return nil, err
	}
	c := j.Send
	s, err := sender.New(sender.Config{
		Dialect: m.dialect, Clock: m.clock, APIs: j.Common.APIs, Host: j.Common.Host, Mint: m.mint, Crowd: m.crowd,
		Conns: c.Conns, Poisson: c.Poisson, BySize: c.BySize, First: c.First, Stride: c.Stride,
		TextBytes: c.TextBytes, Timeout: c.Timeout, Tries: c.Tries,
		UploadShare: c.UploadShare, UploadBytes: c.UploadBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	return s, nil
}
