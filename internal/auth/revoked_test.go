package auth_test

import (
	"errors"
	"testing"

	"github.com/madang-chat/madang/internal/auth"
)

// fixed is a verifier that says the same of every token.
type fixed auth.Claims

func (f fixed) Verify(string) (auth.Claims, error) { return auth.Claims(f), nil }

func TestOnlyTokensFromBeforeTheDisconnectionAreRevoked(t *testing.T) {
	var r auth.Revoked
	r.Add("bob", 5_000)
	r.Add("bob", 10_500)
	r.Add("bob", 7_000) // came late
	for name, c := range map[string]struct {
		claims  auth.Claims
		revoked bool
	}{
		"older":                      {auth.Claims{User: "bob", IssuedAt: 9}, true},
		"of the same second":         {auth.Claims{User: "bob", IssuedAt: 10}, true},
		"newer":                      {auth.Claims{User: "bob", IssuedAt: 11}, false},
		"somebody else's":            {auth.Claims{User: "alice", IssuedAt: 9}, false},
		"one that tells no age":      {auth.Claims{User: "bob"}, false},
		"a server key":               {auth.Claims{Server: true, IssuedAt: 9}, false},
		"one that tells nonsense":    {auth.Claims{User: "bob", IssuedAt: -1}, false},
		"a server key acting as bob": {auth.Claims{Server: true, User: "bob", IssuedAt: 9}, false},
	} {
		_, err := r.Unless(fixed(c.claims)).Verify("")
		if errors.Is(err, auth.ErrRevoked) != c.revoked || (err == nil) == c.revoked {
			t.Errorf("%s: %v", name, err)
		}
	}
}
