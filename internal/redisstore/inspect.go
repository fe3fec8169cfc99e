package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Inspection is what a look at every server of a deployment found, in Redis's own
// words. It judges nothing.
type Inspection struct {
	// Kind is "standalone", "sentinel" or "cluster".
	Kind string
	// SchemaVersion and Partitions are what the deployment was made with; "" when
	// nothing was written yet.
	SchemaVersion, Partitions string
	// SchemaErr is why they are not known: nobody could read them.
	SchemaErr error
	// Nodes are the data servers, sorted by address. In a Cluster and behind
	// Sentinel they are those that the others know of.
	Nodes []NodeInspection
	// Sentinels are those of the URL, when Kind is "sentinel".
	Sentinels []SentinelInspection
	// Cluster is CLUSTER INFO of the first node that answers.
	Cluster map[string]string
}

// NodeInspection is one data server.
type NodeInspection struct {
	Addr string
	// Err is why nothing else is known: it does not answer.
	Err error
	// Info are the fields of INFO.
	Info map[string]string
	// Config are settings that matter here. A managed Redis may refuse to show
	// them: then it is nil and ConfigErr says why.
	Config    map[string]string
	ConfigErr error
	// LoadsAs is what ACL DRYRUN says of a write by the user "default", in whose
	// name the append-only file is loaded: "OK", or why not; "" and LoadsAsErr when
	// it was not told.
	LoadsAs    string
	LoadsAsErr error
	// ClusterFlags are the node's flags in CLUSTER NODES, "master,fail?" say.
	ClusterFlags string
	// RoundTrips are of PING on one connection, sorted.
	RoundTrips []time.Duration
	// ClockAhead is how far its clock is ahead of ours, give or take the round trip.
	ClockAhead time.Duration
}

// SentinelInspection is one Sentinel.
type SentinelInspection struct {
	Addr string
	Err  error
	// Master are the fields of SENTINEL MASTER.
	Master map[string]string
	// Quorum is the answer of SENTINEL CKQUORUM, or the error it gave.
	Quorum    string
	QuorumErr error
}

// inspectedSettings are the CONFIG parameters that Inspect asks for.
var inspectedSettings = []string{
	"appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy", "maxclients",
	"client-output-buffer-limit", "repl-backlog-size", "min-replicas-to-write",
	"cluster-node-timeout", "cluster-require-full-coverage", "cluster-allow-pubsubshard-when-down",
	"timeout", "lua-time-limit", "stop-writes-on-bgsave-error",
}

// inspectPings is how many round trips are timed: enough for a median and a
// worst one, few enough for a server that is in use.
const inspectPings = 200

// Inspect looks at every server that the URL leads to. It writes nothing. The
// error is for a URL that leads nowhere; a server that does not answer is part of
// the result.
func Inspect(ctx context.Context, o Options) (Inspection, error) {
	t, err := parseURL(o.URL)
	if err != nil {
		return Inspection{}, err
	}
	if o, err = o.withDefaults(); err != nil {
		return Inspection{}, err
	}
	in := &inspector{target: t, opt: o}
	switch t.kind {
	case sentinel:
		return in.sentinel(ctx)
	case cluster:
		return in.cluster(ctx)
	default:
		return in.standalone(ctx)
	}
}

type inspector struct {
	target target
	opt    Options
}

// client is a plain one of a single connection to a single server: an inspection
// must not be led elsewhere.
func (in *inspector) client(addr string, data bool) *redis.Client {
	opt := &redis.Options{
		Addr: addr, Protocol: 2, MaxRetries: -1, DialerRetries: 1, PoolSize: 1,
		DialTimeout: in.opt.DialTimeout, ReadTimeout: in.opt.CommandTimeout, WriteTimeout: in.opt.CommandTimeout,
		ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if data {
		opt.Username, opt.Password = in.target.user, in.target.password
		opt.DB = in.target.db
	}
	opt.Dialer = in.opt.dialer(in.target.tls)
	return redis.NewClient(opt)
}

func (in *inspector) standalone(ctx context.Context) (Inspection, error) {
	out := Inspection{Kind: "standalone"}
	in.nodes(ctx, &out, map[string]string{in.target.addrs[0]: ""})
	return out, nil
}

func (in *inspector) sentinel(ctx context.Context) (Inspection, error) {
	out := Inspection{Kind: "sentinel"}
	addrs := map[string]string{}
	for _, addr := range in.target.addrs {
		s := SentinelInspection{Addr: addr}
		c := in.client(addr, false)
		s.Master, s.Err = asMap(c.Do(ctx, "SENTINEL", "MASTER", in.target.master).Slice())
		if s.Err == nil {
			addrs[net.JoinHostPort(s.Master["ip"], s.Master["port"])] = ""
			s.Quorum, s.QuorumErr = c.Do(ctx, "SENTINEL", "CKQUORUM", in.target.master).Text()
			replicas, _ := c.Do(ctx, "SENTINEL", "REPLICAS", in.target.master).Slice()
			for _, r := range replicas {
				fields, _ := r.([]any)
				if m, err := asMap(fields, nil); err == nil {
					addrs[net.JoinHostPort(m["ip"], m["port"])] = ""
				}
			}
		}
		_ = c.Close()
		out.Sentinels = append(out.Sentinels, s)
	}
	in.nodes(ctx, &out, addrs)
	return out, nil
}

func (in *inspector) cluster(ctx context.Context) (Inspection, error) {
	out := Inspection{Kind: "cluster"}
	addrs := map[string]string{}
	var errs []error
	for _, seed := range in.target.addrs {
		c := in.client(seed, true)
		text, err := c.ClusterNodes(ctx).Result()
		if err == nil {
			out.Cluster = infoFields(c.ClusterInfo(ctx).Val())
		}
		_ = c.Close()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", seed, err))
			continue
		}
		maps.Copy(addrs, clusterAddrs(text, seed))
		break
	}
	if len(addrs) == 0 {
		return out, fmt.Errorf("no node of the Cluster answers: %w", errors.Join(errs...))
	}
	in.nodes(ctx, &out, addrs)
	return out, nil
}

