package live_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// seatsWorld is several gateways and one Redis, played: requests run late, out of
// order, or fail and run all the same after they were given up.
type seatsWorld struct {
	t    *testing.T
	rng  *rand.Rand
	now  int64
	gws  []*seatsGateway
	keys map[string]map[string]chat.Seat // user -> gateway -> seat
	held map[string]map[string]bool      // gateway -> users
	dead map[string]bool
	told map[string][]bool // announcements, by user

	pending []pendingCall
	faults  bool
}

type pendingCall struct {
	at  int64
	run func()
}

type seatsGateway struct {
	w     *seatsWorld
	id    string
	c     *live.Core
	conns map[string]int   // what is so
	since map[string]int64 // the first of them
	next  uint32
}

func (w *seatsWorld) later(most int64, run func()) {
	w.pending = append(w.pending, pendingCall{w.now + w.rng.Int64N(most+1), run})
}

// The scripts.

func (w *seatsWorld) take(g string, s chat.Seat) error {
	if w.dead[g] {
		return chat.ErrDeclaredDead
	}
	if w.keys[s.User] == nil {
		w.keys[s.User] = map[string]chat.Seat{}
	}
	if _, there := w.keys[s.User][g]; !there {
		w.held[g][s.User] = true
		if len(w.keys[s.User]) == 0 {
			w.told[s.User] = append(w.told[s.User], true)
		}
	}
	w.keys[s.User][g] = s
	return nil
}

func (w *seatsWorld) leave(g string, s chat.Seat) error {
	if w.dead[g] {
		return chat.ErrDeclaredDead
	}
	if is, there := w.keys[s.User][g]; there && is.Seq > s.Seq {
		return nil
	}
	before := len(w.told[s.User])
	w.drop(g, s.User)
	for _, gw := range w.gws {
		if gw.id == g && len(w.told[s.User]) > before && gw.conns[s.User] > 0 && w.now-gw.since[s.User] > 5_000 {
			w.t.Errorf("%s was announced as gone after %d ms on %s", s.User, w.now-gw.since[s.User], g)
		}
	}
	return nil
}

func (w *seatsWorld) drop(g, user string) {
	_, there := w.keys[user][g]
	if !there && !w.held[g][user] {
		return
	}
	delete(w.keys[user], g)
	delete(w.held[g], user)
	if len(w.keys[user]) == 0 {
		w.told[user] = append(w.told[user], false)
	}
}

func (w *seatsWorld) sweep(g string) {
	w.dead[g] = true
	for user := range w.held[g] {
		w.drop(g, user)
	}
}

// What the core asks for.

func (g *seatsGateway) ask(run func() error, answer func(err error)) {
	w := g.w
	if w.faults && w.rng.IntN(10) == 0 {
		// Given up: the answer is an error, and the request runs later, or never.
		w.later(2_000, func() { answer(errAway) })
		if w.rng.IntN(2) == 0 {
			w.later(10_000, func() { _ = run() })
		}
		return
	}
	w.later(200, func() {
		err := run()
		w.later(200, func() { answer(err) })
	})
}

func (g *seatsGateway) TakeSeat(inc uint64, s chat.Seat) {
	id := g.id
	g.ask(func() error { return g.w.take(id, s) }, func(err error) { g.c.SeatDone(g.w.now, inc, s.User, false, err) })
}

func (g *seatsGateway) LeaveSeat(inc uint64, s chat.Seat) {
	id := g.id
	g.ask(func() error { return g.w.leave(id, s) }, func(err error) { g.c.SeatDone(g.w.now, inc, s.User, true, err) })
}

func (g *seatsGateway) CountSeats(inc uint64, part, expected int) {
	id := g.id
	g.w.later(100, func() {
		var users []string
		for u := range g.w.held[id] {
			if len(u)%4 == part {
				users = append(users, u)
			}
		}
		if len(users) > expected {
			g.c.SeatsHeld(inc, part, users)
		}
	})
}

func (g *seatsGateway) Subscribe(int, uint64, chat.Channel)              {}
func (g *seatsGateway) Unsubscribe(int, uint64, chat.Channel)            {}
func (g *seatsGateway) ReadPresence(string)                              {}
func (g *seatsGateway) FindMessage(chat.MarkerKind, chat.Marker)         {}
func (g *seatsGateway) AdvanceMarker(chat.MarkerKind, chat.Marker)       {}
func (g *seatsGateway) Publish(string, []byte)                           {}
func (g *seatsGateway) Whisper(edge.ConnID, *edge.Frame)                 {}
func (g *seatsGateway) Refuse(edge.ConnID, protocol.ErrorCode, string)   {}
func (g *seatsGateway) Connection(edge.ConnID) (string, bool)            { return "", false }
func (g *seatsGateway) Connections(string, func(edge.ConnID, bool))      {}
func (g *seatsGateway) Head(edge.RoomNum) (protocol.ID, uint64)          { return protocol.ID{}, 0 }
func (g *seatsGateway) Ordinal(edge.RoomNum, protocol.ID) (uint64, bool) { return 0, false }
func (g *seatsGateway) Membership(edge.ConnID, string) (edge.RoomNum, bool, bool) {
	return 0, false, false
}
func (g *seatsGateway) Away(edge.ConnID) bool { return false }

