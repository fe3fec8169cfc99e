package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/gateway"
	"github.com/madang-chat/madang/gateway/balance"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/protocol"
)

// growing is a fleet that gateways join and leave, behind a balancer that sends
// newcomers to whoever has the fewest connections.
type growing struct {
	t        *testing.T
	redis    string
	verifier auth.Verifier

	mu       sync.Mutex
	gateways []*gateway.Gateway         // guarded by mu
	byes     map[protocol.ByeReason]int // guarded by mu
	worst    int                        // guarded by mu: shortest time that a bye told to wait, in ms
}

func (f *growing) joins() *gateway.Gateway {
	f.t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := redisstore.Open(redisstore.Options{URL: f.redis, Logger: log})
	if err != nil {
		f.t.Fatal(err)
	}
	g, err := gateway.New(gateway.Options{
		Loop:      loop.Options{Addr: "127.0.0.1:0", Loops: 2, Verifier: f.verifier, Logger: log},
		Hub:       hub.Options{Feed: store, Seats: store, Markers: store, Logger: log},
		DrainOver: 5 * time.Second,
		Rebalance: balance.Config{Percent: 20, Excess: 3, Every: 250 * time.Millisecond},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	g.Start()
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = g.Stop(ctx) // it may be cut short
		store.Close()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gateways = append(f.gateways, g)
	return g
}

// leaves takes a gateway out of the balancer and drains it.
func (f *growing) leaves(g *gateway.Gateway) {
	f.t.Helper()
	f.mu.Lock()
	for i := range f.gateways {
		if f.gateways[i] == g {
			f.gateways = append(f.gateways[:i], f.gateways[i+1:]...)
			break
		}
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		f.t.Error(err)
	}
}

// connect is what a client does at the balancer.
func (f *growing) connect(ctx context.Context, token string) (*websocket.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock() // one by one, so that counts are true
	least := f.gateways[0]
	for _, g := range f.gateways {
		if g.Loops().Open() < least.Loops().Open() {
			least = g
		}
	}
	c, _, err := websocket.Dial(ctx, "ws://"+least.Addr().String()+"/v1/ws", &websocket.DialOptions{
		Subprotocols: []string{protocol.Subprotocol}, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	return c, err
}

// client is connected until ctx ends, and goes elsewhere when it is asked to.
func (f *growing) client(ctx context.Context, user string) {
	token, err := auth.Mint(secret, user, time.Hour, auth.MintOptions{})
	if err != nil {
		f.t.Error(err)
		return
	}
	for ctx.Err() == nil {
		c, err := f.connect(ctx, token)
		if err != nil {
			if ctx.Err() == nil {
				f.t.Errorf("%s can't connect: %v", user, err)
			}
			return
		}
		for {
			_, data, err := c.Read(ctx)
			if err != nil {
				if code := websocket.CloseStatus(err); ctx.Err() == nil && code != 4012 {
					f.t.Errorf("%s was closed with %v", user, err)
				}
				break
			}
			var bye struct {
				Type      string
				Reason    protocol.ByeReason
				RetryInMs int `json:"retry_in_ms"`
			}
			if json.Unmarshal(data, &bye) == nil && bye.Type == "bye" {
				f.mu.Lock()
				f.byes[bye.Reason]++
				f.worst = min(f.worst, bye.RetryInMs)
				f.mu.Unlock()
				select { // sooner than told: a test has no time
				case <-time.After(time.Duration(bye.RetryInMs) * time.Millisecond / 10):
				case <-ctx.Done():
				}
			}
		}
		c.CloseNow()
	}
}

func (f *growing) counts() (all []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.gateways {
		all = append(all, g.Loops().Open())
	}
	return all
}

func (f *growing) asked(reason protocol.ByeReason) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byes[reason]
}

func (f *growing) eventually(what string, ok func() bool) {
	f.t.Helper()
	testkit.Soon(f.t, 60*time.Second, what, ok, func() string {
		return fmt.Sprintf("connections %v, %d asked to move", f.counts(), f.asked(protocol.ByeRebalance))
	})
}

func TestClientsMoveToAGatewayThatJoinsLate(t *testing.T) {
	const clients = 60
	verifier, err := auth.New(auth.Options{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	f := &growing{t: t, redis: testkit.Redis(t).URL(), verifier: verifier, byes: map[protocol.ByeReason]int{}, worst: 1 << 30}
	f.joins()
	f.joins()
	ctx, cancel := context.WithCancel(context.Background())
	var people sync.WaitGroup
	t.Cleanup(func() { cancel(); people.Wait() })
	for i := range clients {
		people.Go(func() { f.client(ctx, fmt.Sprintf("u%d", i)) })
	}
	total := func() (n int) {
		for _, c := range f.counts() {
			n += c
		}
		return n
	}
	f.eventually("all are connected", func() bool { return total() == clients })

	third := f.joins()
	f.eventually("the third has its share", func() bool { return third.Loops().Open() >= clients/3-3 })
	f.eventually("nobody is lost", func() bool { return total() == clients })
	moved := f.asked(protocol.ByeRebalance)
	if moved > clients/2 {
		t.Errorf("%d of %d were asked to move", moved, clients)
	}
	if f.worst <= 0 {
		t.Errorf("a client was told to come back in %d ms", f.worst)
	}

	// One that leaves has ever fewer connections: that makes the others no fuller
	// than they should be, neither meanwhile nor until its lease is forgotten.
	before, since := 0, time.Now()
	// Rounds come faster here than leases tell of them: it asks a few too many.
	f.eventually("nobody is asked any more", func() bool {
		if n := f.asked(protocol.ByeRebalance); n != before {
			before, since = n, time.Now()
		}
		return time.Since(since) > 5*time.Second
	})
	f.leaves(third)
	f.eventually("all are back", func() bool { return total() == clients })
	time.Sleep(3 * time.Second) // for what must not happen
	if n := f.asked(protocol.ByeRebalance) - before; n > 0 {
		t.Errorf("%d were asked to move because a gateway left; connections %v", n, f.counts())
	}
	if n := f.asked(protocol.ByeDrain); n < clients/4 {
		t.Errorf("%d were told that the gateway drains", n)
	}
}
