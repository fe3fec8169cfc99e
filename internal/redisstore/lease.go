package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/madang-chat/madang/internal/chat"
)

const (
	// leaseTTL cleans up: observers judge by the counter. It is longer than
	// they take to judge, so that a gateway they have not judged still has one.
	leaseTTL = 30 * time.Second
	// deadTTL is how long a dead gateway is remembered, so that it learns of it
	// when it wakes up.
	deadTTL = time.Hour
	// lookEvery is how old the API's view of the leases may be.
	lookEvery = time.Second
)

var (
	renewScript   = redis.NewScript(loadScript("renew").text)
	declareScript = redis.NewScript(loadScript("declare").text)
	probeScript   = redis.NewScript(loadScript("probe").text)
)

// client is for the keys that are in no partition: the fleet's, the schema, whose turn it
// is to sweep. They are few, and touched once a second: they go through the client itself
// and not through lanes.
func (n *nodes) client() redis.UniversalClient {
	if n.cluster != nil {
		return n.cluster
	}
	return n.single
}

// leaseCtx bounds a call on the fleet's keys.
func (s *Store) leaseCtx(ctx context.Context) (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CommandTimeout)
	if err := s.checked(ctx); err != nil {
		cancel()
		return nil, nil, err
	}
	return ctx, cancel, nil
}

