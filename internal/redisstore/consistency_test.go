package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

// agree says whether a user's index and the members of a room say the same.
func agree(t testing.TB, s *redisstore.Store, room, user string) (member, ok bool) {
	t.Helper()
	states, errs := s.ReadRooms(t.Context(), []chat.RoomQuery{{Room: room, Users: []string{user}}})
	if errs != nil {
		t.Fatal(errs)
	}
	users, errs := s.ReadUsers(t.Context(), []string{user})
	if errs != nil {
		t.Fatal(errs)
	}
	indexed := false
	for _, r := range users[0].Rooms {
		indexed = indexed || r.Room == room
	}
	return states[0].Member[0], states[0].Member[0] == indexed
}

func TestConcurrentAddAndRemoveEndInAgreement(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		id := room(t, s, "alice")
		users := []string{name("u"), name("u"), name("u")}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for range 20 {
					u := users[rand.IntN(len(users))]
					if rand.IntN(2) == 0 {
						_, _ = s.PutMember(background, server, id, u, "")
					} else {
						_ = s.RemoveMember(background, server, id, u)
					}
				}
			})
		}
		wg.Wait()
		for _, u := range users {
			if _, ok := agree(t, s, id, u); !ok {
				t.Errorf("index and members of %s differ", u)
			}
		}
	})
}

// node finds the server of a cluster that holds a key like pattern.
func node(t testing.TB, c *testkit.RedisCluster, pattern string) *testkit.RedisServer {
	t.Helper()
	for _, n := range c.Nodes {
		if keysLike(t, n, pattern) != "" {
			return n
		}
	}
	return nil
}

// An API that dies, or loses the user's side, between the two writes of a
// membership change: the outbox is swept by whoever comes.
func TestAHalfDoneChangeIsSwept(t *testing.T) {
	c := testkit.Cluster(t, 3, 0, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, c.URL(), func(o *redisstore.Options) { o.CommandTimeout = time.Second })
	id := room(t, s, "alice")
	roomNode := node(t, c, "*:room:"+id)
	var bob string
	var bobNode *testkit.RedisServer
	for bobNode == nil || bobNode == roomNode {
		bob = name("bob")
		_, err := s.PutMember(t.Context(), server, id, bob, "")
		must(t, err)
		bobNode = node(t, c, "*:user:"+bob+":rooms")
	}
	bobNode.Kill()
	must(t, s.RemoveMember(t.Context(), as("alice"), id, bob)) // the truth is written
	s.Close()
	must(t, bobNode.Restart())

	other := open(t, c.URL())
	soon(t, 10*time.Second, "the cluster whole again", func() bool {
		_, errs := other.ReadUsers(t.Context(), []string{bob})
		return errs == nil
	})
	if member, ok := agree(t, other, id, bob); member || ok {
		t.Fatal("there is nothing to sweep")
	}
	e := listen(other)
	e.follow(t, userCh(bob))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { other.RunSweeper(ctx) })
	soon(t, 15*time.Second, "agreement", func() bool { _, ok := agree(t, other, id, bob); return ok })
	cancel()
	wg.Wait()
	states, _ := other.ReadUsers(t.Context(), []string{bob})
	e.wantEvents(t, userCh(bob), string(protocol.AppendLeft(nil, id, bob, states[0].Rev)))
	// The sweeper was stopped as soon as the index was right, perhaps before the entry went.
	soon(t, 5*time.Second, "an empty outbox", func() bool {
		n, err := other.Sweep(t.Context())
		return n == 0 && err == nil
	})
}

// Changes for users whose side can't be written, a dead primary's say, do not
// stand before those of others.
func TestWhatCannotBeSweptHoldsUpNothing(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice", "bob", "carol")
	roomKey, bob, carol := keysLike(t, r, "*:room:"+id), keysLike(t, r, "*:user:bob:rooms"), keysLike(t, r, "*:user:carol:rooms")
	outbox := strings.TrimSuffix(roomKey, "room:"+id) + "outbox"
	r.Must(t, "DEL", bob, carol, outbox)
	r.Must(t, "SET", bob, "no hash")
	version := fmt.Sprint(r.Must(t, "HGET", roomKey, "ver"))
	for i := range 250 {
		r.Must(t, "XADD", outbox, fmt.Sprintf("1-%d", i+1), "r", id, "u", "bob", "v", version, "h", "0-0", "op", "+", "n", "0")
	}
	r.Must(t, "XADD", outbox, "2-1", "r", id, "u", "carol", "v", version, "h", "0-0", "op", "+", "n", "0")
	_, err := s.Sweep(t.Context())
	must(t, err)
	if _, ok := agree(t, s, id, "carol"); !ok {
		t.Error("carol's change was not swept")
	}
	if left := r.Must(t, "XLEN", outbox); left != int64(250) {
		t.Errorf("%v entries are left", left)
	}
	r.Must(t, "DEL", bob)
	_, err = s.Sweep(t.Context())
	must(t, err)
	if left := r.Must(t, "XLEN", outbox); left != int64(0) {
		t.Errorf("%v entries are left", left)
	}
}

