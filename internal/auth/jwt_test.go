package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/madang-chat/madang/internal/auth"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// now is where the tests' clock stands.
var now = time.Unix(1_800_000_000, 0)

func clock() time.Time { return now }

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign makes an HS256 token of any header and claims, however wrong they are.
func sign(key []byte, header, claims string) string {
	text := b64(header) + "." + b64(claims)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// respelt changes the two bits at the end of a token that mean nothing.
func respelt(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	return token[:last] + string(alphabet[strings.IndexByte(alphabet, token[last])|1])
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

func newVerifier(t testing.TB, change func(*auth.Options)) auth.Verifier {
	t.Helper()
	o := auth.Options{Secret: secret, Now: clock}
	if change != nil {
		change(&o)
	}
	v, err := auth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMintedTokenIsAccepted(t *testing.T) {
	token, err := auth.Mint(secret, "김철수 <k@x>", time.Hour, auth.MintOptions{Now: now, Issuer: "me", Audience: []string{"madang"}})
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, func(o *auth.Options) { o.Issuer, o.Audience = "me", []string{"other", "madang"} })
	got, err := v.Verify(token)
	want := auth.Claims{User: "김철수 <k@x>", Expires: now.Unix() + 3600, IssuedAt: now.Unix()}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestMintRefuses(t *testing.T) {
	for name, mint := range map[string]func() (string, error){
		"short secret": func() (string, error) { return auth.Mint(secret[:31], "a", time.Hour, auth.MintOptions{}) },
		"no user":      func() (string, error) { return auth.Mint(secret, "", time.Hour, auth.MintOptions{}) },
		"control char": func() (string, error) { return auth.Mint(secret, "a\nb", time.Hour, auth.MintOptions{}) },
		"no life":      func() (string, error) { return auth.Mint(secret, "a", 0, auth.MintOptions{}) },
	} {
		if token, err := mint(); err == nil {
			t.Errorf("%s: minted %s", name, token)
		}
	}
}

func TestBadTokens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})

	const good = `{"sub":"bob","exp":1800003600}`
	goodToken := sign(secret, hs256, good)
	dot := strings.LastIndexByte(goodToken, '.')
	head := goodToken[:dot+1]
	claims := func(c string) string { return sign(secret, hs256, c) }
	header := func(h string) string { return sign(secret, h, good) }

	tests := []struct {
		name, token string
		want        error
	}{
		{"empty", "", auth.ErrInvalid},
		{"no dots", "abc", auth.ErrInvalid},
		{"one dot", "a.b", auth.ErrInvalid},
		{"three dots", goodToken + ".x", auth.ErrInvalid},
		{"a million dots", strings.Repeat(".", 1_000_000), auth.ErrInvalid},
		{"eight thousand dots", strings.Repeat(".", 8_000), auth.ErrInvalid},
		{"1 MB", sign(secret, hs256, `{"sub":"bob","exp":1800003600,"x":"`+strings.Repeat("x", 1<<20)+`"}`), auth.ErrInvalid},
		{"just over 8 KiB", sign(secret, hs256, `{"sub":"bob","exp":1800003600,"x":"`+strings.Repeat("x", 6_100)+`"}`), auth.ErrInvalid},

		{"alg none, no signature", b64(`{"alg":"none"}`) + "." + b64(good) + ".", auth.ErrInvalid},
		{"alg None", b64(`{"alg":"None"}`) + "." + b64(good) + ".", auth.ErrInvalid},
		{"alg NONE", b64(`{"alg":"NONE"}`) + "." + b64(good) + ".", auth.ErrInvalid},
		{"alg nOnE, signed", header(`{"alg":"nOnE"}`), auth.ErrInvalid},
		{"alg empty", header(`{"alg":""}`), auth.ErrInvalid},
		{"alg missing", header(`{"typ":"JWT"}`), auth.ErrInvalid},
		{"alg null", header(`{"alg":null}`), auth.ErrInvalid},
		{"alg number", header(`{"alg":256}`), auth.ErrInvalid},
		{"alg list", header(`{"alg":["HS256"]}`), auth.ErrInvalid},
		{"alg hs256", header(`{"alg":"hs256"}`), auth.ErrInvalid},
		{"alg HS384", header(`{"alg":"HS384"}`), auth.ErrInvalid},
		{"alg RS256 without keys", header(`{"alg":"RS256"}`), auth.ErrInvalid},
		{"RSA public key as HMAC secret", sign(rsaPEM, hs256, good), auth.ErrInvalid},
		{"RSA public key (DER) as HMAC secret", sign(der, hs256, good), auth.ErrInvalid},
		{"empty HMAC secret", sign(nil, hs256, good), auth.ErrInvalid},
		{"zero HMAC secret", sign(make([]byte, 32), hs256, good), auth.ErrInvalid},

		{"no signature", head, auth.ErrInvalid},
		{"zero signature", head + base64.RawURLEncoding.EncodeToString(make([]byte, 32)), auth.ErrInvalid},
		{"half a signature", goodToken[:len(goodToken)-20], auth.ErrInvalid},
		{"padded signature", goodToken + "=", auth.ErrInvalid},
		{"signature in another spelling", respelt(goodToken), auth.ErrInvalid},
		{"claims exchanged", b64(hs256) + "." + b64(`{"sub":"eve","exp":1800003600}`) + goodToken[dot:], auth.ErrInvalid},
		{"spaces around", " " + goodToken + " ", auth.ErrInvalid},

		{"jwk", header(`{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`), auth.ErrInvalid},
		{"jku", header(`{"alg":"HS256","jku":"https://evil.example/keys"}`), auth.ErrInvalid},
		{"x5u", header(`{"alg":"HS256","x5u":"https://evil.example/cert"}`), auth.ErrInvalid},
		{"crit", header(`{"alg":"HS256","crit":["b64"],"b64":false}`), auth.ErrInvalid},
		{"crit null", header(`{"alg":"HS256","crit":null}`), auth.ErrInvalid},
		{"header not an object", header(`["HS256"]`), auth.ErrInvalid},
		{"header null", header(`null`), auth.ErrInvalid},
		{"header not JSON", header(`{`), auth.ErrInvalid},
		{"header deep", header(`{"alg":` + strings.Repeat("[", 5000)), auth.ErrInvalid},

		{"claims not JSON", claims(`{`), auth.ErrInvalid},
		{"claims null", claims(`null`), auth.ErrInvalid},
		{"claims list", claims(`[]`), auth.ErrInvalid},
		{"claims empty", claims(``), auth.ErrInvalid},

		{"exp past", claims(`{"sub":"bob","exp":1799999999}`), auth.ErrExpired},
		{"exp now", claims(`{"sub":"bob","exp":1800000000}`), auth.ErrExpired},
		{"exp missing", claims(`{"sub":"bob"}`), auth.ErrInvalid},
		{"exp null", claims(`{"sub":"bob","exp":null}`), auth.ErrInvalid},
		{"exp zero", claims(`{"sub":"bob","exp":0}`), auth.ErrExpired},
		{"exp negative", claims(`{"sub":"bob","exp":-1}`), auth.ErrExpired},
		{"exp string", claims(`{"sub":"bob","exp":"never"}`), auth.ErrInvalid},
		{"exp list", claims(`{"sub":"bob","exp":[1800003600]}`), auth.ErrInvalid},
		{"exp true", claims(`{"sub":"bob","exp":true}`), auth.ErrInvalid},
		{"exp in milliseconds", claims(`{"sub":"bob","exp":1800003600000}`), auth.ErrInvalid},
		{"exp 2^62", claims(`{"sub":"bob","exp":4611686018427387904}`), auth.ErrInvalid},
		{"exp 1e18", claims(`{"sub":"bob","exp":1e18}`), auth.ErrInvalid},
		{"exp 1e999", claims(`{"sub":"bob","exp":1e999}`), auth.ErrInvalid},
		{"exp NaN", claims(`{"sub":"bob","exp":NaN}`), auth.ErrInvalid},
		{"iat future", claims(`{"sub":"bob","exp":1800003600,"iat":1800000100}`), auth.ErrInvalid},
		{"iat negative", claims(`{"sub":"bob","exp":1800003600,"iat":-5}`), auth.ErrInvalid},
		{"nbf future", claims(`{"sub":"bob","exp":1800003600,"nbf":1800000100}`), auth.ErrInvalid},
		{"nbf string", claims(`{"sub":"bob","exp":1800003600,"nbf":"x"}`), auth.ErrInvalid},
		{"nbf list", claims(`{"sub":"bob","exp":1800003600,"nbf":[]}`), auth.ErrInvalid},

		{"sub missing", claims(`{"exp":1800003600}`), auth.ErrInvalid},
		{"sub null", claims(`{"sub":null,"exp":1800003600}`), auth.ErrInvalid},
		{"sub empty", claims(`{"sub":"","exp":1800003600}`), auth.ErrInvalid},
		{"sub number", claims(`{"sub":7,"exp":1800003600}`), auth.ErrInvalid},
		{"sub object", claims(`{"sub":{},"exp":1800003600}`), auth.ErrInvalid},
		{"sub with newline", claims(`{"sub":"a\nb","exp":1800003600}`), auth.ErrInvalid},
		{"sub with NUL", claims(`{"sub":"a\u0000","exp":1800003600}`), auth.ErrInvalid},
		{"SUB for sub", claims(`{"SUB":"bob","exp":1800003600}`), auth.ErrInvalid},
		{"Exp for exp", claims(`{"sub":"bob","Exp":1800003600}`), auth.ErrInvalid},
		{"exp past, Exp not", claims(`{"sub":"bob","exp":1799999999,"Exp":1800003600}`), auth.ErrExpired},
		{"sub twice", claims(`{"sub":"bob","exp":1800003600,"sub":"eve"}`), auth.ErrInvalid},
		{"sub twice, once escaped", claims(`{"sub":"bob","exp":1800003600,"\u0073ub":"eve"}`), auth.ErrInvalid},
		{"sub no UTF-8", claims("{\"sub\":\"a\xff\",\"exp\":1800003600}"), auth.ErrInvalid},
		{"sub half a surrogate", claims(`{"sub":"a\ud800","exp":1800003600}`), auth.ErrInvalid},
		{"sub too long", claims(`{"sub":"` + strings.Repeat("x", 129) + `","exp":1800003600}`), auth.ErrInvalid},
	}
	hsOnly := newVerifier(t, nil)
	both := newVerifier(t, func(o *auth.Options) { o.Keys = auth.StaticKeys{&rsaKey.PublicKey} })
	rsaOnly := newVerifier(t, func(o *auth.Options) { o.Secret, o.Keys = nil, auth.StaticKeys{&rsaKey.PublicKey} })
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, v := range []auth.Verifier{hsOnly, both, auth.Cached(hsOnly, 100)} {
				c, err := v.Verify(tt.token)
				if !errors.Is(err, tt.want) || c != (auth.Claims{}) {
					t.Fatalf("got %+v, %v; want %v", c, err, tt.want)
				}
				if len(tt.token) > 20 && strings.Contains(err.Error(), tt.token[:20]) {
					t.Fatalf("the error holds the token: %v", err)
				}
			}
			if _, err := rsaOnly.Verify(tt.token); err == nil {
				t.Fatal("accepted by a verifier that has only an RSA key")
			}
		})
	}
	if _, err := hsOnly.Verify(goodToken); err != nil {
		t.Fatalf("the token all others derive from is refused: %v", err)
	}
	for _, other := range []string{"SUB", "Sub"} { // another claim, of whoever issued it
		c, err := hsOnly.Verify(claims(`{"sub":"bob","exp":1800003600,"` + other + `":"eve"}`))
		if err != nil || c.User != "bob" {
			t.Errorf("%s beside sub: %+v, %v", other, c, err)
		}
	}
	if _, err := rsaOnly.Verify(goodToken); !errors.Is(err, auth.ErrInvalid) {
		t.Fatalf("HS256 without a secret: %v", err)
	}
}

