package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/test/proxy"
)

// fault is one kind of thing that goes wrong.
type fault struct {
	name string
	// on are the arrangements of Redis it can happen to; nil: all.
	on []string
	// ack says with which --min-replicas-ack; nil: with any.
	ack func(replicas int) bool
	// strikes says what it happens to: of one sort only one fault at a time.
	strikes sort
	// outage is the longest that a receiver may hear nothing, and a message be late.
	outage time.Duration
	// clean: not one send may fail at its first attempt.
	clean bool
	// run does it and undoes it. What it leaves to heal by itself is waited for.
	run func(ctx context.Context, w *world, rng *rand.Rand) (detail string, err error)
}

// sort is what a fault strikes.
type sort uint8

const (
	aGateway sort = iota
	anAPI
	aRedis
	theClients
	everything
)

// Bounds on outages are the times that have to pass by design, and the rest for a
// machine that others use too. What was measured is in the report.
const (
	// reconnecting: a client notices (at once, or deafAfter), backs off, resumes.
	reconnecting = 12 * time.Second
	// deafLink: canaries stay away for 5 s, the link is made again, audited.
	deafLink = 16 * time.Second
	// failingOver: notice (1 to 2 s), elect, promote, learn of it, make links again.
	failingOver = 20 * time.Second
	// rolling: the shorter a gateway's drain, the more it spreads its clients'
	// return, by up to 8 s.
	rolling = 8*time.Second + reconnecting
)

// faults are all kinds there are.
var faults = []fault{
	{name: "gateway killed", strikes: aGateway, outage: reconnecting, run: killGateway},
	{name: "gateway stopped", strikes: aGateway, outage: 10*time.Second + reconnecting, run: stopGateway},
	{name: "clients' links cut", strikes: aGateway, outage: reconnecting, run: onFront(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Cut()
		return 0
	})},
	{name: "clients' links reset in mid-frame", strikes: aGateway, outage: reconnecting, run: onFront(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.ResetAfter(1 + rng.IntN(2000))
		return time.Second
	})},
	{name: "clients' links stalled", strikes: aGateway, outage: 10*time.Second + reconnecting, run: onFront(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Stall()
		return seconds(rng, 1, 10)
	})},
	{name: "clients' links half open", strikes: aGateway, outage: reconnecting, run: onFront(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.HalfOpen()
		return 0
	})},
	{name: "clients' links go silent", strikes: aGateway, outage: reconnecting, run: onFront(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Silence()
		return 0
	})},
	{name: "clients' links throttled", strikes: aGateway, outage: 10*time.Second + reconnecting, run: onFront(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Throttle(2000 + rng.IntN(8000))
		return seconds(rng, 2, 8)
	})},
	{name: "clients drop all at once", strikes: theClients, outage: reconnecting, run: dropClients},

	{name: "API killed", strikes: anAPI, outage: reconnecting, run: killAPI},
	{name: "API stopped", strikes: anAPI, outage: 10*time.Second + reconnecting, run: stopAPI},

	{name: "link to Redis cut", on: []string{standalone}, strikes: aRedis, outage: reconnecting, run: onRedisLink(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Cut()
		return 0
	})},
	{name: "link to Redis refused", on: []string{standalone}, strikes: aRedis, outage: 10*time.Second + reconnecting, run: onRedisLink(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Refuse()
		return seconds(rng, 1, 8)
	})},
	{name: "link to Redis reset in mid-frame", on: []string{standalone}, strikes: aRedis, outage: reconnecting, run: onRedisLink(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.ResetAfter(1 + rng.IntN(5000))
		return time.Second
	})},
	{name: "link to Redis stalled", on: []string{standalone}, strikes: aRedis, outage: 10*time.Second + deafLink, run: onRedisLink(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Stall()
		return seconds(rng, 1, 10)
	})},
	{name: "link to Redis half open", on: []string{standalone}, strikes: aRedis, outage: deafLink, run: onRedisLink(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.HalfOpen()
		return 0
	})},
	{name: "link to Redis goes silent", on: []string{standalone}, strikes: aRedis, outage: deafLink, run: onRedisLink(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Silence()
		return 0
	})},
	{name: "link to Redis throttled", on: []string{standalone}, strikes: aRedis, outage: 10*time.Second + deafLink, run: onRedisLink(func(p *proxy.Proxy, rng *rand.Rand) time.Duration {
		p.Throttle(20_000 + rng.IntN(80_000))
		return seconds(rng, 2, 8)
	})},

	{name: "primary killed, restarted from its AOF", on: []string{standalone}, strikes: aRedis, outage: 5*time.Second + reconnecting, run: restartPrimary},
	{name: "primary stopped", strikes: aRedis, outage: 10*time.Second + failingOver, run: stopPrimary},
	{name: "primary killed, a replica promoted", on: []string{sentinel, cluster}, strikes: aRedis, outage: failingOver, run: killPrimary},
	{name: "replica killed", on: []string{sentinel, cluster}, strikes: aRedis, outage: deafLink, run: killReplica},
	{name: "replica stopped", on: []string{sentinel, cluster}, strikes: aRedis, outage: deafLink, run: stopReplica},
	{name: "failover by hand", on: []string{sentinel, cluster}, strikes: aRedis, outage: failingOver, run: failover},
	{name: "failover by hand, unprepared", on: []string{sentinel}, ack: otherThanOne, strikes: aRedis, outage: failingOver, run: bareFailover},
	{name: "slots moved", on: []string{cluster}, strikes: aRedis, outage: deafLink, run: moveSlots},
	{name: "scripts flushed", strikes: aRedis, outage: 3 * time.Second, clean: true, run: flushScripts},
	{name: "Redis out of memory", strikes: aRedis, outage: 10*time.Second + reconnecting, run: fillMemory},

	{name: "all gateways and APIs rolled", strikes: everything, outage: rolling, clean: true, run: roll},
}

