package loop_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
)

// BenchmarkLongDelivery: messages of 1 KB to a room, one at a time, as they are
// and compressed. Each is new, so compressing it is part of the figure.
func BenchmarkLongDelivery(b *testing.B) {
	for _, members := range []int{1000, 5000} {
		b.Run(fmt.Sprint(members, "-members-plain"), func(b *testing.B) { deliverLong(b, members, nil) })
		b.Run(fmt.Sprint(members, "-members-compressed"), func(b *testing.B) { deliverLong(b, members, compressing) })
	}
}

// chat is a message of n bytes, never the same twice.
func chat(rnd *rand.Rand, n int) []byte {
	words := strings.Fields("how are you today the meeting is at noon build green again please look at my review 오늘 회의 deploy tomorrow thanks server latency graph")
	b := fmt.Appendf(nil, `{"type":"message","room":"01J8Z3K5X9QW7E4R2T6Y8U1I0P","id":"17322%08d-0","prev":"1732281230000-0","n":42,"from":"bob","sent_at":"2026-11-22T10:00:00.123Z","body":{"type":"text","text":"`, rnd.IntN(1e8))
	end := fmt.Sprintf(`"},"key":"%016x%016x"}`, rnd.Uint64(), rnd.Uint64())
	for len(b) < n-len(end) {
		b = append(append(b, words[rnd.IntN(len(words))]...), ' ')
	}
	return append(b[:n-len(end)], end...)
}

func deliverLong(b *testing.B, members int, set func(*loop.Options)) {
	g, _, done := open(b, members, set)
	defer done()
	rnd := rand.New(rand.NewPCG(1, 2))
	round := func(messages [][]byte) {
		for _, m := range messages {
			want := g.Stats().Deliveries + uint64(members)
			cmd := []edge.Cmd{{Kind: edge.CmdBroadcast, Room: room1, Frame: edge.FrameOf(m)}}
			for i := range g.Count() {
				g.Post(i, cmd)
			}
			for s := g.Stats(); s.QueuedBytes != 0 || s.Deliveries < want; s = g.Stats() {
				time.Sleep(200 * time.Microsecond)
			}
		}
	}
	made := func(n int) (all [][]byte) {
		for range n {
			all = append(all, chat(rnd, 1024))
		}
		return all
	}
	round(made(20)) // until the tables have their size
	messages := made(b.N)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, cpu := g.Stats(), cpuTime()
	b.ResetTimer()
	round(messages)
	b.StopTimer()
	used := cpuTime() - cpu
	runtime.ReadMemStats(&after)
	end := g.Stats()
	n := float64(end.Deliveries - start.Deliveries)
	b.ReportMetric(float64(used.Nanoseconds())/n, "cpu-ns/delivery")
	b.ReportMetric(float64(end.BytesOut-start.BytesOut)/n, "bytes/delivery")
	b.ReportMetric(float64(end.Writes-start.Writes)/n, "writes/delivery")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/delivery")
	b.ReportMetric(float64(end.Deflated-start.Deflated)/float64(b.N), "compressions/message")
	b.ReportMetric(0, "ns/op")
}
