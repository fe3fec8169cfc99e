package swarm

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/target"
	"github.com/madang-chat/madang/protocol"
)

// BenchmarkLive is the tester's own memory per client that is connected and live,
// beside what a process takes however many it has (histograms, mostly): the whole
// heap with few clients and with many. The servers' end of the sockets is in this
// process, too, and takes none of the heap.
func BenchmarkLive(b *testing.B) {
	const few, many = 500, 3500
	for _, over := range []target.Transport{target.WebSocket, target.EventStream, target.LongPoll, target.Polling} {
		b.Run(over.String(), func(b *testing.B) {
			for b.Loop() {
				least, most := liveHeap(b, over, few), liveHeap(b, over, many)
				each := float64(most-least) / (many - few)
				b.ReportMetric(each, "bytes/client")
				b.ReportMetric(float64(least)-few*each, "bytes/process")
			}
		})
	}
}

// liveHeap is what so many live clients take of the heap.
func liveHeap(b *testing.B, over target.Transport, clients int) uint64 {
	b.Helper()
	g := newMuteGateway(b, clients)
	before := heap()
	c, err := crowd.New(crowd.Shape{Prefix: "lt1234567", Users: clients, Rooms: clients / 10, Each: 10})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{
		Dialect: target.Madang{}, Transport: over, PollEvery: time.Minute, Clock: clock.New(clock.Offset()), Gateways: []netip.AddrPort{g.addr},
		Crowd: c, Count: clients, Base: func(uint32) ledger.Pos { return 0 }, InFlight: 100, Timeout: 20 * time.Second,
	})
	if err != nil {
		b.Fatal(err)
	}
	go g.serve(opening(over, s.wsKey))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	s.Ramp()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		snap, ok := s.Snapshot(10 * time.Second)
		if !ok || time.Now().After(deadline) {
			b.Fatalf("%d of %d clients live: %v", snap.Stats.Live, clients, snap.Stats.Failures)
		}
		if snap.Stats.Live == clients {
			break
		}
	}
	took := heap() - before
	s.Stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	g.close()
	return took
}

// muteGateway accepts clients, says hello and nothing more.
type muteGateway struct {
	fd    int
	addr  netip.AddrPort
	conns []int // of so many clients, made before they come
}

func newMuteGateway(b *testing.B, clients int) *muteGateway {
	b.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	g := &muteGateway{fd: fd, conns: make([]int, 0, clients)}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(fd, 1024); err != nil {
		b.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		b.Fatal(err)
	}
	g.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	return g
}

// opening is what a gateway answers a client that opens.
func opening(over target.Transport, key string) []byte {
	hello := protocol.AppendHello(nil, "c1", "u", 1, 25, "mute")
	switch over {
	case target.EventStream:
		return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: %s\n\n", hello)
	case target.LongPoll, target.Polling:
		return pollAnswer(nil, "")
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: " +
		protocol.Subprotocol + "\r\nSec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	return append(append(answer, 0x81, byte(len(hello))), hello...)
}

// serve opens one client after the other; it ends with the last.
func (g *muteGateway) serve(answer []byte) {
	runtime.LockOSThread() // it blocks in the kernel
	request := make([]byte, 8192)
	for len(g.conns) < cap(g.conns) {
		fd, _, err := unix.Accept(g.fd)
		if err != nil {
			return
		}
		g.conns = append(g.conns, fd)
		if _, err := unix.Read(fd, request); err != nil { // the upgrade comes in one piece
			continue
		}
		_, _ = unix.Write(fd, answer) // a client that did not get it is not live
	}
}

func (g *muteGateway) close() {
	for _, fd := range g.conns {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
	}
	unix.Close(g.fd)
}
