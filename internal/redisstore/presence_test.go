package redisstore_test

import (
	"context"
	"errors"
	"fmt"
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

func presenceCh(user string) chat.Channel {
	return chat.Channel{Kind: chat.PresenceChannel, Name: user}
}

func take(t testing.TB, s *redisstore.Store, gateway string, seats ...chat.Seat) {
	t.Helper()
	must(t, errors.Join(s.TakeSeats(t.Context(), gateway, seats)...))
}

func leave(t testing.TB, s *redisstore.Store, gateway string, seats ...chat.Seat) {
	t.Helper()
	must(t, errors.Join(s.LeaveSeats(t.Context(), gateway, seats)...))
}

func presence(t testing.TB, s *redisstore.Store, user string) chat.UserPresence {
	t.Helper()
	ps, errs := s.ReadPresence(t.Context(), []string{user})
	must(t, errors.Join(errs...))
	return ps[0]
}

// wantChanges waits for changes of a user's presence, and compares all there were:
// "1" online, "0" offline.
func wantChanges(t testing.TB, e *ear, user, want string) {
	t.Helper()
	heard := func() string {
		var b strings.Builder
		for _, p := range e.heard(presenceCh(user)) {
			c, ok := chat.ParsePresenceChange([]byte(p))
			if !ok {
				t.Fatalf("not a change: %q", p)
			}
			if !c.Online && time.Since(time.UnixMilli(c.LastSeen)).Abs() > time.Minute {
				t.Fatalf("last seen %v", time.UnixMilli(c.LastSeen))
			}
			b.WriteByte(p[0])
		}
		return b.String()
	}
	soon(t, 5*time.Second, "changes "+want, func() bool { return len(heard()) >= len(want) })
	if got := heard(); got != want {
		t.Fatalf("changes %q, want %q", got, want)
	}
}

func TestSeatsAreAnnouncedOnce(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u, g1, g2 := name("user {x}:é"), name("g1"), name("g2")
		e := listen(s)
		e.follow(t, presenceCh(u))
		take(t, s, g1, chat.Seat{User: u, Conns: 1, Seq: 1})
		take(t, s, g1, chat.Seat{User: u, Conns: 2, Seq: 2, Focus: []string{"r1", "r2"}}) // another tab
		take(t, s, g2, chat.Seat{User: u, Conns: 1, Seq: 1})                              // another device
		p := presence(t, s, u)
		if len(p.Seats) != 2 || p.LastSeen != 0 || p.Seats[g1].Conns != 2 || p.Seats[g1].Seq != 2 || !slices.Equal(p.Seats[g1].Focus, []string{"r1", "r2"}) {
			t.Fatalf("%+v", p)
		}
		leave(t, s, g1, chat.Seat{User: u, Seq: 3})
		leave(t, s, g1, chat.Seat{User: u, Seq: 3}) // again: nothing
		wantChanges(t, e, u, "1")
		leave(t, s, g2, chat.Seat{User: u, Seq: 2})
		wantChanges(t, e, u, "10")
		if p := presence(t, s, u); len(p.Seats) != 0 || p.LastSeen == 0 {
			t.Fatalf("after leaving: %+v", p)
		}
		take(t, s, g2, chat.Seat{User: u, Conns: 1, Seq: 3})
		wantChanges(t, e, u, "101")
	})
}

// A request that was given up may run after the one that was sent in its place.
func TestALateLeaveDoesNotUndoANewerSeat(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u, g := name("user"), name("g")
		take(t, s, g, chat.Seat{User: u, Conns: 1, Seq: 7})
		leave(t, s, g, chat.Seat{User: u, Seq: 6})
		if p := presence(t, s, u); len(p.Seats) != 1 {
			t.Fatalf("%+v", p)
		}
		leave(t, s, g, chat.Seat{User: u, Seq: 8})
		if p := presence(t, s, u); len(p.Seats) != 0 {
			t.Fatalf("%+v", p)
		}
	})
}

