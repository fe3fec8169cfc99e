package bare

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/gateway/poll"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/loadtest/probe"
)

const (
	rooms, members = 1000, 10
	senders        = 32
	bodyBytes      = 320 // as many as a message of 100 bytes of text is for who receives it
	channel        = "rooms"
)

// Roles that the test binary plays when MADANG_BARE_ROLE says so. Each serves at an
// address that it prints, or prints that it is ready, and ends when its input does.
var roles = map[string]func(arg string){"api": api, "gateway": gateway, "clients": clients}

func TestMain(m *testing.M) {
	if role := os.Getenv("MADANG_BARE_ROLE"); role != "" {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		roles[role](os.Getenv("MADANG_BARE_ARG"))
		return
	}
	os.Exit(m.Run())
}

// BenchmarkMessage is the load of `madang loadtest fleet --scenario fanout --rooms 1000
// --members 10`, with --rate 1000 and with --rate 0, for ten seconds.
func BenchmarkMessage(b *testing.B) {
	b.Run("1000-a-second", func(b *testing.B) { messages(b, 1000) })
	b.Run("flat-out", func(b *testing.B) { messages(b, 0) })
}

func messages(b *testing.B, perSecond int) {
	store := testkit.Redis(b)
	// One processor where it suffices: what is left waits for sockets all the time.
	procs := "GOMAXPROCS=" + strconv.Itoa(runtime.GOMAXPROCS(0))
	if perSecond > 0 {
		procs = "GOMAXPROCS=1"
	}
	gateway, gatewayAddr := start(b, "gateway", store.Addr(), procs)
	api, apiAddr := start(b, "api", store.Addr(), procs)
	start(b, "clients", gatewayAddr)

	var sent atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer wg.Wait()
	defer cancel()
	for n := range senders {
		wg.Go(func() {
			if err := send(ctx, apiAddr, n, perSecond, &sent); err != nil {
				b.Error(err)
			}
		})
	}
	time.Sleep(2 * time.Second) // warm
	pids := map[string]int{"api": api, "redis": store.PID(), "gateway": gateway}
	for b.Loop() {
		before, from := used(b, pids), sent.Load()
		time.Sleep(10 * time.Second)
		after, n := used(b, pids), float64(sent.Load()-from)
		all := 0.0
		for role := range pids {
			each := (after[role] - before[role]).Seconds() * 1e6 / n
			all += each
			b.ReportMetric(each, role+"-cpu-us/message")
		}
		b.ReportMetric(all/members, "cpu-us/delivery")
		b.ReportMetric(n/10, "messages/s")
		b.ReportMetric(0, "ns/op")
	}
}

func used(b *testing.B, pids map[string]int) map[string]time.Duration {
	cpu := map[string]time.Duration{}
	for role, pid := range pids {
		s, err := probe.Read(pid)
		if err != nil {
			b.Fatal(err)
		}
		cpu[role] = s.CPU
	}
	return cpu
}

