// Package gateway is the receivers' side: the sockets (gateway/loop), what they
// follow (gateway/hub, gateway/follow), and the seam between the two
// (gateway/edge). It is put together here and nothing else happens here.
//
// The way of a message: a link of the feed brings a publication to the hub; the
// hub checks that nothing is missing before it, wraps it in a frame once, and
// posts it to the loops that have members attached; each loop queues the same
// bytes for every one of them and writes once per connection and turn.
package gateway

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/madang-chat/madang/gateway/balance"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/chat"
)

// Options configure a Gateway. Loop.Hub is filled in by New.
type Options struct {
	Loop loop.Options
	Hub  hub.Options
	// DrainOver is the time over which Stop asks clients to move elsewhere.
	// Longer spreads their return; 0 closes everyone at once.
	DrainOver time.Duration
	// Rebalance says when clients are asked to move to gateways that have fewer.
	Rebalance balance.Config
}

// Gateway holds client sockets and delivers to them. It owns only its sockets;
// everything else can be rebuilt from Redis.
type Gateway struct {
	opts Options
	hub  *hub.Hub
	grp  *loop.Group
	even *rebalancer
	stop sync.Once
	err  error
}

// New listens but starts nothing.
func New(o Options) (*Gateway, error) {
	if o.Loop.Heartbeat != 0 {
		o.Hub.Follow.HeartbeatS = int(o.Loop.Heartbeat / time.Second)
	}
	if o.Hub.Follow.CreditBytes == 0 {
		// What a catch-up queues at once must fit beside what is queued live.
		o.Hub.Follow.CreditBytes = o.Loop.QueueBytes / 2
	}
	g := &Gateway{opts: o}
	if o.Hub.Conns == nil { // called from Start on
		o.Hub.Conns = func() int { return g.grp.Open() }
	}
	var err error
	if g.hub, err = hub.New(o.Hub); err != nil {
		return nil, err
	}
	o.Loop.Hub = g.hub
	if g.grp, err = loop.New(o.Loop); err != nil {
		return nil, err
	}
	g.even = newRebalancer(g, o.Rebalance, o.Hub.Logger)
	return g, nil
}

// Start begins to follow and to accept.
func (g *Gateway) Start() {
	g.hub.Start(g.grp)
	g.grp.Start()
	g.even.start()
}

// Addr is where clients connect.
func (g *Gateway) Addr() netip.AddrPort { return g.grp.Addr() }

// Loops gives access to the sockets' figures and to shedding.
func (g *Gateway) Loops() *loop.Group { return g.grp }

// Peers are the fleet's living gateways with their connections, and this one's ID
// among them.
func (g *Gateway) Peers() (self string, alive []chat.Lease) { return g.hub.Peers() }

// HubStats returns what the hub has done.
func (g *Gateway) HubStats() hub.Stats { return g.hub.Stats() }

// Stop drains: clients are told to come back elsewhere, spread over
// Options.DrainOver, what is queued for them is written, and the hub ends last.
// It returns by ctx's deadline at the latest and is idempotent.
func (g *Gateway) Stop(ctx context.Context) error {
	g.stop.Do(func() {
		g.even.stop()
		g.hub.Leave()
		if g.opts.DrainOver > 0 { // also with nobody connected: some may be on their way in
			g.err = g.grp.Drain(ctx, g.opts.DrainOver)
		}
		if err := g.grp.Stop(ctx); g.err == nil {
			g.err = err
		}
		g.hub.Stop()
	})
	return g.err
}
