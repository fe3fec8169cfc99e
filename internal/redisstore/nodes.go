package redisstore

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// nodes knows which server is the primary for a key. Standalone and Sentinel are
// a Cluster of one: from here on nothing asks which it is, but for sharded
// pub/sub.
type nodes struct {
	single  *redis.Client        // standalone, or Sentinel's primary
	cluster *redis.ClusterClient // or nil
}

// lanePipelines is how many pipelines of a lane are under way at once. One more
// than one hides the round trip; more make batches small, and every batch wakes Redis
// and whoever sent it: with three, Redis took 10 % more CPU for a send, flat out.
const lanePipelines = 2

// openNodes makes the client. It connects to nothing yet. Why the defaults of
// go-redis are overridden:
//
//   - MaxRetries -1: it would run a timed-out script up to four times; do.go
//     repeats what may be repeated, to the caller's deadline.
//   - ClusterStateReloadInterval 1 s, DialerRetries 1, short dials: with the
//     defaults a dead primary is a minute's outage.
//   - Protocol 2: nothing here needs RESP3, whose push handling costs a look
//     before every reply.
//   - ContextTimeoutEnabled: without it deadlines are ignored.
//   - Buffers: a regular connection only pings and loads scripts.
func openNodes(t target, o Options) *nodes {
	u := &redis.UniversalOptions{
		Addrs: t.addrs, Username: t.user, Password: t.password, DB: t.db,
		MasterName: t.master, IsClusterMode: t.kind == cluster,
		Protocol:   2,
		MaxRetries: -1, DialTimeout: o.DialTimeout, DialerRetries: 1,
		// A WAIT answers within its own time-out, and is read in the same breath.
		ReadTimeout: o.CommandTimeout + o.ackTime(), WriteTimeout: o.CommandTimeout,
		ContextTimeoutEnabled: true,
		PoolSize:              4, PoolTimeout: o.CommandTimeout,
		ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
		PipelinePoolSize: int(laneKinds) * lanePipelines, PipelineReadBufferSize: 64 << 10, PipelineWriteBufferSize: 64 << 10,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	u.Dialer = o.dialer(t.tls)
	switch t.kind {
	case cluster:
		opt := u.Cluster()
		opt.ClusterStateReloadInterval = time.Second
		return &nodes{cluster: redis.NewClusterClient(opt)}
	case sentinel:
		return &nodes{single: redis.NewFailoverClient(u.Failover())}
	default:
		return &nodes{single: redis.NewClient(u.Simple())}
	}
}

// ackTime is how much longer a pipeline may take when it ends in a WAIT.
func (o Options) ackTime() time.Duration {
	if o.MinReplicasAck == 0 {
		return 0
	}
	return o.AckTimeout
}

// primary is the client of the server that holds a key now.
func (n *nodes) primary(ctx context.Context, key string) (*redis.Client, error) {
	if n.cluster == nil {
		return n.single, nil
	}
	return n.cluster.MasterForKey(ctx, key)
}

// refresh asks for the present arrangement; it does not wait for the answer.
func (n *nodes) refresh(ctx context.Context) {
	if n.cluster != nil {
		n.cluster.ReloadState(ctx)
	}
}

// anyPrimary calls f with the primaries for some keys, at once, until one succeeds.
// (go-redis's ForEachMaster asks any node for the present arrangement first, and
// hangs when that one does.)
func (n *nodes) anyPrimary(ctx context.Context, keys []string, f func(context.Context, *redis.Client) error) (err error) {
	if n.cluster == nil {
		return f(ctx, n.single)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	primaries := map[*redis.Client]bool{}
	for _, key := range keys {
		var c *redis.Client
		if c, err = n.cluster.MasterForKey(ctx, key); err == nil {
			primaries[c] = true
		}
	}
	answers := make(chan error, len(primaries))
	for c := range primaries {
		go func() { answers <- f(ctx, c) }() // ends with ctx
	}
	for range primaries {
		if err = <-answers; err == nil {
			return nil
		}
	}
	return err
}

// dial opens a raw connection to the primary for a key, the way the command
// client itself would: through Sentinel's present answer, with TLS.
func (n *nodes) dial(ctx context.Context, key string) (net.Conn, error) {
	c, err := n.primary(ctx, key)
	if err != nil {
		return nil, err
	}
	opt := c.Options()
	return opt.Dialer(ctx, opt.Network, opt.Addr)
}

func (n *nodes) close() error {
	if n.cluster != nil {
		return n.cluster.Close()
	}
	return n.single.Close()
}
