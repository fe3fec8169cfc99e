package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

// wantUnread checks what a member of one room sees in its list of rooms.
func wantUnread(t testing.TB, s *redisstore.Store, room, user string, unread uint64, read protocol.ID) {
	t.Helper()
	rooms, _, _, err := s.Rooms(t.Context(), user, "", 10)
	must(t, err)
	if len(rooms) != 1 || rooms[0].Room.ID != room {
		t.Fatalf("%s is in %+v", user, rooms)
	}
	if r := rooms[0]; r.Unread != unread || r.Read != read || r.ReadN != r.Room.N-unread {
		t.Errorf("%s: %d unread after %v (%d of %d), want %d after %v", user, r.Unread, r.Read, r.ReadN, r.Room.N, unread, read)
	}
}

func TestWhoJoinsLateHasNothingUnread(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		alice, bob := name("alice"), name("bob")
		r := room(t, s, alice)
		var last chat.Sent
		say := func(times int) {
			for range times {
				last = send(t, s, r, alice, name("k"), "x")
			}
		}
		join := func() {
			t.Helper()
			_, err := s.PutMember(t.Context(), as(alice), r, bob, "")
			must(t, err)
		}
		say(3)
		join()
		joined := last.ID
		wantUnread(t, s, r, bob, 0, joined)
		say(2)
		wantUnread(t, s, r, bob, 2, joined)
		join() // again: nothing is read by that
		wantUnread(t, s, r, bob, 2, joined)
		read := last.ID
		must(t, s.MarkRead(t.Context(), bob, r, read))
		join()
		say(1)
		wantUnread(t, s, r, bob, 1, read)

		// Left and back: what was said meanwhile is not unread, what is said after is.
		must(t, s.RemoveMember(t.Context(), as(bob), r, bob))
		say(4)
		join()
		wantUnread(t, s, r, bob, 0, last.ID)
		back := last.ID
		say(1)
		wantUnread(t, s, r, bob, 1, back)
	})
}

func TestOnesOwnMessagesAreNotUnread(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		alice, bob := name("alice"), name("bob")
		r := room(t, s, alice, bob)
		hi := send(t, s, r, alice, name("k"), "hi")
		wantUnread(t, s, r, alice, 0, hi.ID)
		wantUnread(t, s, r, bob, 1, protocol.ID{})
		yo := send(t, s, r, bob, name("k"), "yo")
		wantUnread(t, s, r, bob, 0, yo.ID)
		wantUnread(t, s, r, alice, 1, hi.ID)
		must(t, s.MarkRead(t.Context(), bob, r, hi.ID)) // behind it
		wantUnread(t, s, r, bob, 0, yo.ID)

		// A back end that sends for a user who has no socket and no token at hand.
		by := chat.Actor{User: alice, Server: true}
		sent, err := s.Send(t.Context(), chat.Send{Room: r, By: by, Key: name("k"), Hash: "h", Tail: tail("x")})
		must(t, err)
		wantUnread(t, s, r, alice, 0, sent.ID)
		wantUnread(t, s, r, bob, 1, yo.ID)
		// One that is no member has no marker; it starts when it joins.
		bot := name("bot")
		sent, err = s.Send(t.Context(), chat.Send{Room: r, By: chat.Actor{User: bot, Server: true}, Key: name("k"), Hash: "h", Tail: tail("x")})
		must(t, err)
		wantUnread(t, s, r, bob, 2, yo.ID)
		sent = send(t, s, r, alice, name("k"), "more")
		_, err = s.PutMember(t.Context(), as(alice), r, bot, "")
		must(t, err)
		wantUnread(t, s, r, bot, 0, sent.ID)
	})
}

