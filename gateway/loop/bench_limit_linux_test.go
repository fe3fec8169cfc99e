package loop_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/poll"
)

// BenchmarkLimit is what this machine takes for the least that any gateway does: a
// program that accepts, reads a request to its end, answers it with a constant, holds
// the socket, and writes a frame to each, on one thread. What a gateway costs is to be
// compared with this, measured in the same minute: it says how fast the machine is.
func BenchmarkLimit(b *testing.B) {
	b.Run("open", func(b *testing.B) {
		const conns = 15_000
		for b.Loop() {
			base, cpu := rss(), cpuTime()
			s := newBare(b, conns)
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/conns, "cpu-us/open")
			b.ReportMetric(float64(rss()-base)/conns, "rss-B/conn")
			b.ReportMetric(0, "ns/op")
			s.stop()
		}
	})
	b.Run("write-1000", func(b *testing.B) { bareWrites(b, 1000) })
	b.Run("write-5000", func(b *testing.B) { bareWrites(b, 5000) })
}

func bareWrites(b *testing.B, conns int) {
	s := newBare(b, conns)
	defer s.stop()
	frame := edge.FrameOf([]byte(benchEvent)).WS()
	round := func() {
		for _, fd := range s.fds {
			if n, err := unix.Write(fd, frame); n != len(frame) {
				b.Fatalf("wrote %d bytes of %d: %v", n, len(frame), err)
			}
		}
		time.Sleep(20 * time.Millisecond) // the clients read: what is compared waits for them, too
	}
	for range 20 {
		round()
	}
	cpu := cpuTime()
	b.ResetTimer()
	for range b.N {
		round()
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N*conns), "cpu-ns/write")
	b.ReportMetric(0, "ns/op")
}

// bare is the program.
type bare struct {
	fds  []int
	stop func()
}

func newBare(b *testing.B, conns int) *bare {
	b.Helper()
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range []error{
		unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		unix.Listen(listener, 65535),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		b.Fatal(err)
	}
	p, err := poll.New(512)
	if err != nil {
		b.Fatal(err)
	}
	if err := p.Add(listener, uint64(listener), poll.Read); err != nil {
		b.Fatal(err)
	}
	s := &bare{fds: make([]int, 0, conns)}
	opened, end := startClients(b, fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port), conns, "")
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: madang.v1\r\n\r\n")
	answer = append(answer, benchHello.WS()...)
	buf := make([]byte, 64<<10)
	for len(s.fds) < conns {
		evs, err := p.Wait(1000)
		if err != nil {
			b.Fatal(err)
		}
		for _, ev := range evs {
			fd := int(ev.Token)
			if fd != listener {
				if n, _ := unix.Read(fd, buf); n > 0 && bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
					if _, err := unix.Write(fd, answer); err != nil {
						b.Fatal(err)
					}
					s.fds = append(s.fds, fd)
				}
				continue
			}
			for {
				conn, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Add(conn, uint64(conn), poll.Read); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	opened()
	s.stop = func() {
		end()
		for _, fd := range s.fds {
			unix.Close(fd)
		}
		unix.Close(listener)
		p.Close()
	}
	return s
}
