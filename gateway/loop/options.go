package loop

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/internal/auth"
)

// Options configures a Group. Zero values mean the defaults.
type Options struct {
	// Addr is where to listen, as "host:port"; an empty host is all addresses,
	// port 0 a free one.
	Addr string
	// Loops is the number of event loops; default GOMAXPROCS, and 64 at most. More
	// than cores only adds switching; fewer leaves cores to the hub.
	Loops int
	// Hub is told what happens on connections. Required.
	Hub edge.Hub
	// Verifier checks tokens. It is called inside a loop: it must not wait.
	// Required.
	Verifier auth.Verifier
	// Origins are the web origins whose pages may connect, as
	// "https://chat.example.org"; "*" allows all. Empty: pages of the gateway's
	// own host only. Clients that are not browsers send none and are not asked.
	Origins []string

	// Session bounds what one connection may say; default
	// session.DefaultLimits.
	Session session.Limits
	// MaxConns is the most upgraded connections; more are answered 503. Default
	// 1,000,000: memory and descriptors are usually the tighter bound.
	MaxConns int
	// MaxPerUser is the most connections of one user; more are closed with 4009.
	// Default 20.
	MaxPerUser int
	// MaxPerAddr is the most connections of one address (of an IPv6 /64); more
	// are answered 429. Default 0: no limit, because many people may be behind
	// one address, and all of them are without ProxyFrom behind a balancer.
	MaxPerAddr int
	// ProxyFrom are the balancers' addresses: from them a PROXY protocol header
	// (v1 or v2) is needed, from others it is a bad request.
	ProxyFrom []netip.Prefix
	// AcceptRate is the most connections accepted in a second; the rest waits in
	// the kernel's backlog. Default 0: as fast as they come.
	AcceptRate int
	// TLS, when not nil, makes the group speak TLS. It is not changed; it must
	// have a certificate, and may pick one anew for each handshake. A handshake has
	// HeadTimeout, and the request after it again.
	TLS *tls.Config
	// TLSWorkers is how many handshakes compute at once; those that wait for
	// their client don't count. Default GOMAXPROCS.
	TLSWorkers int
	// Redeem tells whom a ticket speaks for (ErrNoTicket: nobody). It may wait,
	// until its context ends (HeadTimeout). nil: tickets are not taken.
	Redeem func(ctx context.Context, ticket string) (auth.Claims, error)
	// MaxUpgrades is the most connections that have not sent their request yet.
	// Beyond it nothing is accepted: the rest waits in the kernel's backlog.
	// Default 4,096.
	MaxUpgrades int
	// MaxHeadBytes bounds the request's head. Default 8 KiB.
	MaxHeadBytes int
	// MaxBodyBytes bounds the body of a request for events or a poll, whose positions
	// have to be there at once. Default 1.25 MiB: those of 10,000 rooms with the
	// longest names and IDs.
	MaxBodyBytes int
	// QueueBytes bounds what waits for a socket that does not take it. Beyond it
	// room events are left out and caught up later; what the hub sends to one
	// connection may use twice as much. Default 256 KiB.
	QueueBytes int
	// SendBufferBytes bounds what the kernel takes for a socket (SO_SNDBUF, which
	// it doubles for its bookkeeping). Left to itself it takes up to 4 MiB for a
	// reader that has stopped, which then shows late and costs memory; smaller
	// slows down catching up over long distances. Default 128 KiB; negative: the
	// kernel's own tuning.
	SendBufferBytes int

	// Compress agrees to permessage-deflate with clients that offer it. A message
	// is compressed once for all of them. Default false.
	Compress bool

	// HeadTimeout is how long a client may take for its request. Default 5 s.
	HeadTimeout time.Duration
	// Heartbeat is the silence after which a connection is pinged, spread down
	// to 80 % of it; Grace is how long it may stay silent after that. Defaults
	// 25 s and 10 s.
	Heartbeat, Grace time.Duration
	// MessageTimeout is how long a message may stay incomplete. Default 15 s.
	MessageTimeout time.Duration
	// ResumeTimeout is how long positions may take after `?resume`, frame by
	// frame. Default 5 s, counted from hello, which may take its own time.
	ResumeTimeout time.Duration
	// SlowTimeout is how long a socket may take to swallow its full queue before
	// it is closed with 4008. Default 10 s.
	SlowTimeout time.Duration
	// CloseTimeout bounds the closing handshake. Default 5 s.
	CloseTimeout time.Duration

	// OnDelivered is called when the last connection has taken a broadcast
	// message: its age, and how many connections got it. It is called inside a
	// loop; default nil.
	OnDelivered func(latencyMs int64, deliveries int)
	// OnUpgraded is called with how long a connection took from its first byte being
	// awaited to being open, and OnHeartbeat with how long a pinged client took to
	// give a sign of life, both in steps of 50 ms and inside a loop. Default nil.
	OnUpgraded, OnHeartbeat func(took time.Duration)
	// OnTurn is called with how long a loop's turn was busy. Default nil.
	OnTurn func(busy time.Duration)
	// OnCrowd is called when a loop has hundreds of connections to serve at once, before
	// it does: all processors are wanted. It is called inside a loop; default nil.
	OnCrowd func()
	// Logger gets the few things worth a line. Default slog.Default().
	Logger *slog.Logger
}

