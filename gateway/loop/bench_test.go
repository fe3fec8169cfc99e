package loop_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/gateway/poll"
)

// The figures of DESIGN's budgets that the loops decide. The clients run in a
// child process, which is this test binary again: what is measured is the
// gateway's side alone.

const childEnv = "MADANG_LOOP_BENCH_CLIENTS"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := clients(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// The gateway's ping, and a client's answer, masked with zeros.
const pingFrame, pongFrame = "\x89\x00", "\x8a\x80\x00\x00\x00\x00"

// clients opens the connections that spec ("addr count [deflate|events|tls VERSION]") asks for, says so, and
// answers pings and throws away what else it reads, until its standard input ends.
func clients(spec string) error {
	addr, count, _ := strings.Cut(spec, " ")
	count, how, _ := strings.Cut(count, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	if version, ok := strings.CutPrefix(how, "tls "); ok {
		return tlsClients(addr, n, version)
	}
	p, err := poll.New(1024)
	if err != nil {
		return err
	}
	dialed := make(chan int, 64)
	errs := make(chan error, 8)
	var next atomic.Int64
	for range 8 {
		go func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				fd, err := dialFD(addr, fmt.Sprintf("user%d", i), how)
				if err != nil {
					errs <- err
					return
				}
				dialed <- fd
			}
		}()
	}
	for range n {
		select {
		case fd := <-dialed:
			if err := p.Add(fd, uint64(fd), poll.Read); err != nil {
				return err
			}
		case err := <-errs:
			return err
		}
	}
	fmt.Println("open")
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	buf := make([]byte, 256<<10)
	for {
		evs, err := p.Wait(-1)
		if err != nil {
			return err
		}
		for _, ev := range evs {
			fd := int(ev.Token)
			got, err := unix.Read(fd, buf)
			switch {
			case got == 0 || err != nil && err != unix.EAGAIN:
				unix.Close(fd)
			case got == len(pingFrame) && string(buf[:got]) == pingFrame: // it was silent
				if _, err := unix.Write(fd, []byte(pongFrame)); err != nil {
					unix.Close(fd)
				}
			}
		}
	}
}

// dialFD opens and upgrades a connection, or asks for events, and returns its
// descriptor.
func dialFD(addr, user, how string) (int, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	head, answer := goodHead, "HTTP/1.1 101"
	if how == "events" {
		head, answer = "GET /v1/events HTTP/1.1\r\nHost: h\r\n", "HTTP/1.1 200"
	}
	head += "Authorization: Bearer " + user + "\r\n"
	if how == "deflate" {
		head += "Sec-WebSocket-Extensions: " + offer + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return 0, err
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), answer) {
		return 0, fmt.Errorf("upgrade: %w %.80s", err, buf[:n])
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	fd := -1
	raw.Control(func(p uintptr) { fd, err = unix.Dup(int(p)) })
	conn.Close()
	return fd, err
}

// openHub attaches everyone to one room and forgets them.
type openHub struct {
	group  *loop.Group
	opened atomic.Int64
	silent bool // attach nobody
}

func (h *openHub) Post(batch []edge.Event) {
	for _, ev := range batch {
		if ev.Kind == edge.EvOpened {
			// Hello, with which the answer goes out.
			cmds := []edge.Cmd{{Kind: edge.CmdUnicast, Conn: ev.Conn, Room: edge.NoRoom, Frame: benchHello}}
			if !h.silent {
				cmds = append(cmds, edge.Cmd{Kind: edge.CmdAttach, Conn: ev.Conn, Room: room1})
			}
			h.group.Post(int(ev.Conn.Loop()), cmds)
			h.opened.Add(1)
		}
	}
}

const benchEvent = `{"type":"message","room":"01J8Z3K5X9","id":"1732281234567-0","prev":"1732281230000-0","n":42,"from":"bob","sent_at":"2026-11-22T10:00:00Z","body":{"type":"text","text":"how are you today?"},"key":"3f0c"}`

