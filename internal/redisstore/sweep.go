package redisstore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/madang-chat/madang/protocol"
)

const (
	// sweepEvery is how often outboxes are looked at, by one process of all.
	sweepEvery = 2 * time.Second
	// sweepAge is how old an entry must be: a younger one is its writer's.
	sweepAge = 2 * time.Second
	// sweepPage is how many entries of a partition are taken at a time, so that a
	// long outage is worked off without holding Redis up.
	sweepPage = 100
)

// RunSweeper finishes the membership changes whose writers died half-way, until
// ctx ends. Every API runs it; one at a time does the work.
func (s *Store) RunSweeper(ctx context.Context) {
	for {
		timer := time.NewTimer(sweepEvery + rand.N(sweepEvery/4))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if s.sweepIsMine(ctx) {
			if _, err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("sweeping the outboxes", "error", err)
			}
		}
	}
}

// sweepIsMine takes or keeps the turn to sweep.
func (s *Store) sweepIsMine(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CommandTimeout)
	defer cancel()
	client := s.nodes.client()
	taken, err := client.SetNX(ctx, sweeperKey, s.id, 2*sweepEvery).Result()
	if err != nil || taken {
		return err == nil
	}
	holder, err := client.Get(ctx, sweeperKey).Result()
	return err == nil && holder == s.id && client.PExpire(ctx, sweeperKey, 2*sweepEvery).Err() == nil
}

// Sweep looks through all outboxes once and says how many entries it tried. An
// entry that can't be finished now, because its user's primary is away, stays and
// holds up no other.
func (s *Store) Sweep(ctx context.Context) (swept int, err error) {
	calls := make([]*call, s.opt.Partitions)
	for part := range calls {
		calls[part] = s.newOutboxCall(part, "-")
	}
	for len(calls) > 0 && ctx.Err() == nil {
		n, next, pageErr := s.sweepPages(ctx, calls)
		swept += n
		if pageErr != nil {
			err = pageErr
		}
		calls = next
	}
	return swept, err
}

func (s *Store) newOutboxCall(part int, from string) *call {
	return newCall(part, outboxScript, []string{s.keys.outbox(part)}, sweepAge.Milliseconds(), sweepPage, from)
}

// sweepPages works off a page of some outboxes; next are the calls for those that
// have more.
func (s *Store) sweepPages(ctx context.Context, calls []*call) (swept int, next []*call, err error) {
	s.doAll(ctx, reads, calls)
	for _, c := range calls {
		part := c.part
		reply, callErr := c.result()
		if callErr != nil {
			err = callErr
			continue
		}
		entries, _ := reply.([]any)
		if len(entries) == 0 {
			continue
		}
		changes := make([]change, 0, len(entries))
		for _, e := range entries {
			ch, err := parseOutbox(part, e)
			if err != nil {
				// What can't be read will never be: it must not stand before the others.
				s.log.Error("outbox entry dropped", "partition", part, "error", err)
				if ch.entry != "" {
					_, _ = s.do(ctx, writes, newCommand(part, "xdel", s.keys.outbox(part), ch.entry))
				}
				continue
			}
			changes = append(changes, ch)
		}
		_ = s.writeIndex(ctx, changes)
		swept += len(changes)
		if last, err := list("outbox entry", entries[len(entries)-1], 2); err == nil && len(entries) == sweepPage {
			next = append(next, s.newOutboxCall(part, "("+text(last[0])))
		}
	}
	return swept, next, err
}

// parseOutbox reads {id, {"r", room, "u", user, "v", version, "h", head, "op", op,
// "n", n}}; "n" only of who joined.
func parseOutbox(part int, e any) (ch change, err error) {
	pair, err := list("outbox entry", e, 2)
	if err != nil {
		return ch, err
	}
	ch.part, ch.entry = part, text(pair[0])
	f, err := list("outbox entry", pair[1], 10)
	if err != nil {
		return ch, err
	}
	ch.room, ch.user, ch.joined = text(f[1]), text(f[3]), text(f[9]) == "+"
	if ch.version, err = parseUint(text(f[5])); err != nil {
		return ch, err
	}
	if len(f) >= 12 {
		if ch.n, err = parseUint(text(f[11])); err != nil {
			return ch, err
		}
	}
	ch.head, err = protocol.ParseID(text(f[7]))
	return ch, err
}
