package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/madang-chat/madang/gateway"
	"github.com/madang-chat/madang/gateway/balance"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/metrics"
	"github.com/madang-chat/madang/internal/procs"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/trace"
)

// Gateway is the process that people receive from.
type Gateway struct {
	process *process
	part    *gatewayPart
	seq     sequence
}

// NewGateway builds it; nothing is started or connected.
func NewGateway(c config.Gateway, log *slog.Logger) (*Gateway, error) {
	p, err := newProcess("gateway", c.Process, c.Redis, c.Auth, receiversTokens, redisstore.Options{ReceiptMembers: c.ReceiptMembers}, log)
	if err != nil {
		return nil, err
	}
	g, err := newGatewayPart(p, c)
	if err != nil {
		return nil, err
	}
	g.procs = procs.New()
	return &Gateway{process: p, part: g, seq: sequence{log: log, parts: append(p.parts(), g.asPart(), procsPart(g.procs))}}, nil
}

// Start returns when the gateway accepts connections, or with ctx's error. While
// Redis does not answer it waits. It is ready when all its links deliver.
func (g *Gateway) Start(ctx context.Context) error { return g.seq.start(ctx) }

// Stop asks the clients to move elsewhere, and undoes Start.
func (g *Gateway) Stop(ctx context.Context) error { return g.seq.stop(ctx) }

// Addr is where clients connect, once it has started.
func (g *Gateway) Addr() string { return g.part.addr() }

// AdminAddr is where the admin server listens; "" when it does not.
func (g *Gateway) AdminAddr() string { return g.process.admin.Addr() }

// gatewayPart is a gateway among a process's parts. It listens only when Redis
// answers: a socket that is accepted and not served is worse than none.
type gatewayPart struct {
	process *process
	config  config.Gateway
	tls     *tls.Config // nil: the gateway speaks plain HTTP
	metrics *metrics.Gateway
	gateway *gateway.Gateway // nil before start
	memory  *memoryGuard     // nil before start
	procs   *procs.Governor
}

func newGatewayPart(p *process, c config.Gateway) (*gatewayPart, error) {
	tlsConfig, err := gatewayCertificate(p, c.Sockets)
	if err != nil {
		return nil, err
	}
	p.ready.set("gateway", "not started")
	p.checks = append(p.checks, check{"links", func(context.Context) string { _, why := p.store.Healthy(); return why }})
	return &gatewayPart{process: p, config: c, tls: tlsConfig, metrics: metrics.NewGateway(p.registry)}, nil
}

func (g *gatewayPart) asPart() part { return part{"gateway", g.start, g.stop} }

func (g *gatewayPart) addr() string { return g.gateway.Addr().String() }

// drainShare is the part of the drain time over which clients are asked to
// leave; the rest is for the last ones' queues and closing handshakes.
const drainShare = 0.8

// linger is how long what a user follows stays followed after the last connection
// closed. In a storm most are back within a second, and cost Redis nothing then;
// longer keeps rooms subscribed that nobody here is in.
const linger = 3 * time.Second

