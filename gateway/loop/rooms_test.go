package loop_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
)

// Random attaches, detaches, drops and broadcasts against the simplest model of
// them, with enough rooms that connections are indexed both ways.
func TestRoomsAgainstAModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			g := start(t, func(o *loop.Options) { o.Loops = 1; o.QueueBytes = 8 << 20 })
			const conns, rooms = 6, 150
			var clients []*client
			in := make([]map[edge.RoomNum]bool, conns)
			want := make([]map[string][]string, conns) // client → stream → lines in order
			for i := range conns {
				clients = append(clients, g.dial(fmt.Sprint("user", i)))
				in[i] = map[edge.RoomNum]bool{}
				want[i] = map[string][]string{}
			}
			var batch []edge.Cmd
			expect := func(i int, stream, line string) { want[i][stream] = append(want[i][stream], line) }
			for n := range 8000 {
				i, room := rnd.IntN(conns), edge.RoomNum(rnd.IntN(rooms))
				id := clients[i].id
				switch rnd.IntN(12) {
				case 0, 1, 2, 3:
					batch = append(batch, edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: room})
					in[i][room] = true
				case 4:
					batch = append(batch, edge.Cmd{Kind: edge.CmdDetach, Conn: id, Room: room})
					delete(in[i], room)
				case 5:
					if rnd.IntN(20) == 0 {
						batch = append(batch, edge.Cmd{Kind: edge.CmdDropRoom, Room: room})
						for i := range in {
							delete(in[i], room)
						}
					}
				case 6:
					line := fmt.Sprintf(`{"to":"u","n":%d}`, n)
					batch = append(batch, edge.Cmd{Kind: edge.CmdUnicast, Conn: id, Frame: frame(line)})
					expect(i, "u", line)
				default:
					line := fmt.Sprintf(`{"to":"%d","n":%d}`, room, n)
					batch = append(batch, edge.Cmd{Kind: edge.CmdBroadcast, Room: room, Frame: frame(line)})
					for j := range in {
						if in[j][room] {
							expect(j, fmt.Sprint(room), line)
						}
					}
				}
				if rnd.IntN(200) == 0 {
					g.Post(0, batch)
					batch = batch[:0]
				}
			}
			g.Post(0, batch)
			attached := 0
			for i, c := range clients {
				attached += len(in[i])
				total := 0
				for _, lines := range want[i] {
					total += len(lines)
				}
				got := map[string][]string{}
				for range total {
					line := c.next()
					stream, _, _ := strings.Cut(strings.TrimPrefix(line, `{"to":"`), `"`)
					got[stream] = append(got[stream], line)
				}
				for stream, lines := range want[i] {
					if fmt.Sprint(got[stream]) != fmt.Sprint(lines) {
						t.Fatalf("client %d, stream %s: got %v, want %v", i, stream, got[stream], lines)
					}
				}
				if len(c.lines) != 0 {
					t.Errorf("client %d got more: %v", i, c.lines)
				}
			}
			g.eventually("as many attachments as in the model", func() bool { return g.Stats().Attachments == int64(attached) })
			for _, c := range clients {
				g.post(edge.Cmd{Kind: edge.CmdClose, Conn: c.id, Code: 4012})
				c.wantClose(4012)
			}
			g.eventually("none left", func() bool { s := g.Stats(); return s.Attachments == 0 && s.QueuedBytes == 0 })
		})
	}
}