var benchHello = edge.FrameOf([]byte(`{"type":"hello"}`))

// open starts a gateway with n clients in one room, their process beside it.
func open(b *testing.B, n int, set func(*loop.Options)) (*loop.Group, *openHub, func()) {
	b.Helper()
	return openAs(b, n, "", set)
}

func openAs(b *testing.B, n int, how string, set func(*loop.Options)) (*loop.Group, *openHub, func()) {
	b.Helper()
	h := &openHub{}
	o := loop.Options{Addr: "127.0.0.1:0", Hub: h, Verifier: verifier{}, MaxPerUser: 1 << 20}
	if set != nil {
		set(&o)
	}
	g, err := loop.New(o)
	if err != nil {
		b.Fatal(err)
	}
	h.group = g
	g.Start()
	if o.Compress {
		how = "deflate"
	}
	opened, end := startClients(b, g.Addr().String(), n, how)
	opened()
	for h.opened.Load() < int64(n) || g.Stats().Attachments < int64(n) && !h.silent {
		time.Sleep(time.Millisecond)
	}
	return g, h, func() {
		end()
		stop(b, g)
	}
}

// startClients starts the clients' process. opened returns when all are connected; end
// ends them.
func startClients(b *testing.B, addr string, n int, how string) (opened, end func()) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), childEnv+"="+fmt.Sprintf("%s %d %s", addr, n, how))
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	opened = func() {
		if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "open\n" {
			b.Fatalf("clients: %q, %v", line, err)
		}
	}
	end = func() {
		stdin.Close()
		child.Wait()
	}
	return opened, end
}

func stop(tb testing.TB, g *loop.Group) {
	ctx, cancel := timeout(3 * time.Second)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		tb.Error(err)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rss() int64 {
	b, _ := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// BenchmarkDelivery: one message at a time to a room, the next one when all have
// been written, as at a low rate: one write each.
func BenchmarkDelivery(b *testing.B) {
	for _, members := range []int{1000, 5000} {
		b.Run(fmt.Sprint(members, "-members"), func(b *testing.B) { deliver(b, members, 1) })
	}
	b.Run("5000-members-events", func(b *testing.B) { deliverAs(b, "events", 5000, 1) })
	b.Run("1000-members-10-waiting", func(b *testing.B) { deliver(b, 1000, 10) })
	b.Run("1000-members-100-waiting", func(b *testing.B) { deliver(b, 1000, 100) })
}

func deliver(b *testing.B, members, atOnce int) { deliverAs(b, "", members, atOnce) }

func deliverAs(b *testing.B, how string, members, atOnce int) {
	g, _, done := openAs(b, members, how, nil)
	defer done()
	frames := make([]edge.Cmd, atOnce)
	for i := range frames {
		frames[i] = edge.Cmd{Kind: edge.CmdBroadcast, Room: room1, Frame: edge.FrameOf([]byte(benchEvent))}
	}
	round := func(n int) {
		for range n {
			want := g.Stats().Deliveries + uint64(members*atOnce)
			for i := range g.Count() {
				g.Post(i, frames)
			}
			for g.Stats().QueuedBytes != 0 || g.Stats().Deliveries < want {
				time.Sleep(200 * time.Microsecond)
			}
		}
	}
	round(20) // until the tables have their size
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, cpu := g.Stats(), cpuTime()
	b.ResetTimer()
	round(b.N)
	b.StopTimer()
	runtime.ReadMemStats(&after)
	end, used := g.Stats(), cpuTime()-cpu
	n := float64(end.Deliveries - start.Deliveries)
	b.ReportMetric(float64(used.Nanoseconds())/n, "cpu-ns/delivery")
	b.ReportMetric(float64(end.Writes-start.Writes)/n, "writes/delivery")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/delivery")
	b.ReportMetric(n/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkReattach: a connection is detached from all its rooms and attached again, as
// when Redis has lost their ends. A room costs as much whether it is in a hundred or in
// ten thousand.
func BenchmarkReattach(b *testing.B) {
	for _, rooms := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(rooms, "-rooms"), func(b *testing.B) {
			g := start(b, func(o *loop.Options) { o.Loops = 1 })
			c := g.dial("alice")
			attach := make([]edge.Cmd, rooms)
			again := make([]edge.Cmd, 0, 2*rooms)
			for i := range attach {
				attach[i] = edge.Cmd{Kind: edge.CmdAttach, Conn: c.id, Room: edge.RoomNum(i)}
				again = append(again, edge.Cmd{Kind: edge.CmdDetach, Conn: c.id, Room: edge.RoomNum(i)}, attach[i])
			}
			told := edge.Cmd{Kind: edge.CmdUnicast, Conn: c.id, Frame: edge.FrameOf([]byte(benchEvent))}
			g.Post(0, append(attach, told))
			c.want(benchEvent)
			again = append(again, told)
			for b.Loop() {
				g.Post(0, again)
				c.want(benchEvent)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rooms), "ns/room")
		})
	}
}

// BenchmarkUpgrade: connections opened, the gateway's allocations and processor
// time for each.
func BenchmarkUpgrade(b *testing.B) {
	const conns = 15000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cpu := cpuTime()
		_, _, done := open(b, conns, func(o *loop.Options) { o.Verifier = constant{} })
		used := cpuTime() - cpu
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(used.Microseconds())/conns, "cpu-us/upgrade")
		b.ReportMetric(float64(after.Mallocs-before.Mallocs)/conns, "allocs/upgrade")
		b.ReportMetric(0, "ns/op")
		done()
	}
}

