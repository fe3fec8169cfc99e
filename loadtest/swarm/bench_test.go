package swarm

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/loadtest/target"
	"github.com/madang-chat/madang/protocol"
)

func benchSwarm(b *testing.B, clients, each int) *Swarm {
	b.Helper()
	c, err := crowd.New(crowd.Shape{Prefix: "lt1234567", Users: clients, Rooms: clients / each, Each: each})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{
		Dialect: target.Madang{}, Clock: clock.New(clock.Offset()), Gateways: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")},
		Crowd: c, Count: clients, Base: func(uint32) ledger.Pos { return 0 },
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkReceive is the tester's own cost per received message: read, frame,
// event, ledger and histogram, with so many messages in a frame. The write that
// stands in for the server is in it, too.
func BenchmarkReceive(b *testing.B) {
	for _, perFrame := range []int{1, 10} {
		b.Run(fmt.Sprintf("%d_per_frame", perFrame), func(b *testing.B) {
			s := benchSwarm(b, 10, 10)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err = errors.Join(err, unix.SetNonblock(pair[0], true), unix.SetNonblock(pair[1], true)); err != nil {
				b.Fatal(err)
			}
			defer unix.Close(pair[1])
			if err := s.poll.Add(pair[0], 0, reactor.In); err != nil {
				b.Fatal(err)
			}
			s.clients[0] = client{fd: int32(pair[0]), state: live}
			runtime.LockOSThread() // whose CPU time is taken
			defer runtime.UnlockOSThread()
			var cpu time.Duration
			m := maker{clock: s.cfg.Clock}
			var frames [][]byte
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n++ {
				if n%len(chunk) == 0 {
					b.StopTimer() // making messages is not the tester's work
					if n > 0 {
						cpu += s.poll.Share().CPU
					}
					frames = m.frames(chunk[:min(len(chunk), b.N-n)], perFrame)
					s.poll.Share()
					b.StartTimer()
				}
				if _, err := unix.Write(pair[1], frames[n%len(chunk)]); err != nil {
					b.Fatal(err)
				}
				s.handleReadable(0)
			}
			b.StopTimer()
			cpu += s.poll.Share().CPU
			send := m.send
			if got := s.book.Counts.Delivered; got != uint64(send) {
				b.Fatalf("%d of %d delivered", got, send)
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(send), "cpu-ns/message")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(send), "ns/message")
		})
	}
}

// chunk is how many frames are made at a time.
var chunk [1000][]byte

// maker makes frames as a gateway would.
type maker struct {
	clock clock.Clock
	id    protocol.ID
	send  ledger.Send
}

func (m *maker) frames(into [][]byte, perFrame int) [][]byte {
	for i := range into {
		var payload []byte
		for k := range perFrame {
			prev := m.id
			m.id.Ms++
			m.send++
			tail := []byte(`"from":"lt1234567-u1","sent_at":"2026-01-02T03:04:05.678Z","body":{"type":"text","text":"the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog and again"},"key":"`)
			tail = append(stamp.Append(tail, m.clock.Now(), m.send), `"}`...)
			if k > 0 {
				payload = append(payload, '\n')
			}
			payload = protocol.AppendMessage(payload, "lt1234567-r0", m.id, prev, uint64(m.send), tail)
		}
		frame := []byte{0x81, 126, byte(len(payload) >> 8), byte(len(payload))}
		into[i] = append(frame, payload...)
	}
	return into
}

// BenchmarkMemory is the tester's own memory per client in one room, everything
// but the kernel's part of the socket.
func BenchmarkMemory(b *testing.B) {
	const clients = 100_000
	for b.Loop() {
		before := heap()
		s := benchSwarm(b, clients, 10)
		b.ReportMetric(float64(heap()-before)/clients, "bytes/client")
		s.poll.Close()
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
