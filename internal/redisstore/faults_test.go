package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// trySend sends once, with a deadline.
func trySend(s *redisstore.Store, room, key string, within time.Duration) (chat.Sent, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return s.Send(ctx, chat.Send{Room: room, By: as("alice"), Key: key, Hash: "h", Tail: tail("x")})
}

// failover is how long servers may take to elect and synchronise one another: how
// long they did is measured elsewhere.
const failover = time.Minute

// wantDelivery proves that a link delivers: what is sent comes.
func (e *ear) wantDelivery(t testing.TB, room string, within time.Duration) {
	t.Helper()
	before := len(e.heard(roomCh(room)))
	var sent error
	defer func() {
		if t.Failed() {
			t.Logf("the last send: %v", sent)
		}
	}()
	soon(t, within, "a delivery in "+room, func() bool {
		_, sent = trySend(e.s, room, name("k"), time.Second)
		return len(e.heard(roomCh(room))) > before
	})
}

func TestAKilledLinkIsMadeAgain(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	link := s.LinkOf(roomCh(id))
	e.wantDelivery(t, id, 5*time.Second)
	r.Must(t, "CLIENT", "KILL", "TYPE", "pubsub")
	soon(t, 3*time.Second, "the link down and up again", func() bool {
		return e.count(e.downs, link) == 1 && e.count(e.ups, link) == 2
	})
	e.wantDelivery(t, id, 3*time.Second)
	e.wantHealthy(t, 5*time.Second)
}

func TestAListenerThatCannotTakeAnEventBreaksTheLink(t *testing.T) {
	s := open(t, servers.url(t, "standalone"))
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.mu.Lock()
	e.deafTo = "too much"
	e.mu.Unlock()
	send(t, s, id, "alice", "k", "too much")
	link := s.LinkOf(roomCh(id))
	soon(t, 3*time.Second, "the link made again", func() bool { return e.count(e.downs, link) == 1 && e.count(e.ups, link) == 2 })
	e.wantDelivery(t, id, 3*time.Second)
}

func TestAFrozenRedisIsNoticed(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL(), func(o *redisstore.Options) { o.CommandTimeout, o.MaxQueued = time.Second, 50 })
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	link := s.LinkOf(roomCh(id))
	e.wantHealthy(t, 5*time.Second)
	r.Pause()
	frozen := time.Now()

	// Sends end at their deadlines, and those that find the queue full at once.
	var overflow, late atomic.Int32
	var wg sync.WaitGroup
	for i := range 1500 {
		wg.Go(func() {
			start := time.Now()
			_, err := trySend(s, id, fmt.Sprint("k", i), 500*time.Millisecond)
			if !errors.Is(err, chat.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if took := time.Since(start); took < 200*time.Millisecond {
				overflow.Add(1)
			} else if took > 2*time.Second {
				late.Add(1)
			}
		})
	}
	wg.Wait()
	if overflow.Load() < 500 || late.Load() > 0 {
		t.Errorf("%d sends were refused at once, %d came back late", overflow.Load(), late.Load())
	}
	soon(t, 6*time.Second, "the link down", func() bool { return e.count(e.downs, link) == 1 })
	if took := time.Since(frozen); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("noticed after %v", took)
	}
	if ok, _ := s.Healthy(); ok {
		t.Error("healthy without links")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	wantErr(t, s.Ready(ctx), chat.ErrUnavailable)
	r.Resume()
	e.wantDelivery(t, id, 6*time.Second)
	e.wantHealthy(t, 6*time.Second)
	must(t, s.Ready(t.Context()))
}

// A primary that was demoted, or an address that leads to a replica: nothing can be sent.
func TestAReplicaIsNotReady(t *testing.T) {
	r, primary := testkit.Redis(t), testkit.Redis(t)
	s := open(t, r.URL())
	must(t, s.Ready(t.Context()))
	r.Must(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(primary.Port))
	wantErr(t, s.Ready(t.Context()), chat.ErrUnavailable)
	r.Must(t, "REPLICAOF", "NO", "ONE")
	must(t, s.Ready(t.Context()))
}