// otherThanOne of two replicas' words is either no promise or one that holds.
func otherThanOne(replicas int) bool { return replicas != 1 }

// faultsOn are the kinds that can happen to an arrangement.
func faultsOn(kind string, ack int) (can []fault) {
	for _, f := range faults {
		if (f.on == nil || slices.Contains(f.on, kind)) && (f.ack == nil || f.ack(ack)) {
			can = append(can, f)
		}
	}
	return can
}

func seconds(rng *rand.Rand, least, most float64) time.Duration {
	return time.Duration((least + (most-least)*rng.Float64()) * float64(time.Second)).Round(10 * time.Millisecond)
}

// ---- processes ----

func killGateway(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	return killNode(ctx, pick(rng, w.gateways), seconds(rng, 0.1, 3))
}

func killAPI(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	return killNode(ctx, pick(rng, w.apis), seconds(rng, 0.1, 3))
}

func killNode(ctx context.Context, n *node, away time.Duration) (string, error) {
	n.kill()
	n.ready.Store(false)
	sleep(ctx, away)
	return fmt.Sprintf("%s, back after %v", n.name, away), n.start()
}

func stopGateway(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	return stopNode(ctx, pick(rng, w.gateways), seconds(rng, 1, 10)), nil
}

func stopAPI(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	return stopNode(ctx, pick(rng, w.apis), seconds(rng, 1, 10)), nil
}

func stopNode(ctx context.Context, n *node, during time.Duration) string {
	n.signal(syscall.SIGSTOP)
	sleep(ctx, during)
	n.signal(syscall.SIGCONT)
	return fmt.Sprintf("%s for %v", n.name, during)
}

// roll restarts everything, one by one, as a deployment does.
func roll(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	for _, n := range w.nodes() {
		if err := n.terminate(); err != nil {
			return n.name, err
		}
		if err := n.start(); err != nil {
			return n.name, err
		}
		if !until(ctx, 30*time.Second, n.isReady) {
			return n.name, fmt.Errorf("%s does not become ready", n.name)
		}
		n.ready.Store(true)
	}
	return "", nil
}

// ---- links ----

