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
