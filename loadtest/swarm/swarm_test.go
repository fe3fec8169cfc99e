package swarm_test

import (
	"context"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/internal/fakechat"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/loadtest/swarm"
	"github.com/madang-chat/madang/loadtest/target"
)

// stage is a fake server, a crowd of 20 in 4 rooms of 10 and a swarm of them all.
type stage struct {
	t      *testing.T
	server *fakechat.Server
	crowd  *crowd.Crowd
	clock  clock.Clock
	swarm  *swarm.Swarm
	sent   ledger.Send
	acks   []ledger.Ack
	gaps   chan gap
}

type gap struct {
	user        int
	room        uint32
	after, head ledger.Pos
}

func newStage(t *testing.T, change func(*swarm.Config)) *stage {
	t.Helper()
	c, err := crowd.New(crowd.Shape{Prefix: "t", Users: 20, Rooms: 4, Each: 10})
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{t: t, server: fakechat.New(t), crowd: c, clock: clock.New(clock.Offset()), gaps: make(chan gap, 100)}
	for room := range c.Rooms() {
		var members []string
		for k := range c.Size(room) {
			members = append(members, c.User(c.Member(room, k)))
		}
		st.server.Create(c.Room(room), members...)
	}
	m, err := mint.New(fakechat.Secret, mint.Claims{Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := swarm.Config{
		Dialect: target.Madang{}, Clock: st.clock, Gateways: []netip.AddrPort{st.server.Addr()},
		Sources: []netip.Addr{netip.MustParseAddr("127.1.2.3"), netip.MustParseAddr("127.1.2.4")},
		Mint:    m, Crowd: c, Count: c.Users(), Base: func(uint32) ledger.Pos { return 0 },
		Timeout: 5 * time.Second, Backoff: 20 * time.Millisecond,
		OnGap: func(user int, room uint32, after, head ledger.Pos) { st.gaps <- gap{user, room, after, head} },
	}
	cfg.PollEvery = 50 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	if st.swarm, err = swarm.New(cfg); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- st.swarm.Run(context.Background()) }()
	t.Cleanup(func() {
		st.swarm.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return st
}

// overEach runs a test once over each transport.
func overEach(t *testing.T, test func(t *testing.T, over target.Transport)) {
	for _, over := range []target.Transport{target.WebSocket, target.EventStream, target.LongPoll, target.Polling} {
		t.Run(over.String(), func(t *testing.T) { test(t, over) })
	}
}

// by is a change of a stage's configuration.
func by(over target.Transport) func(*swarm.Config) {
	return func(c *swarm.Config) { c.Transport = over }
}

// send sends one message to a room and takes it for acknowledged.
func (st *stage) send(room int) {
	st.sent++
	key := string(stamp.Append(nil, st.clock.Now(), st.sent))
	id := st.server.Post(st.crowd.Room(room), st.crowd.User(st.crowd.Member(room, 0)), key)
	pos, _ := ledger.Pack(id)
	st.acks = append(st.acks, ledger.Ack{Room: uint32(room), Send: st.sent, Pos: pos})
}

// wait polls the swarm until cond holds.
func (st *stage) wait(what string, cond func(swarm.Stats) bool) swarm.Stats {
	st.t.Helper()
	var last swarm.Stats
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		snap, ok := st.swarm.Snapshot(5 * time.Second)
		if !ok {
			st.t.Fatal("the loop does not answer")
		}
		if last = snap.Stats; cond(last) {
			return last
		}
	}
	st.t.Fatalf("%s: not so after 10 s: %+v", what, last)
	return last
}

func (st *stage) allLive() swarm.Stats {
	st.t.Helper()
	return st.wait("all live", func(s swarm.Stats) bool { return s.Live == st.crowd.Users() })
}

func (st *stage) judge() ledger.Judgement {
	st.t.Helper()
	j, ok := st.swarm.Judge(st.acks, 5*time.Second)
	if !ok {
		st.t.Fatal("no judgement")
	}
	return j
}

func TestEveryMessageReachesEveryMember(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		st := newStage(t, by(over))
		st.swarm.Ramp()
		st.allLive()
		for i := range 200 {
			st.send(i % 4)
		}
		got := st.wait("all delivered", func(s swarm.Stats) bool { return s.Arrivals == 2000 })
		j := st.judge()
		if j.Owed != 2000 || j.Kept != 2000 || j.Lost+j.Unacked+j.Doubled+j.Wrong != 0 {
			t.Errorf("judgement %+v", j)
		}
		if got.Opened != 20 || got.Ledger.Duplicates+got.Ledger.Reordered+got.Ledger.Broken+got.Strays != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

func TestAfterADropEverythingIsResumed(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		st := newStage(t, by(over))
		st.swarm.Ramp()
		st.allLive()
		st.send(0)
		st.wait("delivered", func(s swarm.Stats) bool { return s.Arrivals == 10 })
		st.swarm.Drop(1, 50*time.Millisecond, 0)
		for i := range 100 {
			st.send(i % 4)
		}
		s := st.wait("back, with all", func(s swarm.Stats) bool { return s.Live == 20 && s.Arrivals == 1010 })
		if j := st.judge(); j.Kept != 1010 || j.Lost != 0 {
			t.Errorf("judgement %+v", j)
		}
		if s.Returned != 20 || s.Drops["dropped by the tester"] != 20 || s.Ledger.Duplicates != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestAServerThatDropsAllIsComeBackTo(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		if over == target.Polling {
			t.Skip("between polls there is nothing to drop")
		}
		st := newStage(t, by(over))
		st.swarm.Ramp()
		st.allLive()
		st.wait("all at the server", func(swarm.Stats) bool { return st.server.Conns() == 20 })
		st.server.DropAll()
		st.wait("all back", func(s swarm.Stats) bool { return s.Live == 20 && s.Returned == 20 })
		st.send(1)
		st.wait("delivered", func(s swarm.Stats) bool { return s.Arrivals == 10 })
	})
}

func TestMisbehaviourIsNoticed(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		victim := func(user, room string, n uint64) bool { return user == "t-u3" && room == "t-r0" && n == 5 }
		cases := map[string]struct {
			break_ func(*fakechat.Server)
			lost   uint64
			counts ledger.Counts
		}{
			"a message is not delivered": {
				func(s *fakechat.Server) {
					s.Misdeliver = func(user, room string, n uint64) int {
						if victim(user, room, n) {
							return 0
						}
						return 1
					}
				}, 1, ledger.Counts{Delivered: 99, Skipped: 1},
			},
			"a message is delivered twice": {
				func(s *fakechat.Server) {
					s.Misdeliver = func(user, room string, n uint64) int {
						if victim(user, room, n) {
							return 2
						}
						return 1
					}
				}, 0, ledger.Counts{Delivered: 100, Duplicates: 1},
			},
			"two messages change places": {
				func(s *fakechat.Server) { s.Swap = victim }, 1, ledger.Counts{Delivered: 99, Skipped: 1, Reordered: 1},
			},
		}
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				if over.Polls() && c.counts.Reordered > 0 {
					t.Skip("what the fake server holds back belongs to one poll")
				}
				st := newStage(t, by(over))
				c.break_(st.server)
				st.swarm.Ramp()
				st.allLive()
				for range 10 {
					st.send(0)
				}
				want := c.counts.Delivered + c.counts.Duplicates + c.counts.Reordered
				s := st.wait("all that will come", func(s swarm.Stats) bool {
					return s.Ledger.Delivered+s.Ledger.Duplicates+s.Ledger.Reordered == want
				})
				// A reader that comes to an entry first reports the break of the chain
				// instead of one that others saw: both are the same skip.
				s.Ledger.Broken = 0
				if s.Ledger != c.counts {
					t.Errorf("counts\n got %+v\nwant %+v", s.Ledger, c.counts)
				}
				if j := st.judge(); j.Lost != c.lost || (c.lost > 0) != (len(j.Violations) > 0) {
					t.Errorf("judgement %+v", j)
				}
			})
		}
	})
}