// normalize fills in the defaults and reports every mistake at once.
func (o *Options) normalize() error {
	o.Loops = cmp.Or(o.Loops, min(runtime.GOMAXPROCS(0), maxLoops))
	o.TLSWorkers = cmp.Or(o.TLSWorkers, runtime.GOMAXPROCS(0))
	o.MaxConns = cmp.Or(o.MaxConns, 1_000_000)
	o.MaxPerUser = cmp.Or(o.MaxPerUser, 20)
	o.MaxUpgrades = cmp.Or(o.MaxUpgrades, 4096)
	o.MaxHeadBytes = cmp.Or(o.MaxHeadBytes, 8<<10)
	o.MaxBodyBytes = cmp.Or(o.MaxBodyBytes, 1280<<10)
	o.QueueBytes = cmp.Or(o.QueueBytes, 256<<10)
	o.SendBufferBytes = cmp.Or(o.SendBufferBytes, 128<<10)
	o.HeadTimeout = cmp.Or(o.HeadTimeout, 5*time.Second)
	o.Heartbeat = cmp.Or(o.Heartbeat, 25*time.Second)
	o.Grace = cmp.Or(o.Grace, 10*time.Second)
	o.MessageTimeout = cmp.Or(o.MessageTimeout, 15*time.Second)
	o.ResumeTimeout = cmp.Or(o.ResumeTimeout, 5*time.Second)
	o.SlowTimeout = cmp.Or(o.SlowTimeout, 10*time.Second)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, 5*time.Second)
	o.Session = cmp.Or(o.Session, session.DefaultLimits)
	o.Logger = cmp.Or(o.Logger, slog.Default())

	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Hub == nil {
		bad("Hub is missing")
	}
	if o.Verifier == nil {
		bad("Verifier is missing")
	}
	if o.Loops < 1 || o.Loops > maxLoops {
		bad("Loops is %d, not 1 to %d", o.Loops, maxLoops)
	}
	for name, n := range map[string]int{
		"MaxConns": o.MaxConns, "MaxPerUser": o.MaxPerUser, "MaxUpgrades": o.MaxUpgrades, "QueueBytes": o.QueueBytes, "MaxBodyBytes": o.MaxBodyBytes,
		"Session.MaxMessageBytes": o.Session.MaxMessageBytes,
	} {
		if n < 1 {
			bad("%s is %d, not positive", name, n)
		}
	}
	if o.MaxHeadBytes < 256 || o.MaxHeadBytes > readBufferBytes/2 {
		bad("MaxHeadBytes is %d, not 256 to %d", o.MaxHeadBytes, readBufferBytes/2)
	}
	if o.Session.MaxResumeBytes < o.Session.MaxMessageBytes {
		bad("Session.MaxResumeBytes is less than MaxMessageBytes")
	}
	for name, d := range map[string]time.Duration{
		"HeadTimeout": o.HeadTimeout, "Heartbeat": o.Heartbeat, "Grace": o.Grace, "MessageTimeout": o.MessageTimeout,
		"ResumeTimeout": o.ResumeTimeout, "SlowTimeout": o.SlowTimeout, "CloseTimeout": o.CloseTimeout,
	} {
		if d < 0 || d > 24*time.Hour {
			bad("%s is %v, not between 0 and a day", name, d)
		}
	}
	if o.MaxPerAddr < 0 || o.AcceptRate < 0 {
		bad("MaxPerAddr or AcceptRate is negative")
	}
	if o.TLSWorkers < 1 {
		bad("TLSWorkers is %d, not positive", o.TLSWorkers)
	}
	for _, origin := range o.Origins {
		if origin != "*" && !strings.Contains(origin, "://") {
			bad("origin %q is not of the form scheme://host[:port]", origin)
		}
	}
	return errors.Join(errs...)
}