// A clock that was set back, or a new primary's that is behind, leaves outboxes whose
// IDs are in the future. What waits there is not put off until the clock is there.
func TestChangesAreSweptWhenTheClockWentBack(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice", "bob")
	roomKey, bob := keysLike(t, r, "*:room:"+id), keysLike(t, r, "*:user:bob:rooms")
	outbox := strings.TrimSuffix(roomKey, "room:"+id) + "outbox"
	r.Must(t, "DEL", bob)
	version := fmt.Sprint(r.Must(t, "HGET", roomKey, "ver"))
	inAnHour := time.Now().Add(time.Hour).UnixMilli()
	for i := range 250 { // more than a page of them
		r.Must(t, "XADD", outbox, fmt.Sprintf("%d-%d", inAnHour, i), "r", id, "u", "bob", "v", version, "h", "0-0", "op", "+", "n", "0")
	}
	_, err := s.Sweep(t.Context())
	must(t, err)
	if _, ok := agree(t, s, id, "bob"); !ok {
		t.Error("bob's change was not swept")
	}
	if left := r.Must(t, "XLEN", outbox); left != int64(0) {
		t.Errorf("%v entries are left", left)
	}
}

// Nor does it hold back, for as long as it was set back, a room whose senders were
// spaced out; not even when the gateway that did so is gone.
func TestASpacedOutRoomIsNotHeldWhenTheClockWentBack(t *testing.T) {
	r := testkit.Mini(t)
	s, other := open(t, r.URL()), open(t, r.URL())
	id := room(t, s, "alice")
	must(t, s.Pace(t.Context(), id, 5, 2*time.Second))
	now := func(key string) {
		t.Helper()
		if _, err := trySend(s, id, key, 5*time.Second); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	now("before the clock went back")
	r.SetTime(time.Now().Add(-time.Hour))
	now("after that")
	must(t, other.Pace(t.Context(), id, 1000, 2*time.Second))
	now("at another's pace")
	for _, key := range r.Keys() {
		if pace := r.HGet(key, "pace"); strings.HasSuffix(key, ":room:"+id) && !strings.HasPrefix(pace, "1000 ") {
			t.Errorf("the pace is %q, that of before the clock went back", pace)
		}
	}
}

func TestIndexAndMembersRepairEachOther(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice", "bob")

	// Missing from the index.
	r.Must(t, "DEL", keysLike(t, r, "*:user:bob:rooms"))
	if _, ok := agree(t, s, id, "bob"); ok {
		t.Fatal("nothing to repair")
	}
	role, err := s.PutMember(t.Context(), as("alice"), id, "bob", "")
	if _, ok := agree(t, s, id, "bob"); role != chat.RoleMember || err != nil || !ok {
		t.Fatal(role, err, ok)
	}
	r.Must(t, "DEL", keysLike(t, r, "*:user:bob:rooms"))
	must(t, s.Repair(t.Context(), []chat.Membership{{Room: id, User: "bob"}}))
	if _, ok := agree(t, s, id, "bob"); !ok {
		t.Fatal("not repaired")
	}

	// In the index, but not among the members: never shown, and taken out.
	r.Must(t, "HDEL", keysLike(t, r, "*:room:"+id+":members"), "bob")
	rooms, _, _, err := s.Rooms(t.Context(), "bob", "", 10)
	if _, ok := agree(t, s, id, "bob"); len(rooms) != 0 || err != nil || !ok {
		t.Fatal(rooms, err, ok)
	}
}

// A failover that loses a removal on the room's side, and keeps what the index knows of
// it: the members are the truth, whoever finds out (F3).
func TestARemovalThatTheRoomHasLostIsRepaired(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	for how, repair := range map[string]func(id string) error{
		"added again": func(id string) error {
			_, err := s.PutMember(t.Context(), as("alice"), id, "bob", "")
			return err
		},
		"found by a gateway": func(id string) error {
			return s.Repair(t.Context(), []chat.Membership{{Room: id, User: "bob"}})
		},
	} {
		id := room(t, s, "alice", "bob")
		key := keysLike(t, r, "*:room:"+id)
		before := r.Must(t, "HGET", key, "ver")
		must(t, s.RemoveMember(t.Context(), as("alice"), id, "bob"))
		r.Must(t, "HSET", key+":members", "bob", "member")
		r.Must(t, "HSET", key, "ver", fmt.Sprint(before))
		// What was swept of the outbox before is there again, too.
		r.Must(t, "XADD", strings.TrimSuffix(key, "room:"+id)+"outbox", "*", "r", id, "u", "bob", "v", fmt.Sprint(before), "h", "0-0", "op", "+")
		if member, ok := agree(t, s, id, "bob"); !member || ok {
			t.Fatal(how, "nothing to repair")
		}
		must(t, repair(id))
		if _, ok := agree(t, s, id, "bob"); !ok {
			t.Errorf("%s: bob is a member, and the index does not say so", how)
		}
		// The next removal counts as any.
		must(t, s.RemoveMember(t.Context(), as("alice"), id, "bob"))
		if member, ok := agree(t, s, id, "bob"); member || !ok {
			t.Errorf("%s: bob was removed: a member %v, agreed %v", how, member, ok)
		}
	}
}

// A removal that comes after a repair has asked the members is no lost one.
func TestARemovalDuringARepairStands(t *testing.T) {
	r := testkit.Redis(t)
	other := open(t, r.URL())
	var id string
	var asked atomic.Int32
	s := open(t, r.URL(), func(o *redisstore.Options) {
		o.Observer.Pipeline = func(lane string, _ int, _ time.Duration) {
			if lane == "reads" && asked.Add(1) == 2 { // first the index, then the members
				must(t, other.RemoveMember(background, as("alice"), id, "bob"))
			}
		}
	})
	must(t, s.Check(t.Context()))
	for _, before := range []bool{false, true} { // whether the index remembers a removal
		id = room(t, other, "alice", "bob")
		if before {
			must(t, other.RemoveMember(t.Context(), as("alice"), id, "bob"))
			_, err := other.PutMember(t.Context(), as("alice"), id, "bob", "")
			must(t, err)
			r.Must(t, "SET", strings.TrimSuffix(keysLike(t, r, "*:user:bob:rooms"), "rooms")+"left:"+id, "1")
		}
		r.Must(t, "HDEL", keysLike(t, r, "*:user:bob:rooms"), "r:"+id)
		asked.Store(0)
		must(t, s.Repair(t.Context(), []chat.Membership{{Room: id, User: "bob"}}))
		if member, ok := agree(t, other, id, "bob"); member || !ok || asked.Load() < 2 {
			t.Errorf("bob was removed: a member %v, agreed %v, after %d reads", member, ok, asked.Load())
		}
	}
}

// M3: what is older than what the index knows is ignored, removals included.
func TestOlderChangesAreIgnored(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice", "bob")
	must(t, s.RemoveMember(t.Context(), as("alice"), id, "bob"))
	states, _ := s.ReadUsers(t.Context(), []string{"bob"})

	// The addition comes again, late, as a sweeper would bring it.
	outbox := strings.Replace(keysLike(t, r, "*:room:"+id), "room:"+id, "outbox", 1)
	_, err := r.Do("DEL", outbox) // an emptied stream remembers its last ID
	must(t, err)
	r.Must(t, "XADD", outbox, "1-1", "r", id, "u", "bob", "v", "5", "h", "0-0", "op", "+")
	// And something that is no entry, which must not hold the others up.
	r.Must(t, "XADD", outbox, "1-2", "x", "y")
	if n, err := s.Sweep(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	after, _ := s.ReadUsers(t.Context(), []string{"bob"})
	if len(after[0].Rooms) != 0 || after[0].Rev != states[0].Rev {
		t.Fatalf("before %+v, after %+v", states, after)
	}
	if v, _ := r.Do("XLEN", outbox); v != int64(0) {
		t.Fatalf("%v entries left", v)
	}
}

func TestIDsGrowWhenTheClockWentBackAndTheLogIsGone(t *testing.T) {
	for _, a := range []string{"mini", "standalone"} {
		t.Run(a, func(t *testing.T) {
			var do func(args ...string)
			var s *redisstore.Store
			var roomKey func(id string) string
			if a == "mini" {
				m := testkit.Mini(t)
				s = open(t, m.URL())
				do = func(args ...string) { m.HSet(args[1], args[2], args[3]) }
				roomKey = func(id string) string {
					for _, k := range m.Keys() {
						if strings.HasSuffix(k, ":room:"+id) {
							return k
						}
					}
					return ""
				}
			} else {
				r := testkit.Redis(t)
				s = open(t, r.URL())
				do = func(args ...string) { r.Must(t, args...) }
				roomKey = func(id string) string { return keysLike(t, r, "*:room:"+id) }
			}
			for _, head := range []string{"9999999999999-9", "9999999999999-18446744073", "10000000000000-0", "99999999999999-99"} {
				id := room(t, s, "alice")
				do("HSET", roomKey(id), "head", head)
				first := send(t, s, id, "alice", "k1", "x")
				second := send(t, s, id, "alice", "k2", "x")
				if first.Prev.String() != head || !first.Prev.Less(first.ID) || second.Prev != first.ID || !first.ID.Less(second.ID) {
					t.Errorf("head %s, then %+v, then %+v", head, first, second)
				}
				pages, _ := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: id, Limit: 10}})
				if len(pages[0].Entries) != 2 || pages[0].Entries[0].ID != first.ID || pages[0].Head != second.ID {
					t.Errorf("log %+v", pages[0])
				}
			}
		})
	}
}

