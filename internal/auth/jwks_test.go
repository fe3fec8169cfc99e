package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuer publishes what it is told and counts who asks.
type issuer struct {
	*httptest.Server
	body   atomic.Pointer[string]
	status atomic.Int32
	asked  atomic.Int32
	spared atomic.Int32 // answered 304
	etags  atomic.Bool  // they are told
}

func newIssuer(t *testing.T, keys ...string) *issuer {
	i := &issuer{}
	i.publish(keys...)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		body := *i.body.Load()
		if i.etags.Load() {
			etag := fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(body)))
			w.Header().Set("ETag", etag)
			if r.Header.Get("If-None-Match") == etag {
				i.spared.Add(1)
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		w.WriteHeader(int(i.status.Load()))
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) publish(keys ...string) {
	body := `{"keys":[` + strings.Join(keys, ",") + `]}`
	i.body.Store(&body)
	i.status.Store(200)
}

// jwkOf writes a public key as a JWK with these further fields.
func jwkOf(key crypto.PublicKey, more string) string {
	enc := base64.RawURLEncoding.EncodeToString
	switch k := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q%s}`, enc(k.N.Bytes()), enc(big.NewInt(int64(k.E)).Bytes()), more)
	case *ecdsa.PublicKey:
		point, _ := k.Bytes()
		half := (len(point) - 1) / 2
		return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q%s}`, k.Curve.Params().Name, enc(point[1:1+half]), enc(point[1+half:]), more)
	case ed25519.PublicKey:
		return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q%s}`, enc(k), more)
	}
	panic("no such key")
}

func signed(t *testing.T, m jwt.SigningMethod, key any, kid string) string {
	t.Helper()
	token := jwt.NewWithClaims(m, jwt.MapClaims{"sub": "bob", "exp": time.Now().Unix() + 60})
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func startJWKS(t *testing.T, o JWKSOptions) *JWKS {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	j, err := NewJWKS(o)
	if err != nil {
		t.Fatal(err)
	}
	j.Start()
	t.Cleanup(j.Stop)
	return j
}

func TestPublishedKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pub, ed, _ := ed25519.GenerateKey(rand.Reader)
	secret := strings.Repeat("k", 32)
	i := newIssuer(t,
		jwkOf(&rsaKey.PublicKey, `,"kid":"r","alg":"RS256","use":"sig"`), jwkOf(&ec.PublicKey, `,"kid":"e"`), jwkOf(pub, `,"kid":"d","alg":"EdDSA"`),
		`{"kty":"oct","kid":"o","alg":"HS256","k":"`+base64.RawURLEncoding.EncodeToString([]byte(secret))+`"}`,
		jwkOf(&rsaKey.PublicKey, `,"kid":"enc","use":"enc"`), `{"kty":"new"}`, `7`, `{}`)
	j := startJWKS(t, JWKSOptions{URL: i.URL})
	until(t, "ready", j.Ready)
	v, err := New(Options{Keys: j})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, token string
		ok          bool
	}{
		{"RS256", signed(t, jwt.SigningMethodRS256, rsaKey, "r"), true},
		{"ES256", signed(t, jwt.SigningMethodES256, ec, "e"), true},
		{"EdDSA", signed(t, jwt.SigningMethodEdDSA, ed, "d"), true},
		{"no kid", signed(t, jwt.SigningMethodEdDSA, ed, ""), true},
		{"another's kid", signed(t, jwt.SigningMethodES256, ec, "r"), false},
		{"a path as kid", signed(t, jwt.SigningMethodES256, ec, "../../dev/null"), false},
		{"a key for encryption", signed(t, jwt.SigningMethodRS256, rsaKey, "enc"), false},
		{"a published secret", signed(t, jwt.SigningMethodHS256, []byte(secret), "o"), false},
		{"RSA key as HMAC secret", signed(t, jwt.SigningMethodHS256, rsaKey.N.Bytes(), "r"), false},
	} {
		if _, err := v.Verify(tt.token); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestKeysRotate(t *testing.T) {
	pub1, key1, _ := ed25519.GenerateKey(rand.Reader)
	pub2, key2, _ := ed25519.GenerateKey(rand.Reader)
	one, two := jwkOf(pub1, `,"kid":"1"`), jwkOf(pub2, `,"kid":"2"`)
	token1, token2 := signed(t, jwt.SigningMethodEdDSA, key1, "1"), signed(t, jwt.SigningMethodEdDSA, key2, "2")
	i := newIssuer(t)
	i.status.Store(500)

	var cache *Cache
	j := startJWKS(t, JWKSOptions{URL: i.URL, OnWithdrawn: func([]KeyTag) { cache.Purge() }, Every: time.Hour, gap: time.Millisecond, retry: 2 * time.Millisecond})
	v, err := New(Options{Keys: j})
	if err != nil {
		t.Fatal(err)
	}
	// The keys are published after cache is set: no one calls OnWithdrawn before.
	cache = Cached(v, 100)
	works := func(token string) func() bool {
		return func() bool { _, err := cache.Verify(token); return err == nil }
	}
	if works(token1)() || j.Ready() {
		t.Fatal("a token is good without keys")
	}
	i.publish(one) // it is asked again after failures
	until(t, "the first key works", works(token1))
	i.publish(one, two) // a token with an unknown kid makes it ask
	until(t, "the second key works", works(token2))
	if !works(token1)() {
		t.Fatal("the first key is gone")
	}
	i.publish(two) // found out with the next fetch, and not remembered
	until(t, "the first key is forgotten", func() bool {
		_, _ = cache.Verify(signed(t, jwt.SigningMethodEdDSA, key1, "3"))
		return !works(token1)()
	})
	for _, bad := range []func(){
		func() { i.status.Store(503) }, func() { i.publish() }, func() { i.publish("[") }, func() { i.publish(`{"keys":7}`) },
	} {
		bad()
		before := i.asked.Load()
		until(t, "asked again", func() bool { works(token1)(); return i.asked.Load() > before+1 })
		cache.Purge()
		if !works(token2)() {
			t.Fatal("a failed fetch took the keys away")
		}
	}
}

func TestAWithdrawnKeyIsFoundOutThoughNoTokenNamesAnother(t *testing.T) {
	pub1, key1, _ := ed25519.GenerateKey(rand.Reader)
	pub2, key2, _ := ed25519.GenerateKey(rand.Reader)
	one, two := jwkOf(pub1, `,"kid":"1"`), jwkOf(pub2, `,"kid":"2"`)
	i := newIssuer(t, one)
	i.etags.Store(true)
	var cache *Cache
	var withdrawn atomic.Pointer[[]KeyTag]
	var withdrawals atomic.Int32
	j := startJWKS(t, JWKSOptions{URL: i.URL, Every: 5 * time.Millisecond, gap: time.Millisecond, retry: time.Millisecond, OnWithdrawn: func(keys []KeyTag) {
		withdrawn.Store(&keys)
		withdrawals.Add(1)
		cache.Purge()
	}})
	v, err := New(Options{Keys: j})
	if err != nil {
		t.Fatal(err)
	}
	cache = Cached(v, 100)
	until(t, "ready", j.Ready)
	until(t, "the issuer is spared the answer", func() bool { return i.spared.Load() > 2 })
	token1, token2 := signed(t, jwt.SigningMethodEdDSA, key1, "1"), signed(t, jwt.SigningMethodEdDSA, key2, "2")
	first, err := cache.Verify(token1)
	if err != nil || first.Key == 0 || !j.Publishes(first.Key) {
		t.Fatalf("%+v, %v", first, err)
	}
	i.publish(two, one)
	until(t, "the new key works", func() bool { _, err := cache.Verify(token2); return err == nil })
	if n := withdrawals.Load(); n != 0 {
		t.Fatalf("%d withdrawals, though a key only came", n)
	}
	i.etags.Store(false) // an answer that is none is not the last one either
	for _, bad := range []func(){func() { i.status.Store(503) }, func() { i.publish("[") }} {
		bad()
		asked := i.asked.Load()
		until(t, "asked again", func() bool { return i.asked.Load() > asked+1 })
		if _, err := cache.Verify(token1); err != nil || withdrawals.Load() != 0 {
			t.Fatalf("%v, %d withdrawals", err, withdrawals.Load())
		}
	}
	i.etags.Store(true)
	i.publish(two)
	until(t, "the old key is forgotten", func() bool { _, err := cache.Verify(token1); return err != nil })
	second, err := cache.Verify(token2)
	if err != nil || withdrawals.Load() != 1 || !slices.Equal(*withdrawn.Load(), []KeyTag{first.Key}) {
		t.Fatalf("%v, %d withdrawals", err, withdrawals.Load())
	}
	if second.Key == first.Key || !j.Publishes(second.Key) || j.Publishes(first.Key) || !j.Publishes(0) {
		t.Errorf("tags %d and %d", first.Key, second.Key)
	}
}

func TestATokenTellsWhichKeySignedIt(t *testing.T) {
	pub1, key1, _ := ed25519.GenerateKey(rand.Reader)
	pub2, key2, _ := ed25519.GenerateKey(rand.Reader)
	inFile, keyInFile, _ := ed25519.GenerateKey(rand.Reader)
	one, two := jwkOf(pub1, `,"kid":"1"`), jwkOf(pub2, `,"kid":"2"`)
	tagsOf := func(published ...string) (tags []KeyTag) {
		j := startJWKS(t, JWKSOptions{URL: newIssuer(t, published...).URL})
		until(t, "ready", j.Ready)
		v, err := New(Options{Keys: KeySources{StaticKeys{inFile}, j}})
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{
			signed(t, jwt.SigningMethodEdDSA, key1, "1"), signed(t, jwt.SigningMethodEdDSA, key1, ""),
			signed(t, jwt.SigningMethodEdDSA, key2, "2"), signed(t, jwt.SigningMethodEdDSA, key2, ""),
			signed(t, jwt.SigningMethodEdDSA, keyInFile, ""),
		} {
			c, err := v.Verify(token)
			if err != nil {
				t.Fatal(err)
			}
			tags = append(tags, c.Key)
		}
		return tags
	}
	tags := tagsOf(one, two)
	if tags[0] == 0 || tags[1] != tags[0] || tags[2] == tags[0] || tags[2] == 0 || tags[3] != tags[2] || tags[4] != 0 {
		t.Fatalf("%v", tags)
	}
	if elsewhere := tagsOf(two, one); !slices.Equal(elsewhere, tags) {
		t.Errorf("another process says %v, not %v", elsewhere, tags)
	}
	renamed := tagsOf(two, jwkOf(pub1, `,"kid":"1","alg":"EdDSA"`))
	if renamed[0] == tags[0] || renamed[2] != tags[2] {
		t.Errorf("published otherwise: %v, %v before", renamed, tags)
	}
}

// Keys in a file are tried with every token, and leave room for the published one
// that the token names.
func TestKeysInAFileLeaveRoomForThoseThatArePublished(t *testing.T) {
	var inFile StaticKeys
	for range maxKeysTried {
		pub, _, _ := ed25519.GenerateKey(rand.Reader)
		inFile = append(inFile, pub)
	}
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	j := startJWKS(t, JWKSOptions{URL: newIssuer(t, jwkOf(pub, `,"kid":"1"`)).URL})
	until(t, "ready", j.Ready)
	v, err := New(Options{Keys: KeySources{inFile, j}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(signed(t, jwt.SigningMethodEdDSA, key, "1")); err != nil {
		t.Error(err)
	}
}

func TestAShortTagIsNoneOnlyOfNone(t *testing.T) {
	if KeyTag(0).Short() != 0 {
		t.Error("a key that is not published has one")
	}
	for _, tag := range []KeyTag{1, 0xfffe, 0xffff, 0x10000, 1 << 32, math.MaxUint64} {
		if tag.Short() == 0 {
			t.Errorf("%x has none", uint64(tag))
		}
	}
}

func TestUnknownKeysDoNotDriveTheIssuer(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	i := newIssuer(t, jwkOf(pub, `,"kid":"1"`))
	j := startJWKS(t, JWKSOptions{URL: i.URL, Every: time.Hour})
	until(t, "ready", j.Ready)
	v, err := New(Options{Keys: j})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for n := range 1000 {
		if _, err := v.Verify(signed(t, jwt.SigningMethodEdDSA, key, fmt.Sprint("made-up-", n))); !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	}
	if asked := i.asked.Load(); asked > 1+int32(time.Since(start)/jwksGap) {
		t.Errorf("asked %d times", asked)
	}
}

func TestJWKSOptionsAreChecked(t *testing.T) {
	for _, u := range []string{"", "keys.json", "file:///etc/passwd", "https://", "ftp://x/y", "://"} {
		if _, err := NewJWKS(JWKSOptions{URL: u}); err == nil {
			t.Errorf("%q is accepted", u)
		}
	}
	j, err := NewJWKS(JWKSOptions{URL: "https://issuer.example/keys"})
	if err != nil {
		t.Fatal(err)
	}
	j.Stop() // before Start
	if j.PublicKeys("x", "RS256") != nil || j.Ready() {
		t.Error("keys from nowhere")
	}
	via := &http.Request{URL: mustURL(t, "https://a/")}
	if noDowngrade(&http.Request{URL: mustURL(t, "http://a/")}, []*http.Request{via}) == nil || noDowngrade(&http.Request{URL: mustURL(t, "https://b/")}, []*http.Request{via}) != nil {
		t.Error("redirects")
	}
}

func FuzzParseJWKS(f *testing.F) {
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	f.Add([]byte(`{"keys":[` + jwkOf(pub, `,"kid":"1"`) + `]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`))
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseJWKS(text, log)
		for _, k := range keys {
			if err != nil || usable(k.Public) != nil {
				t.Fatalf("%+v, %v", k, err)
			}
		}
		if err == nil && !json.Valid(text) {
			t.Fatal("taken from what is not JSON")
		}
	})
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

type writes chan string

func (w writes) Write(p []byte) (int, error) {
	select {
	case w <- string(p):
	default:
	}
	return len(p), nil
}

func TestNothingSecretOfTheURLIsLogged(t *testing.T) {
	log := make(writes, 1)
	j, err := NewJWKS(JWKSOptions{URL: "http://fetcher:s3cret@127.0.0.1:1/jwks?token=t0ken", Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	j.Start()
	defer j.Stop()
	select {
	case line := <-log:
		if !strings.Contains(line, "127.0.0.1:1/jwks") || strings.Contains(line, "s3cret") || strings.Contains(line, "t0ken") {
			t.Error(line)
		}
	case <-time.After(20 * time.Second):
		t.Error("a fetch that failed is not told")
	}
}