func TestRedisDownAtStartAndBack(t *testing.T) {
	r := testkit.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	r.Kill()
	s := open(t, r.URL())
	wantErr(t, s.Check(t.Context()), chat.ErrUnavailable)
	wantErr(t, s.Ready(t.Context()), chat.ErrUnavailable)
	_, err := trySend(s, "r", "k", time.Second)
	wantErr(t, err, chat.ErrUnavailable)
	e := listen(s)
	must(t, r.Restart())
	soon(t, 5*time.Second, "ready", func() bool { return s.Ready(t.Context()) == nil })
	id := room(t, s, "alice")
	e.follow(t, roomCh(id))
	e.wantDelivery(t, id, 5*time.Second)

	// A restart under way is waited out, if it takes no second, as it may on a busy
	// machine; what was acknowledged before is there.
	first, err := trySend(s, id, "before", 3*time.Second)
	must(t, err)
	var again chat.Sent
	soon(t, failover, "a restart that is waited out", func() bool {
		if s.Ready(t.Context()) != nil {
			return false
		}
		r.Kill()
		killed, restarted := time.Now(), make(chan error, 1)
		go func() { restarted <- r.Restart() }()
		again, err = trySend(s, id, "before", 3*time.Second)
		must(t, <-restarted)
		if took := time.Since(killed); err != nil && took < 800*time.Millisecond {
			t.Fatalf("Redis was back after %v: %v", took, err)
		}
		return err == nil
	})
	if !again.Replayed || again.ID != first.ID {
		t.Fatalf("first %+v, again %+v", first, again)
	}
	e.wantDelivery(t, id, 6*time.Second)

	// One that stays away is told at once after the first second.
	r.Kill()
	_, _ = trySend(s, id, "away", 3*time.Second)
	start := time.Now()
	_, err = trySend(s, id, "away", 3*time.Second)
	wantErr(t, err, chat.ErrUnavailable)
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("a send to a Redis that is known to be away took %v", took)
	}
}

