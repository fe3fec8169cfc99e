package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// TestARedisThatRefusesWritesIsNoAcknowledgement: whatever Redis says instead of
// writing, no sender is told 2xx, nothing that was acknowledged is lost, receivers
// stay connected, and the retry with the same key settles the send.
func TestARedisThatRefusesWritesIsNoAcknowledgement(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		fails func(*testing.T, *testkit.RedisServer) (heals func())
		want  int
		// late: Redis finds out only by a write of its own, and has answered by then.
		late bool
	}{
		"out of memory": {want: http.StatusInsufficientStorage, fails: func(t *testing.T, r *testkit.RedisServer) func() {
			r.Must(t, "CONFIG", "SET", "maxmemory", "1")
			return func() { r.Must(t, "CONFIG", "SET", "maxmemory", "0") }
		}},
		"MISCONF: a snapshot failed": {
			args: []string{"--save", "3600 1000000"}, want: http.StatusInsufficientStorage,
			fails: func(t *testing.T, r *testkit.RedisServer) func() {
				gone := filepath.Join(t.TempDir(), "gone")
				if err := os.Mkdir(gone, 0o700); err != nil {
					t.Fatal(err)
				}
				r.Must(t, "CONFIG", "SET", "dir", gone)
				if err := os.Remove(gone); err != nil {
					t.Fatal(err)
				}
				r.Must(t, "BGSAVE")
				fleet.Await(t, "the snapshot has failed", func() bool {
					return contains(fmt.Sprint(r.Must(t, "INFO", "persistence")), "rdb_last_bgsave_status:err")
				})
				return func() { r.Must(t, "CONFIG", "SET", "stop-writes-on-bgsave-error", "no") }
			},
		},
		"MISCONF: the AOF's disk is full": {want: http.StatusInsufficientStorage, fails: fullDisk, late: true},
		"READONLY: demoted": {want: http.StatusServiceUnavailable, fails: func(t *testing.T, r *testkit.RedisServer) func() {
			// Of a primary that is not there: it keeps its data, and takes no writes.
			r.Must(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(testkit.FreePort()))
			return func() { r.Must(t, "REPLICAOF", "NO", "ONE") }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			redis := testkit.Redis(t, append(c.args, "--enable-protected-configs", "yes")...) // "dir" is one
			f := fleet.Start(t, redis.URL(), 1, 1)
			alice, bob := f.User("alice"), f.User("bob")
			alice.CreatesRoom("yard", "bob")
			bob.Connects()
			alice.Sends("yard", "before")
			bob.WantMessage("yard", "before")

			heals := c.fails(t, redis)
			accepted := 0
			if c.late {
				fleet.Await(t, "Redis finds out", func() bool {
					res, err := alice.TrySend("yard", "in time", fmt.Sprint("early", accepted))
					if err == nil && res.Status == http.StatusCreated {
						bob.WantMessage("yard", "in time")
						accepted++
						return false
					}
					return true
				})
			}
			wantRefused(t, alice, "during", "k", c.want)
			if !bob.Connected() {
				t.Error("the receiver's socket was closed")
			}
			if had := alice.History("yard", ""); len(had) != 1+accepted {
				t.Errorf("history has %d messages while Redis takes no writes, want %d", len(had), 1+accepted)
			}
			heals()
			if _, err := alice.Insists("yard", "during", "k"); err != nil {
				t.Fatal(err)
			}
			bob.WantMessage("yard", "during")
			if had := alice.History("yard", ""); len(had) != 2+accepted || !bob.Connected() {
				t.Errorf("%d messages, want %d; the receiver is connected: %t", len(had), 2+accepted, bob.Connected())
			}
		})
	}
}

// wantRefused waits until a send is answered with a status; no answer before may
// be 2xx, and each must say when to come back.
func wantRefused(t *testing.T, u *fleet.User, text, key string, want int) {
	t.Helper()
	var got string
	fleet.Await(t, fmt.Sprintf("sends are answered %d", want), func() bool {
		res, err := u.TrySend("yard", text, key)
		if err != nil {
			t.Fatal(err)
		}
		got = fmt.Sprintf("%d %s", res.Status, res.Body)
		if res.Status/100 == 2 || res.Header.Get("Retry-After") == "" {
			t.Fatalf("%d, Retry-After %q: %s", res.Status, res.Header.Get("Retry-After"), res.Body)
		}
		return res.Status == want
	}, func() string { return got })
}