func (g *seatsGateway) connect(user string) {
	if g.conns[user]++; g.conns[user] == 1 {
		g.since[user] = g.w.now
	}
	g.c.Opened(g.w.now, user)
}

func (g *seatsGateway) disconnect(user string) {
	g.conns[user]--
	g.next++
	g.c.Closed(g.w.now, edge.ConnID(g.next), user)
}

func newSeatsWorld(t *testing.T, seed uint64, gateways int) *seatsWorld {
	w := &seatsWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: 1_000_000, faults: true,
		keys: map[string]map[string]chat.Seat{}, held: map[string]map[string]bool{},
		dead: map[string]bool{}, told: map[string][]bool{},
	}
	for i := range gateways {
		g := &seatsGateway{w: w, id: fmt.Sprint("g", i), conns: map[string]int{}, since: map[string]int64{}}
		g.c = live.New(live.Config{
			Links: 1, Partitions: 4, RefreshMs: 20_000,
			LinkOf:      func(chat.Channel) int { return 0 },
			PartitionOf: func(ch chat.Channel) int { return len(ch.Name) % 4 },
		}, g, g)
		w.held[g.id] = map[string]bool{}
		w.gws = append(w.gws, g)
	}
	return w
}

func (w *seatsWorld) pass(ms int64) {
	for end := w.now + ms; w.now < end; {
		w.now += 50
		for i := 0; i < len(w.pending); i++ {
			if p := w.pending[i]; p.at <= w.now {
				w.pending[i] = w.pending[len(w.pending)-1]
				w.pending = w.pending[:len(w.pending)-1]
				i--
				p.run()
			}
		}
		for _, g := range w.gws {
			g.c.Tick(w.now)
			g.c.Flush(w.now)
		}
	}
}

// check says whether Redis holds what is so, and whether announcements took turns.
func (w *seatsWorld) check(seed uint64) {
	w.t.Helper()
	for user, said := range w.told {
		online := false
		for _, g := range w.gws {
			is := g.conns[user] > 0
			online = online || is
			if _, seated := w.keys[user][g.id]; seated != is || w.held[g.id][user] != is {
				w.t.Errorf("seed %d: %s on %s: connected %v, seated %v, held %v", seed, user, g.id, is, seated, w.held[g.id][user])
			}
		}
		for i, on := range said {
			if on != (i%2 == 0) {
				w.t.Errorf("seed %d: %s was announced %v", seed, user, said)
				break
			}
		}
		if len(said) > 0 && said[len(said)-1] != online {
			w.t.Errorf("seed %d: %s is %v, and was announced %v", seed, user, online, said)
		}
	}
}

// Whatever is late, lost or out of order: when it is over, Redis holds what is so,
// and nobody was announced twice.
func TestSeatsConverge(t *testing.T) {
	for seed := uint64(1); seed <= 100 && !t.Failed(); seed++ {
		w := newSeatsWorld(t, seed, 3)
		for range 300 {
			g := w.gws[w.rng.IntN(len(w.gws))]
			user := []string{"a", "bb", "ccc", "dddd", "ee"}[w.rng.IntN(5)]
			switch w.rng.IntN(20) {
			case 0: // declared dead, wrongly or not; its sockets live on
				old := g.id
				w.sweep(old)
				w.later(5_000, func() {
					if g.id == old {
						g.id = fmt.Sprint(old, "'")
						w.held[g.id] = map[string]bool{}
						g.c.Reborn(w.now)
					}
				})
			case 1, 2, 3, 4, 5, 6, 7, 8, 9:
				if g.conns[user] > 0 {
					g.disconnect(user)
				}
			default:
				g.connect(user)
			}
			w.pass(int64(50 * w.rng.IntN(60)))
		}
		w.faults = false
		w.pass(90_000) // what is late has run, and everything was refreshed and counted twice
		w.check(seed)
	}
}

// A user moves from one gateway to another and back: whoever watches hears of one
// coming and nothing else.
func TestMovingIsNoEvent(t *testing.T) {
	const moves = 10_000
	w := newSeatsWorld(t, 7, 2)
	w.faults = false
	w.gws[0].connect("a")
	for i := range moves {
		from, to := w.gws[i%2], w.gws[(i+1)%2]
		if w.rng.IntN(2) == 0 {
			from.disconnect("a")
			w.pass(w.rng.Int64N(3_000))
			to.connect("a")
		} else { // the old socket's close comes late
			to.connect("a")
			w.pass(w.rng.Int64N(20_000))
			from.disconnect("a")
		}
		w.pass(w.rng.Int64N(8_000))
	}
	if said := w.told["a"]; len(said) != 1 {
		t.Fatalf("%d flaps in %d moves", len(said)-1, moves)
	}
}