func TestAFlushedScriptCacheIsFilledAgain(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice")
	var wg sync.WaitGroup
	for i := range 10 {
		for k := range 20 {
			wg.Go(func() {
				if _, err := trySend(s, id, fmt.Sprintf("%d.%d", i, k), 3*time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		r.Must(t, "SCRIPT", "FLUSH")
	}
	wg.Wait()
	if got, _, _ := s.Room(t.Context(), server, id); got.N != 200 {
		t.Fatalf("%d messages", got.N)
	}
}

func TestAFlushedRedisHasANewEpoch(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	e := listen(s)
	e.wantHealthy(t, 5*time.Second)
	epoch := func(p int) string {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.epochs[p]
	}
	soon(t, 5*time.Second, "all epochs", func() bool { return epoch(0) != "" && epoch(15) != "" })
	// Another process made it: its epoch stays as long as the data does.
	before0, before15 := epoch(0), epoch(15)
	other := open(t, r.URL())
	o := listen(other)
	o.wantHealthy(t, 5*time.Second)
	o.mu.Lock()
	if o.epochs[0] != before0 {
		t.Errorf("two epochs of one Redis: %s and %s", before0, o.epochs[0])
	}
	o.mu.Unlock()
	other.Close()

	r.Must(t, "DEL", strings.Split(keysLike(t, r, "*:epoch"), " ")[0])
	flusher := open(t, r.URL()) // its feed would write another epoch
	fl := listen(flusher)
	r.Must(t, "FLUSHALL")
	_ = fl
	soon(t, 6*time.Second, "a new epoch everywhere", func() bool {
		a, b := epoch(0), epoch(15)
		return a != before0 && b != before15
	})
	for link := range s.Links() {
		if e.count(e.downs, link) != 0 {
			t.Error("the link broke: this must be noticed without")
		}
	}
}

func keysLike(t testing.TB, r *testkit.RedisServer, pattern string) string {
	t.Helper()
	v := r.Must(t, "KEYS", pattern)
	return strings.Trim(fmt.Sprint(v), "[]")
}

func TestSentinelFailoverIsFollowed(t *testing.T) {
	g := testkit.Sentinel(t)
	s := open(t, g.URL())
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, failover)
	// By order: the old primary stays up as a replica, its links too if nobody cares.
	must(t, g.Failover())
	e.wantDelivery(t, id, failover)
	e.wantHealthy(t, failover)
	// By death.
	must(t, g.Primary().AwaitReplicas(1)) // the old primary
	g.Primary().Kill()
	e.wantDelivery(t, id, failover)
	e.wantHealthy(t, failover)
}

func TestClusterFailoverIsFollowed(t *testing.T) {
	c := testkit.Cluster(t, 3, 1)
	s := open(t, c.URL())
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, failover)
	slot := slotOf(t, c, id)
	old := c.Owner(slot)
	must(t, old.AwaitReplicas(1))
	old.Kill()
	e.wantDelivery(t, id, failover)
	e.wantHealthy(t, failover)
}

// In a Cluster one node that hangs takes no API from the balancer, be it the one that
// has the schema: rooms on the others are served.
func TestReadyWhileTheNodeWithTheSchemaHangs(t *testing.T) {
	c := testkit.Cluster(t, 3, 0)
	s := open(t, c.URL())
	must(t, s.Ready(t.Context()))
	slot := c.Nodes[0].Must(t, "CLUSTER", "KEYSLOT", "madang:schema")
	node := c.Owner(int(slot.(int64)))
	node.Pause()
	defer node.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // as /readyz gives it
	defer cancel()
	must(t, s.Ready(ctx))
}

// L1: a primary that was demoted while its connections live on answers, and
// delivers nothing that is sent.
func TestADemotedPrimaryDoesNotKeepItsLinks(t *testing.T) {
	c := testkit.Cluster(t, 3, 1)
	s := open(t, c.URL())
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, 10*time.Second)
	old := c.Owner(slotOf(t, c, id))
	var replica *testkit.RedisServer
	oldID := old.Must(t, "CLUSTER", "MYID")
	for _, n := range c.Nodes[c.Masters:] {
		v := n.Must(t, "CLUSTER", "NODES")
		for line := range strings.SplitSeq(v.(string), "\n") {
			if strings.Contains(line, "myself") && strings.Contains(line, oldID.(string)) {
				replica = n
			}
		}
	}
	replica.Must(t, "CLUSTER", "FAILOVER")
	soon(t, 10*time.Second, "the replica promoted", func() bool { return c.Owner(slotOf(t, c, id)) != old })
	e.wantDelivery(t, id, 5*time.Second)
	e.wantHealthy(t, 10*time.Second)
}

func TestTooFewReplicasAreNoAcknowledgement(t *testing.T) {
	g := testkit.Sentinel(t)
	s := open(t, g.Nodes[0].URL(), func(o *redisstore.Options) {
		o.MinReplicasAck, o.AckTimeout = 1, 400*time.Millisecond
	})
	id := room(t, s, "alice")
	sent := send(t, s, id, "alice", "k0", "x")
	if sent.Durability != chat.Replicated {
		t.Fatalf("%+v", sent)
	}
	g.Sentinels[0].Kill() // nobody is to promote the replica
	g.Nodes[1].Pause()
	_, err := trySend(s, id, "k1", 3*time.Second)
	wantErr(t, err, chat.ErrNotReplicated)
	_, err = trySend(s, id, "k1", 3*time.Second)
	wantErr(t, err, chat.ErrNotReplicated) // a replay WAITs too
	_, err = s.PutMember(t.Context(), as("alice"), id, "bob", "")
	wantErr(t, err, chat.ErrNotReplicated)
	g.Nodes[1].Resume()
	var again chat.Sent
	soon(t, 5*time.Second, "the retry acknowledged", func() bool {
		again, err = trySend(s, id, "k1", time.Second)
		return err == nil
	})
	if !again.Replayed || again.N != 2 || again.Durability != chat.Replicated {
		t.Fatalf("%+v", again)
	}
	// The change that was not acknowledged is brought to its end by the sweep.
	soon(t, 10*time.Second, "bob's index", func() bool {
		_, _ = s.Sweep(t.Context())
		states, _ := s.ReadUsers(t.Context(), []string{"bob"})
		return len(states[0].Rooms) == 1
	})
}

// What was refused stored nothing that a replica could lack.
func TestARefusalIsToldWhileReplicasAreAway(t *testing.T) {
	r := testkit.Redis(t)
	acked := open(t, r.URL(), func(o *redisstore.Options) {
		o.MinReplicasAck, o.AckTimeout = 1, time.Millisecond
	})
	s := open(t, r.URL())
	id := room(t, s, "alice", "bob")
	send(t, s, id, "bob", "used", "x")
	try := func(by, room, key, hash string, replayOnly bool, want error) {
		t.Helper()
		_, err := acked.Send(t.Context(), chat.Send{Room: room, By: as(by), Key: key, Hash: hash, Tail: tail(hash), ReplayOnly: replayOnly})
		wantErr(t, err, want)
	}
	try("eve", id, "k", "x", false, chat.ErrNotMember)
	try("alice", name("none"), "k", "x", false, chat.ErrNoRoom)
	try("bob", id, "used", "another body", false, chat.ErrKeyReused)
	try("bob", id, "new", "x", true, chat.ErrLimited)
	_, err := acked.CreateRoom(t.Context(), as("alice"), id, "", nil)
	wantErr(t, err, chat.ErrRoomExists)
	_, err = acked.PutMember(t.Context(), as("bob"), id, "eve", "")
	wantErr(t, err, chat.ErrNotAllowed)
	wantErr(t, acked.RemoveMember(t.Context(), as("bob"), id, "alice"), chat.ErrNotAllowed)

	must(t, s.Pace(t.Context(), id, 0.1, time.Minute))
	try("alice", id, "k1", "x", false, chat.ErrNotReplicated) // stored
	try("alice", id, "k2", "x", false, chat.ErrRoomBusy)
	try("alice", id, "k1", "x", false, chat.ErrNotReplicated)
}

func TestAFullRedisRefusesAndLosesNothing(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice")
	first := send(t, s, id, "alice", "k1", "x")
	r.Must(t, "CONFIG", "SET", "maxmemory", "1")
	_, err := trySend(s, id, "k2", time.Second)
	wantErr(t, err, chat.ErrStorageFull)
	_, err = s.PutMember(t.Context(), as("alice"), id, "bob", "")
	wantErr(t, err, chat.ErrStorageFull)
	again, err := s.Send(t.Context(), chat.Send{Room: id, By: as("alice"), Key: "k1", Hash: "x", Tail: tail("x")})
	if err != nil || again.ID != first.ID {
		t.Fatal("the retry of what was accepted", again, err)
	}
	r.Must(t, "CONFIG", "SET", "maxmemory", "0")
	second, err := trySend(s, id, "k2", time.Second)
	if err != nil || second.Prev != first.ID || second.N != 2 {
		t.Fatal(second, err)
	}
}

// A Redis that is full for longer than a canary may stay away is still heard.
func TestReceivingGoesOnWhileRedisIsFull(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL())
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, 5*time.Second)
	r.Must(t, "CONFIG", "SET", "maxmemory", "1")
	for full := time.Now(); time.Since(full) < 7*time.Second; time.Sleep(100 * time.Millisecond) {
		if ok, why := s.Healthy(); !ok {
			t.Fatalf("after %v: %s", time.Since(full), why)
		}
	}
	_, err := trySend(s, id, "k", time.Second)
	wantErr(t, err, chat.ErrStorageFull)
	errs := s.PublishLive(t.Context(), []chat.LiveEvent{{Room: id, Event: []byte("typing")}})
	if errs != nil {
		t.Fatal(errs)
	}
	soon(t, 3*time.Second, "a live event", func() bool { return len(e.heard(roomCh(id))) == 1 })
}