func TestAGapIsHandedOutForPaging(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		st := newStage(t, by(over))
		st.swarm.Ramp()
		st.allLive()
		st.send(0)
		st.wait("delivered", func(s swarm.Stats) bool { return s.Arrivals == 10 })
		st.server.Trim(1000)
		st.swarm.Drop(1, 0, 0)
		st.wait("none live", func(s swarm.Stats) bool { return s.Drops["dropped by the tester"] == 20 })
		st.send(0)
		st.wait("all back", func(s swarm.Stats) bool { return s.Live == 20 })
		if lost := st.judge().Lost; lost != 0 && lost != 10 { // who was back before the send got it live
			t.Logf("%d to page", lost)
		}
		last := st.acks[1]
		for range st.judge().Lost {
			g := <-st.gaps
			if g.room != 0 || g.after != st.acks[0].Pos || g.head != last.Pos {
				t.Fatalf("gap %+v", g)
			}
			st.swarm.Paged(g.user, g.room, []swarm.Paged{{Pos: last.Pos, Send: last.Send}}, g.head, false)
		}
		if j := st.judge(); j.Kept != 20 || j.Lost+j.Noticed != 0 {
			t.Errorf("judgement %+v", j)
		}
	})
}

// opens is how failures between a connected socket and one that delivers begin.
var opens = map[target.Transport]string{target.WebSocket: "upgrade", target.EventStream: "stream", target.LongPoll: "poll", target.Polling: "poll"}