// Fewer bytes than a message takes: what was just acknowledged is in the log all the same.
func TestAMessageOutlivesItsOwnSend(t *testing.T) {
	few := int64(100)
	for _, a := range arrangements[:2] {
		t.Run(a, func(t *testing.T) {
			s := open(t, servers.url(t, a))
			id := room(t, s, "alice")
			must(t, s.Retain(t.Context(), id, chat.Retention{Bytes: &few}))
			for range 32 {
				sent := send(t, s, id, "alice", name("k"), strings.Repeat("x", 1000))
				pages, _ := s.ReadLogs(t.Context(), []chat.LogQuery{{Room: id, From: sent.ID, Limit: 10}})
				if got := pages[0].Entries; len(got) != 1 || got[0].ID != sent.ID {
					t.Fatalf("message %d was acknowledged, and the log has %v", sent.N, got)
				}
			}
		})
	}
}

func TestIdempotencyEndsWithItsWindow(t *testing.T) {
	for _, a := range arrangements[:2] {
		t.Run(a, func(t *testing.T) {
			s := open(t, servers.url(t, a), func(o *redisstore.Options) { o.IdempotencyTTL = 50 * time.Millisecond })
			id := room(t, s, "alice")
			first := send(t, s, id, "alice", "k", "x")
			soon(t, 5*time.Second, "another message", func() bool { return send(t, s, id, "alice", "k", "x").ID != first.ID })
		})
	}
}

