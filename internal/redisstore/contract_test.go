package redisstore_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func TestMessagesFormAChain(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice", "bob")
		e := listen(s)
		e.follow(t, roomCh(r))
		var want []string
		var prev protocol.ID
		for i := range 20 {
			sent := send(t, s, r, "bob", name("k"), fmt.Sprintf("hi %d é \" \\ \x01", i))
			if sent.Prev != prev || sent.N != uint64(i+1) || !prev.Less(sent.ID) || sent.Replayed || sent.Durability != chat.Accepted {
				t.Fatalf("send %d after %v: %+v", i, prev, sent)
			}
			prev = sent.ID
			want = append(want, string(protocol.AppendMessage(nil, r, sent.ID, sent.Prev, sent.N, sent.Tail)))
		}
		e.wantEvents(t, roomCh(r), want...)
	})
}

func TestConcurrentSendsFormOneChain(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		const senders, each = 20, 25
		var mu sync.Mutex
		byPrev := map[protocol.ID]chat.Sent{}
		var wg sync.WaitGroup
		for range senders {
			wg.Go(func() {
				for range each {
					sent, err := s.Send(background, chat.Send{Room: r, By: as("alice"), Key: name("k"), Hash: "h", Tail: tail("x")})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					byPrev[sent.Prev] = sent
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		var at protocol.ID
		for n := uint64(1); n <= senders*each; n++ {
			sent, ok := byPrev[at]
			if !ok || sent.N != n || !at.Less(sent.ID) {
				t.Fatalf("the chain ends after %v (%d): %+v", at, n, sent)
			}
			at = sent.ID
		}
		pages, errs := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: r, Limit: 10_000}})
		if errs != nil || len(pages[0].Entries) != senders*each || pages[0].Head != at || pages[0].N != senders*each {
			t.Fatalf("log: %v, %d entries, head %v", errs, len(pages[0].Entries), pages[0].Head)
		}
	})
}

func TestSameKeySameAnswer(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice", "bob")
		e := listen(s)
		e.follow(t, roomCh(r))
		first := send(t, s, r, "bob", "key 1:{x}", "hello")
		send(t, s, r, "alice", "key 1:{x}", "another's key of the same name")
		again, err := s.Send(t.Context(), chat.Send{Room: r, By: as("bob"), Key: "key 1:{x}", Hash: "hello", Tail: tail("changed")})
		must(t, err)
		if !again.Replayed || again.ID != first.ID || again.Prev != first.Prev || again.N != first.N || string(again.Tail) != string(first.Tail) {
			t.Fatalf("first %+v, again %+v", first, again)
		}
		_, err = s.Send(t.Context(), chat.Send{Room: r, By: as("bob"), Key: "key 1:{x}", Hash: "other body", Tail: tail("y")})
		wantErr(t, err, chat.ErrKeyReused)

		// S1: nor do limits stand before it. A new message they do.
		again, err = s.Send(t.Context(), chat.Send{Room: r, By: as("bob"), Key: "key 1:{x}", Hash: "hello", Tail: tail("hello"), ReplayOnly: true})
		if err != nil || !again.Replayed || again.ID != first.ID {
			t.Fatalf("over the limit: %+v, %v", again, err)
		}
		_, err = s.Send(t.Context(), chat.Send{Room: r, By: as("bob"), Key: "new", Hash: "hello", Tail: tail("hello"), ReplayOnly: true})
		wantErr(t, err, chat.ErrLimited)

		// S1: a retry of what was accepted is answered even after its sender left.
		must(t, s.RemoveMember(t.Context(), as("bob"), r, "bob"))
		again, err = s.Send(t.Context(), chat.Send{Room: r, By: as("bob"), Key: "key 1:{x}", Hash: "hello", Tail: tail("hello")})
		if err != nil || !again.Replayed || again.ID != first.ID {
			t.Fatalf("after leaving: %+v, %v", again, err)
		}
		_, err = s.Send(t.Context(), chat.Send{Room: r, By: as("bob"), Key: "key 2", Hash: "hello", Tail: tail("hello")})
		wantErr(t, err, chat.ErrNotMember)
		if n := len(e.heard(roomCh(r))); n > 3 { // two messages, one left
			t.Fatalf("%d events", n)
		}
	})
}

