package app

import (
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/protocol"
)

// nowhere is where a gateway's decisions go when nobody wants to know.
type nowhere struct {
	follow.Out
	user, room follow.Token
}

func (n *nowhere) ReadUser(tok follow.Token, _ string)         { n.user = tok }
func (n *nowhere) ReadRoom(tok follow.Token, _ chat.RoomQuery) { n.room = tok }
func (*nowhere) ReadLog(follow.Token, chat.LogQuery)           {}
func (*nowhere) Subscribe(int, uint64, chat.Channel)           {}
func (*nowhere) Unicast(edge.ConnID, *edge.Frame)              {}
func (*nowhere) Attach(edge.ConnID, edge.RoomNum)              {}
func (*nowhere) Broadcast(edge.RoomNum, uint64, *edge.Frame)   {}

// --hot-tail 0 keeps no message, as madang plan takes it.
func TestNoHotTailIsNone(t *testing.T) {
	for tail, want := range map[config.Bytes]uint64{0: 0, 64 << 10: 1} {
		cfg := following(config.Sockets{HotTail: tail}, nil)
		cfg.Links = 1
		cfg.LinkOf = func(chat.Channel) int { return 0 }
		cfg.PartitionOf = cfg.LinkOf
		var out nowhere
		c := follow.New(cfg, &out)
		opens := func(slot uint32, resume bool) edge.ConnID {
			id := edge.MakeConnID(0, slot, 1)
			c.Open(0, id, "alice", follow.Opening{Resume: resume})
			return id
		}
		room := chat.Channel{Kind: chat.RoomChannel, Name: "r"}
		c.LinkUp(0, 1)
		opens(1, false)
		c.Flush()
		c.Confirmed(0, 1, chat.Channel{Kind: chat.UserChannel, Name: "alice"})
		c.Flush()
		c.UserRead(0, out.user, "alice", chat.UserState{Rev: 1, Rooms: []chat.IndexedRoom{{Room: "r"}}}, nil)
		c.Flush()
		c.Confirmed(0, 1, room)
		c.Flush()
		c.RoomRead(0, out.room, "r", chat.RoomState{Exists: true, Member: []bool{true}}, nil)
		c.Event(0, 1, room, protocol.AppendMessage(nil, "r", protocol.ID{Ms: 1}, protocol.ID{}, 1, []byte(`"from":"bob"}`)))
		c.Positions(opens(2, true), map[string]protocol.ID{"r": {}}, false)
		if got := c.Stats().FromTail; got != want {
			t.Errorf("with %s, %d were served from memory, want %d", tail, got, want)
		}
	}
}