func (g *gatewayPart) start(context.Context) error {
	c := g.config
	collectByNeed(gatewayGarbage)
	proxies, err := c.Proxies()
	if err != nil {
		return err
	}
	g.gateway, err = gateway.New(gateway.Options{
		Loop: loop.Options{
			Addr: c.GatewayAddr, Loops: c.Loops, Verifier: g.process.tokens.verifier, Origins: c.Origins.Origins,
			Session: session.Limits{
				FrameBurst: c.FrameBurst, FramesPerSecond: c.FrameRate,
				MaxMessageBytes: int(c.MaxFrame), MaxResumeBytes: int(c.MaxResume),
			},
			Compress: c.Compression,
			MaxConns: c.MaxConns, MaxPerUser: c.MaxConnsPerUser, MaxUpgrades: c.MaxUpgrades,
			MaxPerAddr: c.MaxConnsPerAddr, AcceptRate: c.AcceptRate, ProxyFrom: proxies,
			TLS:          g.tls,
			MaxHeadBytes: int(c.MaxHandshake), MaxBodyBytes: int(c.MaxPoll), QueueBytes: int(c.OutQueue),
			HeadTimeout: c.HandshakeTimeout, Heartbeat: c.Heartbeat, Grace: c.HeartbeatGrace,
			ResumeTimeout: c.ResumeTimeout, SlowTimeout: c.SlowTimeout,
			Redeem:      redeem(g.process.store, g.process.tokens.good),
			OnDelivered: g.metrics.Delivered, OnTurn: g.metrics.Turn,
			OnUpgraded: g.metrics.Upgraded, OnHeartbeat: g.metrics.Heartbeat,
			OnCrowd: g.procs.Crowd,
			Logger:  g.process.log,
		},
		Hub: hub.Options{
			Feed: g.process.store, Pacer: g.process.store, Logger: g.process.log,
			Seats: g.process.store, Markers: g.process.store, Addr: c.GatewayAddr,
			Live: live.Config{
				GraceMs: max(1, c.PresenceGrace.Milliseconds()), RefreshMs: c.PresenceRefresh.Milliseconds(),
				WatchMax: c.MaxWatched, ReceiptMembers: c.ReceiptMembers,
			},
			Follow: following(c.Sockets, g.process.tracer),
		},
		Rebalance: balance.Config{Percent: c.Rebalance},
		DrainOver: time.Duration(drainShare * float64(c.DrainTimeout)),
	})
	if listening := (*net.OpError)(nil); errors.As(err, &listening) {
		return fmt.Errorf("--gateway-addr: %w", err)
	}
	if err != nil {
		return err
	}
	closeKeys := g.gateway.Loops().CloseKeys
	g.process.tokens.closeKeys.Store(&closeKeys)
	g.metrics.Watch(g.process.registry, g.gateway.Loops().Stats, g.gateway.HubStats)
	g.gateway.Start()
	g.memory = &memoryGuard{
		root: os.DirFS("/"), shedPercent: float64(c.ShedPercent),
		shed: g.gateway.Loops().Refuse, what: "new connections are refused", open: g.gateway.Loops().Open, log: g.process.log,
	}
	g.memory.start()
	g.process.ready.set("gateway", "")
	g.process.log.Info("the gateway serves", "addr", g.addr())
	return nil
}

func following(c config.Sockets, tracer *trace.Tracer) follow.Config {
	return follow.Config{
		Version: Version(), TailBytes: max(1, int(c.HotTail)), // less than any message: none is kept
		ResumeRoom: c.ResumePerRoom, ResumeConn: c.ResumeMessages,
		LingerMs: linger.Milliseconds(),
		Trace:    traceDeliveries(tracer),
	}
}

func (g *gatewayPart) stop(ctx context.Context) error {
	g.process.ready.set("gateway", "draining")
	g.process.letBalancersNotice(ctx)
	g.memory.stop()
	return g.gateway.Stop(ctx)
}

// redeem tells a gateway whom a ticket speaks for. One that was given for a token
// whose key is no longer good is none: the API had not heard of it yet.
func redeem(live chat.Live, good func(auth.KeyTag) bool) func(ctx context.Context, id string) (auth.Claims, error) {
	return func(ctx context.Context, id string) (auth.Claims, error) {
		t, err := live.RedeemTicket(ctx, id)
		if errors.Is(err, chat.ErrNoTicket) || err == nil && !good(auth.KeyTag(t.Key)) {
			err = loop.ErrNoTicket
		}
		// As the user, whoever asked for it: a server key has no socket of its own.
		return auth.Claims{User: t.User, Expires: t.Expires, IssuedAt: t.IssuedAt, Key: auth.KeyTag(t.Key)}, err
	}
}
