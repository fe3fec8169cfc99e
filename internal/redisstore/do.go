package redisstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// patience is how long calls are repeated at a node that does not answer at all:
// a restart fits into it. After that they fail at their first attempt, so that
// callers learn in milliseconds, not at their deadlines, that Redis is away.
const patience = time.Second

// do runs one call to its answer. Scripts change nothing when they run again, so
// it repeats what was refused or may be lost, until ctx's deadline.
func (s *Store) do(ctx context.Context, kind laneKind, c *call) (any, error) {
	j := s.joins.Get().(*join)
	if s.run(ctx, kind, []*call{c}, j) {
		s.joins.Put(j)
	} // else it may still be told, and is not to be used again
	return c.result()
}

// doAll runs calls to their answers; each has a result of its own. A call that
// does not end in time does not take the others' answers with it.
func (s *Store) doAll(ctx context.Context, kind laneKind, calls []*call) {
	// In portions that a lane's queue takes, so that a big read is no overflow.
	portion := max(1, s.opt.MaxQueued/2)
	for len(calls) > 0 {
		n := min(len(calls), portion)
		if !s.run(ctx, kind, calls[:n], newJoin()) {
			return
		}
		calls = calls[n:]
	}
}

// run submits calls to their nodes' lanes and repeats those that deserve it.
// False means that it gave up waiting.
func (s *Store) run(ctx context.Context, kind laneKind, calls []*call, j *join) bool {
	if err := s.checked(ctx); err != nil {
		for _, c := range calls {
			c.finish(nil, err)
		}
		return true
	}
	deadline, ok := ctx.Deadline()
	var giveUp <-chan time.Time
	if !ok {
		deadline = time.Now().Add(s.opt.CommandTimeout)
		timer := time.NewTimer(s.opt.CommandTimeout + s.opt.ackTime())
		defer timer.Stop()
		giveUp = timer.C
	}
	for attempt := 0; ; attempt++ {
		j.left.Store(int32(len(calls)))
		s.submit(ctx, kind, calls, j, deadline)
		select {
		case <-j.done:
		case <-ctx.Done():
			return false
		case <-giveUp:
			return false
		}
		if calls = s.toRepeat(ctx, kind, calls); len(calls) == 0 {
			return true
		}
		s.nodes.refresh(ctx)
		if !s.pause(ctx, attempt, deadline) {
			return true // the last errors stand
		}
	}
}

// submit gives calls to their nodes' lanes, each node's together.
func (s *Store) submit(ctx context.Context, kind laneKind, calls []*call, j *join, deadline time.Time) {
	for _, c := range calls {
		c.join, c.deadline = j, deadline
		c.state.Store(callPending)
	}
	var batches map[*lane][]*call // made only when there is more than one
	for _, c := range calls {
		l, err := s.lane(ctx, kind, s.keys.prefix[c.part])
		switch {
		case err != nil:
			c.finish(nil, err)
		case len(calls) == 1:
			l.carry(c)
		default:
			if batches == nil {
				batches = make(map[*lane][]*call)
			}
			batches[l] = append(batches[l], c)
		}
	}
	for l, batch := range batches {
		l.submit(batch...)
	}
}

// pause waits before another attempt, unless that would be too late.
func (s *Store) pause(ctx context.Context, attempt int, deadline time.Time) bool {
	longest := min(10*time.Millisecond<<min(attempt, 5), 200*time.Millisecond)
	pause := 5*time.Millisecond + rand.N(longest)
	if time.Until(deadline) <= pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
	case <-ctx.Done():
	}
	return false
}

// toRepeat picks the calls whose errors may be gone in a moment.
func (s *Store) toRepeat(ctx context.Context, kind laneKind, calls []*call) (again []*call) {
	for _, c := range calls {
		if c.err == nil || c.err == errOverflow || c.err == errClosed || c.err == errDeadline {
			continue
		}
		switch what := classify(c.err); what {
		case moved, noScript:
		case unreachable, broken:
			if what == broken && c.once {
				continue
			}
			if l, err := s.lane(ctx, kind, s.keys.prefix[c.part]); err == nil && l.failingFor() > patience {
				continue
			}
		default:
			continue
		}
		again = append(again, c)
	}
	return again
}

// newCall makes a call of a script. Its first key is in partition part.
func newCall(part int, sc *script, keys []string, args ...any) *call {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, sc.argName, sc.argSHA, len(keys))
	for i := range keys {
		all = append(all, &keys[i]) // a pointer needs no allocation of its own
	}
	return &call{part: part, script: sc, args: append(all, args...)}
}

// newCommand makes a call of a plain command.
func newCommand(part int, args ...any) *call {
	return &call{part: part, args: args}
}

// list is a reply that must be a list of at least n.
func list(what string, reply any, n int) ([]any, error) {
	v, ok := reply.([]any)
	if !ok || len(v) < n {
		return nil, errReply(what, reply)
	}
	return v, nil
}

// text is a reply's string; nil is the empty one.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}