func TestConcurrentRetriesMakeOneMessage(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		ids := make([]protocol.ID, 32)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				sent, err := s.Send(background, chat.Send{Room: r, By: as("alice"), Key: "k", Hash: "h", Tail: tail("x")})
				if err != nil {
					t.Error(err)
				}
				ids[i] = sent.ID
			})
		}
		wg.Wait()
		if len(slices.Compact(ids)) != 1 {
			t.Fatalf("several messages: %v", ids)
		}
	})
}

func TestWhoMaySendAndRead(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		_, err := s.Send(t.Context(), chat.Send{Room: r, By: as("eve"), Key: "k", Hash: "h", Tail: tail("x")})
		wantErr(t, err, chat.ErrNotMember)
		_, err = s.Send(t.Context(), chat.Send{Room: name("none"), By: as("alice"), Key: "k", Hash: "h", Tail: tail("x")})
		wantErr(t, err, chat.ErrNoRoom)
		_, err = s.Send(t.Context(), chat.Send{Room: "bad room:{}", By: as("alice"), Key: "k", Hash: "h", Tail: tail("x")})
		wantErr(t, err, chat.ErrNoRoom)
		_, err = s.Send(t.Context(), chat.Send{Room: r, By: chat.Actor{User: "robot", Server: true}, Key: "k", Hash: "h", Tail: tail("x")})
		must(t, err)
		_, _, err = s.History(t.Context(), as("eve"), r, nil, nil, 10)
		wantErr(t, err, chat.ErrNotMember)
		_, _, err = s.History(t.Context(), server, r, nil, nil, 10)
		must(t, err)
		_, _, err = s.Room(t.Context(), as("eve"), r)
		wantErr(t, err, chat.ErrNotMember)
		_, _, err = s.Members(t.Context(), as("eve"), r, "", 10)
		wantErr(t, err, chat.ErrNotMember)
		_, _, err = s.Room(t.Context(), as("alice"), name("none"))
		wantErr(t, err, chat.ErrNoRoom)
	})
}

func TestHistoryPagesBothWays(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		var ids []protocol.ID
		for i := range 10 {
			ids = append(ids, send(t, s, r, "alice", name("k"), fmt.Sprint(i)).ID)
		}
		page := func(after, before *protocol.ID, limit int) (got []protocol.ID, more bool) {
			t.Helper()
			msgs, more, err := s.History(t.Context(), as("alice"), r, after, before, limit)
			must(t, err)
			for _, m := range msgs {
				got = append(got, m.ID)
				if m.N == 0 || string(m.Tail) != string(tail(fmt.Sprint(m.N-1))) {
					t.Fatalf("message %+v", m)
				}
			}
			return got, more
		}
		back := slices.Clone(ids)
		slices.Reverse(back)
		for _, c := range []struct {
			after, before *protocol.ID
			limit         int
			want          []protocol.ID
			more          bool
		}{
			{nil, nil, 4, back[:4], true},
			{nil, &protocol.ID{}, 10, back, false},
			{nil, &ids[6], 3, back[4:7], true},
			{nil, &ids[3], 3, back[7:], false},
			{&protocol.ID{}, nil, 3, ids[:3], true},
			{&ids[2], nil, 7, ids[3:], false},
			{&ids[9], nil, 7, nil, false},
			{&protocol.ID{Ms: math.MaxUint64, Seq: math.MaxUint64}, nil, 7, nil, false},
			{&protocol.ID{Ms: 1, Seq: math.MaxUint64}, nil, 3, ids[:3], true},
		} {
			got, more := page(c.after, c.before, c.limit)
			if !slices.Equal(got, c.want) || more != c.more {
				t.Errorf("after %v before %v limit %d: %v more %v, want %v %v", c.after, c.before, c.limit, got, more, c.want, c.more)
			}
		}
	})
}