func TestIssuerAndAudience(t *testing.T) {
	v := newVerifier(t, func(o *auth.Options) { o.Issuer, o.Audience = "https://id.example", []string{"madang"} })
	for claims, ok := range map[string]bool{
		`"iss":"https://id.example","aud":"madang"`:              true,
		`"iss":"https://id.example","aud":["x","madang"]`:        true,
		`"iss":"https://id.example","aud":["x"]`:                 false,
		`"iss":"https://id.example","aud":[]`:                    false,
		`"iss":"https://id.example","aud":""`:                    false,
		`"iss":"https://id.example","aud":7`:                     false,
		`"iss":"https://id.example","aud":[["madang"]]`:          false,
		`"iss":"https://id.example","aud":{"madang":1}`:          false,
		`"iss":"https://id.example","aud":null`:                  false,
		`"iss":"https://id.example"`:                             false,
		`"iss":"https://id.example.evil.example","aud":"madang"`: false,
		`"iss":"","aud":"madang"`:                                false,
		`"iss":["https://id.example"],"aud":"madang"`:            false,
		`"iss":null,"aud":"madang"`:                              false,
		`"aud":"madang"`:                                         false,
	} {
		_, err := v.Verify(sign(secret, hs256, `{"sub":"bob","exp":1800003600,`+claims+`}`))
		if (err == nil) != ok || (err != nil && !errors.Is(err, auth.ErrInvalid)) {
			t.Errorf("%s: %v", claims, err)
		}
	}
	for claims, reason := range map[string]string{
		`"aud":"madang"`:                            "iss is",
		`"iss":"https://id.example"`:                "aud is",
		`"iss":"https://id.example","Aud":"madang"`: "aud is",
	} {
		if _, err := v.Verify(sign(secret, hs256, `{"sub":"bob","exp":1800003600,`+claims+`}`)); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", claims, err, reason)
		}
	}
	// Expired and of another issuer: a new one would not help, so it is not "expired".
	_, err := v.Verify(sign(secret, hs256, `{"sub":"bob","exp":5,"iss":"x","aud":"madang"}`))
	if !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("expired and foreign: %v", err)
	}
}

