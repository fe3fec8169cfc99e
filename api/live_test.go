package api_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
)

// liveMemory is a chat.Live without Redis.
type liveMemory struct {
	mu       sync.Mutex
	presence map[string]chat.Presence
	conns    map[string]bool // users that have one
	commands []string
	tickets  []chat.Ticket
	asked    int
	fail     error
}

func (m *liveMemory) Lookup(_ context.Context, users []string) (out []chat.Presence, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked += len(users)
	for _, u := range users {
		p := m.presence[u]
		p.User = u
		out = append(out, p)
	}
	return out, m.fail
}

func (m *liveMemory) Command(ctx context.Context, user string, c chat.Command) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if !m.conns[user] {
		return chat.ErrNoConn
	}
	said := fmt.Sprint(user, " ", c.Do, " ", c.Conn, " ", c.Room)
	if !c.ID.IsZero() {
		said += " " + c.ID.String()
	}
	if len(c.Users) > 0 {
		said += fmt.Sprint(" ", c.Users)
	}
	m.commands = append(m.commands, said)
	return m.fail
}

func (m *liveMemory) IssueTicket(_ context.Context, t chat.Ticket, ttl time.Duration) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tickets = append(m.tickets, t)
	return "TICKET", m.fail
}

func (m *liveMemory) RedeemTicket(context.Context, string) (chat.Ticket, error) {
	return chat.Ticket{}, chat.ErrNoTicket
}

// living is a Store that has a live side.
func living(live chat.Live) *memory {
	m := newMemory()
	m.Live = live
	return m
}

func liveWorld(t *testing.T) (*world, *liveMemory) {
	live := &liveMemory{
		presence: map[string]chat.Presence{
			"bob":   {Online: true, Focus: []string{"r"}},
			"carol": {LastSeen: 1_700_000_000_000},
		},
		conns: map[string]bool{"bob": true},
	}
	w := newWorld(t, living(live), nil)
	w.as("alice").post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
	return w, live
}

func TestPresenceOfMany(t *testing.T) {
	w, live := liveWorld(t)
	a := w.as("alice").get("/v1/presence?user=bob&user=carol&user=d%20%C3%A9&user=bob").want(200)
	a.wantField("presence.#", "3").wantField("presence.0.user", "bob").wantField("presence.0.status", "online").
		wantField("presence.0.focus", "").wantField("presence.0.last_seen", "").
		wantField("presence.1.status", "offline").wantField("presence.1.last_seen", "2023-11-14T22:13:20.000Z").
		wantField("presence.2.user", "d é").wantField("presence.2.status", "offline").wantField("presence.2.last_seen", "")
	if live.asked != 3 {
		t.Errorf("%d users were looked up", live.asked)
	}
	// What somebody looks at is the team's own back end's to know.
	w.server("").get("/v1/presence?user=bob&user=carol").want(200).
		wantField("presence.0.focus.0", "r").wantField("presence.1.focus.#", "0")
}

func TestFocusIsShownWhereSwitchedOn(t *testing.T) {
	live := &liveMemory{presence: map[string]chat.Presence{"bob": {Online: true, Focus: []string{"r"}}}}
	w := newWorld(t, living(live), func(o *api.Options) { o.ShowFocus = true })
	w.as("alice").get("/v1/presence?user=bob").want(200).wantField("presence.0.focus.0", "r")
}

func TestPresenceOfNonsense(t *testing.T) {
	w, live := liveWorld(t)
	alice := w.as("alice")
	for _, query := range []string{
		"", "?user=", "?user=%00", "?user=%ff", "?users=bob", "?user=bob&limit=5", "?user=" + strings.Repeat("x", 129),
		"?user=" + strings.Repeat("x&user=", 1000) + "y",
	} {
		alice.get("/v1/presence"+query).wantCode(400, "invalid")
	}
	alice.get("/v1/presence?user=%zz").wantCode(400, "malformed")
	w.nobody().get("/v1/presence?user=bob").want(401)
	if live.asked != 0 {
		t.Error("nonsense was looked up")
	}
	live.fail = chat.ErrUnavailable
	alice.get("/v1/presence?user=bob").wantCode(503, "unavailable")
}