// What is read of a log at a time is bounded, however long its messages are; that
// there is more is said, and can be read from there.
func TestAPageOfLongMessagesIsShort(t *testing.T) {
	const mebibyte = 1 << 20
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		var ids []protocol.ID
		for i := range 60 {
			size := 40_000
			if i >= 57 {
				size = mebibyte // --max-body may allow it: two of them still come at once
			}
			ids = append(ids, send(t, s, r, "alice", name("k"), strings.Repeat("x", size)).ID)
		}
		back := slices.Clone(ids)
		slices.Reverse(back)
		check := func(msgs []chat.Message, more bool) (last protocol.ID) {
			t.Helper()
			size := 0
			for _, m := range msgs {
				size += len(m.Tail)
			}
			if len(msgs) < 2 && more || len(msgs) > 2 && size > mebibyte {
				t.Fatalf("%d messages of %d bytes, more %v", len(msgs), size, more)
			}
			return msgs[len(msgs)-1].ID
		}
		for name, want := range map[string][]protocol.ID{"oldest first": ids, "newest first": back} {
			var got []protocol.ID
			after, before := &protocol.ID{}, (*protocol.ID)(nil)
			if name == "newest first" {
				after, before = before, after
			}
			for more := true; more; {
				var msgs []chat.Message
				var err error
				msgs, more, err = s.History(t.Context(), as("alice"), r, after, before, 200)
				must(t, err)
				last := check(msgs, more)
				if after != nil {
					after = &last
				} else {
					before = &last
				}
				for _, m := range msgs {
					got = append(got, m.ID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %d of %d messages", name, len(got), len(want))
			}
		}
		got := ids[:1] // a gateway's reads begin with what it has
		for more := true; more; {
			pages, errs := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: r, From: got[len(got)-1], Limit: 502}})
			must(t, errors.Join(errs...))
			check(pages[0].Entries, pages[0].More)
			for _, m := range pages[0].Entries[1:] {
				got = append(got, m.ID)
			}
			more = pages[0].More
		}
		if !slices.Equal(got, ids) {
			t.Errorf("a gateway read %d of %d messages", len(got), len(ids))
		}
	})
}

func TestMembershipIsToldToRoomAndUser(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		bob := name("bob\" {한}:")
		r := room(t, s, "alice")
		head := send(t, s, r, "alice", "k", "x").ID
		e := listen(s)
		e.follow(t, roomCh(r), userCh(bob))
		role, err := s.PutMember(t.Context(), as("alice"), r, bob, chat.RoleMember)
		if err != nil || role != chat.RoleMember {
			t.Fatal(role, err)
		}
		states, errs := s.ReadUsers(t.Context(), []string{bob})
		if errs != nil || len(states[0].Rooms) != 1 || states[0].Rooms[0].Room != r || states[0].Rooms[0].Head != head || states[0].Rev == 0 {
			t.Fatalf("index: %+v %v", states, errs)
		}
		joinedRev := states[0].Rev
		rooms, _ := s.ReadRooms(t.Context(), []chat.RoomQuery{{Room: r, Users: []string{"eve", bob, "alice"}}})
		if !rooms[0].Exists || rooms[0].Head != head || rooms[0].N != 1 || rooms[0].Version != states[0].Rooms[0].Version ||
			!slices.Equal(rooms[0].Member, []bool{false, true, true}) {
			t.Fatalf("room: %+v", rooms)
		}
		must(t, s.RemoveMember(t.Context(), as("alice"), r, bob))
		states, _ = s.ReadUsers(t.Context(), []string{bob})
		if len(states[0].Rooms) != 0 || states[0].Rev <= joinedRev {
			t.Fatalf("index after removal: %+v", states)
		}
		after, _ := s.ReadRooms(t.Context(), []chat.RoomQuery{{Room: r, Users: []string{bob}}})
		if after[0].Member[0] || after[0].Version <= rooms[0].Version {
			t.Fatalf("room after removal: %+v", after)
		}
		e.wantEvents(t, roomCh(r), string(protocol.AppendJoined(nil, r, bob, head, 0)), string(protocol.AppendLeft(nil, r, bob, 0)))
		e.wantEvents(t, userCh(bob), string(protocol.AppendJoined(nil, r, bob, head, joinedRev)), string(protocol.AppendLeft(nil, r, bob, states[0].Rev)))
		if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
			t.Fatalf("left in the outbox: %d, %v", n, err)
		}
	})
}

