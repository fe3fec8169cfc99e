package loop_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/protocol"
)

// hot sends to room1, twenty messages every 50 ms, until ok or for three
// seconds; it says whether ok came.
func hot(g *gateway, ok func() bool) bool {
	n := uint64(0)
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		if ok() {
			return true
		}
		for range 20 {
			n++
			g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: message(n)})
		}
	}
	return false
}

// members are clients in room1; those that read answer pings, too.
func members(g *gateway, reading, silent int) {
	for i := range reading {
		c := g.dial(fmt.Sprint("reads", i))
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: room1})
		go func() {
			for {
				if _, _, err := c.Read(context.Background()); err != nil {
					return
				}
			}
		}()
	}
	for i := range silent {
		_, id := g.dialWS(fmt.Sprint("silent", i))
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: room1})
	}
}

func TestABusyRoomWhoseClientsDoNotReadIsLate(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops = 1 })
	members(g, 2, 8)
	if !hot(g, func() bool {
		return slices.ContainsFunc(g.hub.all(), func(ev edge.Event) bool {
			return ev.Kind == edge.EvHot && ev.RoomNum == room1 && ev.LateMs > 200 && ev.Events > 0 && ev.Members == 10
		})
	}) {
		t.Fatal("nobody was told")
	}
}

// Who takes events answers nothing: what its kernel has acknowledged is looked at.
func TestABusyRoomWhoseClientsTakeNoEventsIsLate(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops = 1 })
	for i := range 8 {
		_, id := g.slowReader(fmt.Sprint("silent", i))
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: room1})
	}
	for i := range 2 {
		g.readsEvents(fmt.Sprint("reads", i))
	}
	if !hot(g, func() bool { return g.late(200) }) {
		t.Fatal("nobody was told")
	}
}

// readsEvents is a client in room1 that takes events, and all of them.
func (g *gateway) readsEvents(user string) {
	s := g.streams(user, "", "")
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: s.id, Room: room1})
	go func() { _, _ = io.Copy(io.Discard, s.r) }()
}

// late says whether room1 was called later than ms.
func (g *gateway) late(ms int32) bool {
	return slices.ContainsFunc(g.hub.all(), func(ev edge.Event) bool {
		return ev.Kind == edge.EvHot && ev.RoomNum == room1 && ev.LateMs > ms && ev.Events > 0
	})
}

func TestSingleSlowReadersOfEventsMakeNoRoomLate(t *testing.T) {
	for attempt := range 3 { // on a machine that others keep busy, who reads may come to it as late
		g := start(t, func(o *loop.Options) { o.Loops = 1 })
		for i := range 8 {
			g.readsEvents(fmt.Sprint("reads", i))
		}
		for i := range 3 {
			_, id := g.slowReader(fmt.Sprint("silent", i))
			g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: room1})
		}
		if !hot(g, func() bool { return g.late(lateForever) }) {
			return
		}
		t.Logf("attempt %d: the room was called late", attempt)
	}
	t.Error("the room was called late each time")
}

// What a client may say is its own: the answers that the gateway asks for do not use
// it up.
func TestAnswersToProbesAreNotTheClientsFrames(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops, o.Session = 1, threeFrames() })
	members(g, 1, 0)
	answered := func() bool { return g.Stats().FramesIn >= 8 } // more than it may say in the time
	if !hot(g, answered) {
		t.Fatalf("it has answered %d times; closed: %v", g.Stats().FramesIn, g.Stats().Closed)
	}
}

func TestTheAnswerToAHeartbeatIsNotTheClientsFrame(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Session, o.Heartbeat = threeFrames(), 100*time.Millisecond })
	r, _ := g.dialWS("alice")
	if op, _, err := r.frameIn(); op != 9 || err != nil {
		t.Fatalf("got %d, %v, want a ping", op, err)
	}
	r.sends(masked(0x8a, "") + strings.Repeat(masked(0x81, `{"type":"ping"}`), 3))
	for range 3 {
		if op, payload, err := r.frameIn(); op != 1 || err != nil {
			t.Fatalf("got %d %q, %v, want a pong", op, payload, err)
		}
	}
	r.sends(strings.Repeat(masked(0x8a, ""), 3)) // nobody has asked for these
	r.wantCloseFrame(protocol.CloseRateLimit)
}

// threeFrames lets a client say three things at once, and little more.
func threeFrames() session.Limits {
	l := session.DefaultLimits
	l.FrameBurst, l.FramesPerSecond = 3, 1
	return l
}

// lateForever is the lateness of clients that never read, after three seconds; a
// busy machine makes those late that do, but not as late.
const lateForever = 2500

// A few clients that do not read make no room late, and no few make a room.
func TestSingleSlowReadersMakeNoRoomLate(t *testing.T) {
	for _, many := range []struct{ reading, silent int }{{8, 3}, {0, 4}} {
		t.Run(fmt.Sprint(many), func(t *testing.T) {
			// On a machine that others keep busy, who reads may come to it as late.
			for attempt := range 3 {
				g := start(t, func(o *loop.Options) { o.Loops = 1 })
				members(g, many.reading, many.silent)
				late := func() bool {
					for _, ev := range g.hub.all() {
						if ev.Kind == edge.EvHot && ev.LateMs > lateForever {
							return true
						}
					}
					return false
				}
				if !hot(g, late) {
					return
				}
				t.Logf("attempt %d: the room was called late", attempt)
			}
			t.Error("the room was called late each time")
		})
	}
}

// Of many clients some are always asleep. However often others are asked, they do not
// become most of those who are. Nor does one of them count for more who has many
// connections.
func TestAFewThatSleepAmongManyMakeNoRoomLate(t *testing.T) {
	for name, silent := range map[string]func(*gateway){
		"seven of forty": func(g *gateway) { members(g, 33, 7) },
		"one of nine": func(g *gateway) {
			members(g, 8, 0)
			for range 20 {
				_, id := g.dialWS("silent")
				g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: room1})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()             // it waits, mostly
			for attempt := range 3 { // five of them may be asked at once, and a busy machine makes others late
				g := start(t, func(o *loop.Options) { o.Loops = 1 })
				silent(g)
				n, late := uint64(0), false
				for began := time.Now(); !late && time.Since(began) < 4*time.Second; time.Sleep(50 * time.Millisecond) {
					for range 8 {
						n++
						g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: message(n)})
					}
					late = g.late(1000)
				}
				if !late {
					return
				}
				t.Logf("attempt %d: the room was called late", attempt)
			}
			t.Error("the room was called late each time")
		})
	}
}