func TestFocusAndTypingGoToTheConnection(t *testing.T) {
	w, live := liveWorld(t)
	bob := w.as("bob")
	bob.post("/v1/focus", `{"conn":"c1","room":"r"}`).want(204)
	bob.post("/v1/focus", `{"conn":"c1","room":null}`).want(204)
	bob.post("/v1/focus", `{"conn":"c1"}`).want(204)
	bob.post("/v1/typing", `{"conn":"c1","room":"r"}`).want(204)
	w.server("bob").post("/v1/typing", `{"conn":"c2","room":"r"}`).want(204)
	bob.post("/v1/delivered", `{"conn":"c1","room":"r","id":"5-0"}`).want(204)
	bob.post("/v1/watch", `{"conn":"c1","users":["alice","carol"]}`).want(204)
	bob.post("/v1/watch", `{"conn":"c1","users":[]}`).want(204)
	want := "[bob focus c1 r bob focus c1  bob focus c1  bob typing c1 r bob typing c2 r" +
		" bob delivered c1 r 5-0 bob watch c1  [alice carol] bob watch c1 ]"
	if got := fmt.Sprint(live.commands); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestFocusAndTypingOfNonsense(t *testing.T) {
	w, live := liveWorld(t)
	w.as("carol").post("/v1/rooms", `{"id":"hers"}`).want(201)
	bob := w.as("bob")
	for _, path := range []string{"/v1/focus", "/v1/typing"} {
		bob.post(path, `{"conn":"c1","room":"hers"}`).wantCode(403, "forbidden")
		bob.post(path, `{"conn":"c1","room":"nowhere"}`).wantCode(404, "room_not_found")
		bob.post(path, `{"conn":"c1","room":"{x}"}`).wantCode(400, "invalid")
		bob.post(path, `{"conn":"","room":"r"}`).wantCode(400, "invalid")
		bob.post(path, `{"conn":"`+strings.Repeat("c", 65)+`","room":"r"}`).wantCode(400, "invalid")
		bob.post(path, `{"conn":1,"room":"r"}`).wantCode(400, "malformed")
		bob.post(path, `{"conn":"c1","room":"r","x":1}`).wantCode(400, "malformed")
		bob.post(path, "").wantCode(400, "malformed")
		w.as("alice").post(path, `{"conn":"c1","room":"r"}`).wantCode(404, "not_found") // has no connection
		w.nobody().post(path, `{"conn":"c1","room":"r"}`).want(401)
		w.server("").post(path, `{"conn":"c1","room":"r"}`).wantCode(400, "invalid")
		// A server key acts as the user, whose connection it is.
		w.server("bob").post(path, `{"conn":"c1","room":"hers"}`).wantCode(403, "forbidden")
	}
	bob.post("/v1/typing", `{"conn":"c1"}`).wantCode(400, "invalid")
	for body, code := range map[string]string{
		`{"conn":"c1","room":"r"}`: "invalid", `{"conn":"c1","room":"r","id":"x"}`: "invalid", `{"conn":"c1","room":"r","id":"0-0"}`: "invalid",
		`{"conn":"","room":"r","id":"5-0"}`: "invalid", `{"conn":"c1","room":"{r}","id":"5-0"}`: "invalid", `{"conn":"c1","room":"r","id":5}`: "malformed",
	} {
		bob.post("/v1/delivered", body).wantCode(400, code)
	}
	bob.post("/v1/delivered", `{"conn":"c1","room":"hers","id":"5-0"}`).wantCode(403, "forbidden")
	for body, code := range map[string]string{
		`{"conn":"c1"}`: "invalid", `{"conn":"c1","users":null}`: "invalid", `{"conn":"c1","users":[""]}`: "invalid", `{"users":[]}`: "invalid",
		`{"conn":"c1","users":"bob"}`: "malformed", `{"conn":"c1","users":["u"` + strings.Repeat(`,"u"`, 500) + `]}`: "invalid",
	} {
		bob.post("/v1/watch", body).wantCode(400, code)
	}
	w.as("alice").post("/v1/watch", `{"conn":"c1","users":[]}`).wantCode(404, "not_found") // has no connection
	w.nobody().post("/v1/watch", `{"conn":"c1","users":[]}`).want(401)
	if len(live.commands) != 0 {
		t.Errorf("nonsense was done: %v", live.commands)
	}
}

func TestATicketStandsForItsToken(t *testing.T) {
	w, live := liveWorld(t)
	w.as("alice").post("/v1/tickets", "").want(201).wantField("ticket", "TICKET").wantField("expires_in_ms", "10000")
	w.server("bob").post("/v1/tickets", "").want(201)
	w.server("").post("/v1/tickets", "").wantCode(400, "invalid")
	w.nobody().post("/v1/tickets", "").want(401)
	if len(live.tickets) != 2 {
		t.Fatalf("%+v", live.tickets)
	}
	in := time.Until(time.Unix(live.tickets[0].Expires, 0))
	if a := live.tickets[0]; a.User != "alice" || a.Server || in < 50*time.Minute || in > 70*time.Minute {
		t.Errorf("%+v, in %v", a, in)
	}
	if age := time.Since(time.Unix(live.tickets[0].IssuedAt, 0)); age < 0 || age > time.Minute {
		t.Errorf("issued %v ago", age)
	}
	// A server key has no time of its own, and Redis says what time it is.
	if b := live.tickets[1]; b.User != "bob" || !b.Server || b.Expires == 0 || b.IssuedAt != 0 {
		t.Errorf("%+v", b)
	}
}

// lapsing is a Verifier whose tokens are good once.
type lapsing struct {
	auth.Verifier
	asked int
	err   error
}

func (l *lapsing) Verify(token string) (auth.Claims, error) {
	if l.asked++; l.asked > 1 {
		return auth.Claims{}, l.err
	}
	return l.Verifier.Verify(token)
}

// A token that expires, or is revoked, while its ticket is made is no fault of ours.
func TestATokenThatEndsBeforeItsTicketIsToldSo(t *testing.T) {
	for want, err := range map[string]error{"token_expired": auth.ErrRevoked, "unauthorized": auth.ErrInvalid} {
		live := &liveMemory{}
		w := newWorld(t, living(live), func(o *api.Options) { o.Verifier = &lapsing{Verifier: o.Verifier, err: err} })
		w.as("alice").post("/v1/tickets", "").wantCode(401, want)
		if len(live.tickets) != 0 {
			t.Errorf("%s: a ticket was issued", want)
		}
	}
}

func TestPresenceOnRealStores(t *testing.T) {
	onRealStores(t, func(t *testing.T, w *world) {
		w.as("alice").get("/v1/presence?user=bob").want(200).wantField("presence.0.status", "offline")
		w.as("alice").post("/v1/focus", `{"conn":"c1"}`).wantCode(404, "not_found")
		w.as("alice").post("/v1/tickets", "").want(201)
	})
}