func TestAccessRulesOfMembership(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "owner", "m1", "m2")
		put := func(by chat.Actor, user string, role chat.Role, want error) {
			t.Helper()
			_, err := s.PutMember(t.Context(), by, r, user, role)
			wantErr(t, err, want)
		}
		remove := func(by chat.Actor, user string, want error) {
			t.Helper()
			wantErr(t, s.RemoveMember(t.Context(), by, r, user), want)
		}
		put(as("m1"), "x", chat.RoleMember, chat.ErrNotAllowed)
		put(as("m1"), "m1", chat.RoleAdmin, chat.ErrNotAllowed)
		put(as("m1"), "m1", chat.RoleMember, nil)
		put(as("eve"), "eve", chat.RoleMember, chat.ErrNotMember)
		put(as("owner"), "m1", chat.RoleAdmin, nil)
		put(as("m1"), "x", chat.RoleAdmin, nil)
		put(as("m1"), "x", chat.RoleOwner, chat.ErrNotAllowed)
		put(as("m1"), "owner", chat.RoleMember, chat.ErrNotAllowed)
		put(as("m1"), "owner", "", nil) // an invitation: who is there keeps what they are
		put(as("m2"), "owner", "", chat.ErrNotAllowed)
		put(server, "boss", chat.RoleOwner, nil)
		remove(as("m1"), "owner", chat.ErrNotAllowed)
		remove(as("m2"), "m1", chat.ErrNotAllowed)
		remove(as("m1"), "m2", nil)
		remove(as("owner"), "m2", chat.ErrNoMember)
		remove(as("m2"), "m2", chat.ErrNotMember)
		remove(as("x"), "x", nil)
		remove(as("owner"), "owner", nil)
		remove(server, "boss", nil)
		if _, role, err := s.Room(t.Context(), as("m1"), r); err != nil || role != chat.RoleAdmin {
			t.Fatal(role, err)
		}
		role, err := s.PutMember(t.Context(), server, r, "m1", "")
		if role != chat.RoleAdmin || err != nil {
			t.Fatal("no role changed one", role, err)
		}
	})
}

func TestRoomsWithUnread(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		user := name("u")
		var ids []string
		for range 5 {
			ids = append(ids, room(t, s, user, "other"))
		}
		var read chat.Sent
		for i := range 4 {
			sent := send(t, s, ids[0], "other", name("k"), "x")
			if i == 1 {
				read = sent
			}
		}
		e := listen(s)
		e.follow(t, userCh(user))
		must(t, s.MarkRead(t.Context(), user, ids[0], read.ID))
		must(t, s.MarkRead(t.Context(), user, ids[0], read.Prev)) // never back
		wantErr(t, s.MarkRead(t.Context(), user, ids[0], protocol.ID{Ms: 1, Seq: 1}), chat.ErrBadPosition)
		wantErr(t, s.MarkRead(t.Context(), "eve", ids[0], read.ID), chat.ErrNotMember)
		e.wantEvents(t, userCh(user), string(protocol.AppendRead(nil, ids[0], user, read.ID)))

		var got []chat.UserRoom
		for cursor, pages := "", 0; ; pages++ {
			page, rev, next, err := s.Rooms(t.Context(), user, cursor, 2)
			must(t, err)
			if rev == 0 || len(page) > 2 || pages > 3 {
				t.Fatalf("rev %d, %d rooms, page %d", rev, len(page), pages)
			}
			got = append(got, page...)
			if cursor = next; next == "" {
				break
			}
		}
		slices.Sort(ids)
		if len(got) != 5 {
			t.Fatalf("%d rooms: %+v", len(got), got)
		}
		for i, r := range got {
			if r.Room.ID != ids[i] || r.Role != chat.RoleOwner || r.Room.Members != 2 || r.Room.Name != "a room" || r.Room.Created.IsZero() {
				t.Fatalf("room %d: %+v", i, r)
			}
			if r.Room.N == 4 && (r.ReadN != 2 || r.Unread != 2 || r.Read != read.ID) || r.Room.N == 0 && r.Unread != 0 {
				t.Fatalf("unread: %+v", r)
			}
		}
	})
}

