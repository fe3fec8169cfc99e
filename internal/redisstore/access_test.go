package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/testkit"
)

func TestPasswordsAreUsed(t *testing.T) {
	r := testkit.Redis(t)
	for _, cmd := range [][]string{
		{"ACL", "SETUSER", "madang", "on", ">p@ss", "~*", "&*", "+@all"},
		{"CONFIG", "SET", "requirepass", "secret"},
	} {
		_, err := r.Do(cmd...)
		must(t, err)
	}
	for login, want := range map[string]bool{":secret@": true, "madang:p%40ss@": true, "": false, ":wrong@": false} {
		s := open(t, fmt.Sprintf("redis://%s%s", login, r.Addr()))
		e := listen(s)
		if !want {
			if err := s.Ready(t.Context()); err == nil {
				t.Errorf("ready with %q", login)
			} else if strings.Contains(err.Error(), ":wrong") {
				t.Errorf("the password is told: %v", err)
			}
			continue
		}
		must(t, s.Ready(t.Context()))
		e.wantHealthy(t, 5*time.Second)
	}
}

// A server that does not let the store in any more, because the password was changed
// there or a replica without it was promoted, has answered nothing: neither that there
// are no rooms, nor that something was written.
func TestWhoIsNotLetInHasNoAnswer(t *testing.T) {
	r := testkit.Redis(t)
	r.Must(t, "ACL", "SETUSER", "madang", "on", ">one", "~*", "&*", "+@all")
	s := open(t, strings.Replace(r.URL(), "redis://", "redis://madang:one@", 1))
	id := room(t, s, "alice")
	send(t, s, id, "alice", "k", "x")
	r.Must(t, "ACL", "SETUSER", "madang", "resetpass", ">two")
	r.Must(t, "CLIENT", "KILL", "USER", "madang")

	in := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	_, errs := s.ReadRooms(in(), []chat.RoomQuery{{Room: id, Users: []string{"alice"}}})
	wantErr(t, errors.Join(errs...), chat.ErrUnavailable)
	_, errs = s.ReadLogs(in(), []chat.LogQuery{{Room: id, Limit: 10}})
	wantErr(t, errors.Join(errs...), chat.ErrUnavailable)
	_, err := trySend(s, id, "k2", 200*time.Millisecond)
	wantErr(t, err, chat.ErrUnavailable)
	_, err = s.IssueTicket(in(), chat.Ticket{User: "alice"}, time.Minute)
	wantErr(t, err, chat.ErrUnavailable)
	_, err = s.RedeemTicket(in(), "ticket")
	wantErr(t, err, chat.ErrUnavailable)
	wantErr(t, s.Retain(in(), id, chat.Retention{}), chat.ErrUnavailable)

	r.Must(t, "ACL", "SETUSER", "madang", "resetpass", ">one")
	states, errs := s.ReadRooms(t.Context(), []chat.RoomQuery{{Room: id, Users: []string{"alice"}}})
	if errs != nil || !states[0].Exists || !states[0].Member[0] || states[0].N != 1 {
		t.Fatalf("%+v %v", states, errs)
	}
}