func TestADeadGatewaysUsersAreAnnouncedOnceByMany(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		const users = 40
		dead, alive := name("dead"), name("alive")
		e := listen(s)
		var seats []chat.Seat
		var chs []chat.Channel
		for i := range users {
			seats = append(seats, chat.Seat{User: name(fmt.Sprint("u", i)), Conns: 1, Seq: 1})
			chs = append(chs, presenceCh(seats[i].User))
		}
		e.follow(t, chs...)
		take(t, s, dead, seats...)
		take(t, s, alive, seats[:users/2]...) // came back elsewhere before it was noticed
		lease := chat.Lease{Gateway: dead, Counter: 1}
		must(t, s.RenewLease(t.Context(), lease))
		is, err := s.DeclareDead(t.Context(), lease)
		if err != nil || !is {
			t.Fatalf("declared %v, %v", is, err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		swept := 0
		for range 4 { // as many gateways notice
			wg.Go(func() {
				n, err := s.SweepSeats(background, dead)
				mu.Lock()
				defer mu.Unlock()
				if swept += n; err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if swept != users/2 {
			t.Errorf("%d were announced", swept)
		}
		for i, seat := range seats {
			if i < users/2 {
				wantChanges(t, e, seat.User, "1")
			} else {
				wantChanges(t, e, seat.User, "10")
			}
		}
		leases, err := s.Leases(t.Context())
		must(t, err)
		if slices.ContainsFunc(leases, func(l chat.Lease) bool { return l.Gateway == dead }) {
			t.Error("the dead gateway is still in the fleet")
		}
	})
}

func TestADeadGatewayCanWriteNothing(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u, g := name("user"), name("g")
		take(t, s, g, chat.Seat{User: u, Conns: 1, Seq: 1})
		lease := chat.Lease{Gateway: g, Counter: 3}
		must(t, s.RenewLease(t.Context(), lease))
		_, err := s.DeclareDead(t.Context(), lease)
		must(t, err)
		_, err = s.SweepSeats(t.Context(), g)
		must(t, err)
		// It wakes up.
		wantErr(t, s.RenewLease(t.Context(), chat.Lease{Gateway: g, Counter: 4}), chat.ErrDeclaredDead)
		errs := s.TakeSeats(t.Context(), g, []chat.Seat{{User: u, Conns: 1, Seq: 2}})
		wantErr(t, errors.Join(errs...), chat.ErrDeclaredDead)
		errs = s.LeaveSeats(t.Context(), g, []chat.Seat{{User: u, Seq: 3}})
		wantErr(t, errors.Join(errs...), chat.ErrDeclaredDead)
		if p := presence(t, s, u); len(p.Seats) != 0 {
			t.Fatalf("%+v", p)
		}
	})
}

func TestAGatewayThatLivesIsNotDeclaredDead(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		g := name("g 1")
		for counter := uint64(1); counter <= 2; counter++ {
			must(t, s.RenewLease(t.Context(), chat.Lease{Gateway: g, Counter: counter, Addr: "10.0.0.1:8081", Conns: 12}))
		}
		leases, err := s.Leases(t.Context())
		must(t, err)
		i := slices.IndexFunc(leases, func(l chat.Lease) bool { return l.Gateway == g })
		if i < 0 || leases[i].Counter != 2 || leases[i].Conns != 12 || leases[i].Addr != "10.0.0.1:8081" {
			t.Fatalf("%+v", leases)
		}
		for _, seen := range []uint64{1, 0} { // what somebody saw before the renewal
			dead, err := s.DeclareDead(t.Context(), chat.Lease{Gateway: g, Counter: seen})
			if err != nil || dead {
				t.Fatalf("declared %v, %v", dead, err)
			}
		}
		must(t, s.RenewLease(t.Context(), chat.Lease{Gateway: g, Counter: 3}))
	})
}

// What a request that was given up wrote late is found by counting.
func TestHeldSeatsTellsOfMoreThanExpected(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u, g := name("user"), name("g")
		take(t, s, g, chat.Seat{User: u, Conns: 1, Seq: 1})
		part := s.PartitionOf(userCh(u))
		users, err := s.HeldSeats(t.Context(), g, part, 0)
		if err != nil || !slices.Equal(users, []string{u}) {
			t.Fatalf("%q, %v", users, err)
		}
		users, err = s.HeldSeats(t.Context(), g, part, 1)
		if err != nil || users != nil {
			t.Fatalf("%q, %v", users, err)
		}
	})
}