// A member whom the index lacks, because what adds them is on its way still, follows
// from the moment of joining, also when others have joined since (F3).
func TestARepairKnowsTheMomentOfJoining(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	half := open(t, r.URL(), func(o *redisstore.Options) { o.MinReplicasAck, o.AckTimeout = 1, 10*time.Millisecond }) // stops after the members script
	for _, other := range []bool{false, true} {
		id, bob := room(t, s, "alice"), name("bob")
		first := send(t, s, id, "alice", "k1", "before bob")
		_, err := half.PutMember(t.Context(), as("alice"), id, bob, "") // its answer is lost, or the process dies
		wantErr(t, err, chat.ErrNotReplicated)
		send(t, s, id, "alice", "k2", "one")
		send(t, s, id, "alice", "k3", "two")
		if other {
			_, err = s.PutMember(t.Context(), as("alice"), id, name("carol"), "")
			must(t, err)
		}
		_, err = s.PutMember(t.Context(), as("alice"), id, bob, "") // the retry
		must(t, err)
		rooms, _, _, err := s.Rooms(t.Context(), bob, "", 10)
		must(t, err)
		states, errs := s.ReadUsers(t.Context(), []string{bob})
		must(t, errors.Join(errs...))
		if rooms[0].Unread != 2 || states[0].Rooms[0].Head != first.ID {
			t.Errorf("with another join in between %v: unread %d, want 2; follows from %v, joined at %v", other, rooms[0].Unread, states[0].Rooms[0].Head, first.ID)
		}
	}
}
