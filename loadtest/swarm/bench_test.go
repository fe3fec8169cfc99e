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
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/loadtest/target"
	"github.com/madang-chat/madang/protocol"
)

func benchSwarm(b *testing.B, over target.Transport, clients, each int) *Swarm {
	b.Helper()
	c, err := crowd.New(crowd.Shape{Prefix: "lt1234567", Users: clients, Rooms: clients / each, Each: each})
	if err != nil {
		b.Fatal(err)
	}
	m, err := mint.New([]byte("a secret of thirty-two bytes or more"), mint.Claims{Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{
		Dialect: target.Madang{}, Transport: over, Mint: m, Clock: clock.New(clock.Offset()), Gateways: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")},
		Crowd: c, Count: clients, Base: func(uint32) ledger.Pos { return 0 },
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkReceive is the tester's own cost per received message: read, frame,
// event, ledger and histogram, with so many messages in a frame, or read from a
// stream at once, or in the answer to a poll, whose next request is in it. What
// stands in for the server, a write and for a poll a read, is in it, too.
func BenchmarkReceive(b *testing.B) {
	for _, bench := range []struct {
		name     string
		over     target.Transport
		together int
	}{
		{"ws/1_per_frame", target.WebSocket, 1}, {"ws/10_per_frame", target.WebSocket, 10},
		{"sse/1_per_read", target.EventStream, 1}, {"sse/10_per_read", target.EventStream, 10},
		{"poll/1_per_answer", target.LongPoll, 1}, {"poll/10_per_answer", target.LongPoll, 10},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := benchSwarm(b, bench.over, 10, 10)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err = errors.Join(err, unix.SetNonblock(pair[0], true), unix.SetNonblock(pair[1], true)); err != nil {
				b.Fatal(err)
			}
			defer unix.Close(pair[1])
			if err := s.poll.Add(pair[0], 0, reactor.In); err != nil {
				b.Fatal(err)
			}
			s.clients[0] = client{fd: int32(pair[0]), state: live, asking: true}
			request := make([]byte, 8192)
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
					frames = m.frames(chunk[:min(len(chunk), b.N-n)], bench.over, bench.together)
					s.poll.Share()
					b.StartTimer()
				}
				if _, err := unix.Write(pair[1], frames[n%len(chunk)]); err != nil {
					b.Fatal(err)
				}
				s.handleReadable(0)
				if bench.over.Polls() {
					if _, err := unix.Read(pair[1], request); err != nil {
						b.Fatal(err)
					}
				}
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

func (m *maker) frames(into [][]byte, over target.Transport, together int) [][]byte {
	for i := range into {
		var payload []byte
		for k := range together {
			prev := m.id
			m.id.Ms++
			m.send++
			tail := []byte(`"from":"lt1234567-u1","sent_at":"2026-01-02T03:04:05.678Z","body":{"type":"text","text":"the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog and again"},"key":"`)
			tail = append(stamp.Append(tail, m.clock.Now(), m.send), `"}`...)
			switch {
			case over == target.EventStream:
				payload = fmt.Appendf(payload, "id: %d\ndata: ", m.id.Ms)
			case k > 0 && over == target.WebSocket:
				payload = append(payload, '\n')
			case k > 0:
				payload = append(payload, ',')
			}
			payload = protocol.AppendMessage(payload, "lt1234567-r0", m.id, prev, uint64(m.send), tail)
			if over == target.EventStream {
				payload = append(payload, "\n\n"...)
			}
		}
		switch {
		case over == target.WebSocket:
			frame := []byte{0x81, 126, byte(len(payload) >> 8), byte(len(payload))}
			payload = append(frame, payload...)
		case over.Polls():
			payload = pollAnswer(payload, fmt.Sprintf(`"lt1234567-r0":"%s"`, m.id))
		}
		into[i] = payload
	}
	return into
}

// pollAnswer is an answer as a gateway gives it.
func pollAnswer(events []byte, rooms string) []byte {
	body := fmt.Appendf(nil, `{"events":[%s],"rooms":{%s},"rooms_rev":1,"conn":"0123456789abcdef-12345"}`+"\n", events, rooms)
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// BenchmarkMemory is the tester's own memory per client in one room, everything
// but the kernel's part of the socket.
func BenchmarkMemory(b *testing.B) {
	const clients = 100_000
	for _, over := range []target.Transport{target.WebSocket, target.EventStream, target.LongPoll} {
		b.Run(over.String(), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				s := benchSwarm(b, over, clients, 10)
				b.ReportMetric(float64(heap()-before)/clients, "bytes/client")
				s.poll.Close()
				runtime.KeepAlive(s)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
