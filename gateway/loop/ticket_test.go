package loop_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// desk is a ticket store that a test holds up.
type desk struct {
	mu      sync.Mutex
	tickets map[string]auth.Claims // guarded by mu
	hold    chan struct{}          // answers wait for it; nil: at once
}

func (d *desk) redeem(ctx context.Context, ticket string) (auth.Claims, error) {
	if d.hold != nil {
		select {
		case <-d.hold:
		case <-ctx.Done():
			return auth.Claims{}, ctx.Err()
		}
	}
	if ticket == "broken" {
		return auth.Claims{}, errors.New("redis does not answer")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	claims, ok := d.tickets[ticket]
	if !ok {
		return auth.Claims{}, loop.ErrNoTicket
	}
	delete(d.tickets, ticket)
	return claims, nil
}

func newDesk() *desk {
	in := time.Now().Unix() + 60
	return &desk{tickets: map[string]auth.Claims{
		"T1": {User: "alice", Expires: in, IssuedAt: 9}, "T2": {User: "bob", Expires: in}, "OLD": {User: "carol", Expires: 5},
	}}
}

func withTicket(query string) string {
	return strings.Replace(goodHead, "/v1/ws", "/v1/ws?"+query, 1)
}

func TestTicketLetsInOnce(t *testing.T) {
	d := newDesk()
	g := start(t, func(o *loop.Options) { o.Redeem = d.redeem })
	r := g.dialRaw()
	r.sends(withTicket("ticket=T1&resume") + "\r\n")
	wantStatus(t, r, 101)
	if ev := g.hub.kind(t, edge.EvOpened); ev.User != "alice" || ev.IssuedAt != 9 || !ev.Resume {
		t.Errorf("%+v", ev)
	}
	for query, status := range map[string]int{
		"ticket=T1": 401, "ticket=nobodys": 401, "ticket=OLD": 401, "ticket=": 400, "ticket=a&ticket=b": 400,
		"ticket=%41": 401, "ticket=eyJx": 400, "ticket=broken": 503,
	} {
		r := g.dialRaw()
		r.sends(withTicket(query) + "\r\n")
		resp, body := r.answer()
		if resp.StatusCode != status || (status == 503) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: got %d %v %s", query, resp.StatusCode, resp.Header, body)
		}
	}
	r = g.dialRaw()
	r.sends(withTicket("ticket=T2") + "Authorization: Bearer bob\r\n\r\n")
	wantStatus(t, r, 400)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.tickets) != 1 {
		t.Errorf("tickets left: %v", d.tickets)
	}
}

func TestTicketsAreNotTakenWithoutADesk(t *testing.T) {
	g := start(t, nil)
	r := g.dialRaw()
	r.sends(withTicket("ticket=T1") + "\r\n")
	wantStatus(t, r, 401)
}

func TestNobodyWaitsForAnothersTicket(t *testing.T) {
	d := newDesk()
	d.hold = make(chan struct{})
	g := start(t, func(o *loop.Options) { o.Loops, o.Redeem = 1, d.redeem })
	// In pieces, with frames behind it: they wait with the request.
	r := g.dialRaw()
	whole := withTicket("ticket=T1") + "\r\n" + masked(0x81, `{"type":"ping"}`)
	for _, part := range []string{whole[:40], whole[40 : len(whole)-15], whole[len(whole)-15:]} {
		r.sends(part)
		time.Sleep(5 * time.Millisecond) // so that they come one by one
	}
	g.dial("carol").says(`{"type":"ping"}`)
	// One that leaves, and whose place another takes, before the answer.
	gone := g.dialRaw()
	gone.sends(withTicket("ticket=T2") + "\r\n")
	g.eventually("it asks", func() bool { return g.Stats().Heads == 2 })
	gone.Close()
	g.eventually("it left", func() bool { return g.Stats().Upgrades[loop.UpgradeGone] == 1 })
	other := g.dial("dave")

	close(d.hold)
	wantStatus(t, r, 101)
	pong := make([]byte, 2+len(protocol.Pong))
	if _, err := io.ReadFull(r.r, pong); err != nil || string(pong[2:]) != protocol.Pong {
		t.Fatalf("%q, %v", pong, err)
	}
	other.says(`{"type":"ping"}`)
	other.want(protocol.Pong)
	g.eventually("nothing is held", func() bool { s := g.Stats(); return s.HeldBytes == 0 && s.Open == 3 })
}

func TestTicketThatIsNotAnsweredInTime(t *testing.T) {
	t.Parallel() // it waits, mostly
	d := newDesk()
	d.hold = make(chan struct{})
	defer close(d.hold)
	g := start(t, func(o *loop.Options) { o.Redeem, o.HeadTimeout = d.redeem, 2*time.Second })
	r := g.dialRaw()
	r.sends(withTicket("ticket=T1") + "\r\n")
	if body := wantStatus(t, r, 503); !strings.Contains(body, "ticket") {
		t.Error(body)
	}
}

func TestWhatComesBeforeATicketsAnswerIsBounded(t *testing.T) {
	d := newDesk()
	d.hold = make(chan struct{})
	defer close(d.hold)
	g := start(t, func(o *loop.Options) { o.Redeem, o.MaxHeadBytes = d.redeem, 1024 })
	r := g.dialRaw()
	r.sends(withTicket("ticket=T1") + "\r\n" + strings.Repeat("x", 600))
	g.eventually("it is held", func() bool { return g.Stats().Heads == 1 })
	r.sends(strings.Repeat("x", 600))
	wantStatus(t, r, 431)
}
