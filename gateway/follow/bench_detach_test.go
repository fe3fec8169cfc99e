package follow_test

import (
	"strconv"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// BenchmarkLostTails: Redis has lost the ends of all of a user's rooms, and a
// connection goes on from what is left. A room costs as much whether the user is in a
// hundred or in ten thousand.
func BenchmarkLostTails(b *testing.B) {
	for _, rooms := range []int{100, 1000, 10_000} {
		b.Run(strconv.Itoa(rooms), func(b *testing.B) {
			o := &asked{}
			zero := func(chat.Channel) int { return 0 }
			c := follow.New(follow.Config{Links: 1, LinkOf: zero, PartitionOf: zero, AuditsPerSecond: 1e6}, o)
			c.LinkUp(0, 1)
			alice := edge.MakeConnID(0, 1, 1)
			c.Open(0, alice, "alice", follow.Opening{})
			c.Flush()
			c.Confirmed(0, 1, chat.Channel{Kind: chat.UserChannel, Name: "alice"})
			index := chat.UserState{Rev: 1}
			for i := range rooms {
				index.Rooms = append(index.Rooms, chat.IndexedRoom{Room: strconv.Itoa(i), Version: 1})
			}
			c.UserRead(0, o.user, "alice", index, nil)
			for i := range rooms {
				c.Confirmed(0, 1, chat.Channel{Kind: chat.RoomChannel, Name: strconv.Itoa(i)})
			}
			answer := func(head uint64) {
				c.Flush()
				asked := o.rooms
				o.rooms = nil
				for tok, q := range asked {
					st := chat.RoomState{Exists: true, Head: protocol.ID{Ms: head}, Version: 1, Member: make([]bool, len(q.Users))}
					for i := range st.Member {
						st.Member[i] = true
					}
					c.RoomRead(0, tok, q.Room, st, nil)
				}
			}
			head := uint64(1 << 40)
			answer(head)
			now := int64(0)
			for b.Loop() {
				now += 1000
				head--
				c.Canary(0, 1, 0, strconv.FormatUint(head, 10))
				c.Tick(now)
				answer(head)
				for ; o.marks > 0; o.marks-- {
					c.Drained(alice)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rooms), "ns/room")
		})
	}
}

// asked is a follow.Out that hears what is read, and how many marks were given.
type asked struct {
	nobody
	user  follow.Token
	rooms map[follow.Token]chat.RoomQuery
	marks int
}

func (o *asked) ReadUser(tok follow.Token, _ string) { o.user = tok }

func (o *asked) ReadRoom(tok follow.Token, q chat.RoomQuery) {
	if o.rooms == nil {
		o.rooms = map[follow.Token]chat.RoomQuery{}
	}
	o.rooms[tok] = q
}

func (o *asked) Mark(edge.ConnID) { o.marks++ }