// proxy stands before a Redis, counts what clients send and can swallow it.
type proxy struct {
	net.Listener
	requests atomic.Int64 // segments from clients
	mute     atomic.Bool
	swallow  atomic.Pointer[string] // what comes from Redis next with this in it is dropped, once
}

func newProxy(t testing.TB, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{Listener: l}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			conns[in], conns[out] = true, true
			mu.Unlock()
			pump := func(dst, src net.Conn, count *atomic.Int64) {
				defer dst.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := src.Read(buf)
					if err != nil {
						return
					}
					if count != nil {
						count.Add(1)
					}
					if p.mute.Load() {
						continue
					}
					if what := p.swallow.Load(); what != nil && count == nil && bytes.Contains(buf[:n], []byte(*what)) {
						p.swallow.Store(nil)
						continue
					}
					if _, err := dst.Write(buf[:n]); err != nil {
						return
					}
				}
			}
			wg.Go(func() { pump(out, in, &p.requests) })
			wg.Go(func() { pump(in, out, nil) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return p
}

func TestASendIsOneRoundTrip(t *testing.T) {
	r := testkit.Redis(t)
	p := newProxy(t, r.Addr())
	s := open(t, "redis://"+p.Addr().String())
	id := room(t, s, "alice")
	send(t, s, id, "alice", "warm", "x") // the script is loaded now
	before, stats := p.requests.Load(), r.Calls()["evalsha"]
	for i := range 100 {
		send(t, s, id, "alice", fmt.Sprint("k", i), "x")
	}
	if got := p.requests.Load() - before; got != 100 {
		t.Errorf("%d requests for 100 sends", got)
	}
	if got := r.Calls()["evalsha"] - stats; got != 100 {
		t.Errorf("%d scripts for 100 sends", got)
	}
}

func TestAReadOfManyIsFewRoundTrips(t *testing.T) {
	r := testkit.Redis(t)
	p := newProxy(t, r.Addr())
	var pipelines atomic.Int32
	s := open(t, "redis://"+p.Addr().String(), func(o *redisstore.Options) {
		o.Observer.Pipeline = func(string, int, time.Duration) { pipelines.Add(1) }
	})
	users := make([]string, 15_000)
	for i := range users {
		users[i] = fmt.Sprint("u", i)
	}
	id := room(t, s, users[7])
	pipelines.Store(0)
	start := time.Now()
	states, errs := s.ReadUsers(t.Context(), users)
	if errs != nil || len(states[7].Rooms) != 1 || states[7].Rooms[0].Room != id {
		t.Fatalf("%v %+v", errs, states[7])
	}
	if n := pipelines.Load(); n > 40 {
		t.Errorf("%d round trips for 15,000 users", n)
	}
	t.Logf("15,000 users in %v, %d round trips", time.Since(start), pipelines.Load())
}

func TestALinkThatIsDroppedSilentlyIsNoticed(t *testing.T) {
	r := testkit.Redis(t)
	p := newProxy(t, r.Addr())
	s := open(t, "redis://"+p.Addr().String(), func(o *redisstore.Options) { o.CommandTimeout = time.Second })
	e := listen(s)
	e.wantHealthy(t, 5*time.Second)
	p.mute.Store(true)
	soon(t, 6*time.Second, "links down", func() bool { return e.count(e.downs, 0) == 1 })
	p.mute.Store(false)
	e.wantHealthy(t, 6*time.Second)
}

// Sends went elsewhere for a moment, or a publication was dropped: a canary does
// not come back, and the next one does, long before the link counts as deaf. What
// was sent between them is missing just as well.
func TestACanaryThatIsOvertakenBreaksTheLink(t *testing.T) {
	r := testkit.Redis(t)
	p := newProxy(t, r.Addr())
	s := open(t, "redis://"+p.Addr().String(), func(o *redisstore.Options) { o.Links = 1 })
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, 5*time.Second)
	canary := "}:gateway:" // the channel: in no answer to a command
	p.swallow.Store(&canary)
	soon(t, 10*time.Second, "a canary lost", func() bool { return p.swallow.Load() == nil })
	soon(t, 10*time.Second, "the link made again", func() bool { return e.count(e.downs, 0) == 1 && e.count(e.ups, 0) == 2 })
	e.wantDelivery(t, id, 3*time.Second)
	e.wantHealthy(t, 5*time.Second)
	time.Sleep(5 * time.Second) // canaries in order break nothing
	if n := e.count(e.downs, 0); n != 1 {
		t.Errorf("%d breaks", n)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL(), func(o *redisstore.Options) { o.CommandTimeout = 30 * time.Second })
	id := room(t, s, "alice")
	listen(s)
	r.Pause()
	ended := make(chan error, 1)
	go func() {
		_, err := trySend(s, id, "k", 20*time.Second)
		ended <- err
	}()
	start := time.Now()
	_ = s.Close()
	wantErr(t, <-ended, chat.ErrUnavailable)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	r.Resume()
	_, err := trySend(s, id, "k", time.Second)
	wantErr(t, err, chat.ErrUnavailable)
	must(t, s.Close())
}

