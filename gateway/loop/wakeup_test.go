package loop_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
)

// What is posted while a room of more than a turn's writes is written to comes right
// after it, and not with whatever happens to wake the loop up next.
func TestWhatIsPostedDuringALongFlushIsDelivered(t *testing.T) {
	const members = 1100
	var g *gateway
	var once sync.Once
	armed := make(chan struct{})
	g = start(t, func(o *loop.Options) {
		o.Loops, o.MaxPerUser = 1, members
		o.HeadTimeout, o.Heartbeat = time.Minute, time.Minute // no timer wakes it up
		o.OnCrowd = func() {                                  // the flush begins
			select {
			case <-armed:
				once.Do(func() {
					g.Post(0, []edge.Cmd{{Kind: edge.CmdBroadcast, Room: 1, Frame: frame(`{"type":"second"}`)}})
				})
			default:
			}
		}
	})
	clients := make([]*raw, members)
	for i := range clients {
		clients[i] = g.dialRaw()
		clients[i].sends(goodHead + fmt.Sprintf("Authorization: Bearer u%d\r\n\r\n", i))
	}
	for _, c := range clients {
		if resp, body := c.answer(); resp.StatusCode != 101 {
			t.Fatal(body)
		}
		g.Post(0, []edge.Cmd{{Kind: edge.CmdAttach, Conn: g.hub.kind(t, edge.EvOpened).Conn, Room: 1}})
	}
	for was := uint64(0); was != g.Stats().Turns; time.Sleep(200 * time.Millisecond) { // until it sleeps
		was = g.Stats().Turns
	}
	close(armed)
	g.Post(0, []edge.Cmd{{Kind: edge.CmdBroadcast, Room: 1, Frame: frame(`{"type":"first"}`)}})
	_ = clients[0].SetReadDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, 2+len(`{"type":"first"}`)+2+len(`{"type":"second"}`))
	for have := 0; have < len(got); {
		n, err := clients[0].r.Read(got[have:])
		if have += n; err != nil {
			t.Fatalf("only %q came: %v", got[:have], err)
		}
	}
}
