package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

func TestAMovedSlotIsFollowed(t *testing.T) {
	c := testkit.Cluster(t, 3, 0)
	s := open(t, c.URL())
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, 10*time.Second)
	link := s.LinkOf(roomCh(id))

	// Sends go on all the while; none may fail, none may be lost.
	stop := make(chan struct{})
	var sent atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := trySend(s, id, fmt.Sprint("k", i), 3*time.Second); err != nil {
				t.Errorf("send %d: %v", i, err)
				return
			}
			sent.Add(1)
		}
	})
	for range 3 {
		downs := e.count(e.downs, link)
		slot := slotOf(t, c, id)
		from := c.Owner(slot)
		to := c.Nodes[0]
		if to == from {
			to = c.Nodes[1]
		}
		must(t, c.MoveSlot(slot, to))
		soon(t, 4*time.Second, "the link made again at the new owner", func() bool {
			return e.count(e.downs, link) > downs && e.count(e.ups, link) == e.count(e.downs, link)+1
		})
		e.wantDelivery(t, id, 3*time.Second)
	}
	close(stop)
	wg.Wait()
	got, _, err := s.Room(t.Context(), server, id)
	if err != nil || got.N < uint64(sent.Load()) {
		t.Fatalf("%d sent, %d in the log, %v", sent.Load(), got.N, err)
	}
	e.wantHealthy(t, 10*time.Second)
}

// A slot that is on its way refuses canaries as it refuses sends, for as long as
// its keys take. Its link delivers nothing less for that, and the gateway is no
// less ready for everybody else.
func TestASlotThatIsBeingMovedDeafensNoLink(t *testing.T) {
	c := testkit.Cluster(t, 3, 0)
	var link, back atomic.Int64
	link.Store(-1)
	s := open(t, c.URL(), func(o *redisstore.Options) {
		o.Observer.CanaryBack = func(of int, _ time.Duration) {
			if int64(of) == link.Load() {
				back.Add(1)
			}
		}
	})
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, 10*time.Second)
	slot := slotOf(t, c, id)
	to := c.Nodes[0]
	if c.Owner(slot) == to {
		to = c.Nodes[1]
	}
	wantCanaries := func(when string) {
		t.Helper()
		back.Store(0)
		soon(t, 10*time.Second, "canaries back "+when, func() bool { return back.Load() >= 2 })
		if ok, why := s.Healthy(); !ok {
			t.Error(when, why)
		}
	}
	must(t, c.BeginMove(slot, to))
	link.Store(int64(s.LinkOf(roomCh(id))))
	_, err := trySend(s, id, "k", 100*time.Millisecond)
	wantErr(t, err, chat.ErrUnavailable)
	wantCanaries("while the slot's owner has its keys")
	if errs := s.PublishLive(t.Context(), []chat.LiveEvent{{Room: id, Event: []byte("typing")}}); errs != nil {
		t.Fatal(errs)
	}
	e.wantEvents(t, roomCh(id), "typing")
	must(t, c.MoveKeys(slot, to))
	wantCanaries("while the slot's owner has none of its keys")
	if n := e.count(e.downs, s.LinkOf(roomCh(id))); n != 0 {
		t.Errorf("%d breaks", n)
	}
	must(t, c.MoveSlot(slot, to))
	e.wantDelivery(t, id, 4*time.Second)
	e.wantHealthy(t, 10*time.Second)
}

// What is read of a slot that is on its way is there: with its owner, or with the next one.
func TestASlotThatIsBeingMovedIsRead(t *testing.T) {
	c := testkit.Cluster(t, 3, 0)
	s := open(t, c.URL())
	id, alice := room(t, s, "alice", "bob"), as("alice")
	sent := send(t, s, id, "alice", "k", "hi")
	other := func(slot int) *testkit.RedisServer {
		if c.Owner(slot) == c.Nodes[0] {
			return c.Nodes[1]
		}
		return c.Nodes[0]
	}
	in := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	wantRoom := func(when string) {
		t.Helper()
		if r, role, err := s.Room(in(), alice, id); err != nil || r.N != 1 || role != chat.RoleOwner {
			t.Errorf("%s the room is %+v, alice %q in it, %v", when, r, role, err)
		}
		if got, _, err := s.History(in(), alice, id, nil, nil, 10); err != nil || len(got) != 1 || got[0].ID != sent.ID {
			t.Errorf("%s its history is %v, %v", when, got, err)
		}
		if got, errs := s.ReadRooms(in(), []chat.RoomQuery{{Room: id, Users: []string{"bob"}}}); errs != nil || got[0].Head != sent.ID || !got[0].Member[0] {
			t.Errorf("%s a gateway reads %+v, %v", when, got, errs)
		}
		if got, _, _, err := s.Rooms(in(), "bob", "", 10); err != nil || len(got) != 1 || got[0].Room.ID != id {
			t.Errorf("%s bob's rooms are %v, %v", when, got, err)
		}
	}
	slot := slotOf(t, c, id)
	must(t, c.BeginMove(slot, other(slot)))
	wantRoom("before the room's keys have moved")
	must(t, c.MoveKeys(slot, other(slot)))
	wantRoom("when the room's keys have moved")
	must(t, c.MoveSlot(slot, other(slot)))
	wantRoom("when the room's slot has moved")

	slot = slotOfKey(t, c, "*:user:bob:rooms")
	must(t, c.BeginMove(slot, other(slot)))
	must(t, c.MoveKeys(slot, other(slot)))
	wantRoom("when bob's keys have moved")
}