func TestLookupGoesByLeases(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		both, gone, never := name("both"), name("gone"), name("never")
		g1, g2 := name("g1"), name("g2")
		must(t, s.RenewLease(t.Context(), chat.Lease{Gateway: g1, Counter: 1}))
		take(t, s, g1, chat.Seat{User: both, Conns: 1, Seq: 1, Focus: []string{"r1"}})
		take(t, s, g2, chat.Seat{User: both, Conns: 1, Seq: 1, Focus: []string{"r2"}}, chat.Seat{User: gone, Conns: 1, Seq: 1})
		users := []string{both, gone, never}
		ps, err := s.Lookup(t.Context(), users)
		must(t, err)
		for i, want := range []chat.Presence{
			{User: both, Online: true, Focus: []string{"r1"}}, // g2 has no lease
			{User: gone}, {User: never},
		} {
			if got := ps[i]; got.User != want.User || got.Online != want.Online || got.LastSeen != 0 || !slices.Equal(got.Focus, want.Focus) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		// A gateway that starts after the fleet was looked at is seen at once.
		must(t, s.RenewLease(t.Context(), chat.Lease{Gateway: g2, Counter: 1}))
		soon(t, 5*time.Second, "the user of the new gateway online", func() bool {
			ps, err := s.Lookup(t.Context(), users[1:2])
			return err == nil && ps[0].Online
		})
		leave(t, s, g2, chat.Seat{User: gone, Seq: 2})
		if ps, err = s.Lookup(t.Context(), users[1:2]); err != nil || ps[0].Online || ps[0].LastSeen == 0 {
			t.Fatalf("%+v, %v", ps, err)
		}
	})
}

func TestMarkersNeverGoBackAndAreToldOnce(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u, v := name("u"), name("v")
		r := room(t, s, u, v)
		var sent []chat.Sent
		for i := range 3 {
			sent = append(sent, send(t, s, r, v, name("k"), fmt.Sprint(i)))
		}
		e := listen(s)
		e.follow(t, roomCh(r), userCh(u))
		move := func(kind chat.MarkerKind, i int, quiet bool, want chat.MarkerResult) {
			t.Helper()
			m := chat.Marker{User: u, Room: r, ID: sent[i].ID, N: sent[i].N, Quiet: quiet}
			rs, errs := s.AdvanceMarkers(t.Context(), kind, []chat.Marker{m}, 2)
			if errs != nil || rs[0] != want {
				t.Fatalf("%v, %v; want %v", rs, errs, want)
			}
		}
		move(chat.ReadMarker, 1, false, chat.MarkerMoved)
		move(chat.ReadMarker, 0, false, chat.MarkerBehind)
		move(chat.ReadMarker, 1, false, chat.MarkerBehind)
		move(chat.ReadMarker, 2, true, chat.MarkerMoved)
		move(chat.DeliveredMarker, 2, false, chat.MarkerMoved)
		move(chat.DeliveredMarker, 2, false, chat.MarkerBehind)
		read := func(i int) string { return string(protocol.AppendRead(nil, r, u, sent[i].ID)) }
		e.wantEvents(t, userCh(u), read(1), read(2))
		e.wantEvents(t, roomCh(r), read(1), string(protocol.AppendDelivered(nil, r, u, sent[2].ID)))

		// Unread is arithmetic on ordinals: after more came, it is what came.
		send(t, s, r, v, name("k"), "more")
		rooms, _, _, err := s.Rooms(t.Context(), u, "", 10)
		if err != nil || len(rooms) != 1 || rooms[0].Unread != 1 || rooms[0].Read != sent[2].ID {
			t.Fatalf("%+v, %v", rooms, err)
		}
	})
}

