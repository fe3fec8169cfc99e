package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/metrics"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/trace"
)

// process is what every role has: its log, what it tells operators, and Redis.
type process struct {
	log      *slog.Logger
	registry *prometheus.Registry
	ready    *readiness
	admin    *admin
	store    *redisstore.Store
	tokens   *tokens
	tracer   *trace.Tracer // nil: off
	redis    string        // where Redis is, without the password

	drainDelay time.Duration
	checks     []check
	also       []part // what a role needs besides its own
}

// check is something that is asked whenever somebody asks for readiness: it
// answers why not, or "".
type check struct {
	name string
	why  func(ctx context.Context) string
}

// readyCheckTimeout is less than a balancer's usual time-out for a health check.
const readyCheckTimeout = time.Second

// notReady is what /readyz tells.
func (s *process) notReady(ctx context.Context) []string {
	reasons := s.ready.list()
	if len(reasons) > 0 {
		return reasons // it is starting or stopping: no need to ask
	}
	ctx, cancel := context.WithTimeout(ctx, readyCheckTimeout)
	defer cancel()
	for _, c := range s.checks {
		if why := c.why(ctx); why != "" {
			reasons = append(reasons, c.name+": "+why)
		}
	}
	return reasons
}

func (s *process) redisAnswers(ctx context.Context) string {
	if err := s.store.Ready(ctx); err != nil {
		return err.Error()
	}
	return ""
}

// limits are what an API tells the store of rooms. A gateway tells it receipts' alone.
func limits(h config.HTTP, r config.Receipts) redisstore.Options {
	return redisstore.Options{
		IdempotencyTTL: h.IdempotencyWindow, MaxLen: h.LogMaxLen, MaxAge: h.LogMaxAge, MaxBytes: int64(h.LogMaxBytes),
		MaxMembers: h.MaxRoomMembers, MaxRooms: h.MaxUserRooms, ReceiptMembers: r.ReceiptMembers,
	}
}

// newProcess makes a process whose store has the limits of o.
func newProcess(role string, p config.Process, r config.Redis, a config.Auth, tokens int, o redisstore.Options, log *slog.Logger) (*process, error) {
	url, err := r.Where()
	if err != nil {
		return nil, err
	}
	s := &process{
		log:      log,
		registry: metrics.NewRegistry(Version()),
		ready:    &readiness{},
		tracer:   newTracer(p, role, log),
		redis:    config.Shown(url),

		drainDelay: p.DrainDelay,
	}
	if s.tokens, err = newTokens(a, tokens, log); err != nil {
		return nil, err
	}
	o.URL, o.TLS, o.Partitions = url, r.TLS, r.Partitions
	o.MinReplicasAck, o.AckTimeout, o.CommandTimeout = r.MinReplicasAck, r.ReplicaTimeout, r.RedisTimeout
	o.Logger, o.Observer = log, metrics.NewRedis(s.registry).Observer()
	if s.store, err = redisstore.Open(o); err != nil {
		return nil, fmt.Errorf("--redis: %w", err)
	}
	s.checks = []check{{"redis", s.redisAnswers}, {"jwks", s.tokens.notReady}}
	metrics.WatchLog(s.registry, func() (uint64, uint64) { return lost(log), leftOut(log) })
	metrics.WatchTraces(s.registry, func() (exported, queueFull, refused uint64) {
		st := s.tracer.Stats()
		return st.Exported, st.QueueFull, st.Refused
	})
	metrics.WatchPool(s.registry, s.store.Pool)
	metrics.WatchReady(s.registry, func() bool { return len(s.notReady(context.Background())) == 0 })
	s.admin = newAdmin(p.AdminAddr, log, s.registry, s.notReady)
	return s, nil
}

// letBalancersNotice waits, after readiness became false, as long as a balancer
// may still send newcomers here: they are served as before.
func (s *process) letBalancersNotice(ctx context.Context) {
	if s.drainDelay <= 0 {
		return
	}
	s.log.Info("not ready from now on: waiting for the balancer to notice", "for", s.drainDelay)
	select {
	case <-time.After(s.drainDelay):
	case <-ctx.Done():
	}
}

// parts are the process's own, to be started before the role's.
func (s *process) parts() []part {
	parts := []part{
		{"admin server", s.admin.start, s.admin.stop},
		{"traces", s.tracer.Start, s.tracer.Stop},
		{"issuer's keys", s.tokens.start, s.tokens.stop},
		{"redis", s.waitForRedis, func(context.Context) error { return s.store.Close() }},
	}
	return append(parts, s.also...)
}

// How often Redis is asked while it does not answer, and how often it is told.
const (
	redisRetryFirst = 250 * time.Millisecond
	redisRetryMost  = 5 * time.Second
)

// waitForRedis returns when Redis answers and holds what this process expects.
// What does not fit does not get better by waiting.
func (s *process) waitForRedis(ctx context.Context) error {
	s.ready.set("redis", "it has not answered yet")
	wait := redisRetryFirst
	for attempt := 1; ; attempt++ {
		err := s.store.Check(ctx)
		if err == nil {
			if attempt > 1 {
				s.log.Info("Redis can be used", "redis", s.redis)
			}
			s.ready.set("redis", "")
			return nil
		}
		if errors.Is(err, redisstore.ErrSchema) {
			return fmt.Errorf("%s: %w", s.redis, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.Warn("Redis cannot be used yet: waiting for it", "redis", s.redis, "err", err, "again_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, redisRetryMost)
	}
}
