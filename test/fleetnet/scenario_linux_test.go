package fleetnet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/internal/testkit/fleet"
)

const (
	rooms   = 10
	members = 18
)

// settle waits until every person is connected.
func settle(t *testing.T, people []*person) {
	t.Helper()
	fleet.Await(t, "everybody is connected", func() bool {
		for _, p := range people {
			if !p.connected.Load() {
				return false
			}
		}
		return true
	}, func() string {
		n := 0
		for _, p := range people {
			if p.connected.Load() {
				n++
			}
		}
		return fmt.Sprintf("%d of %d", n, len(people))
	})
}

func reconnects(people []*person) (n int64) {
	for _, p := range people {
		n += p.reconnects.Load()
	}
	return n
}

// One fleet goes through everything that an operator does to it and everything
// that happens to it, while people talk.
func TestAFleetBehindHAProxy(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })

	var people, senders []*person
	for r := range rooms {
		var names []string
		for m := range members {
			p := s.person(fmt.Sprintf("p%d-%d", r, m), fmt.Sprintf("room-%d", r), len(people))
			people = append(people, p)
			names = append(names, p.name)
		}
		first := people[len(people)-members]
		senders = append(senders, first)
		if status, answer, err := first.post("/v1/rooms", map[string]any{"id": first.room, "members": names[1:]}); err != nil || status != http.StatusCreated {
			t.Fatalf("%d %s %v", status, answer, err)
		}
	}
	for _, p := range people {
		wg.Go(func() { p.live(ctx) })
	}
	settle(t, people)

	t.Run("connections balance", func(t *testing.T) {
		each := len(people) / len(s.gateways)
		for _, g := range s.gateways {
			if n := g.open(); n < each*8/10 || n > each*12/10 {
				t.Errorf("%s has %d of %d clients", g.h.name, n, len(people))
			}
		}
	})

	talking := talk(t, senders, 150*time.Millisecond)
	t.Run("a rolling restart under load fails no send and loses nothing", func(t *testing.T) {
		before := reconnects(people)
		for _, m := range append(append([]*member(nil), s.gateways...), s.apis...) {
			m.restart()
			settle(t, people)
		}
		talking.mu.Lock()
		for _, f := range talking.failed {
			t.Errorf("a send failed: %s", f)
		}
		talking.mu.Unlock()
		// Everybody was moved at most once by each gateway.
		if n := reconnects(people) - before; n > int64(len(people)*len(s.gateways)) {
			t.Errorf("%d reconnects of %d people", n, len(people))
		}
	})

	t.Run("clients of a gateway that is killed come back", func(t *testing.T) {
		g := s.gateways[1]
		had := g.open()
		start := time.Now()
		g.kill()
		fleet.Await(t, "the others have its clients", func() bool {
			return s.gateways[0].open()+s.gateways[2].open() >= len(people)
		})
		settle(t, people)
		t.Logf("%d clients were back after %v", had, time.Since(start).Round(time.Millisecond))
		g.start()
		g.waitReady()
		g.waitUsed()
	})

	t.Run("clients of a gateway that is cut off come back", func(t *testing.T) {
		g := s.gateways[2]
		had := g.open()
		start := time.Now()
		g.h.cut()
		fleet.Await(t, "the others have its clients", func() bool {
			return s.gateways[0].open()+s.gateways[1].open() >= len(people)
		})
		settle(t, people)
		t.Logf("%d clients were back after %v", had, time.Since(start).Round(time.Millisecond))
		g.h.mend()
		g.waitReady()
	})

	talking.stop()
	if n := talking.number(); n < 1000 {
		t.Errorf("only %d sends were acknowledged", n)
	}
	talking.judge(people)
	t.Logf("%d acknowledged sends to %d members each, %d reconnects", talking.number(), members, reconnects(people))

	t.Run("client addresses arrive", func(t *testing.T) {
		cancel()
		wg.Wait()
		s.gateways[1].kill()
		s.gateways[2].kill()
		g := s.gateways[0]
		g.args = append(g.args, "--max-conns-per-addr", "1")
		g.restart()

		// The gateway counts clients' addresses, not the balancer's.
		try := func(p *person, addr string) (*websocket.Conn, error) {
			p.addr = addr
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return p.dial(ctx, "")
		}
		var first *websocket.Conn
		fleet.Await(t, "HAProxy sends to the one that is left", func() (ok bool) {
			conn, err := try(people[0], "10.77.0.100")
			first = conn
			return err == nil
		})
		defer first.CloseNow()
		if conn, err := try(people[1], "10.77.0.100"); err == nil {
			conn.CloseNow()
			t.Error("a second client of the same address was let in")
		}
		conn, err := try(people[2], "10.77.0.101")
		if err != nil {
			t.Fatalf("a client of another address was refused: %v", err)
		}
		conn.CloseNow()
		// Nobody but the balancer may say who the client is.
		forged, err := s.clients.dial(context.Background(), "", g.h.addr+":8081")
		if err != nil {
			t.Fatal(err)
		}
		defer forged.Close()
		_ = forged.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(forged, "PROXY TCP4 10.77.0.149 10.77.0.10 1234 8081\r\nGET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: madang.v1, bearer.%s\r\n\r\n", people[3].token)
		answer, _ := io.ReadAll(io.LimitReader(forged, 64))
		if strings.Contains(string(answer), " 101 ") {
			t.Errorf("a forged address was believed: %q", answer)
		}
	})
}