// Who opens a room sees what its receipts would have told.
func TestMembersSayHowFarTheyHaveRead(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		users := []string{name("a"), name("b"), name("c"), name("d")}
		r := room(t, s, users[0], users[1:]...)
		first := send(t, s, r, users[0], name("k"), "1")
		second := send(t, s, r, users[1], name("k"), "2")
		must(t, s.MarkRead(t.Context(), users[0], r, second.ID))
		_, errs := s.AdvanceMarkers(t.Context(), chat.DeliveredMarker, []chat.Marker{{User: users[2], Room: r, ID: first.ID, N: first.N}}, 100)
		must(t, errors.Join(errs...))
		members, _, err := s.Members(t.Context(), as(users[0]), r, "", 10)
		must(t, err)
		none := protocol.ID{}
		for i, want := range [][2]protocol.ID{{second.ID, second.ID}, {second.ID, second.ID}, {none, first.ID}, {none, none}} {
			if m := members[i]; m.User != users[i] || !m.Marked || m.Read != want[0] || m.Delivered != want[1] {
				t.Errorf("member %d: %+v, want %v", i, m, want)
			}
		}
		// What one had read goes with the membership.
		must(t, s.RemoveMember(t.Context(), as(users[2]), r, users[2]))
		members, _, err = s.Members(t.Context(), as(users[0]), r, "after:"+users[0], 2)
		if err != nil || len(members) != 2 || members[1].User != users[3] || !members[1].Marked {
			t.Fatalf("%+v, %v", members, err)
		}
	})
}

func TestMembersOfALargeRoomHaveNoMarkers(t *testing.T) {
	var pipelines atomic.Int32
	s := open(t, servers.url(t, "standalone"), func(o *redisstore.Options) {
		o.ReceiptMembers = 100
		o.Observer.Pipeline = func(string, int, time.Duration) { pipelines.Add(1) }
	})
	members := make([]string, 99)
	for i := range members {
		members[i] = name("u")
	}
	r := room(t, s, "alice", members...)
	pipelines.Store(0)
	got, _, err := s.Members(t.Context(), as("alice"), r, "", 1000)
	must(t, err)
	if len(got) != 100 || !got[99].Marked {
		t.Fatalf("%d members, %+v", len(got), got[len(got)-1])
	}
	if n := pipelines.Load(); n > 3 {
		t.Errorf("%d round trips for 100 members", n)
	}
	_, err = s.PutMember(t.Context(), as("alice"), r, name("u"), "")
	must(t, err)
	got, _, err = s.Members(t.Context(), as("alice"), r, "", 1000)
	if err != nil || len(got) != 101 || got[0].Marked {
		t.Fatalf("%d members, %+v, %v", len(got), got[0], err)
	}
}

// An API died between the two writes of a joining: whoever finishes it, and in
// whatever order, the marker starts where the member joined.
func TestAHalfDoneJoiningStartsAtTheSameMarker(t *testing.T) {
	redis := testkit.Redis(t)
	for _, retried := range []bool{false, true} {
		for _, read := range []bool{false, true} {
			if read && !retried {
				continue
			}
			t.Run(fmt.Sprintf("retried %v, read %v", retried, read), func(t *testing.T) {
				s := open(t, redis.URL())
				bob := name("bob")
				r := room(t, s, "alice")
				joined := send(t, s, r, "alice", name("k"), "before")
				_, err := s.PutMember(t.Context(), server, r, bob, "")
				must(t, err)
				// The user's side was not written, the outbox has it still.
				room := keysLike(t, redis, "*:room:"+r)
				do := func(command ...string) any {
					t.Helper()
					reply, err := redis.Do(command...)
					must(t, err)
					return reply
				}
				outbox := room[:len(room)-len("room:"+r)] + "outbox"
				do("DEL", keysLike(t, redis, "*:user:"+bob+":rooms"), outbox)
				version := fmt.Sprint(do("HGET", room, "ver"))
				entry := func() {
					do("XADD", outbox, "1-1", "r", r, "u", bob, "v", version, "h", joined.ID.String(), "op", "+", "n", fmt.Sprint(joined.N))
				}
				entry()
				last := send(t, s, r, "alice", name("k"), "after")
				if retried { // before the sweep, and by who does not find the entry
					do("DEL", outbox)
					_, err := s.PutMember(t.Context(), server, r, bob, "")
					must(t, err)
					wantUnread(t, s, r, bob, 0, last.ID) // there is a marker at once
					entry()
				}
				want, at := uint64(1), joined.ID
				if read {
					last = send(t, s, r, "alice", name("k"), "more")
					must(t, s.MarkRead(t.Context(), bob, r, last.ID))
					want, at = 0, last.ID
				}
				for again := range 2 { // two that sweep the same
					if again > 0 {
						do("DEL", outbox)
						entry()
					}
					if n, err := s.Sweep(t.Context()); n != 1 || err != nil {
						t.Fatalf("swept %d, %v", n, err)
					}
					wantUnread(t, s, r, bob, want, at)
				}
			})
		}
	}
}

