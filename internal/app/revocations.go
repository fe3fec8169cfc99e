package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
)

const (
	// revocationsEvery is how late an API may hear of a disconnection. Less costs
	// Redis more reads: one for each API each time.
	revocationsEvery = 2 * time.Second
	// revocationsAgain is how far back each look goes behind the newest that is
	// known, and for how long: the times are of the clocks of all Redis nodes, and an
	// entry may be written some moments after its time.
	revocationsAgain = 5 * time.Minute
)

// revocations follows who is disconnected, so that an API refuses their tokens
// without asking Redis for each request.
type revocations struct {
	from    chat.Revoker
	revoked *auth.Revoked
	log     *slog.Logger
	rounds

	// Owned by start, then by the rounds. Times of disconnections are Unix ms.
	newest   uint64
	settled  uint64    // before it nothing is to come any more
	marked   uint64    // will be settled in a while
	markedAt time.Time // since when
}

func (r *revocations) asPart() part {
	return part{"revocations", r.start, func(context.Context) error { r.stop(); return nil }}
}

// start returns when all that were disconnected so far are known: a restart makes
// no revoked token good. Redis has answered before, so errors are rare and passing.
func (r *revocations) start(ctx context.Context) error {
	for {
		err := r.look(ctx)
		if err == nil {
			break
		}
		r.log.Warn("revocations cannot be read: waiting for them", "err", err)
		select {
		case <-time.After(revocationsEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.begin(ctx, revocationsEvery, func(ctx context.Context) {
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Debug("revocations cannot be read", "err", err) // Redis is away, and says so elsewhere
		}
	})
	return nil
}

// look reads what is new.
func (r *revocations) look(ctx context.Context) error {
	began := time.Now()
	// A clock that is ahead must not hide what others say meanwhile.
	known := min(r.newest, uint64(began.UnixMilli()))
	since := max(known-min(known, uint64(revocationsAgain.Milliseconds())), r.settled)
	for {
		list, full, err := r.from.Revocations(ctx, since)
		if err != nil {
			return err
		}
		for _, v := range list {
			r.revoked.Add(v.User, v.BeforeMs)
			r.newest = max(r.newest, v.BeforeMs)
		}
		if !full {
			r.settle(began, known)
			return nil
		}
		if last := list[len(list)-1].BeforeMs; last > since {
			since = last
		} else {
			since++ // a portion of one millisecond: no way to read the rest of it
		}
	}
}

// settle takes in what was the newest when a look began that read all: the looks of the
// next minutes find what is late behind it. Without that each look would read all that
// were disconnected shortly before the newest, until somebody else is: a hundred
// thousand at once, for good.
func (r *revocations) settle(began time.Time, known uint64) {
	if began.Sub(r.markedAt) >= revocationsAgain {
		r.settled, r.marked, r.markedAt = r.marked, known, began
	}
}