// A retry waits for replicas as the first attempt did, also through a process that wrote
// nothing of it: since 7.2 WAIT is satisfied at once on a connection that has not written.
func TestAReplayThroughAnotherProcessWaits(t *testing.T) {
	g := testkit.Sentinel(t)
	acked := func(o *redisstore.Options) { o.MinReplicasAck, o.AckTimeout = 1, 300*time.Millisecond }
	one := open(t, g.Nodes[0].URL(), acked)
	two := open(t, g.Nodes[0].URL(), acked)
	id := room(t, one, "alice")
	// two has a connection, as an API that serves others has.
	send(t, two, id, "alice", "k0", "x")
	g.Sentinels[0].Kill()
	g.Nodes[1].Pause()
	_, err := trySend(one, id, "k1", 3*time.Second)
	wantErr(t, err, chat.ErrNotReplicated)
	sent, err := trySend(two, id, "k1", 3*time.Second) // the client's retry, by the balancer's choice
	if !errors.Is(err, chat.ErrNotReplicated) {
		t.Errorf("replay: %+v %v: acknowledged as %q, and the replica is stopped", sent, err, sent.Durability)
	}
	// Members scripts likewise (M3).
	_, err = one.PutMember(t.Context(), as("alice"), id, "bob", "")
	wantErr(t, err, chat.ErrNotReplicated)
	if _, err = two.PutMember(t.Context(), as("alice"), id, "bob", ""); !errors.Is(err, chat.ErrNotReplicated) {
		t.Errorf("put again: %v: acknowledged, and the replica is stopped", err)
	}
}