// A list of very many rooms is not read whole for each of its pages; it is what it is all the same.
func TestAListOfManyRoomsIsReadOnce(t *testing.T) {
	r := testkit.Redis(t)
	s, other := open(t, r.URL()), open(t, r.URL())
	ids := make([]string, 1100)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for n := i; n < len(ids); n += 10 {
				ids[n] = room(t, other, "alice", "bob")
			}
		})
	}
	wg.Wait()
	slices.Sort(ids)
	page := func(cursor string, want ...string) (rooms []chat.UserRoom, next string) {
		t.Helper()
		rooms, rev, next, err := s.Rooms(t.Context(), "alice", cursor, 100)
		must(t, err)
		got := make([]string, len(rooms))
		for i := range rooms {
			got[i] = rooms[i].Room.ID
		}
		states, errs := s.ReadUsers(t.Context(), []string{"alice"})
		must(t, errors.Join(errs...))
		if !slices.Equal(got, want) || rev != states[0].Rev {
			t.Fatalf("after %q: revision %d, want %d; %v, want %v", cursor, rev, states[0].Rev, got, want)
		}
		return rooms, next
	}
	sent := send(t, other, ids[150], "bob", "k", "hi")
	_, _ = r.Do("CONFIG", "RESETSTAT")
	cursor := ""
	for at := 0; at < len(ids); at += 100 {
		if _, cursor = page(cursor, ids[at:at+100]...); (cursor == "") != (at == 1000) {
			t.Fatalf("the page from %d on is followed by %q", at, cursor)
		}
	}
	if calls := r.Calls()["hgetall"]; calls != 12 { // 11 of them the test's own
		t.Errorf("the index was read %d times", calls)
	}

	// What was read, left and joined in between counts.
	second := func() chat.UserRoom { t.Helper(); rooms, _ := page(ids[99], ids[100:200]...); return rooms[50] }
	if is := second(); is.Unread != 1 {
		t.Errorf("%d unread", is.Unread)
	}
	must(t, other.MarkRead(t.Context(), "alice", ids[150], sent.ID))
	if is := second(); is.Unread != 0 || is.Read != sent.ID {
		t.Errorf("read up to %v, %d unread", is.Read, is.Unread)
	}
	must(t, other.RemoveMember(t.Context(), server, ids[120], "alice"))
	page(ids[99], append(slices.Clone(ids[100:120]), ids[121:201]...)...)
	_, err := other.PutMember(t.Context(), server, ids[120], "alice", "")
	must(t, err)
	second()
}

// Nor are the lists of many such users, who page through them at the same time.
func TestListsOfManyRoomsAreReadOnceForManyUsers(t *testing.T) {
	r := testkit.Redis(t)
	s, other := open(t, r.URL()), open(t, r.URL())
	users := make([]string, 20)
	for i := range users {
		users[i] = fmt.Sprintf("u%d", i)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 100 {
				room(t, other, users[0], users[1:]...)
			}
		})
	}
	wg.Wait()
	_, _ = r.Do("CONFIG", "RESETSTAT")
	after := map[string]string{}
	for range 3 {
		for _, user := range users {
			rooms, _, next, err := s.Rooms(t.Context(), user, after[user], 10)
			must(t, err)
			if len(rooms) != 10 || next == "" {
				t.Fatalf("%s: %d rooms, then %q", user, len(rooms), next)
			}
			after[user] = next
		}
	}
	if calls := r.Calls()["hgetall"]; calls != 20 {
		t.Errorf("the indexes were read %d times", calls)
	}
}

func TestMembersPaged(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		want := []string{"alice"}
		for i := range 24 {
			want = append(want, fmt.Sprintf("u%02d", i))
		}
		r := room(t, s, "alice", want[1:]...)
		var got []string
		for cursor := ""; ; {
			page, next, err := s.Members(t.Context(), as("alice"), r, cursor, 10)
			must(t, err)
			for _, m := range page {
				got = append(got, m.User)
				if (m.User == "alice") != (m.Role == chat.RoleOwner) {
					t.Fatalf("%+v", m)
				}
			}
			if cursor = next; next == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v", got)
		}
	})
}

func TestACursorNobodyGaveIsABadPosition(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		for _, cursor := range []string{
			"x", "scan:", "scan:x", "scan:-1", "scan:0", "scan:99999999999999999999", "scan:1 2", "after:", "after:\x00", "after:\xff", "0",
		} {
			_, _, err := s.Members(t.Context(), as("alice"), r, cursor, 10)
			if !errors.Is(err, chat.ErrBadPosition) {
				t.Errorf("%q: %v", cursor, err)
			}
		}
		_, _, err := s.Members(t.Context(), as("mallory"), r, "x", 10) // who may not look learns nothing
		wantErr(t, err, chat.ErrNotMember)
	})
}

