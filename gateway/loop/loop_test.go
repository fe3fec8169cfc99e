package loop_test

import (
	"fmt"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/protocol"
)

const room1, room2 = edge.RoomNum(1), edge.RoomNum(2)

func TestOpenedUnicastBroadcastClose(t *testing.T) {
	g := start(t, nil)
	alice, bob := g.dial("alice"), g.dial("bob")
	if got := alice.Subprotocol(); got != protocol.Subprotocol {
		t.Errorf("subprotocol %q", got)
	}
	g.post(
		edge.Cmd{Kind: edge.CmdUnicast, Conn: alice.id, Frame: frame(`{"type":"hello"}`)},
		edge.Cmd{Kind: edge.CmdAttach, Conn: alice.id, Room: room1},
		edge.Cmd{Kind: edge.CmdAttach, Conn: bob.id, Room: room1},
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: frame(`{"a":1}`)},
	)
	alice.want(`{"type":"hello"}`, `{"a":1}`)
	bob.want(`{"a":1}`)

	g.post(
		edge.Cmd{Kind: edge.CmdDetach, Conn: alice.id, Room: room1},
		edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: frame(`{"not":"alice"}`)},
		edge.Cmd{Kind: edge.CmdUnicast, Conn: alice.id, Frame: frame(`{"end":1}`)},
	)
	alice.want(`{"end":1}`)
	bob.want(`{"not":"alice"}`)

	alice.says(`{"type":"ping"}`)
	alice.want(protocol.Pong)
	alice.says(`{"type":"focus","room":"r1"}`)
	if ev := g.hub.of(t, alice.id, edge.EvFocus); ev.Room != "r1" {
		t.Errorf("got %+v", ev)
	}
	g.post(
		edge.Cmd{Kind: edge.CmdUnicast, Conn: bob.id, Frame: frame(`{"last":1}`)},
		edge.Cmd{Kind: edge.CmdClose, Conn: bob.id, Code: 4003},
	)
	bob.want(`{"last":1}`)
	bob.wantClose(4003)
	g.hub.of(t, bob.id, edge.EvClosed)
	g.eventually("bob's slot is free", func() bool { s := g.Stats(); return s.Closing == 0 && s.Open == 1 && s.Attachments == 0 })
}

// Who is disconnected by the hub for their token is told so, as over the other
// transports.
func TestAHubsRevocationSaysBye(t *testing.T) {
	g := start(t, nil)
	c := g.dial("alice")
	g.post(edge.Cmd{Kind: edge.CmdUnicast, Conn: c.id, Frame: frame(`{"last":1}`)}, edge.Cmd{Kind: edge.CmdClose, Conn: c.id, Code: protocol.CloseTokenExpired})
	c.want(`{"last":1}`, `{"type":"bye","reason":"revoked","retry_in_ms":0}`)
	c.wantClose(protocol.CloseTokenExpired)
}

func TestOrderWithinAConnection(t *testing.T) {
	g := start(t, nil)
	c := g.dial("alice")
	cmds := []edge.Cmd{{Kind: edge.CmdAttach, Conn: c.id, Room: room1}, {Kind: edge.CmdAttach, Conn: c.id, Room: room2}}
	var want []string
	add := func(cmd edge.Cmd, text string) {
		cmd.Frame = frame(text)
		cmds = append(cmds, cmd)
		want = append(want, text)
	}
	for i := range 300 {
		room := room1 + edge.RoomNum(i/7%2)
		if i%5 == 4 {
			add(edge.Cmd{Kind: edge.CmdUnicast, Conn: c.id}, fmt.Sprintf(`{"u":%d}`, i))
			continue
		}
		add(edge.Cmd{Kind: edge.CmdBroadcast, Room: room}, fmt.Sprintf(`{"b":%d}`, i))
		if i%50 == 0 {
			cmds = append(cmds, edge.Cmd{Kind: edge.CmdMark, Conn: c.id})
		}
	}
	g.Post(int(c.id.Loop()), cmds)
	// Within a room, and between unicasts and anything, order is kept; rooms among
	// themselves need not be.
	seen := map[byte][]string{}
	for range want {
		line := c.next()
		seen[line[2]] = append(seen[line[2]], line)
	}
	last := -1
	for _, line := range seen['u'] {
		var i int
		fmt.Sscanf(line, `{"u":%d}`, &i)
		if i <= last {
			t.Fatalf("%s after %d", line, last)
		}
		last = i
	}
	for range 5 {
		g.hub.of(t, c.id, edge.EvDrained)
	}
}