// onFront does something to the links between a gateway and its clients.
func onFront(do func(*proxy.Proxy, *rand.Rand) time.Duration) func(context.Context, *world, *rand.Rand) (string, error) {
	return func(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
		n := pick(rng, w.gateways)
		return onLinks(ctx, n, n.front, rng, do), nil
	}
}

// onRedisLink does something to the links between a process and Redis.
func onRedisLink(do func(*proxy.Proxy, *rand.Rand) time.Duration) func(context.Context, *world, *rand.Rand) (string, error) {
	return func(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
		n := pick(rng, w.nodes())
		return onLinks(ctx, n, n.redis, rng, do), nil
	}
}

func onLinks(ctx context.Context, n *node, p *proxy.Proxy, rng *rand.Rand, do func(*proxy.Proxy, *rand.Rand) time.Duration) string {
	during := do(p, rng)
	sleep(ctx, during)
	p.Heal()
	return fmt.Sprintf("%s for %v", n.name, during)
}

func dropClients(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	for _, r := range w.receivers {
		r.drop()
	}
	return "", nil
}

// ---- Redis ----

func (w *world) serverName(s *testkit.RedisServer) string {
	return fmt.Sprintf("redis %d", slices.Index(w.redis.nodes, s)+1)
}

func restartPrimary(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	p := w.redis.nodes[0]
	away := pick(rng, []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second})
	p.Kill()
	sleep(ctx, away)
	return fmt.Sprintf("back after %v", away), p.Restart()
}

func killPrimary(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	p := w.redis.aPrimary(rng)
	if p == nil {
		return "", fmt.Errorf("there is no primary to kill")
	}
	detail := w.serverName(p)
	w.redis.setAway(p, true)
	p.Kill()
	promoted := until(ctx, 30*time.Second, func() bool { return w.redis.promotedInsteadOf(p) })
	sleep(ctx, seconds(rng, 0, 3))
	err := w.redis.bringBack(p, rng)
	if !promoted && err == nil {
		err = fmt.Errorf("nobody was promoted instead of %s", detail)
	}
	return detail, err
}

// promotedInsteadOf says whether the dead server's slots, or its role, are
// another's.
func (s *servers) promotedInsteadOf(dead *testkit.RedisServer) bool {
	primaries := s.primaries()
	want := 1
	if s.kind == cluster {
		want = 3
	}
	return len(primaries) == want && !slices.Contains(primaries, dead)
}

// bringBack starts a killed server. A Sentinel group's old primary comes back as
// one: half the time it is told at once whom to follow, otherwise Sentinel finds
// out.
func (s *servers) bringBack(n *testkit.RedisServer, rng *rand.Rand) error {
	err := n.Restart()
	if s.kind == sentinel && rng.IntN(2) == 0 {
		if p := s.sentinel.Primary(); p != nil && p != n {
			_, _ = n.Do("REPLICAOF", "127.0.0.1", fmt.Sprint(p.Port))
		}
	}
	s.setAway(n, false)
	return err
}

func killReplica(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	r := w.redis.aReplica(rng)
	if r == nil {
		return "", fmt.Errorf("there is no replica to kill")
	}
	w.redis.setAway(r, true)
	r.Kill()
	away := seconds(rng, 0.1, 4)
	sleep(ctx, away)
	return fmt.Sprintf("%s, back after %v", w.serverName(r), away), w.redis.bringBack(r, rng)
}

func stopReplica(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	return stopServer(ctx, w, w.redis.aReplica(rng), seconds(rng, 1, 10))
}

func stopPrimary(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	least := 1.0
	if w.redis.kind == sentinel && !otherThanOne(w.opt.ack) {
		// One that is back while Sentinel promotes a replica is in the middle of a
		// failover that nothing was prepared for, as in bareFailover. Sentinel's
		// patience is 1 s here, and it has promoted one 3 s later at most.
		least = 6
	}
	return stopServer(ctx, w, w.redis.aPrimary(rng), seconds(rng, least, 10))
}

// bareFailover has Sentinel promote a replica with nothing prepared. The primary
// goes on for seconds, and the other replica goes on to confirm what it is sent,
// until both are told: what was acknowledged meanwhile is thrown away, unless all
// replicas had to confirm it.
func bareFailover(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	return "", w.redis.sentinel.Failover()
}