func TestLeewayAndFractions(t *testing.T) {
	v := newVerifier(t, func(o *auth.Options) { o.Leeway = 5 * time.Second })
	for claims, ok := range map[string]bool{
		`{"sub":"bob","exp":1799999996}`:                    true,
		`{"sub":"bob","exp":1799999994}`:                    false,
		`{"sub":"bob","exp":1800003600,"nbf":1800000004}`:   true,
		`{"sub":"bob","exp":1800003600,"iat":1800000009}`:   false,
		`{"sub":"bob","exp":1800003600.75}`:                 true, // RFC 7519 allows fractions
		`{"sub":"bob","exp":1.8000036e9}`:                   true,
		`{"sub":"__proto__","exp":1800003600}`:              true,
		`{"sub":"bob","exp":1800003600,"exp":1}`:            false, // the last one counts, and the issuer signed it
		`{"sub":"bob","exp":253402300799}`:                  true,
		`{"sub":"bob","exp":253402300800}`:                  false,
		`{"sub":"bob","exp":1800003600,"custom":{"a":[1]}}`: true,
	} {
		c, err := v.Verify(sign(secret, hs256, claims))
		if (err == nil) != ok {
			t.Errorf("%s: %+v, %v", claims, c, err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]auth.Options{
		"nothing":            {},
		"empty secret":       {Secret: []byte{}},
		"31 bytes":           {Secret: secret[:31]},
		"31 bytes and keys":  {Secret: secret[:31], Keys: auth.StaticKeys{key.Public()}},
		"a PEM as a secret":  {Secret: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})},
		"negative tolerance": {Secret: secret, Leeway: -1},
	} {
		if _, err := auth.New(o); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), string(secret[:31])) {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

func TestPublicKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)

	var file []byte
	for _, key := range []crypto.PublicKey{rsaKey.Public(), p256.Public(), ed.Public()} {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	keys, err := auth.ParseKeys(file)
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if _, err := auth.ParseKeys(append([]byte("as openssl -text writes it\n"), bytes.Repeat(file, 8)...)); err != nil {
		t.Error(err)
	}
	v := newVerifier(t, func(o *auth.Options) { o.Secret, o.Keys = nil, auth.KeySources{keys[:1], keys[1:]} })
	token := func(m jwt.SigningMethod, key any) string {
		s, err := jwt.NewWithClaims(m, jwt.MapClaims{"sub": "bob", "exp": now.Unix() + 60}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, tt := range []struct {
		name  string
		token string
		ok    bool
	}{
		{"RS256", token(jwt.SigningMethodRS256, rsaKey), true},
		{"ES256", token(jwt.SigningMethodES256, p256), true},
		{"EdDSA", token(jwt.SigningMethodEdDSA, ed), true},
		{"ES256 of another key", token(jwt.SigningMethodES256, other), false},
		{"ES384", token(jwt.SigningMethodES384, p384), false},
		{"PS256", token(jwt.SigningMethodPS256, rsaKey), false},
		{"RS512", token(jwt.SigningMethodRS512, rsaKey), false},
		{"HS256 with the key file", sign(file, hs256, `{"sub":"bob","exp":1800000060}`), false},
	} {
		if _, err := v.Verify(tt.token); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}

	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	p384DER, _ := x509.MarshalPKIXPublicKey(p384.Public())
	for name, text := range map[string][]byte{
		"empty": nil, "no PEM": []byte("hello"), "private": private, "garbage": []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
		"P-384":               pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p384DER}),
		"a damaged key first": append([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBIC KEY-----\n"), file...),
		"a damaged key last":  append(bytes.Clone(file), "-----BEGIN PUBLIC KEY-----\nAAAA\n"...),
		"more than are tried": bytes.Repeat(file, 9),
	} {
		if _, err := auth.ParseKeys(text); err == nil {
			t.Errorf("key file %s: accepted", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	v := newVerifier(f, nil)
	good := sign(secret, hs256, `{"sub":"bob","exp":1800003600}`)
	f.Add(good)
	f.Add("..")
	f.Add(b64(`{"alg":"none"}`) + "." + b64(`{"sub":"bob","exp":1800003600}`) + ".")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := v.Verify(token)
		if err == nil && token != good {
			t.Fatalf("forged: %q is %+v", token, c)
		}
	})
}

// FuzzClaims signs whatever the fuzzer makes up: what an issuer with odd claims
// could send.
func FuzzClaims(f *testing.F) {
	v := newVerifier(f, nil)
	for _, c := range []string{`{"sub":"bob","exp":1800003600}`, `{"sub":"bob","exp":1e300,"nbf":-1e300}`, `{"aud":[1]}`} {
		f.Add(hs256, c)
	}
	f.Fuzz(func(t *testing.T, header, claims string) {
		c, err := v.Verify(sign(secret, header, claims))
		if err == nil && (c.User == "" || c.Server || c.Expires <= now.Unix() || c.Expires > 253402300799) {
			t.Fatalf("%s %s: %+v", header, claims, c)
		}
		if err != nil && !errors.Is(err, auth.ErrInvalid) && !errors.Is(err, auth.ErrExpired) {
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	token, _ := auth.Mint(secret, "alice", time.Hour, auth.MintOptions{})
	v, _ := auth.New(auth.Options{Secret: secret})
	for name, v := range map[string]auth.Verifier{"HS256": v, "cached": auth.Cached(v, 1000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