func TestAWrongTokenIsGivenUpAtOnce(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		other, err := mint.New([]byte("another secret of thirty-two bytes"), mint.Claims{Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		st := newStage(t, func(c *swarm.Config) { c.Mint, c.Transport = other, over })
		st.swarm.Ramp()
		s := st.wait("all given up", func(s swarm.Stats) bool { return s.Gone == 20 })
		if s.Attempts != 20 || s.Failures[opens[over]+": refused with 401"] != 20 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestAnUnreachableGatewayIsGivenUpAfterItsRetries(t *testing.T) {
	st := newStage(t, func(c *swarm.Config) {
		c.Gateways = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
		c.Retries, c.Backoff = 3, time.Millisecond
	})
	st.swarm.Ramp()
	s := st.wait("all given up", func(s swarm.Stats) bool { return s.Gone == 20 })
	if s.Failures["connect: connection refused"] != 60 {
		t.Errorf("stats %+v", s)
	}
}

// All gateways were away for long; one of them does not come back.
func TestAfterAnyNumberOfAttemptsTheNextGatewayIsTried(t *testing.T) {
	st := newStage(t, func(c *swarm.Config) {
		c.Gateways = append(c.Gateways, netip.MustParseAddrPort("127.0.0.1:1"))
		c.Backoff = time.Nanosecond
	})
	st.server.RefuseSockets(http.StatusServiceUnavailable)
	st.swarm.Ramp()
	for n := uint64(1); n <= 331; n += 30 {
		st.wait("attempts", func(s swarm.Stats) bool { return s.Attempts >= n*20 })
	}
	st.server.RefuseSockets(0)
	st.allLive()
}

func TestTheRampKeepsItsRate(t *testing.T) {
	st := newStage(t, func(c *swarm.Config) { c.Rate = 100 })
	began := time.Now()
	st.swarm.Ramp()
	st.allLive()
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("20 connections at 100/s were up after %v", took)
	}
}

// Clients 0 to 9 are in one room, 10 to 19 in the other.
func TestStalledClientsSitBesideOthers(t *testing.T) {
	st := newStage(t, nil)
	st.swarm.Ramp()
	st.allLive()
	st.swarm.Stall(10)
	st.wait("stalled", func(swarm.Stats) bool { return true })
	st.send(0)
	st.wait("delivered to the others", func(s swarm.Stats) bool { return s.Arrivals == 5 })
	st.swarm.Unstall()
	st.wait("delivered to all", func(s swarm.Stats) bool { return s.Arrivals == 10 })
}

// One that is cut off for not reading is back at once and reads what it has missed:
// late, and not because others do not read.
func TestWhoIsCutOffForNotReadingIsNotAmongTheOthers(t *testing.T) {
	st := newStage(t, nil)
	st.swarm.Ramp()
	st.allLive()
	st.swarm.Stall(10)
	st.wait("stalled", func(swarm.Stats) bool { return true })
	st.swarm.Drop(1, 0, 0)
	st.wait("all back", func(s swarm.Stats) bool { return s.Returned == 20 && s.Live == 20 })
	arrivals := uint64(0)
	measured := func() uint64 {
		m := meter.New()
		st.send(0)
		for arrivals += 10; ; time.Sleep(5 * time.Millisecond) {
			snap, ok := st.swarm.Snapshot(5 * time.Second)
			if !ok {
				t.Fatal("the loop does not answer")
			}
			if err := m.Merge(snap.Latency.Encode()); err != nil {
				t.Fatal(err)
			}
			if snap.Stats.Arrivals == arrivals {
				return uint64(m.Dist().Count)
			}
		}
	}
	before := measured()
	st.swarm.Unstall()
	if after := measured(); before != 5 || after != 10 {
		t.Errorf("%d of 10 deliveries measured before Unstall, %d after, want 5 and 10", before, after)
	}
}

func TestStalledClientsCatchUp(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		st := newStage(t, by(over))
		st.swarm.Ramp()
		st.allLive()
		st.swarm.Stall(20)
		st.wait("stalled", func(swarm.Stats) bool { return true })
		st.send(0)
		time.Sleep(20 * time.Millisecond) // nothing may come in it: there is no event to wait for
		if s := st.wait("", func(swarm.Stats) bool { return true }); s.Arrivals != 0 {
			t.Errorf("%d arrivals at stalled clients", s.Arrivals)
		}
		st.swarm.Unstall()
		st.wait("delivered", func(s swarm.Stats) bool { return s.Arrivals == 10 })
	})
}
