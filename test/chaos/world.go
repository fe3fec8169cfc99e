package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/test/proxy"
)

// world is one run's deployment, its users, and the account of what they got.
type world struct {
	opt      options
	ctx      context.Context // of the run
	settle   context.Context // ends when senders must have settled what they sent
	giveUp   context.CancelFunc
	redis    *servers
	apis     []*node
	gateways []*node
	http     *http.Client
	start    time.Time

	rooms     []string
	busy      int        // so many of them are sent to all the time, the others only during faults
	members   [][]string // by room
	receivers []*receiver

	mu         sync.Mutex
	book       ledger.Book
	acks       []ledger.Ack
	last       []ledger.Pos // by room: the newest that was acknowledged
	sends      ledger.Send  // numbers given so far
	unsettled  int          // sends that nobody has acknowledged yet
	window     window
	violations []string
}

// window is what is measured between the beginning of a fault and its recovery.
type window struct {
	from    time.Time
	late    time.Duration // most between a send's first attempt and its arrival
	silence time.Duration // longest of any receiver
	failed  map[string]int
	slowest time.Duration // slowest answer to a send
	gaps    uint64        // book's count at the beginning
}

// newWorld starts everything and makes the rooms.
func newWorld(ctx context.Context, opt options) (w *world, err error) {
	w = &world{opt: opt, ctx: ctx, start: time.Now(), http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
	}}}
	w.window.failed = map[string]int{}
	w.settle, w.giveUp = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.redis, err = startServers(opt.redis, opt.dir); err != nil {
		return w, err
	}
	secret := rand.Text() + rand.Text()
	for i := range opt.gateways {
		n, err := w.launch("gateway", i, secret, "--drain-timeout=3s")
		if err != nil {
			return w, err
		}
		if n.front, err = proxy.Listen(n.addr); err != nil {
			return w, err
		}
		w.gateways = append(w.gateways, n)
	}
	for i := range opt.apis {
		n, err := w.launch("api", i, secret, "--sends-per-second=0", fmt.Sprintf("--min-replicas-ack=%d", opt.ack))
		if err != nil {
			return w, err
		}
		w.apis = append(w.apis, n)
	}
	if !until(ctx, time.Minute, w.allReady) {
		return w, errors.New("the fleet does not become ready")
	}
	for _, n := range w.nodes() {
		n.ready.Store(true)
		go n.watch(ctx)
	}
	return w, w.populate(ctx, secret)
}

// launch starts a process; its links to a standalone Redis go through a proxy.
func (w *world) launch(role string, i int, secret string, flags ...string) (*node, error) {
	n := &node{name: fmt.Sprintf("%s %d", role, i+1), path: w.opt.binary}
	n.addr, n.admin = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort()), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort())
	url := w.redis.url()
	if w.redis.kind == standalone {
		var err error
		if n.redis, err = proxy.Listen(w.redis.nodes[0].Addr()); err != nil {
			return nil, err
		}
		url = "redis://" + n.redis.Addr() + "/0"
	}
	n.args = append([]string{role, "--redis", url, "--" + role + "-addr", n.addr, "--admin-addr", n.admin, "--log-format=text"}, flags...)
	n.died = func() { w.violate("%s ended by itself", n.name) }
	// Settings of whoever runs this are none of the fleet's.
	n.env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MADANG_") })
	n.env = append(n.env, "MADANG_JWT_SECRET="+secret)
	return n, n.start()
}

func (w *world) nodes() []*node { return append(slices.Clone(w.gateways), w.apis...) }

func (w *world) allReady() bool {
	for _, n := range w.nodes() {
		if !n.isReady() {
			return false
		}
	}
	return true
}

// populate makes users and rooms.
func (w *world) populate(ctx context.Context, secret string) error {
	rng := mrand.New(mrand.NewPCG(w.opt.seed, 1))
	users := make([]*receiver, w.opt.users)
	for i := range users {
		name := fmt.Sprintf("user-%d", i)
		token, err := auth.Mint([]byte(secret), name, 24*time.Hour, auth.MintOptions{})
		if err != nil {
			return err
		}
		users[i] = newReceiver(w, name, token)
	}
	w.receivers, w.last = users, make([]ledger.Pos, w.opt.rooms)
	w.busy = w.opt.rooms - w.opt.rooms/5
	for r := range w.opt.rooms {
		room := fmt.Sprintf("room-%d", r)
		w.rooms = append(w.rooms, room)
		var members []string
		for _, i := range rng.Perm(len(users))[:w.opt.members] {
			members = append(members, users[i].name)
			users[i].joins(room, w.book.Open(uint32(r), 0))
			users[i].listens = users[i].listens || r < w.busy
		}
		w.members = append(w.members, members)
		if err := w.makeRoom(ctx, room, members); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) makeRoom(ctx context.Context, room string, members []string) error {
	body := fmt.Sprintf(`{"id":%q,"members":["%s"]}`, room, strings.Join(members[1:], `","`))
	status, answer, err := w.request(ctx, w.apis[0], w.user(members[0]), http.MethodPost, "/v1/rooms", body, "")
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("making %s: %d %s", room, status, answer)
	}
	return err
}

func (w *world) user(name string) *receiver {
	return w.receivers[slices.IndexFunc(w.receivers, func(r *receiver) bool { return r.name == name })]
}

// balance orders nodes as a balancer would try them: those that say that they are
// ready first, otherwise at random.
func balance(nodes []*node) []*node {
	order := slices.Clone(nodes)
	mrand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	slices.SortStableFunc(order, func(a, b *node) int {
		switch ra, rb := a.ready.Load(), b.ready.Load(); {
		case ra && !rb:
			return -1
		case rb && !ra:
			return 1
		}
		return 0
	})
	return order
}

// viaBalancer asks APIs until one takes the connection, as a balancer does: nothing was
// sent to those that refused it.
func (w *world) viaBalancer(ctx context.Context, as *receiver, method, path, body, key string) (status int, answer []byte, err error) {
	for _, api := range balance(w.apis) {
		status, answer, err = w.request(ctx, api, as, method, path, body, key)
		if op := (*net.OpError)(nil); !errors.As(err, &op) || op.Op != "dial" {
			break
		}
	}
	return status, answer, err
}

// request asks an API as a user.
func (w *world) request(ctx context.Context, api *node, as *receiver, method, path, body, key string) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+api.addr+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+as.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := w.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// violate notes something that must not happen.
func (w *world) violate(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.opt.say("VIOLATION: %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.violations) < 50 {
		w.violations = append(w.violations, text)
	}
}

func (w *world) close() {
	for _, n := range w.nodes() {
		n.close()
		if len(w.violations) > 0 {
			n.saveLog(filepath.Join(w.opt.dir, w.opt.redis+"-"+strings.ReplaceAll(n.name, " ", "-")+".log"))
		}
	}
	if w.redis != nil {
		w.redis.close()
	}
	w.http.CloseIdleConnections()
}
