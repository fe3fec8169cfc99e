package test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// traffic is people who send, and one who listens and comes back whenever the
// socket ends.
type traffic struct {
	t        *testing.T
	senders  sync.WaitGroup
	acked    atomic.Int64
	quit     atomic.Bool
	listener *fleet.User

	mu   sync.Mutex
	sent map[string][]fleet.Event // guarded by mu: by room
}

const trafficRooms = 8

// startTraffic has two people send to each of some rooms, through any API that
// answers, until stop.
func startTraffic(t *testing.T, f *fleet.Fleet) *traffic {
	t.Helper()
	tr := &traffic{t: t, sent: map[string][]fleet.Event{}}
	tr.listener = f.User("listener", fleet.KeepingLogs())
	senders := []*fleet.User{f.User("alice", fleet.OnAPI(0)), f.User("bob", fleet.OnAPI(1))}
	for r := range trafficRooms {
		senders[0].CreatesRoom(roomName(r), "bob", "listener")
	}
	tr.listener.Connects()
	for r := range trafficRooms {
		for _, u := range senders {
			tr.senders.Go(func() {
				for i := 0; !tr.quit.Load(); i++ {
					m, err := u.Insists(roomName(r), fmt.Sprintf("%s %d", u.Name, i), fmt.Sprintf("%s-%d", u.Name, i))
					if err != nil {
						t.Error(err)
						return
					}
					tr.acked.Add(1)
					tr.mu.Lock()
					tr.sent[roomName(r)] = append(tr.sent[roomName(r)], m)
					tr.mu.Unlock()
				}
			})
		}
	}
	return tr
}

// flows waits until some more messages have been acknowledged.
func (tr *traffic) flows() {
	tr.t.Helper()
	from := tr.acked.Load()
	fleet.Await(tr.t, "messages are acknowledged", func() bool { return tr.acked.Load() > from+50 })
}

// stop ends the sending and checks that the listener has everything that was
// acknowledged: all of it, in order.
func (tr *traffic) stop() {
	tr.t.Helper()
	tr.quit.Store(true)
	tr.senders.Wait()
	total := 0
	for r := range trafficRooms {
		room := roomName(r)
		got := tr.listener.WantLog(room, len(tr.sent[room]))
		checkLog(tr.t, tr.listener, room, got, tr.sent[room])
		total += len(got)
	}
	tr.t.Logf("%d messages, %d repeated on the wire and filtered", total, tr.listener.Duplicates())
}

// TestGatewayKilled: kill -9 of either gateway, several times; a client that
// comes back to the other one with its positions misses nothing acknowledged.
func TestGatewayKilled(t *testing.T) {
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 2, 2)
	tr := startTraffic(t, f)
	for i := range volume(4, 20) {
		victim := i % 2
		tr.flows()
		f.Gateways[victim].Kill()
		fleet.Await(t, "the socket ends", func() bool { return !tr.listener.Connected() })
		tr.flows() // while nobody listens
		tr.listener.Reconnects(fleet.Resuming, 1-victim)
		f.Gateways[victim].Restart()
		f.Gateways[victim].WaitReady()
	}
	tr.stop()
}

// TestAPIKilled: kill -9 of either API while people send; they retry with the same
// key elsewhere. What was acknowledged is there once.
func TestAPIKilled(t *testing.T) {
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 2, 2)
	tr := startTraffic(t, f)
	for i := range volume(4, 20) {
		tr.flows()
		f.APIs[i%2].Kill()
		tr.flows()
		f.APIs[i%2].Restart()
		f.APIs[i%2].WaitReady()
	}
	tr.stop()
}

// TestRollingRestart: every process is stopped as SIGTERM does and started again.
// No acknowledged message is lost, and a drained client is told to come back.
func TestRollingRestart(t *testing.T) {
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 2, 2, fleet.Flags("gateway", "--drain-timeout=2s"))
	tr := startTraffic(t, f)
	for i := range 2 {
		tr.flows()
		stopped := make(chan struct{})
		go func() {
			f.Gateways[i].Stop()
			close(stopped)
		}()
		tr.listener.WantClosed(4012)
		if bye := tr.listener.WantEvent("bye"); bye.Reason != "drain" {
			t.Errorf("bye says %q, want drain", bye.Reason)
		}
		tr.listener.Reconnects(fleet.Resuming, 1-i) // at once: it may miss 500 messages of a room
		<-stopped
		if code := f.Gateways[i].ExitCode(); code != 0 {
			t.Errorf("the gateway ended with code %d", code)
		}
		f.Gateways[i].Restart()
		f.Gateways[i].WaitReady()
		f.APIs[i].Stop()
		if code := f.APIs[i].ExitCode(); code != 0 {
			t.Errorf("the API ended with code %d", code)
		}
		f.APIs[i].Restart()
		f.APIs[i].WaitReady()
	}
	tr.stop()
}

