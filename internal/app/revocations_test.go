package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
)

// revoker has a list of its own, and tells two at a time.
type revoker struct {
	mu   sync.Mutex
	list []chat.Revocation // oldest first
	fail int               // so many calls first
	told int               // so many, all calls together
}

func (r *revoker) Disconnect(context.Context, string) (uint64, error) { panic("nobody asked") }

func (r *revoker) Revocations(_ context.Context, since uint64) (list []chat.Revocation, full bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail > 0 {
		r.fail--
		return nil, false, errors.New("redis is away")
	}
	for _, v := range r.list {
		if v.BeforeMs >= since && len(list) < 2 {
			list = append(list, v)
		}
	}
	r.told += len(list)
	return list, len(list) == 2, nil
}

// holder has the token of a user that is an hour old.
type holder string

func (h holder) Verify(string) (auth.Claims, error) {
	return auth.Claims{User: string(h), IssuedAt: time.Now().Add(-time.Hour).Unix()}, nil
}

func TestRevocationsAreKnownBeforeTheFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := uint64(time.Now().UnixMilli())
		ahead := now + uint64(time.Hour.Milliseconds()) // by the clock of one of Redis's nodes
		from := &revoker{fail: 1, list: []chat.Revocation{
			{User: "a", BeforeMs: now - 3}, {User: "b", BeforeMs: now - 2}, {User: "c", BeforeMs: now - 1}, {User: "d", BeforeMs: now}, {User: "e", BeforeMs: ahead},
		}}
		r := &revocations{from: from, revoked: &auth.Revoked{}, log: slog.New(slog.DiscardHandler)}
		good := func(user string) bool {
			_, err := r.revoked.Unless(holder(user)).Verify("")
			return !errors.Is(err, auth.ErrRevoked)
		}
		if err := r.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, v := range from.list {
			if good(v.User) {
				t.Errorf("%s's token is good", v.User)
			}
		}
		// The node's clock hides nobody who is disconnected by the others'.
		from.mu.Lock()
		from.list = slices.Insert(from.list, 4, chat.Revocation{User: "f", BeforeMs: now + 1})
		from.mu.Unlock()
		if !good("f") {
			t.Error("f is known before the next look")
		}
		time.Sleep(revocationsEvery)
		synctest.Wait()
		if good("f") {
			t.Error("f's token is good")
		}
		if !good("g") {
			t.Error("the token of somebody else is no good")
		}
		r.stop()
	})
}

// Many who were disconnected at once are read again for some minutes, as one of them
// may be late, and not as long as nobody else is.
func TestRevocationsAreNotReadAgainForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := uint64(time.Now().UnixMilli())
		from := &revoker{}
		for i := range uint64(100) {
			from.list = append(from.list, chat.Revocation{User: "a", BeforeMs: now - 200 + i})
		}
		r := &revocations{from: from, revoked: &auth.Revoked{}, log: slog.New(slog.DiscardHandler)}
		if err := r.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer r.stop()
		revoked := func(user string, beforeMs uint64, at int) bool {
			from.mu.Lock()
			from.list = slices.Insert(from.list, at, chat.Revocation{User: user, BeforeMs: beforeMs})
			from.mu.Unlock()
			time.Sleep(revocationsEvery)
			synctest.Wait()
			_, err := r.revoked.Unless(holder(user)).Verify("")
			return errors.Is(err, auth.ErrRevoked)
		}
		time.Sleep(revocationsAgain - 2*revocationsEvery)
		if !revoked("late", from.list[0].BeforeMs, 0) {
			t.Error("one that came late was not found")
		}
		time.Sleep(revocationsAgain + 2*revocationsEvery)
		synctest.Wait()
		told := func() int {
			from.mu.Lock()
			defer from.mu.Unlock()
			return from.told
		}
		before := told()
		time.Sleep(time.Minute)
		synctest.Wait()
		if looks, again := int(time.Minute/revocationsEvery), told()-before; again > 2*looks {
			t.Errorf("%d looks read %d again", looks, again)
		}
		// By the clock of a node that is behind.
		if !revoked("next", uint64(time.Now().Add(-4*time.Minute).UnixMilli()), len(from.list)) {
			t.Error("the next one was not found")
		}
	})
}