// What is in no partition goes with its slot like anything else: a process starts, and the
// outboxes are swept, while that is on its way.
func TestWhatIsInNoPartitionMovesToo(t *testing.T) {
	c := testkit.Cluster(t, 3, 0)
	s := open(t, c.URL())
	must(t, s.Check(t.Context()))
	for _, key := range []string{"madang:schema", "madang:sweeper", "madang:attachments:sweeper"} {
		v := c.Nodes[0].Must(t, "CLUSTER", "KEYSLOT", key)
		slot := int(v.(int64))
		to := c.Nodes[0]
		if c.Owner(slot) == to {
			to = c.Nodes[1]
		}
		must(t, c.BeginMove(slot, to))
		must(t, c.MoveKeys(slot, to))
	}
	other := open(t, c.URL())
	must(t, other.Check(t.Context()))
	_, err := other.DueAttachments(t.Context(), time.Minute, 10)
	must(t, err)

	id := room(t, other, "alice")
	n := node(t, c, "*:room:"+id)
	outbox := strings.TrimSuffix(keysLike(t, n, "*:room:"+id), "room:"+id) + "outbox"
	_, err = n.Do("DEL", outbox) // an emptied stream remembers its last ID
	must(t, err)
	n.Must(t, "XADD", outbox, "1-1", "r", id, "u", "bob", "v", "1", "h", "0-0", "op", "+")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { other.RunSweeper(ctx) })
	defer wg.Wait()
	defer cancel()
	soon(t, 10*time.Second, "a swept outbox", func() bool { left, _ := n.Do("XLEN", outbox); return left == int64(0) })
}

// What travels with a call whose slot is being moved is acknowledged all the same.
func TestASlotThatIsBeingMovedTakesNoOthersAcknowledgement(t *testing.T) {
	c := testkit.Cluster(t, 2, 1)
	s := open(t, c.URL(), func(o *redisstore.Options) { o.MinReplicasAck = 1 })
	id := room(t, s, "alice")
	// Two that are in different slots of one node, so that they are kept in one pipeline.
	var ids []string
	var slot int
	for len(ids) < 2 {
		a := upload(t, s, "alice")
		at := slotOfKey(t, c, "*:attachment:"+a.ID)
		if len(ids) == 0 || at != slot && c.Owner(at) == c.Owner(slot) {
			ids, slot = append(ids, a.ID), at
		}
	}
	to := c.Nodes[0]
	if c.Owner(slot) == to {
		to = c.Nodes[1]
	}
	// The second's, which is last, so that the pipeline ends with a write to its slot; of what
	// is written there nothing is left, as after a minute without an acknowledgement.
	must(t, c.BeginMove(slot, to))
	key := keysLike(t, c.Owner(slot), "*:attachment:"+ids[1])
	c.Owner(slot).Must(t, "DEL", strings.TrimSuffix(key, "attachment:"+ids[1])+"acked")
	must(t, s.Attach(t.Context(), as("alice"), id, ids, 0))
}

// slotOf finds a room's slot by its key.
func slotOf(t testing.TB, c *testkit.RedisCluster, room string) int {
	t.Helper()
	return slotOfKey(t, c, "*:room:"+room)
}

func slotOfKey(t testing.TB, c *testkit.RedisCluster, pattern string) int {
	t.Helper()
	for _, n := range c.Nodes {
		v := n.Must(t, "KEYS", pattern)
		if keys := v.([]any); len(keys) == 1 {
			slot := n.Must(t, "CLUSTER", "KEYSLOT", keys[0].(string))
			return int(slot.(int64))
		}
	}
	t.Fatalf("no node has %s", pattern)
	return 0
}

// A Cluster may leave it to clients to know where its nodes are.
func TestAClusterWithoutAddressesIsNamed(t *testing.T) {
	c := testkit.Cluster(t, 1, 0)
	c.Nodes[0].Must(t, "CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
	err := open(t, c.URL()).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cluster-preferred-endpoint-type") {
		t.Errorf("it says %v", err)
	}
}
