package test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

const tokenRevoked = 4001

func TestADisconnectedUserIsOutEverywhere(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	key := strings.Repeat("k", 40)
	if err := os.WriteFile(keys, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fleet.Start(t, testkit.Redis(t).URL(), 2, 2, fleet.API(func(c *config.API) { c.ServerKeyFile = keys }))
	alice := f.User("alice")
	alice.CreatesRoom("yard", "bob")
	phone, desk, other := f.User("bob", fleet.OnGateway(0)), f.User("bob", fleet.OnGateway(1)), f.User("alice", fleet.OnGateway(1))
	for _, u := range []*fleet.User{phone, desk, other} {
		u.Connects()
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.APIs[0].Addr+"/v1/users/bob/disconnect", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	answered := time.Now()
	phone.WantClosed(tokenRevoked)
	desk.WantClosed(tokenRevoked)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closed after %v", took)
	}

	// APIs hear of it, too: the one that was asked and the other.
	for api := range 2 {
		again := f.User("bob", fleet.OnAPI(api))
		again.Token = phone.Token
		var last fleet.Response
		fleet.Await(t, "the API refuses the token", func() bool {
			last, err = again.Requests(http.MethodGet, "/v1/rooms", nil)
			return err == nil && last.Status == http.StatusUnauthorized
		})
		if !strings.Contains(string(last.Body), `"token_expired"`) {
			t.Errorf("refused with %s", last.Body)
		}
	}

	// The same token again, on gateways that still know the user and that don't.
	for gateway := range 2 {
		again := f.User("bob", fleet.OnGateway(gateway))
		again.Token = phone.Token
		if again.ConnectQuietly() == nil {
			again.WantClosed(tokenRevoked)
		}
	}
	// One that was issued later is good.
	fleet.Await(t, "a token of another second", func() bool { return time.Since(answered) > 1100*time.Millisecond })
	token, err := auth.Mint([]byte(f.Secret), "bob", time.Hour, auth.MintOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for gateway := range 2 {
		fresh := f.User("bob", fleet.OnGateway(gateway))
		fresh.Token = token
		fresh.Connects()
		if res, err := fresh.Requests(http.MethodGet, "/v1/rooms", nil); err != nil || res.Status != http.StatusOK {
			t.Errorf("the API: %v %d %s", err, res.Status, res.Body)
		}
		alice.Sends("yard", "are you back?")
		fresh.WantMessage("yard", "are you back?")
		// It makes the gateway know the user, and the old token no better.
		again := f.User("bob", fleet.OnGateway(gateway))
		again.Token = phone.Token
		if again.ConnectQuietly() == nil {
			again.WantClosed(tokenRevoked)
		}
		if !fresh.Connected() {
			t.Error("the good one was closed as well")
		}
	}
	other.WantMessage("yard", "are you back?") // nobody else noticed
}

// A ticket of a server key is as old as itself. Disconnections go by Redis's clock, and
// the API's may be hours ahead of it: what the ticket opened ends all the same.
func TestATicketIsNotNewerThanWhatComesAfterIt(t *testing.T) {
	redis := testkit.Mini(t)
	redis.SetTime(time.Now().Add(-3 * time.Hour))
	keys := filepath.Join(t.TempDir(), "keys")
	key := strings.Repeat("k", 40)
	if err := os.WriteFile(keys, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fleet.Start(t, redis.URL(), 1, 1, fleet.API(func(c *config.API) { c.ServerKeyFile = keys }))
	backEnd := f.User("back end")
	backEnd.Token = key
	ask := func(path string, want int, header ...string) fleet.Response {
		t.Helper()
		res, err := backEnd.Requests(http.MethodPost, path, nil, header...)
		if err != nil || res.Status != want {
			t.Fatalf("%s: %v %d %s", path, err, res.Status, res.Body)
		}
		return res
	}
	var ticket struct{ Ticket string }
	ask("/v1/tickets", http.StatusCreated, "Madang-User", "bob").Decode(t, &ticket)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+f.Gateways[0].Addr+"/v1/ws?ticket="+ticket.Ticket,
		&websocket.DialOptions{Subprotocols: []string{"madang.v1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow() //nolint:errcheck // it is over
	if _, hello, err := conn.Read(ctx); err != nil || !contains(string(hello), `"user":"bob"`) {
		t.Fatalf("%s %v", hello, err)
	}
	redis.SetTime(time.Now().Add(-3*time.Hour + time.Second)) // tickets, as tokens, are made in whole seconds
	ask("/v1/users/bob/disconnect", http.StatusOK)
	for err == nil {
		_, _, err = conn.Read(ctx)
	}
	if websocket.CloseStatus(err) != tokenRevoked {
		t.Errorf("ended with %v", err)
	}
}

// keyPair is an issuer's key.
type keyPair struct {
	kid     string
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

func newKeyPair(t *testing.T, kid string) keyPair {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{kid, public, private}
}

func (k keyPair) jwk() string {
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, k.kid, base64.RawURLEncoding.EncodeToString(k.public))
}

func (k keyPair) token(user string) string {
	enc := base64.RawURLEncoding.EncodeToString
	text := enc(fmt.Appendf(nil, `{"alg":"EdDSA","kid":%q}`, k.kid)) + "." +
		enc(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, user, time.Now().Unix()+3600))
	return text + "." + enc(ed25519.Sign(k.private, []byte(text)))
}

func TestSocketsOfAWithdrawnKeyAreClosedEverywhere(t *testing.T) {
	stolen, kept := newKeyPair(t, "stolen"), newKeyPair(t, "kept")
	var published atomic.Value
	published.Store(`{"keys":[` + stolen.jwk() + "," + kept.jwk() + "]}")
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, published.Load())
	}))
	t.Cleanup(issuer.Close)
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 2,
		fleet.API(func(c *config.API) { c.JWKSURL = issuer.URL }), fleet.Gateway(func(c *config.Gateway) { c.JWKSURL = issuer.URL }))
	alice := f.User("alice") // her token is of the secret
	alice.CreatesRoom("yard", "bob", "carol")
	alice.Connects()
	user := func(name string, k keyPair, options ...fleet.UserOption) *fleet.User {
		u := f.User(name, options...)
		u.Token = k.token(name)
		return u
	}
	var out []*fleet.User
	for gateway := range 2 {
		for _, via := range fleet.Transports {
			out = append(out, user("bob", stolen, fleet.OnGateway(gateway), fleet.Via(via)))
		}
	}
	var stays []*fleet.User
	for gateway := range 2 {
		stays = append(stays, user("carol", kept, fleet.OnGateway(gateway)))
	}
	for _, u := range append(out, stays...) {
		u.Connects()
	}
	ticketOf := func(u *fleet.User) string {
		res, err := u.Requests(http.MethodPost, "/v1/tickets", nil)
		if err != nil {
			t.Fatal(err)
		}
		var ticket struct{ Ticket string }
		res.Decode(t, &ticket)
		return ticket.Ticket
	}
	with := func(ticket string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.Gateways[1].Addr+"/v1/events?ticket="+ticket, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	byTicket, unused := with(ticketOf(out[0])), ticketOf(out[0])
	if byTicket.StatusCode != http.StatusOK {
		t.Fatal(byTicket.Status)
	}

	published.Store(`{"keys":[` + kept.jwk() + "]}")
	began := time.Now()
	for _, u := range out {
		fleet.Await(t, "bob is out", func() bool { return !u.Connected() })
	}
	out[0].WantClosed(tokenRevoked)
	out[3].WantClosed(tokenRevoked)
	if rest, err := io.ReadAll(byTicket.Body); err != nil || !strings.Contains(string(rest), `"reason":"revoked"`) {
		t.Errorf("opened with a ticket: %v, %s", err, rest)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closed after %v", took)
	}
	// Nobody comes in with what is left of it.
	for _, u := range out {
		if err := u.ConnectQuietly(); err == nil {
			t.Error("the key lets in again")
		}
	}
	if resp := with(unused); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a ticket: %s", resp.Status)
	}
	fleet.Await(t, "the API refuses the token", func() bool {
		res, err := out[0].Requests(http.MethodGet, "/v1/rooms", nil)
		return err == nil && res.Status == http.StatusUnauthorized
	})
	alice.Sends("yard", "still there?")
	for _, u := range append(stays, alice) {
		u.WantMessage("yard", "still there?")
	}
}