// start starts a role and returns what it prints when it is ready.
func start(b *testing.B, role, arg string, env ...string) (pid int, ready string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), env...), "MADANG_BARE_ROLE="+role, "MADANG_BARE_ARG="+arg)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatalf("%s: %v", role, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

// send sends one message after the other until ctx ends, perSecond together with the
// other senders; 0: as fast as it goes.
func send(ctx context.Context, addr string, sender, perSecond int, sent *atomic.Int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	body := strings.Repeat("x", bodyBytes)
	token := strings.Repeat("t", bodyBytes) // of a length that a JWT has
	answers := bufio.NewReader(conn)
	due := time.Now()
	if perSecond > 0 {
		due = due.Add(time.Duration(sender) * time.Second / time.Duration(perSecond))
	}
	for room := sender; ctx.Err() == nil; room = (room + senders) % rooms {
		if perSecond > 0 {
			time.Sleep(time.Until(due))
			due = due.Add(senders * time.Second / time.Duration(perSecond))
		}
		fmt.Fprintf(conn, "POST /v1/rooms/%d/messages HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", room, addr, token, len(body), body)
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusCreated {
			return fmt.Errorf("answered %s", answer.Status)
		}
		sent.Add(1)
	}
	return nil
}

func api(redisAddr string) {
	gin.SetMode(gin.ReleaseMode)
	client := redis.NewClient(&redis.Options{Addr: redisAddr, PoolSize: senders, DisableIdentity: true, Protocol: 2})
	script := redis.NewScript(`local id = redis.call('XADD', KEYS[1], '*', 't', ARGV[1])
redis.call('PUBLISH', '` + channel + `', KEYS[1] .. ' ' .. ARGV[1])
return id`)
	must(script.Load(context.Background(), client).Err())
	engine := gin.New()
	engine.POST("/v1/rooms/:room/messages", func(c *gin.Context) {
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			c.Status(http.StatusBadRequest)
			return
		}
		id, err := script.EvalSha(c.Request.Context(), client, []string{c.Param("room")}, body).Text()
		if err != nil {
			c.String(http.StatusInternalServerError, err.Error())
			return
		}
		c.Data(http.StatusCreated, "application/json", []byte(`{"id":"`+id+`"}`))
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr())
	must(http.Serve(listener, engine))
}

// gateway is one thread: it takes connections, the first ten for room 0 and so on, and
// writes to a room's what is published. They send nothing.
func gateway(redisAddr string) {
	runtime.LockOSThread()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr())
	conns := make([]int, rooms*members)
	for i := range conns {
		conn, err := listener.Accept()
		must(err)
		conns[i] = descriptor(conn)
	}
	link, err := net.Dial("tcp", redisAddr)
	must(err)
	_, err = link.Write([]byte("SUBSCRIBE " + channel + "\r\n"))
	must(err)
	fd := descriptor(link)
	p, err := poll.New(1)
	must(err)
	must(p.Add(fd, 0, poll.Read))
	push := []byte("$" + strconv.Itoa(len(channel)) + "\r\n" + channel + "\r\n$") // then the message's length
	buf, n := make([]byte, 1<<20), 0
	for {
		_, err := p.Wait(-1)
		must(err)
		got, err := unix.Read(fd, buf[n:])
		must(err)
		if got == 0 {
			return // Redis has ended
		}
		n += got
		rest := buf[:n]
		for {
			_, found, ok := bytes.Cut(rest, push)
			digits, message, complete := bytes.Cut(found, []byte("\r\n"))
			size, _ := strconv.Atoi(string(digits))
			if !ok || !complete || len(message) < size+2 {
				break
			}
			name, _, _ := bytes.Cut(message[:size], []byte(" "))
			room, err := strconv.Atoi(string(name))
			must(err)
			for _, to := range conns[room*members : (room+1)*members] {
				if _, err := unix.Write(to, message[:size]); err != nil {
					return // the clients have ended
				}
			}
			rest = message[size+2:]
		}
		n = copy(buf, rest)
	}
}

// clients reads what comes.
func clients(gatewayAddr string) {
	runtime.LockOSThread()
	p, err := poll.New(512)
	must(err)
	for range rooms * members {
		conn, err := net.Dial("tcp", gatewayAddr)
		must(err)
		fd := descriptor(conn)
		must(p.Add(fd, uint64(fd), poll.Read))
	}
	fmt.Println("ready")
	buf := make([]byte, 64<<10)
	for {
		ready, err := p.Wait(-1)
		must(err)
		for i := range ready {
			if n, err := unix.Read(int(ready[i].Token), buf); n == 0 && err == nil {
				return // the gateway has ended
			}
		}
	}
}

// descriptor takes a connection's descriptor out of the runtime's hands.
func descriptor(conn net.Conn) int {
	file, err := conn.(*net.TCPConn).File()
	must(err)
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(err)
	must(unix.SetNonblock(fd, true))
	file.Close()
	conn.Close()
	return fd
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
