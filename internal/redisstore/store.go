package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/madang-chat/madang/internal/chat"
)

// SchemaVersion moves when data of another version could be misread.
const SchemaVersion = 1

// Store is Redis as madang uses it. It is safe for concurrent use.
type Store struct {
	opt     Options
	id      string // of this process, on its canaries' channel for instance: new at each start
	target  target
	nodes   *nodes
	keys    *keyspace
	log     *slog.Logger
	publish any          // "PUBLISH", or "SPUBLISH" in a Cluster
	held    atomic.Int32 // senders that are held back
	arg     constants

	joins    sync.Pool
	schema   atomic.Bool // seen and right
	schemaMu sync.Mutex

	lanesMu sync.RWMutex
	lanes   map[laneKey]*lane

	feed   feed
	fleet  fleetView
	lists  roomLists
	opened time.Time

	ctx    context.Context // until Close
	cancel context.CancelFunc
	lifeMu sync.Mutex
	closed bool
	work   sync.WaitGroup
}

type laneKey struct {
	client *redis.Client
	kind   laneKind
}

// constants are arguments that never change, boxed once.
type constants struct {
	idemTTL, maxLen, maxAge, maxBytes, maxMembers any
}

var (
	_ chat.Store = (*Store)(nil)
	_ chat.Feed  = (*Store)(nil)
)

// Open checks the options and makes a Store. It does not talk to Redis: Check
// does, and every call does so first when nobody has.
func Open(o Options) (*Store, error) {
	t, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	s := &Store{
		opt: o, id: rand.Text(), target: t, log: o.Logger,
		nodes: openNodes(t, o), keys: newKeyspace(o.Partitions, t.db),
		publish: "PUBLISH", lanes: make(map[laneKey]*lane), opened: time.Now(),
		arg: constants{
			idemTTL: o.IdempotencyTTL.Milliseconds(), maxLen: o.MaxLen, maxAge: o.MaxAge.Milliseconds(), maxBytes: o.MaxBytes,
			maxMembers: o.MaxMembers,
		},
	}
	if t.kind == cluster {
		s.publish = "SPUBLISH"
	}
	s.joins.New = func() any { return newJoin() }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.feed.init(s)
	return s, nil
}

// Close ends everything the Store started. Calls under way get an error.
func (s *Store) Close() error {
	s.lifeMu.Lock()
	if s.closed {
		s.lifeMu.Unlock()
		return nil
	}
	s.closed = true
	s.lifeMu.Unlock()
	s.cancel()
	s.feed.stop()
	err := s.nodes.close() // ends what waits in a read
	s.work.Wait()
	return err
}

// begin says that a goroutine starts, unless the Store is closed; end that it ended.
func (s *Store) begin() bool {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	if s.closed {
		return false
	}
	s.work.Add(1)
	return true
}

func (s *Store) end() { s.work.Done() }

// lane is the lane to the primary that holds a key now.
func (s *Store) lane(ctx context.Context, kind laneKind, key string) (*lane, error) {
	client, err := s.nodes.primary(ctx, key)
	if err != nil {
		return nil, err
	}
	k := laneKey{client, kind}
	s.lanesMu.RLock()
	l := s.lanes[k]
	s.lanesMu.RUnlock()
	if l != nil {
		return l, nil
	}
	s.lanesMu.Lock()
	defer s.lanesMu.Unlock()
	if l = s.lanes[k]; l == nil {
		s.dropIdleLanes()
		l = &lane{s: s, client: client, kind: kind}
		s.lanes[k] = l
	}
	return l, nil
}

// dropIdleLanes forgets, when there are many, the lanes that carry nothing: their
// nodes may have left the Cluster. One that is needed again is made again.
func (s *Store) dropIdleLanes() {
	if len(s.lanes) < 256 {
		return
	}
	for k, l := range s.lanes {
		l.mu.Lock()
		idle := l.workers == 0
		l.mu.Unlock()
		if idle {
			delete(s.lanes, k)
		}
	}
}

// checked makes sure that the schema was looked at before anything is read or
// written: with another number of partitions everything would go wrong places.
func (s *Store) checked(ctx context.Context) error {
	if s.schema.Load() {
		return nil
	}
	s.schemaMu.Lock()
	defer s.schemaMu.Unlock()
	if s.schema.Load() {
		return nil
	}
	return s.Check(ctx)
}

var errNoAddresses = errors.New("redis: the Cluster does not tell its nodes' addresses: set its cluster-preferred-endpoint-type to ip or hostname")

// Check writes the schema to an empty Redis, or compares it: an ErrSchema says
// that the deployment was made with another version or number of partitions.
func (s *Store) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CommandTimeout)
	defer cancel()
	reply, err := s.nodes.client().Eval(ctx, schemaScript.text, []string{schemaKey}, SchemaVersion, s.opt.Partitions).Result()
	if err != nil {
		s.nodes.refresh(ctx)
		if errors.Is(err, redis.Nil) { // not of the script, but where go-redis reads an address
			return errNoAddresses
		}
		return forCaller(err)
	}
	v, err := list("schema", reply, 2)
	if err != nil {
		return err
	}
	found := &SchemaError{StoredVersion: text(v[0]), StoredPartitions: text(v[1]), Version: SchemaVersion, Partitions: s.opt.Partitions}
	if !found.fits() {
		s.schema.Store(false)
		return found
	}
	s.schema.Store(true)
	return nil
}

// Ready says whether Redis answers, is a primary, and its schema fits. In a Cluster it is
// enough, once the schema was seen, that any primary answers: rooms on the
// others are served.
func (s *Store) Ready(ctx context.Context) error {
	first := ctx
	if end, ok := ctx.Deadline(); ok { // a node that hangs leaves half of the time for the others
		var cancel context.CancelFunc
		first, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	err := s.Check(first)
	if err == nil && s.nodes.cluster == nil {
		// A primary that was demoted answers all of that, and takes nothing.
		if no := s.probe(first, s.keys.acked(0)); refusedWith(no, "READONLY") {
			s.nodes.refresh(ctx)
			return forCaller(no)
		}
	}
	if err == nil || errors.Is(err, ErrSchema) || !s.schema.Load() {
		return err
	}
	keys := make([]string, s.opt.Partitions)
	for part := range keys {
		keys[part] = s.keys.canary(part)
	}
	return forCaller(s.nodes.anyPrimary(ctx, keys, func(ctx context.Context, c *redis.Client) error {
		return c.Ping(ctx).Err()
	}))
}

func (s *Store) observeFailure(reason string) {
	if f := s.opt.Observer.CommandFailed; f != nil {
		f(reason)
	}
}