// clusterAddrs reads CLUSTER NODES: the flags of each node by its address. A node
// that does not know its own address is the seed.
func clusterAddrs(text, seed string) map[string]string {
	addrs := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		addr, _, _ := strings.Cut(f[1], "@")
		host, port := addr, ""
		if at := strings.LastIndexByte(addr, ':'); at >= 0 { // an IPv6 address stands there without brackets
			host, port = addr[:at], addr[at+1:]
		}
		if seedHost, _, err := net.SplitHostPort(seed); err == nil && host == "" {
			host = seedHost
		}
		if addr = seed; host != "" && port != "" {
			addr = net.JoinHostPort(host, port)
		}
		addrs[addr] = f[2]
	}
	return addrs
}

// nodes inspects the servers one after the other: there are few, and timing them
// together would time the waiting for each other.
func (in *inspector) nodes(ctx context.Context, out *Inspection, flags map[string]string) {
	out.SchemaErr = errors.New("no server answers")
	for _, addr := range slices.Sorted(maps.Keys(flags)) {
		node := in.node(ctx, addr)
		node.ClusterFlags = flags[addr]
		out.Nodes = append(out.Nodes, node)
		if node.Err != nil || out.Partitions != "" {
			continue
		}
		version, partitions, err := in.schema(ctx, addr)
		if err == nil || out.SchemaErr != nil { // what one could read, another's refusal does not undo
			out.SchemaVersion, out.Partitions, out.SchemaErr = version, partitions, err
		}
	}
}

func (in *inspector) schema(ctx context.Context, addr string) (version, partitions string, err error) {
	c := in.client(addr, true)
	defer c.Close()
	// A Cluster's node that does not hold the key answers MOVED: another will know.
	v, err := c.HMGet(ctx, schemaKey, "version", "partitions").Result()
	if err != nil || len(v) != 2 {
		return "", "", err
	}
	version, _ = v[0].(string)
	partitions, _ = v[1].(string)
	return version, partitions, nil
}

func (in *inspector) node(ctx context.Context, addr string) NodeInspection {
	n := NodeInspection{Addr: addr}
	c := in.client(addr, true)
	defer c.Close()
	var text string
	if text, n.Err = c.Info(ctx).Result(); n.Err != nil {
		return n
	}
	n.Info = infoFields(text)
	n.Config, n.ConfigErr = in.settings(ctx, c)
	n.LoadsAs, n.LoadsAsErr = c.Do(ctx, "ACL", "DRYRUN", "default", "XADD", "{a}:any", "*", "a", "b").Text()
	for range inspectPings {
		start := time.Now()
		if err := c.Ping(ctx).Err(); err != nil {
			break
		}
		n.RoundTrips = append(n.RoundTrips, time.Since(start))
	}
	slices.Sort(n.RoundTrips)
	before := time.Now()
	if theirs, err := c.Time(ctx).Result(); err == nil {
		n.ClockAhead = theirs.Sub(before.Add(time.Since(before) / 2))
	}
	return n
}

func (in *inspector) settings(ctx context.Context, c *redis.Client) (map[string]string, error) {
	settings := map[string]string{}
	for _, name := range inspectedSettings {
		m, err := c.ConfigGet(ctx, name).Result()
		if err != nil {
			return nil, err
		}
		maps.Copy(settings, m)
	}
	return settings, nil
}

// infoFields reads "name:value" lines.
func infoFields(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			m[name] = value
		}
	}
	return m
}

// asMap reads a list of names and values in turn.
func asMap(list []any, err error) (map[string]string, error) {
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		m[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return m, nil
}
