package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	fleet.Await(t, "a token of another second", func() bool { return time.Since(began) > 1100*time.Millisecond })
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