// fullDisk moves the AOF onto a disk of its own, and fills that.
func fullDisk(t *testing.T, r *testkit.RedisServer) (heals func()) {
	disk := t.TempDir()
	unmount, err := mountSmall(disk)
	if err != nil {
		t.Skipf("a small disk can't be mounted here: %v", err)
	}
	t.Cleanup(func() {
		r.Kill()
		if err := unmount(); err != nil {
			t.Error(err)
		}
	})
	r.Must(t, "CONFIG", "SET", "dir", disk)
	r.Must(t, "CONFIG", "SET", "appendonly", "yes")
	fleet.Await(t, "the AOF is there", func() bool {
		return contains(fmt.Sprint(r.Must(t, "INFO", "persistence")), "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_enabled:1")
	})
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the small disk holds more than it may")
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// TestARedisThatLoadsIsNoAcknowledgement: a restarted Redis that reads its data
// for seconds answers LOADING.
func TestARedisThatLoadsIsNoAcknowledgement(t *testing.T) {
	redis := testkit.Redis(t, "--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no",
		"--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024") // 20 ms for each key
	f := fleet.Start(t, redis.URL(), 1, 1)
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	bob.Connects()
	for i := range 50 {
		alice.Sends("yard", fmt.Sprint("before ", i))
		bob.WantMessage("yard", fmt.Sprint("before ", i))
	}
	redis.Kill()
	restarted := make(chan error, 1)
	go func() { restarted <- redis.Restart() }()
	wantRefused(t, alice, "during", "k", http.StatusServiceUnavailable)
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Insists("yard", "during", "k"); err != nil {
		t.Fatal(err)
	}
	bob.WantMessage("yard", "during")
	if had := alice.History("yard", ""); len(had) != 51 || !bob.Connected() {
		t.Errorf("%d messages, want 51; the receiver is connected: %t", len(had), bob.Connected())
	}
}

// TestReplicatedMeansReplicated: with --min-replicas-ack 1 a 201 says so; without a
// replica it is a 503 that tells that the message may still appear, and the retry
// with the same key settles it as one message.
func TestReplicatedMeansReplicated(t *testing.T) {
	group := testkit.Sentinel(t)
	f := fleet.StartProcesses(t, group.Nodes[0].URL(), 1, 1, fleet.Flags("api", "--min-replicas-ack=1", "--replica-timeout=300ms"))
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	bob.Connects()
	var answer struct{ Durability, Code, Detail string }
	send := func(key string) int {
		t.Helper()
		res, err := alice.TrySend("yard", key, key)
		if err != nil {
			t.Fatal(err)
		}
		answer.Durability, answer.Code, answer.Detail = "", "", ""
		res.Decode(t, &answer)
		return res.Status
	}
	if status := send("k1"); status != http.StatusCreated || answer.Durability != "replicated" {
		t.Fatalf("%d %+v", status, answer)
	}
	bob.WantMessage("yard", "k1")

	group.Sentinels[0].Kill() // nobody is to be promoted
	group.Nodes[1].Pause()
	defer group.Nodes[1].Resume()
	for range 2 { // a replay waits as the first attempt did
		if status := send("k2"); status != http.StatusServiceUnavailable || answer.Code != "not_replicated" || !contains(answer.Detail, "stored", "same Idempotency-Key") {
			t.Fatalf("%d %+v", status, answer)
		}
	}
	group.Nodes[1].Resume()
	fleet.Await(t, "the retry settles it", func() bool { return send("k2") == http.StatusOK })
	if answer.Durability != "replicated" {
		t.Errorf("%+v", answer)
	}
	bob.WantMessage("yard", "k2")
	if had := alice.History("yard", ""); len(had) != 2 {
		t.Errorf("%d messages, want 2", len(had))
	}
}

// TestASlowRedisMakesNoPileUp: while Redis is stopped, each send is answered 503
// within the time a command may take, and the API's memory and goroutines are
// bounded by the requests that are open; afterwards everything goes on by itself.
func TestASlowRedisMakesNoPileUp(t *testing.T) {
	redis := testkit.Redis(t)
	f := fleet.StartProcesses(t, redis.URL(), 1, 1)
	api := f.APIs[0]
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	bob.Connects()
	alice.Sends("yard", "before")
	bob.WantMessage("yard", "before")
	memory := func() float64 { return api.Metric("process_resident_memory_bytes") }
	before := memory()

	const atOnce, commandTimeout = 200, 3 * time.Second
	redis.Pause()
	defer redis.Resume()
	stopped := time.Now()
	var senders sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	var answers, goroutines, most float64
	for i := range atOnce {
		senders.Go(func() {
			for n := 0; time.Since(stopped) < volumeTime(7*time.Second, 30*time.Second); n++ {
				start := time.Now()
				res, err := alice.TrySend("yard", "during", fmt.Sprintf("k-%d-%d", i, n))
				took := time.Since(start)
				if err != nil {
					t.Error(err)
					return
				}
				if res.Status != http.StatusServiceUnavailable {
					t.Errorf("%d %s", res.Status, res.Body)
				}
				mu.Lock()
				slowest = max(slowest, took)
				answers++
				mu.Unlock()
				time.Sleep(50 * time.Millisecond) // as a client waits, if not as long
			}
		})
	}
	done := make(chan struct{})
	go func() {
		senders.Wait()
		close(done)
	}()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(200 * time.Millisecond):
			goroutines, most = max(goroutines, api.Metric("go_goroutines")), max(most, memory())
		}
	}
	t.Logf("%.0f answers, the slowest after %v; at most %.0f goroutines, %.1f MB more than before", answers, slowest, goroutines, (most-before)/1e6)
	if slowest > commandTimeout+2*time.Second {
		t.Errorf("a send was answered after %v", slowest)
	}
	// Two goroutines of net/http per connection, and what one waits for.
	if goroutines > 4*atOnce+100 || most-before > 128e6 {
		t.Errorf("%.0f goroutines, %.1f MB more than before, with %d requests at a time", goroutines, (most-before)/1e6, atOnce)
	}

	redis.Resume()
	if _, err := alice.Insists("yard", "after", "after"); err != nil {
		t.Fatal(err)
	}
	bob.WantEvent("message")
	f.WaitReady()
}

// volumeTime is the quick form of a time, or the full one.
func volumeTime(quick, fully time.Duration) time.Duration {
	if full {
		return fully
	}
	return quick
}
