package loop_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
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
	b.Run("relay", bareRelay)
}

// bareRelay is the least that three processes can make of a message to a room of ten, of
// 1,000 rooms, at 1,000 messages a second: an API that makes a command of a request and an
// answer of its reply, a store that replies and publishes, and a gateway that writes to ten
// sockets. Each is a thread that does these system calls and nothing between them.
func bareRelay(b *testing.B) {
	const rooms, members = 1000, 10
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8)) // no thread waits for another's processor
	s := newBare(b, rooms*members)
	defer s.stop()
	frame := edge.FrameOf([]byte(benchEvent)).WS()
	request, command, reply := make([]byte, 480), make([]byte, 680), make([]byte, 40)
	user, apiUser := tcpPair(b)
	apiStore, storeAPI := tcpPair(b)
	storeGateway, gateway := tcpPair(b)
	sent := 0

	roles := []role{
		{from: []int{apiUser, apiStore}, then: func(from int) {
			if from == apiUser {
				unix.Write(apiStore, command)
			} else {
				unix.Write(apiUser, frame)
			}
		}},
		{from: []int{storeAPI}, then: func(int) {
			unix.Write(storeAPI, reply)
			unix.Write(storeGateway, frame)
		}},
		{from: []int{gateway}, then: func(int) {
			for i := range members {
				unix.Write(s.fds[sent%rooms*members+i], frame)
			}
			sent++
		}},
	}
	used := make(chan time.Duration)
	for _, r := range roles {
		go func() { used <- r.run(b) }()
	}
	answer := make([]byte, 4096)
	tick := time.NewTicker(time.Millisecond)
	for range b.N {
		<-tick.C
		unix.Write(user, request)
		if n, err := unix.Read(user, answer); n != len(frame) {
			b.Fatalf("answer of %d bytes: %v", n, err)
		}
	}
	tick.Stop()
	var sum time.Duration
	for _, fd := range []int{user, apiStore, storeGateway} { // one after the other ends
		unix.Shutdown(fd, unix.SHUT_WR)
		sum += <-used
	}
	for _, fd := range []int{user, apiUser, apiStore, storeAPI, storeGateway, gateway} {
		unix.Close(fd)
	}
	b.ReportMetric(float64(sum.Microseconds())/float64(b.N*members), "cpu-us/delivery")
	b.ReportMetric(0, "ns/op")
}

// role is a thread that waits for sockets, and does something whenever one of them has
// something.
type role struct {
	from []int
	then func(from int)
}

// run returns the processor time it took, when one of its sockets has come to its end.
func (r role) run(b *testing.B) time.Duration {
	runtime.LockOSThread() // until it ends
	p, err := poll.New(len(r.from))
	if err != nil {
		b.Error(err)
		return 0
	}
	defer p.Close()
	for _, fd := range r.from {
		if err := p.Add(fd, uint64(fd), poll.Read); err != nil {
			b.Error(err)
			return 0
		}
	}
	buf := make([]byte, 4096)
	for start := threadTime(); ; {
		evs, err := p.Wait(-1)
		if err != nil {
			b.Error(err)
			return 0
		}
		for _, ev := range evs {
			if n, _ := unix.Read(int(ev.Token), buf); n == 0 {
				return threadTime() - start
			} else if n > 0 {
				r.then(int(ev.Token))
			}
		}
	}
}

func threadTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tcpPair is the two ends of a connection, as descriptors.
func tcpPair(b *testing.B) (client, server int) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	var fds [2]int
	for i, conn := range []net.Conn{c, s} {
		f, err := conn.(*net.TCPConn).File()
		if err != nil {
			b.Fatal(err)
		}
		if fds[i], err = unix.Dup(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		f.Close()
		conn.Close()
	}
	return fds[0], fds[1]
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