func TestBigRoomsArePagedByScan(t *testing.T) {
	s := open(t, servers.url(t, "standalone"))
	members := make([]string, 3000)
	for i := range members {
		members[i] = fmt.Sprintf("u%d", i)
	}
	r := room(t, s, "alice", members...)
	seen := map[string]bool{}
	pages := 0
	for cursor := ""; ; pages++ {
		page, next, err := s.Members(t.Context(), as("alice"), r, cursor, 500)
		must(t, err)
		for _, m := range page {
			seen[m.User] = true
		}
		if cursor = next; next == "" {
			break
		}
	}
	if len(seen) != 3001 || pages < 4 {
		t.Fatalf("%d members in %d pages", len(seen), pages)
	}
}

// A cursor of small rooms would have a big one read whole for each page.
func TestABigRoomIsNotReadWhole(t *testing.T) {
	s := open(t, servers.url(t, "standalone"))
	members := make([]string, 4000)
	for i := range members {
		members[i] = fmt.Sprintf("u%04d", i)
	}
	r := room(t, s, "alice", members[:3999]...)
	// As big as this it may have become since the first page.
	page, next, err := s.Members(t.Context(), as("alice"), r, "after:u1000", 2)
	if err != nil || len(page) != 2 || page[0].User != "u1001" || next != "after:u1002" {
		t.Fatal(page, next, err)
	}
	_, err = s.PutMember(t.Context(), as("alice"), r, members[3999], "")
	must(t, err)
	_, _, err = s.Members(t.Context(), as("alice"), r, "after:u1000", 2)
	wantErr(t, err, chat.ErrBadPosition)
}

func TestRoomsExistOnce(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		id := name("r")
		r, err := s.CreateRoom(t.Context(), as("alice"), id, "n", []string{"bob", "alice", "bob"})
		if err != nil || r.ID != id || r.Members != 2 || r.Version == 0 || time.Since(r.Created).Abs() > time.Minute {
			t.Fatal(r, err)
		}
		_, err = s.CreateRoom(t.Context(), as("eve"), id, "n", nil)
		wantErr(t, err, chat.ErrRoomExists)
		got, role, err := s.Room(t.Context(), as("alice"), id)
		if err != nil || got != r || role != chat.RoleOwner {
			t.Fatal(got, r, role, err)
		}
	})
}

func TestLimitsOfMembersAndRooms(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a, func(t *testing.T) {
			s := open(t, servers.url(t, a), func(o *redisstore.Options) { o.MaxMembers, o.MaxRooms = 3, 2 })
			u := name("u")
			r1 := room(t, s, u, "x"+u, "y"+u)
			_, err := s.PutMember(t.Context(), as(u), r1, "z"+u, "")
			wantErr(t, err, chat.ErrRoomFull)
			_, err = s.CreateRoom(t.Context(), as(u), name("r"), "", []string{"1", "2", "3"})
			wantErr(t, err, chat.ErrRoomFull)
			room(t, s, u)
			_, err = s.CreateRoom(t.Context(), as(u), name("r"), "", nil)
			wantErr(t, err, chat.ErrTooMany)
			must(t, s.RemoveMember(t.Context(), as(u), r1, u))
			room(t, s, u)
		})
	}
}

// Who is in as many rooms as one may be is added to no other; in those that they
// are in, all goes on.
func TestTheLimitOfRoomsIsForNewOnes(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a, func(t *testing.T) {
			s := open(t, servers.url(t, a), func(o *redisstore.Options) { o.MaxRooms = 2 })
			owner, busy := name("o"), name("u")
			r := room(t, s, owner, busy)
			room(t, s, busy)
			for _, role := range []chat.Role{chat.RoleAdmin, "", chat.RoleMember} {
				_, err := s.PutMember(t.Context(), as(owner), r, busy, role)
				must(t, err)
			}
			other := room(t, s, owner, "plain")
			_, err := s.PutMember(t.Context(), as(owner), other, busy, "")
			wantErr(t, err, chat.ErrTooMany)
			// How many rooms somebody is in is not told to those who may not add.
			_, err = s.PutMember(t.Context(), as("plain"), other, busy, "")
			wantErr(t, err, chat.ErrNotAllowed)
			_, err = s.PutMember(t.Context(), as("eve"), other, busy, "")
			wantErr(t, err, chat.ErrNotMember)
			_, err = s.PutMember(t.Context(), as(owner), name("none"), busy, "")
			wantErr(t, err, chat.ErrNoRoom)
		})
	}
}

