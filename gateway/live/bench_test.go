package live_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/internal/chat"
)

// nobody answers at once and does nothing.
type nobody struct {
	seatsGateway
	c *live.Core
}

func (n *nobody) TakeSeat(inc uint64, s chat.Seat)  { n.c.SeatDone(0, inc, s.User, false, nil) }
func (n *nobody) LeaveSeat(inc uint64, s chat.Seat) { n.c.SeatDone(0, inc, s.User, true, nil) }
func (n *nobody) CountSeats(uint64, int, int)       {}

func newNobody() *nobody {
	n := &nobody{}
	n.c = live.New(live.Config{
		Links: 4, Partitions: 256,
		LinkOf:      func(ch chat.Channel) int { return len(ch.Name) % 4 },
		PartitionOf: func(ch chat.Channel) int { return int(ch.Name[len(ch.Name)-1]) + 16*len(ch.Name)%256 },
	}, n, n)
	return n
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSeat prints what a user who is online costs a gateway in memory, and
// what all of them cost per second of idling.
func BenchmarkSeat(b *testing.B) {
	const users = 100_000
	names := make([]string, users)
	for i := range names {
		names[i] = fmt.Sprint("user", i)
	}
	for range b.N {
		n := newNobody()
		before := heap()
		for i, name := range names {
			n.c.Opened(1000, name)
			if i%1000 == 0 {
				n.c.Flush(1000)
			}
		}
		n.c.Flush(1000)
		b.ReportMetric(float64(heap()-before)/users, "B/user")
		began := b.Elapsed()
		now := int64(1000)
		for range 20 * 60 { // a minute of ticks
			now += 50
			n.c.Tick(now)
			n.c.Flush(now)
		}
		b.ReportMetric(float64((b.Elapsed()-began).Microseconds())/60, "µs/s-idle")
		runtime.KeepAlive(n)
	}
}

// BenchmarkWatch prints what one connection watching one user costs in memory.
func BenchmarkWatch(b *testing.B) {
	const conns, each = 1000, 500
	names := make([]string, each)
	for i := range names {
		names[i] = fmt.Sprint("user", i)
	}
	for range b.N {
		w := &watchers{nobody: newNobody()}
		w.c = live.New(live.Config{Links: 1, LinkOf: func(chat.Channel) int { return 0 }, Partitions: 1,
			PartitionOf: func(chat.Channel) int { return 0 }}, w, w)
		before := heap()
		for i := range conns {
			w.c.Said(1000, edge.Event{Kind: edge.EvWatch, Conn: edge.ConnID(i + 1), Users: names})
		}
		b.ReportMetric(float64(heap()-before)/conns/each, "B/watch")
		w.told = 0
		began := b.Elapsed()
		w.c.LinkUp(0, 1)
		w.c.Changed(0, 1, "user7", []byte("1"))
		b.ReportMetric(float64((b.Elapsed()-began).Nanoseconds())/float64(w.told), "ns/change-told")
	}
}

type watchers struct {
	*nobody
	told int
}

func (w *watchers) Connection(edge.ConnID) (string, bool) { return "alice", true }
func (w *watchers) Whisper(edge.ConnID, *edge.Frame)      { w.told++ }
