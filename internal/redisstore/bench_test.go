package redisstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "redisstore")
	if err != nil {
		panic(err)
	}
	servers.dir = dir
	code := m.Run()
	servers.stop()
	if code == 0 {
		err := goleak.Find()
		for end := time.Now().Add(3 * time.Second); err != nil && time.Now().Before(end); err = goleak.Find() {
			// go-redis sleeps for a second before it notices that nobody wants a dead node any more
		}
		if err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// shared servers are started when the first test wants them and serve all tests
// that do them no harm: every test uses names of its own.
type shared struct {
	dir  string
	mu   sync.Mutex
	urls map[string]string
	down []func()
}

var servers = shared{urls: map[string]string{}}

// arrangements are what the contract holds on.
var arrangements = []string{"mini", "standalone", "sentinel", "cluster"}

func (s *shared) url(t testing.TB, arrangement string) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.urls[arrangement]; ok {
		return u
	}
	dir, err := os.MkdirTemp(s.dir, arrangement)
	if err != nil {
		t.Fatal(err)
	}
	switch arrangement {
	case "mini":
		m := testkit.StartMini()
		s.urls[arrangement], s.down = m.URL(), append(s.down, m.Close)
	case "standalone":
		r, err := testkit.StartRedis(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.urls[arrangement], s.down = r.URL(), append(s.down, r.Kill)
	case "sentinel":
		g, err := testkit.StartSentinel(dir, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		s.urls[arrangement], s.down = g.URL(), append(s.down, g.Kill)
	case "cluster":
		c, err := testkit.StartCluster(dir, 3, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.urls[arrangement], s.down = c.URL(), append(s.down, c.Kill)
	}
	return s.urls[arrangement]
}

func (s *shared) stop() {
	for _, f := range s.down {
		f()
	}
}

// onAll runs a test on every arrangement.
func onAll(t *testing.T, f func(t *testing.T, s *redisstore.Store)) {
	for _, a := range arrangements {
		t.Run(a, func(t *testing.T) {
			f(t, open(t, servers.url(t, a)))
		})
	}
}

// open makes a store that the test closes. 16 partitions: a Cluster has a link
// for each.
func open(t testing.TB, url string, with ...func(*redisstore.Options)) *redisstore.Store {
	t.Helper()
	o := redisstore.Options{URL: url, Partitions: 16, Links: 4} // several, so that which partition is on which matters
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	for _, f := range with {
		f(&o)
	}
	s, err := redisstore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var names atomic.Uint64

// name is one that no other test has.
func name(what string) string {
	return fmt.Sprintf("%s-%d-%d", what, time.Now().UnixMicro(), names.Add(1))
}

func as(user string) chat.Actor { return chat.Actor{User: user} }

var server = chat.Actor{Server: true}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var soon = testkit.Soon

func room(t testing.TB, s *redisstore.Store, owner string, members ...string) string {
	t.Helper()
	id := name("room")
	_, err := s.CreateRoom(t.Context(), as(owner), id, "a room", members)
	must(t, err)
	return id
}

func tail(text string) []byte {
	return []byte(`"from":"x","body":{"text":` + string(protocol.AppendString(nil, text)) + `}}`)
}

func send(t testing.TB, s *redisstore.Store, room, user, key, text string) chat.Sent {
	t.Helper()
	sent, err := s.Send(t.Context(), chat.Send{Room: room, By: as(user), Key: key, Hash: text, Tail: tail(text)})
	must(t, err)
	return sent
}

// ear is a chat.Listener that notes everything, and subscribes what it is told
// to on every link that comes up.
type ear struct {
	s      *redisstore.Store
	mu     sync.Mutex
	wants  map[chat.Channel]bool
	gens   map[int]uint64
	ups    map[int]int
	downs  map[int]int
	conf   map[chat.Channel]int
	events map[chat.Channel][]string
	epochs map[int]string
	deafTo string // Event answers false to a payload that holds this, once
}

func listen(s *redisstore.Store) *ear {
	e := &ear{s: s, wants: map[chat.Channel]bool{}, gens: map[int]uint64{}, ups: map[int]int{}, downs: map[int]int{},
		conf: map[chat.Channel]int{}, events: map[chat.Channel][]string{}, epochs: map[int]string{}}
	s.Listen(e)
	return e
}

func (e *ear) LinkUp(link int, gen uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if gen <= e.gens[link] {
		panic("a making that is no newer than the last")
	}
	e.gens[link] = gen
	e.ups[link]++
	var chs []chat.Channel
	for ch := range e.wants {
		if e.s.LinkOf(ch) == link {
			chs = append(chs, ch)
		}
	}
	if len(chs) > 0 {
		e.s.Subscribe(link, gen, chs)
	}
}

func (e *ear) LinkDown(link int, gen uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if gen != e.gens[link] || err == nil {
		panic("LinkDown of another making, or without a reason")
	}
	e.downs[link]++
}

func (e *ear) Confirmed(link int, gen uint64, ch chat.Channel) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conf[ch]++
}

func (e *ear) Event(link int, gen uint64, ch chat.Channel, payload []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if gen != e.gens[link] || e.s.LinkOf(ch) != link {
		panic("an event of another making or link")
	}
	if e.deafTo != "" && strings.Contains(string(payload), e.deafTo) {
		e.deafTo = ""
		return false
	}
	e.events[ch] = append(e.events[ch], string(payload))
	return true
}

func (e *ear) Canary(link int, gen uint64, partition int, epoch string, ms uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.epochs[partition] = epoch
}

// follow subscribes channels and waits until they are confirmed.
func (e *ear) follow(t testing.TB, chs ...chat.Channel) {
	t.Helper()
	e.mu.Lock()
	before := map[chat.Channel]int{}
	for _, ch := range chs {
		e.wants[ch] = true
		before[ch] = e.conf[ch]
		if gen := e.gens[e.s.LinkOf(ch)]; gen > 0 {
			e.s.Subscribe(e.s.LinkOf(ch), gen, []chat.Channel{ch})
		}
	}
	e.mu.Unlock()
	soon(t, 10*time.Second, "subscriptions confirmed", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, ch := range chs {
			if e.conf[ch] == before[ch] {
				return false
			}
		}
		return true
	})
}

func (e *ear) heard(ch chat.Channel) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.events[ch])
}

func (e *ear) count(of map[int]int, link int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return of[link]
}

func (e *ear) wantEvents(t testing.TB, ch chat.Channel, want ...string) {
	t.Helper()
	soon(t, 5*time.Second, fmt.Sprintf("%d events on %v", len(want), ch), func() bool { return len(e.heard(ch)) >= len(want) })
	if got := e.heard(ch); !slices.Equal(got, want) {
		t.Fatalf("events on %v:\n got %q\nwant %q", ch, got, want)
	}
}

func (e *ear) wantHealthy(t testing.TB, within time.Duration) {
	t.Helper()
	var detail string
	soon(t, within, "healthy links", func() (ok bool) {
		ok, detail = e.s.Healthy()
		return ok
	})
	_ = detail
}

func roomCh(room string) chat.Channel { return chat.Channel{Kind: chat.RoomChannel, Name: room} }
func userCh(user string) chat.Channel { return chat.Channel{Kind: chat.UserChannel, Name: user} }

var background = context.Background()
