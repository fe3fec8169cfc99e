package mint_test

import (
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/madang-chat/madang/loadtest/mint"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

func minter(tb testing.TB, c mint.Claims) *mint.Minter {
	tb.Helper()
	m, err := mint.New(secret, c)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestTokensAreAcceptedByAnIndependentLibrary(t *testing.T) {
	now := time.Now()
	m := minter(t, mint.Claims{Issued: now, Expires: now.Add(time.Hour), Issuer: "lt", Audience: "chat"})
	for _, user := range []string{"alice", "lt-1-42", `quo"te`, "마당"} {
		var claims jwt.RegisteredClaims
		_, err := jwt.ParseWithClaims(string(m.Append(nil, user)), &claims,
			func(*jwt.Token) (any, error) { return secret, nil },
			jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(),
			jwt.WithIssuer("lt"), jwt.WithAudience("chat"))
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		if claims.Subject != user {
			t.Errorf("subject %q, want %q", claims.Subject, user)
		}
	}
}

func TestTheSameUserGetsTheSameTokenAfterAPrefix(t *testing.T) {
	m := minter(t, mint.Claims{Issued: time.Unix(1, 0), Expires: time.Unix(2, 0)})
	first := string(m.Append(nil, "bob"))
	m.Append(nil, "carol")
	if got := string(m.Append([]byte("Bearer "), "bob")); got != "Bearer "+first {
		t.Errorf("got %q, want the first token %q again", got, first)
	}
}

func TestAShortSecretIsRefused(t *testing.T) {
	if _, err := mint.New([]byte("short"), mint.Claims{}); !errors.Is(err, mint.ErrShortSecret) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkMint(b *testing.B) {
	m := minter(b, mint.Claims{Issued: time.Now(), Expires: time.Now()})
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = m.Append(buf[:0], "lt-k3f9-u00012345")
	}
}