func TestReadLogsProveTheirAnchor(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		var ids []protocol.ID
		for range 6 {
			ids = append(ids, send(t, s, r, "alice", name("k"), "x").ID)
		}
		gone := name("none")
		pages, errs := s.ReadLogs(t.Context(), []chat.LogQuery{
			{Room: r, From: ids[2], Limit: 2}, {Room: gone, Limit: 5}, {Room: r, From: ids[4], Limit: 2}, {Room: r, From: protocol.ID{Ms: 1 << 60}, Limit: 2},
		})
		if errs != nil {
			t.Fatal(errs)
		}
		if p := pages[0]; !p.Exists || len(p.Entries) != 2 || p.Entries[0].ID != ids[2] || !p.More || p.Head != ids[5] || p.N != 6 {
			t.Errorf("%+v", p)
		}
		if pages[1].Exists {
			t.Errorf("%+v", pages[1])
		}
		if p := pages[2]; len(p.Entries) != 2 || p.More || p.Entries[1].Prev != ids[4] {
			t.Errorf("%+v", p)
		}
		if p := pages[3]; len(p.Entries) != 0 || p.More || p.Head != ids[5] {
			t.Errorf("%+v", p)
		}
		states, errs := s.ReadRooms(t.Context(), []chat.RoomQuery{{Room: gone, Users: []string{"a"}}, {Room: r}})
		if errs != nil || states[0].Exists || len(states[0].Member) != 1 || !states[1].Exists || states[1].N != 6 {
			t.Errorf("%+v %v", states, errs)
		}
		if v := states[1].Version; v == 0 || pages[0].Version != v || pages[3].Version != v {
			t.Errorf("%+v %+v", states, pages)
		}
	})
}

func TestUnsubscribedChannelsGoQuiet(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r1, r2 := room(t, s, "alice"), ""
		for r2 == "" || s.LinkOf(roomCh(r2)) != s.LinkOf(roomCh(r1)) {
			r2 = room(t, s, "alice")
		}
		e := listen(s)
		e.follow(t, roomCh(r1), roomCh(r2))
		link := s.LinkOf(roomCh(r1))
		s.Unsubscribe(link, 1, []chat.Channel{roomCh(r1)})
		s.Subscribe(link, 7, []chat.Channel{userCh("of another making")})
		soon(t, 5*time.Second, "silence in the room that was left", func() bool {
			a, b := len(e.heard(roomCh(r1))), len(e.heard(roomCh(r2)))
			send(t, s, r1, "alice", name("k"), "1")
			send(t, s, r2, "alice", name("k"), "2")
			soon(t, 5*time.Second, "the other room's event", func() bool { return len(e.heard(roomCh(r2))) > b })
			return len(e.heard(roomCh(r1))) == a
		})
		if e.count(e.downs, link) != 0 {
			t.Fatal("leaving a channel broke the link")
		}
	})
}

func TestManyChannelsOnAFewLinks(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		e := listen(s)
		chs := make([]chat.Channel, 3000)
		for i := range chs {
			chs[i] = userCh(name("u"))
		}
		e.follow(t, chs...)
		e.wantHealthy(t, 10*time.Second)
	})
}

func TestCanariesReachEveryPartition(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		if ok, detail := s.Healthy(); ok || !strings.Contains(detail, "link 0") {
			t.Fatal("healthy before Listen", detail)
		}
		e := listen(s)
		e.wantHealthy(t, 10*time.Second)
		soon(t, 5*time.Second, "an epoch of every partition", func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(e.epochs) == 16
		})
	})
}

func TestSchemaIsCheckedAtStart(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		must(t, s.Check(t.Context()))
		must(t, s.Ready(t.Context()))
	})
	for _, a := range arrangements {
		t.Run(a, func(t *testing.T) {
			must(t, open(t, servers.url(t, a)).Check(t.Context()))
			other := open(t, servers.url(t, a), func(o *redisstore.Options) { o.Partitions = 32 })
			err := other.Check(t.Context())
			wantErr(t, err, redisstore.ErrSchema)
			if !strings.Contains(err.Error(), "16") || !strings.Contains(err.Error(), "32") {
				t.Fatal(err)
			}
			_, err = other.CreateRoom(t.Context(), as("alice"), name("r"), "", nil)
			wantErr(t, err, redisstore.ErrSchema)
			wantErr(t, other.Ready(t.Context()), redisstore.ErrSchema)
		})
	}
}
