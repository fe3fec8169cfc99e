package redisstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// Two deployments on one Redis, in databases of their own, have rooms and users
// of the same names. All that is said in one stays there.
func TestDatabasesDoNotHearEachOther(t *testing.T) {
	r := testkit.Redis(t)
	id, user := "yard", "alice"
	var ears []*ear
	for _, db := range []string{"/0", "/1"} {
		e := listen(open(t, strings.TrimSuffix(r.URL(), "/0")+db))
		e.follow(t, roomCh(id), userCh(user), presenceCh(user))
		ears = append(ears, e)
	}
	live := func(s *redisstore.Store) { // 1 event of each
		t.Helper()
		must(t, errors.Join(s.PublishLive(t.Context(), []chat.LiveEvent{{Room: id, Event: []byte("typing")}})...))
		must(t, s.Command(t.Context(), user, chat.Command{Do: chat.CommandFocus, Conn: "c"}))
		take(t, s, "g", chat.Seat{User: user, Seq: 1, Conns: 1})
	}
	for _, e := range ears {
		s := e.s
		_, err := s.CreateRoom(t.Context(), as(user), id, "", nil)
		must(t, err)
		_, err = s.PutMember(t.Context(), as(user), id, "bob", "")
		must(t, err)
		must(t, s.RemoveMember(t.Context(), as(user), id, "bob"))
		first, second := send(t, s, id, user, "k", "hi"), send(t, s, id, user, "k2", "ho")
		must(t, s.MarkRead(t.Context(), user, id, first.ID))
		_, errs := s.AdvanceMarkers(t.Context(), chat.ReadMarker, []chat.Marker{{User: user, Room: id, ID: second.ID, N: second.N}}, 100)
		must(t, errors.Join(errs...))
		_, err = s.Disconnect(t.Context(), user)
		must(t, err)
		live(s)
		leave(t, s, "g", chat.Seat{User: user, Seq: 2})
	}
	for db, e := range ears {
		live(e.s) // the last there is: what another database said came before it
		for ch, want := range map[chat.Channel]int{
			roomCh(id):       3 + 2 + 2 + 2, // memberships, messages, receipts, typing
			userCh(user):     1 + 2 + 1 + 2, // membership, markers, disconnection, commands
			presenceCh(user): 3,             // came, went, came
		} {
			soon(t, 10*time.Second, "its own events", func() bool { return len(e.heard(ch)) >= want })
			if got := e.heard(ch); len(got) != want {
				t.Errorf("database %d heard %d times of %v, want %d: %q", db, len(got), ch, want, got)
			}
		}
	}
	for _, e := range ears {
		e.wantHealthy(t, 10*time.Second)
	}
}