func stopServer(ctx context.Context, w *world, s *testkit.RedisServer, during time.Duration) (string, error) {
	if s == nil {
		return "", fmt.Errorf("there is no server to stop")
	}
	w.redis.setAway(s, true)
	s.Pause()
	sleep(ctx, during)
	s.Resume()
	w.redis.setAway(s, false)
	return fmt.Sprintf("%s for %v", w.serverName(s), during), nil
}

// failover has another server promoted while the primary is well, as an operator
// does who means to lose nothing (docs/guarantees.md): Sentinel's primary is told
// to hold writes back until it is a replica. A Cluster's does so by itself, unless
// it is forced.
func failover(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	if w.redis.kind == sentinel {
		old := w.redis.aPrimary(rng)
		if old == nil {
			return "", fmt.Errorf("there is no primary")
		}
		detail := w.serverName(old) + " demoted"
		if _, err := old.Do("CLIENT", "PAUSE", "20000", "WRITE"); err != nil {
			return detail, err
		}
		err := w.redis.sentinel.Failover()
		if p := w.redis.sentinel.Primary(); err == nil && p != nil {
			_, err = old.Do("REPLICAOF", "127.0.0.1", fmt.Sprint(p.Port))
		}
		_, _ = old.Do("CLIENT", "UNPAUSE")
		return detail, err
	}
	r := w.redis.aReplica(rng)
	if r == nil {
		return "", fmt.Errorf("there is no replica to promote")
	}
	detail := w.serverName(r)
	how := pick(rng, []string{"", "FORCE", "TAKEOVER"}) // "": the primary holds writes until its replica has caught up
	args := []string{"CLUSTER", "FAILOVER"}
	if how != "" {
		args = append(args, how)
		detail += " " + how
	}
	if _, err := r.Do(args...); err != nil {
		return detail, err
	}
	if !until(ctx, 30*time.Second, func() bool { return r.Info("replication")["role"] == "master" }) {
		return detail, fmt.Errorf("%s was not promoted", detail)
	}
	return detail, nil
}

// moveSlots moves slots with keys in them from one primary to another, under load.
func moveSlots(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	c := w.redis.cluster
	moved := ""
	for range 3 {
		from := w.redis.aPrimary(rng)
		if from == nil {
			return moved, fmt.Errorf("there is no primary")
		}
		key, err := from.Do("RANDOMKEY")
		if err != nil || key == nil {
			continue
		}
		v, err := from.Do("CLUSTER", "KEYSLOT", fmt.Sprint(key))
		if err != nil {
			return moved, err
		}
		slot := int(v.(int64))
		to := pick(rng, slices.DeleteFunc(w.redis.primaries(), func(n *testkit.RedisServer) bool { return n == from }))
		if to == nil || c.Owner(slot) != from {
			continue
		}
		if err := c.MoveSlot(slot, to); err != nil {
			return moved, fmt.Errorf("moving slot %d: %w", slot, err)
		}
		moved += fmt.Sprintf("%d: %s to %s; ", slot, w.serverName(from), w.serverName(to))
	}
	return moved, nil
}

func flushScripts(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	for _, n := range w.redis.primaries() {
		if _, err := n.Do("SCRIPT", "FLUSH"); err != nil {
			return "", err
		}
	}
	return "", nil
}

// fillMemory makes Redis refuse writes for a while.
func fillMemory(ctx context.Context, w *world, rng *rand.Rand) (string, error) {
	during := seconds(rng, 1, 8)
	full := w.redis.primaries()
	for _, n := range full {
		if _, err := n.Do("CONFIG", "SET", "maxmemory", "1mb"); err != nil {
			return "", err
		}
	}
	sleep(ctx, during)
	var failed error
	for _, n := range full {
		if _, err := n.Do("CONFIG", "SET", "maxmemory", "0"); err != nil {
			failed = err
		}
	}
	return fmt.Sprintf("for %v", during), failed
}