// A marker may still be on its way when its user leaves the room. Nobody would ever take
// it away again, and it would be read with the user's rooms for years.
func TestAMarkerOfARoomThatWasLeftIsLeftOut(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	u, v := name("u"), name("v")
	id := room(t, s, v, u)
	sent := send(t, s, id, v, name("k"), "hi")
	move := func(want chat.MarkerResult) {
		t.Helper()
		for _, kind := range []chat.MarkerKind{chat.ReadMarker, chat.DeliveredMarker} {
			rs, errs := s.AdvanceMarkers(t.Context(), kind, []chat.Marker{{User: u, Room: id, ID: sent.ID, N: sent.N}}, 10)
			if errs != nil || rs[0] != want {
				t.Errorf("%v: %v, %v; want %v", kind, rs, errs, want)
			}
		}
	}
	must(t, s.RemoveMember(t.Context(), as(u), id, u))
	move(chat.MarkerBehind)
	fields := r.Must(t, "HKEYS", keysLike(t, r, "*:user:"+u+":rooms"))
	if strings.Contains(fmt.Sprint(fields), id) {
		t.Errorf("left behind: %v", fields)
	}

	// Who was added has markers even before the index says so.
	_, err := s.PutMember(t.Context(), as(v), id, u, "")
	must(t, err)
	r.Must(t, "DEL", keysLike(t, r, "*:user:"+u+":rooms"))
	move(chat.MarkerMoved)
}

func TestLargeRoomsHaveNoReceipts(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u := name("u")
		r := room(t, s, u, name("v"), name("w"))
		sent := send(t, s, r, u, name("k"), "hi")
		e := listen(s)
		e.follow(t, roomCh(r))
		m := []chat.Marker{{User: u, Room: r, ID: sent.ID, N: sent.N}}
		for _, kind := range []chat.MarkerKind{chat.DeliveredMarker, chat.ReadMarker} {
			rs, errs := s.AdvanceMarkers(t.Context(), kind, m, 2)
			if errs != nil || rs[0] != chat.MarkerTooLarge {
				t.Fatalf("%v: %v, %v", kind, rs, errs)
			}
		}
		rooms, _, _, err := s.Rooms(t.Context(), u, "", 10)
		if err != nil || rooms[0].Unread != 0 {
			t.Fatalf("read in a large room: %+v, %v", rooms, err)
		}
		must(t, errors.Join(s.PublishLive(t.Context(), []chat.LiveEvent{{Room: r, Event: []byte(`{"type":"typing"}`)}})...))
		e.wantEvents(t, roomCh(r), `{"type":"typing"}`)
	})
}

// A marker that moves over HTTP is a receipt as one that moves on a socket.
func TestMarkReadTellsTheRoom(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u := name("u")
		r := room(t, s, u, name("v"))
		sent := send(t, s, r, u, name("k"), "hi")
		e := listen(s)
		e.follow(t, roomCh(r), userCh(u))
		must(t, s.MarkRead(t.Context(), u, r, sent.ID))
		must(t, s.MarkRead(t.Context(), u, r, sent.ID))
		want := string(protocol.AppendRead(nil, r, u, sent.ID))
		e.wantEvents(t, userCh(u), want)
		e.wantEvents(t, roomCh(r), want)
	})
}

func TestATicketIsTakenOnce(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		want := chat.Ticket{User: name("u"), IssuedAt: 5, Expires: 9}
		id, err := s.IssueTicket(t.Context(), want, time.Minute)
		must(t, err)
		got, err := s.RedeemTicket(t.Context(), id)
		if err != nil || got != want {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, bad := range []string{id, "", "{x}", "no such", strings.Repeat("x", 1000)} {
			_, err = s.RedeemTicket(t.Context(), bad)
			wantErr(t, err, chat.ErrNoTicket)
		}
		want.IssuedAt = 0
		id, err = s.IssueTicket(t.Context(), want, time.Minute)
		must(t, err)
		got, err = s.RedeemTicket(t.Context(), id)
		must(t, err)
		if age := time.Since(time.Unix(got.IssuedAt, 0)); age.Abs() > time.Minute {
			t.Errorf("issued %v ago", age)
		}
		id, err = s.IssueTicket(t.Context(), want, 20*time.Millisecond)
		must(t, err)
		time.Sleep(600 * time.Millisecond) // its own time has to pass, and be looked at where that is done now and then
		_, err = s.RedeemTicket(t.Context(), id)
		wantErr(t, err, chat.ErrNoTicket)
	})
}

