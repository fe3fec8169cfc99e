package follow_test

import (
	"strconv"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// BenchmarkBreaksOfLinks: a Cluster has a link per partition, and when they break they
// break together. It must cost what is on them, and not, for each of them, all that a
// gateway follows: many links about as much as one that carries all.
func BenchmarkBreaksOfLinks(b *testing.B) {
	const users = 30_000
	for _, links := range []int{1, 256, 1024} {
		b.Run(strconv.Itoa(links), func(b *testing.B) {
			link := func(ch chat.Channel) int {
				n, _ := strconv.Atoi(ch.Name)
				return n % links
			}
			c := follow.New(follow.Config{Links: links, LinkOf: link, PartitionOf: link}, nobody{})
			for i := range users {
				c.Open(0, edge.MakeConnID(0, uint32(i), 1), strconv.Itoa(i), follow.Opening{})
			}
			gen := uint64(0)
			for b.Loop() {
				for n := range links {
					c.LinkDown(n, gen)
					c.LinkUp(n, gen+1)
					c.Flush()
				}
				gen++
			}
		})
	}
}

// nobody is a follow.Out that hears nothing.
type nobody struct{}

func (nobody) Subscribe(int, uint64, chat.Channel)         {}
func (nobody) Unsubscribe(int, uint64, chat.Channel)       {}
func (nobody) ReadUser(follow.Token, string)               {}
func (nobody) ReadRoom(follow.Token, chat.RoomQuery)       {}
func (nobody) ReadLog(follow.Token, chat.LogQuery)         {}
func (nobody) Repair(chat.Membership)                      {}
func (nobody) Unicast(edge.ConnID, *edge.Frame)            {}
func (nobody) Attach(edge.ConnID, edge.RoomNum)            {}
func (nobody) Detach(edge.ConnID, edge.RoomNum)            {}
func (nobody) Broadcast(edge.RoomNum, uint64, *edge.Frame) {}
func (nobody) DropRoom(edge.RoomNum, uint64)               {}
func (nobody) Mark(edge.ConnID)                            {}
func (nobody) Close(edge.ConnID, protocol.CloseCode)       {}