// BenchmarkIdle: user memory per idle connection that is a member of one room.
func BenchmarkIdle(b *testing.B) {
	b.Run("plain", func(b *testing.B) { idle(b, "", nil) })
	b.Run("compressed", func(b *testing.B) { idle(b, "", compressing) })
	b.Run("events", func(b *testing.B) { idle(b, "events", nil) })
}

func idle(b *testing.B, how string, set func(*loop.Options)) {
	const conns = 18_000
	for b.Loop() {
		debug.FreeOSMemory()
		base := rss()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, done := openAs(b, conns, how, set)
		time.Sleep(100 * time.Millisecond)
		grown := rss() - base
		debug.FreeOSMemory()
		runtime.ReadMemStats(&after)
		live := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		b.ReportMetric(float64(grown)/conns, "rss-B/conn")
		b.ReportMetric(float64(rss()-base)/conns, "rss-after-GC-B/conn")
		b.ReportMetric(float64(live)/conns, "live-B/conn")
		b.ReportMetric(0, "ns/op")
		done()
	}
}

// BenchmarkHeartbeat: what an idle connection costs in a minute, in which it is silent but
// for its answers to the gateway's pings, every 20 to 25 s.
func BenchmarkHeartbeat(b *testing.B) {
	b.Run("plain", func(b *testing.B) { heartbeat(b, "") })
	b.Run("events", func(b *testing.B) { heartbeat(b, "events") })
}

func heartbeat(b *testing.B, how string) {
	const conns = 18_000
	for b.Loop() {
		g, _, done := openAs(b, conns, how, nil)
		start, cpu := g.Stats(), cpuTime()
		time.Sleep(time.Minute)
		end, used := g.Stats(), cpuTime()-cpu
		if end.Open != conns {
			b.Fatalf("%d connections of %d are left", end.Open, conns)
		}
		b.ReportMetric(float64(used.Microseconds())/conns, "cpu-us/conn/min")
		b.ReportMetric(float64(end.Pings-start.Pings)/conns, "pings/conn/min")
		b.ReportMetric(0, "ns/op")
		done()
	}
}