func TestACommandReachesTheUsersChannel(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		u := name("u")
		c := chat.Command{Conn: "x", Do: chat.CommandFocus, Room: "r1"}
		wantErr(t, s.Command(t.Context(), u, c), chat.ErrNoConn)
		e := listen(s)
		e.follow(t, userCh(u))
		must(t, s.Command(t.Context(), u, c))
		must(t, s.Command(t.Context(), u, chat.Command{Conn: "x", Do: chat.CommandDelivered, Room: "r1", ID: protocol.ID{Ms: 5, Seq: 1}}))
		must(t, s.Command(t.Context(), u, chat.Command{Conn: "x", Do: chat.CommandWatch, Users: []string{"a", "b"}}))
		e.wantEvents(t, userCh(u), `{"type":"do","do":"focus","conn":"x","room":"r1"}`,
			`{"type":"do","do":"delivered","conn":"x","room":"r1","id":"5-1"}`, `{"type":"do","do":"watch","conn":"x","users":["a","b"]}`)
	})
}

// A Redis that answers and takes no writes keeps gateways from renewing their leases:
// that takes nobody offline.
func TestAFullRedisTakesNobodyOffline(t *testing.T) {
	r := testkit.Redis(t)
	gateway := open(t, r.URL())
	u, g := name("user"), name("g")
	take(t, gateway, g, chat.Seat{User: u, Conns: 1, Seq: 1})
	must(t, gateway.RenewLease(t.Context(), chat.Lease{Gateway: g, Counter: 1}))
	online := func(s *redisstore.Store) bool {
		t.Helper()
		found, err := s.Lookup(t.Context(), []string{u})
		must(t, err)
		return found[0].Online
	}
	_, err := r.Do("PEXPIRE", "gateway:"+g, "15000") // silent for longer than a gateway may be
	must(t, err)
	observer := open(t, r.URL())
	r.Must(t, "CONFIG", "SET", "maxmemory", "1")
	if !online(observer) {
		t.Error("offline, and no gateway could renew")
	}
	r.Must(t, "CONFIG", "SET", "maxmemory", "0")
	if !online(observer) {
		t.Error("offline before a gateway had the time to renew")
	}
	if online(open(t, r.URL())) {
		t.Error("online, and the gateway was silent for longer than it may be")
	}
}

// Of a gateway that nobody has seen yet, and that can't be looked at, nothing is known:
// its users are not said to be offline.
func TestALookupThatCannotJudgeSaysSo(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	u, g := name("user"), name("g")
	if _, err := s.Lookup(t.Context(), []string{u}); err != nil { // from here on it looks by itself, once a second
		t.Fatal(err)
	}
	must(t, s.RenewLease(t.Context(), chat.Lease{Gateway: g, Counter: 1}))
	take(t, s, g, chat.Seat{User: u, Conns: 1, Seq: 1})
	r.Must(t, "ACL", "SETUSER", "default", "-smembers")
	if found, err := s.Lookup(t.Context(), []string{u}); err == nil && !found[0].Online {
		t.Errorf("%+v: offline, and nobody could look", found[0])
	}
}

// A look at the fleet that hangs and a read that hangs are waited for together.
func TestALookupWaitsForAFrozenRedisOnce(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL(), func(o *redisstore.Options) { o.CommandTimeout = 2 * time.Second })
	if _, err := s.Lookup(t.Context(), []string{"alice"}); err != nil { // from here on it looks by itself, once a second
		t.Fatal(err)
	}
	r.Pause()
	var wg sync.WaitGroup
	for range 15 { // some of them meet a look that is under way
		wg.Go(func() {
			began := time.Now()
			_, err := s.Lookup(t.Context(), []string{"alice"})
			if took := time.Since(began); !errors.Is(err, chat.ErrUnavailable) || took > 3*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	r.Resume()
}

// A dead gateway's users are announced where that can be done.
func TestAShardThatIsAwayKeepsNobodyOnlineElsewhere(t *testing.T) {
	c := testkit.Cluster(t, 3, 0)
	s := open(t, c.URL())
	var seats []chat.Seat
	for i := range 60 {
		seats = append(seats, chat.Seat{User: fmt.Sprintf("u%d", i), Conns: 1, Seq: 1})
	}
	take(t, s, "gw1", seats...)
	c.Nodes[2].Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	n, err := s.SweepSeats(ctx, "gw1")
	if n == 0 || err == nil {
		t.Errorf("announced %d, %v", n, err)
	}
}

// What is known of the fleet is everybody's, whoever asked first.
func TestACancelledLookupFailsNobodyElse(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	must(t, s.Check(t.Context()))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = s.Lookup(gone, []string{"alice"})
	if _, err := s.Lookup(t.Context(), []string{"alice"}); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