// TestRedisGoesAway: sends get 503 with Retry-After, sockets stay, readiness goes
// and comes back, and so does delivery, by itself.
func TestRedisGoesAway(t *testing.T) {
	redis := testkit.Redis(t, "--appendonly", "yes")
	f := fleet.Start(t, redis.URL(), 1, 1)
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	bob.Connects()
	alice.Sends("yard", "before")
	bob.WantMessage("yard", "before")

	redis.Kill()
	fleet.Await(t, "a send is refused", func() bool {
		res, err := alice.TrySend("yard", "during", "k1")
		if err != nil {
			t.Fatal(err)
		}
		if res.Status != http.StatusServiceUnavailable {
			return false
		}
		if res.Header.Get("Retry-After") == "" || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("503 without Retry-After, or no problem: %v %s", res.Header, res.Body)
		}
		return true
	})
	for _, n := range []*fleet.Node{f.APIs[0], f.Gateways[0]} {
		fleet.Await(t, "the "+n.Kind+" is not ready", func() bool {
			status, _ := n.Admin("/readyz")
			return status == http.StatusServiceUnavailable
		})
		if status, _ := n.Admin("/healthz"); status != http.StatusOK {
			t.Errorf("the %s is not healthy: a restart would not bring Redis back", n.Kind)
		}
	}
	if !bob.Connected() {
		t.Error("the socket was closed")
	}

	if err := redis.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Insists("yard", "during", "k1"); err != nil {
		t.Fatal(err)
	}
	bob.WantMessage("yard", "during")
	f.WaitReady()
	alice.Sends("yard", "after")
	bob.WantMessage("yard", "after")
	if !bob.Connected() {
		t.Error("the socket was closed")
	}
}

// TestRedisDownAtStart: processes wait, say so without the password, are not
// ready, and serve as soon as Redis answers.
func TestRedisDownAtStart(t *testing.T) {
	redis := testkit.Redis(t)
	redis.Kill()
	url := "redis://:pass-word@" + redis.Addr() + "/0"
	f := fleet.LaunchProcesses(t, url, 1, 1)
	for _, n := range []*fleet.Node{f.APIs[0], f.Gateways[0]} {
		fleet.Await(t, "the "+n.Kind+" says that it waits", func() bool {
			return contains(n.Log(), "Redis cannot be used yet", redis.Addr())
		}, n.Log)
		if contains(n.Log(), "pass-word") {
			t.Errorf("the %s logs the password:\n%s", n.Kind, n.Log())
		}
		status, body := n.Admin("/readyz")
		if status != http.StatusServiceUnavailable || !contains(body, "redis") {
			t.Errorf("the %s: /readyz says %d %q", n.Kind, status, body)
		}
		if n.ExitCode() != -1 {
			t.Fatalf("the %s has ended:\n%s", n.Kind, n.Log())
		}
	}
	if err := redis.Restart(); err != nil {
		t.Fatal(err)
	}
	redis.Must(t, "CONFIG", "SET", "requirepass", "pass-word")
	f.WaitReady()
}

// TestSignals: SIGINT, SIGTERM and SIGHUP end a process with code 0, also while it waits
// for Redis.
func TestSignals(t *testing.T) {
	redis := testkit.Redis(t)
	redis.Kill()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		f := fleet.LaunchProcesses(t, redis.URL(), 1, 1)
		for _, n := range []*fleet.Node{f.APIs[0], f.Gateways[0]} {
			fleet.Await(t, "the "+n.Kind+" waits", func() bool { return contains(n.Log(), "Redis cannot be used yet") }, n.Log)
			began := time.Now()
			n.Signal(sig)
			fleet.Await(t, "the "+n.Kind+" ends", func() bool { return n.ExitCode() >= 0 }, n.Log)
			if code, took := n.ExitCode(), time.Since(began); code != 0 || took > 5*time.Second {
				t.Errorf("%v: the %s ended with code %d after %v:\n%s", sig, n.Kind, code, took, n.Log())
			}
		}
	}
}

// A failover may lose a user's index and keep the room's members, which are in
// another slot. Whoever follows the room for the user finds it out, and puts the
// index right: else the user would not come back to the room after the next connect.
func TestAnIndexThatIsLostIsWrittenAgain(t *testing.T) {
	t.Parallel()
	redis := testkit.Redis(t)
	f := fleet.Start(t, redis.URL(), 1, 2)
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	alice.CreatesRoom("shed", "bob")
	bob.Connects()
	keys, err := redis.Do("KEYS", "*:user:bob:rooms")
	if err != nil || len(keys.([]any)) != 1 {
		t.Fatal(keys, err)
	}
	for _, cmd := range [][]string{{"DEL", keys.([]any)[0].(string)}, {"CLIENT", "KILL", "TYPE", "pubsub"}} {
		if _, err := redis.Do(cmd...); err != nil {
			t.Fatal(err)
		}
	}
	fleet.Await(t, "both rooms in bob's list", func() bool {
		list, err := bob.Requests(http.MethodGet, "/v1/rooms", nil)
		return err == nil && contains(string(list.Body), `"yard"`, `"shed"`)
	})
	bob.Disconnects()
	again := f.User("bob", fleet.OnGateway(1))
	again.Connects()
	alice.Sends("yard", "still there?")
	again.WantMessage("yard", "still there?")
}

// Redis gets another certificate, of another authority, as it may in a year: processes
// that run take what their file says by then.
func TestRedisGetsAnotherAuthority(t *testing.T) {
	port := strconv.Itoa(testkit.FreePort())
	cert, key, _ := testkit.CertFiles(t)
	r := testkit.Redis(t, "--tls-port", port, "--tls-auth-clients", "no", "--tls-cert-file", cert, "--tls-key-file", key)
	f := fleet.Start(t, "rediss://127.0.0.1:"+port, 1, 1,
		fleet.API(func(c *config.API) { c.RedisCA = cert }), fleet.Gateway(func(c *config.Gateway) { c.RedisCA = cert }))
	alice := f.User("alice")
	alice.CreatesRoom("before")

	newCert, newKey, _ := testkit.CertFiles(t)
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Restart(); err != nil {
		t.Fatal(err)
	}
	f.WaitReady()
	alice.CreatesRoom("after")
}
