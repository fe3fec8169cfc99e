package loop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// keyed takes tokens of the form user.key.
type keyed struct{}

func (keyed) Verify(token string) (auth.Claims, error) {
	user, key, _ := strings.Cut(token, ".")
	var tag auth.KeyTag
	if key != "" {
		if _, err := fmt.Sscan(key, &tag); err != nil {
			return auth.Claims{}, auth.ErrInvalid
		}
	}
	return auth.Claims{User: user, Expires: time.Now().Unix() + 3600, Key: tag}, nil
}

// farKey has the same short tag as no other here, and more than fits into one.
const farKey = "12345678901234567890"

func startKeyed(t *testing.T, set ...func(*loop.Options)) *gateway {
	return start(t, func(o *loop.Options) {
		o.Verifier = keyed{}
		for _, f := range set {
			f(o)
		}
	})
}

// stays checks that a connection is served as before.
func (c *client) stays() {
	c.t.Helper()
	c.says(`{"type":"ping"}`)
	c.want(protocol.Pong)
}

func (c *client) wantRevoked() {
	c.t.Helper()
	if got := c.next(); !strings.HasPrefix(got, `{"type":"bye","reason":"revoked","retry_in_ms":`) {
		c.t.Fatalf("got %s", got)
	}
	c.wantClose(protocol.CloseTokenExpired)
}

func TestConnectionsOfAWithdrawnKeyAreClosed(t *testing.T) {
	for _, key := range []string{"1", farKey} {
		t.Run(key, func(t *testing.T) {
			g := startKeyed(t)
			var tag auth.KeyTag
			fmt.Sscan(key, &tag)
			ws, events := g.dial("alice."+key), g.streams("bob."+key, "", "")
			poll, early := g.dialRaw(), g.dialRaw()
			poll.sends(request("POST", "/v1/poll", "carol."+key, `{}`))
			id := g.polled("carol")
			g.post(unicast(id, polledAt("carol", 17, "r 1-0"), message(2))...)
			early.sends(request("POST", "/v1/poll", "dave."+key, `{}`))
			g.polled("dave")
			g.eventually("it is there", func() bool { return g.Stats().Deliveries == 1 })
			others := []*client{g.dial("alice.2"), g.dial("erin")}
			othersEvents := g.streams("bob.2", "", "")

			g.CloseKeys([]auth.KeyTag{7, tag})
			ws.wantRevoked()
			if got := events.block(); !strings.Contains(got, "retry: ") || !strings.Contains(got, `{"type":"bye","reason":"revoked","retry_in_ms":`) {
				t.Errorf("got %q", got)
			}
			events.wantEnd()
			resp, body := poll.answer()
			var a pollAnswer
			if err := json.Unmarshal([]byte(body), &a); err != nil || len(a.Events) != 2 || !resp.Close || !strings.Contains(string(a.Events[1]), `"revoked"`) {
				t.Errorf("got %d %s, %v", resp.StatusCode, body, err)
			}
			wantStatus(t, early, 401)
			poll.Close()
			early.Close()
			for _, c := range others {
				c.stays()
			}
			g.post(unicast(othersEvents.id, frame(`{"type":"x"}`))...)
			othersEvents.want(`data: {"type":"x"}`)
			g.eventually("only the others are left", func() bool {
				s := g.Stats()
				return s.Open == 3 && s.Closed[loop.ClosedKeyWithdrawn] == 4
			})
			// The key is good again, or another has its tag: nobody is looked for any more.
			g.dial("alice." + key).stays()
		})
	}
}

func TestARenewedConnectionIsOfItsNewKey(t *testing.T) {
	g := startKeyed(t)
	away, to, failed := g.dial("alice.1"), g.dial("bob.2"), g.dial("carol.2")
	away.says(`{"type":"auth","token":"alice.2"}`)
	to.says(`{"type":"auth","token":"bob.1"}`)
	failed.says(`{"type":"auth","token":"carol.x"}`)
	away.stays()
	to.stays()
	if got := failed.next(); !strings.Contains(got, `"code":"unauthorized"`) {
		t.Errorf("got %s", got)
	}
	g.CloseKeys([]auth.KeyTag{1})
	to.wantRevoked()
	away.stays()
	failed.stays()
}

// Who was believed, and has not come in yet, does not pass by.
func TestWhoIsOnTheWayInWithAWithdrawnKeyIsRefused(t *testing.T) {
	d := newDesk()
	d.hold = make(chan struct{})
	asked := make(chan struct{}, 1)
	g := startKeyed(t, func(o *loop.Options) {
		o.Redeem = func(ctx context.Context, ticket string) (auth.Claims, error) {
			asked <- struct{}{}
			return d.redeem(ctx, ticket)
		}
	})
	const body = `{"rooms":{"r":"5-0"}}`
	half := func(user string) *raw {
		r := g.dialRaw()
		r.sends(strings.TrimSuffix(request("POST", "/v1/events", user, body, "Expect", "100-continue"), body))
		for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} { // the token has been looked at
			if line, err := r.r.ReadString('\n'); line != want || err != nil {
				t.Fatalf("got %q, %v", line, err)
			}
		}
		return r
	}
	gone, kept, ticket := half("alice.1"), half("bob.2"), g.dialRaw()
	ticket.sends(withTicket("ticket=T1") + "\r\n")
	<-asked
	g.CloseKeys([]auth.KeyTag{1})
	wantStatus(t, gone, 401)
	resp, text := ticket.answer() // nobody knows yet what it stands for
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, text)
	}
	close(d.hold)
	kept.sends(body)
	if ev := g.hub.kind(t, edge.EvOpened); ev.User != "bob" {
		t.Errorf("opened with %+v", ev)
	}
}

// More than are closed in a turn, and a key that follows while they are.
func TestManyConnectionsOfWithdrawnKeysAreClosed(t *testing.T) {
	g := startKeyed(t, func(o *loop.Options) { o.Loops = 1 })
	const each = 300
	for i := range 3 * each {
		r := g.dialRaw()
		r.sends(goodHead + fmt.Sprintf("Authorization: Bearer u%d.%d\r\n\r\n", i, i%3+1))
	}
	last := g.dial("last.3")
	g.eventually("they are in", func() bool { return g.Stats().Open == 3*each+1 })
	g.CloseKeys([]auth.KeyTag{1})
	g.CloseKeys([]auth.KeyTag{2})
	g.eventually("they are closed", func() bool { return g.Stats().Open == each+1 })
	last.stays() // a turn or two later, too
	last.stays()
	if s := g.Stats(); s.Open != each+1 {
		t.Errorf("%d are left", s.Open)
	}
}