// RenewLease implements chat.Seats.
func (s *Store) RenewLease(ctx context.Context, l chat.Lease) error {
	ctx, cancel, err := s.leaseCtx(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	client := s.nodes.client()
	// First the fleet: a gateway that has a lease and is not in it is nobody's to
	// announce.
	if err := client.SAdd(ctx, gatewaysKey, l.Gateway).Err(); err != nil {
		return forCaller(err)
	}
	value := fmt.Sprintf("%d %d %s", l.Counter, l.Conns, l.Addr)
	if l.Leaving {
		value += leavingMark
	}
	reply, err := renewScript.Run(ctx, client, []string{s.keys.lease(l.Gateway)}, value, leaseTTL.Milliseconds()).Result()
	if err != nil {
		return forCaller(err)
	}
	if reply == "DEAD" {
		return chat.ErrDeclaredDead
	}
	return nil
}

// Leases implements chat.Seats.
func (s *Store) Leases(ctx context.Context) ([]chat.Lease, error) { return s.readLeases(ctx, false) }

// readLeases reads the fleet, with the leases' ages when they are wanted.
func (s *Store) readLeases(ctx context.Context, ages bool) ([]chat.Lease, error) {
	ctx, cancel, err := s.leaseCtx(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	client := s.nodes.client()
	ids, err := client.SMembers(ctx, gatewaysKey).Result()
	if err != nil || len(ids) == 0 {
		return nil, forCaller(err)
	}
	slices.Sort(ids)
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = s.keys.lease(id)
	}
	values, err := s.getAll(ctx, keys)
	if err != nil {
		return nil, forCaller(err)
	}
	leases := make([]chat.Lease, len(ids))
	for i, id := range ids {
		leases[i] = parseLease(id, values[i])
	}
	if !ages {
		return leases, nil
	}
	pipe := client.Pipeline()
	ttls := make([]*redis.DurationCmd, len(ids))
	for i := range ids {
		ttls[i] = pipe.PTTL(ctx, keys[i])
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, forCaller(err)
	}
	for i := range leases {
		if ttl := ttls[i].Val(); ttl > 0 {
			leases[i].AgeMs = max(0, leaseTTL-ttl).Milliseconds()
		}
	}
	return leases, nil
}

// getAll reads strings; what is not there is "". Every gateway does this every
// second, so it is one command where the keys may be in one.
func (s *Store) getAll(ctx context.Context, keys []string) ([]string, error) {
	values := make([]string, len(keys))
	if s.nodes.cluster == nil {
		found, err := s.nodes.single.MGet(ctx, keys...).Result()
		for i, v := range found {
			values[i], _ = v.(string)
		}
		return values, err
	}
	pipe := s.nodes.cluster.Pipeline()
	gets := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		gets[i] = pipe.Get(ctx, key)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	for i, get := range gets {
		v, err := get.Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// leavingMark ends the lease of a gateway that drains.
const leavingMark = " leaving"

// parseLease reads "counter connections address", and " leaving" perhaps. What is no lease, because it is
// gone or says "dead", has no counter.
func parseLease(id, value string) chat.Lease {
	l := chat.Lease{Gateway: id}
	counter, rest, _ := strings.Cut(value, " ")
	conns, addr, _ := strings.Cut(rest, " ")
	var err error
	if l.Counter, err = strconv.ParseUint(counter, 10, 64); err != nil {
		return l
	}
	l.Conns, _ = strconv.Atoi(conns)
	l.Addr, l.Leaving = strings.CutSuffix(addr, leavingMark)
	return l
}

// DeclareDead implements chat.Seats.
func (s *Store) DeclareDead(ctx context.Context, seen chat.Lease) (bool, error) {
	ctx, cancel, err := s.leaseCtx(ctx)
	if err != nil {
		return false, err
	}
	defer cancel()
	n, err := declareScript.Run(ctx, s.nodes.client(), []string{s.keys.lease(seen.Gateway)},
		strconv.FormatUint(seen.Counter, 10), deadTTL.Milliseconds()).Int()
	return n == 1, forCaller(err)
}

// forgetLease takes a gateway whose users are announced out of the fleet. Its
// lease stays and says "dead".
func (s *Store) forgetLease(ctx context.Context, gateway string) error {
	ctx, cancel, err := s.leaseCtx(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	return forCaller(s.nodes.client().SRem(ctx, gatewaysKey, gateway).Err())
}

// fleetView is what an API knows of the leases: a look a second from the first
// time that it is asked, so that it judges as gateways do.
type fleetView struct {
	turn  sync.Mutex // held while somebody looks
	judge chat.Fleet // guarded by turn

	mu      sync.Mutex
	looking bool            // the goroutine runs; guarded by mu, as all below
	lives   map[string]bool // by gateway, at the last look that told
	err     error           // of the last look
}

// seeFleet makes sure that there is a view of the leases.
func (s *Store) seeFleet() error {
	f := &s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.looking {
		if !s.begin() {
			return errClosed
		}
		f.looking = true
		go s.watchFleet()
		f.mu.Unlock()
		s.look()
		f.mu.Lock()
	}
	return f.err
}

// look reads the leases. What is seen is everybody's, so whoever asked may have gone
// meanwhile; and whoever goes by the look before does not wait for this one.
func (s *Store) look() {
	f := &s.fleet
	f.turn.Lock()
	defer f.turn.Unlock()
	leases, err := s.readLeases(s.ctx, true)
	if err != nil {
		f.judge.Missed()
		f.mu.Lock()
		f.err = err
		f.mu.Unlock()
		return
	}
	f.judge.TrustAge = true
	f.judge.Look(time.Since(s.opened).Milliseconds(), leases)
	for _, l := range f.judge.Dead() {
		// Of a Redis that answers and takes no writes nobody can renew a lease.
		if err := s.probe(s.ctx, s.keys.lease(l.Gateway)); err != nil {
			f.judge.Spare(l.Gateway)
		}
	}
	lives := make(map[string]bool, len(leases))
	for _, l := range leases {
		lives[l.Gateway] = f.judge.Lives(l.Gateway)
	}
	f.mu.Lock()
	f.lives, f.err = lives, nil
	f.mu.Unlock()
}

// probe says why a key can't be written. It changes nothing.
func (s *Store) probe(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CommandTimeout)
	defer cancel()
	return probeScript.Run(ctx, s.nodes.client(), []string{key}).Err()
}

func (s *Store) watchFleet() {
	defer s.end()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
			s.look()
		}
	}
}

// lives says whether a gateway that holds a seat is alive. One that nobody has
// seen yet may be new, and is looked at.
func (s *Store) lives(gateway string) (bool, error) {
	f := &s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	lives, seen := f.lives[gateway]
	if !seen {
		f.mu.Unlock()
		s.look()
		f.mu.Lock()
		if f.err != nil {
			return false, f.err
		}
		lives = f.lives[gateway]
	}
	return lives, nil
}