// pass waits until a new message's ID is a later one, as after any failover.
func pass(t testing.TB, id protocol.ID) {
	t.Helper()
	soon(t, time.Second, "another millisecond", func() bool { return uint64(time.Now().UnixMilli()) > id.Ms })
}

// A room whose primary was lost goes on from what a replica had: its ordinals begin
// again there, with other messages. Who had read what was lost has not read those.
func TestWhatCameAfterALostTailIsUnread(t *testing.T) {
	server := testkit.Redis(t)
	s := open(t, server.URL())
	alice, bob := name("alice"), name("bob")
	r := room(t, s, alice, bob)
	e := listen(s)
	e.follow(t, roomCh(r), userCh(bob))
	say := func() chat.Sent { t.Helper(); return send(t, s, r, alice, name("k"), "x") }
	say()
	replica := map[string]string{}
	keys := server.Must(t, "KEYS", "*:room:"+r+"*")
	for _, key := range keys.([]any) {
		if strings.Contains(key.(string), ":idem:") {
			continue
		}
		dump := server.Must(t, "DUMP", key.(string))
		replica[key.(string)] = dump.(string)
	}
	say()
	lost := say()
	must(t, s.MarkRead(t.Context(), bob, r, lost.ID))
	markers := func(kind chat.MarkerKind, to chat.Sent, want chat.MarkerResult) {
		t.Helper()
		rs, errs := s.AdvanceMarkers(t.Context(), kind, []chat.Marker{{User: bob, Room: r, ID: to.ID, N: to.N}}, 10)
		if errs != nil || rs[0] != want {
			t.Errorf("the marker %d to %d: %v, %v", kind, to.N, rs, errs)
		}
	}
	markers(chat.DeliveredMarker, lost, chat.MarkerMoved)
	for key, dump := range replica {
		server.Must(t, "RESTORE", key, "0", dump, "REPLACE")
	}

	pass(t, lost.ID)
	wantList := func(unread uint64, read protocol.ID) {
		t.Helper()
		wantUnread(t, s, r, bob, unread, read)
	}
	first := say()
	if first.N != 2 {
		t.Fatalf("%+v after a lost tail", first)
	}
	wantList(1, lost.ID)
	second := say()
	wantList(2, lost.ID)
	before := len(e.heard(userCh(bob)))
	must(t, s.MarkRead(t.Context(), bob, r, first.ID))
	soon(t, 3*time.Second, "the receipt of what has the ordinal of a lost one", func() bool { return len(e.heard(userCh(bob))) > before })
	wantList(1, first.ID)
	markers(chat.DeliveredMarker, second, chat.MarkerMoved)
	markers(chat.ReadMarker, second, chat.MarkerMoved)
	markers(chat.ReadMarker, first, chat.MarkerBehind)
	wantList(0, second.ID)
}

// Likewise a room that is made again after its partition was lost: who joins it has
// read what was said before, and not as much as the old one had.
func TestWhoJoinsARoomThatIsMadeAgainStartsAtItsHead(t *testing.T) {
	server := testkit.Redis(t)
	s := open(t, server.URL())
	alice, bob := name("alice"), name("bob")
	r := room(t, s, alice, bob)
	var last chat.Sent
	say := func(times int) {
		for range times {
			last = send(t, s, r, alice, name("k"), "x")
		}
	}
	say(5)
	must(t, s.MarkRead(t.Context(), bob, r, last.ID))
	keys := server.Must(t, "KEYS", "*:room:"+r+"*")
	for _, key := range keys.([]any) {
		server.Must(t, "DEL", key.(string))
	}
	pass(t, last.ID)
	_, err := s.CreateRoom(t.Context(), as(alice), r, "", nil)
	must(t, err)
	say(3)
	_, err = s.PutMember(t.Context(), as(alice), r, bob, "")
	must(t, err)
	wantUnread(t, s, r, bob, 0, last.ID)
	joined := last.ID
	say(1)
	wantUnread(t, s, r, bob, 1, joined)
}
