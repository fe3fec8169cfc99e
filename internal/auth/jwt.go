package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/madang-chat/madang/protocol"
)

// Options say which tokens are good. At least one of Secret and Keys is needed;
// with both, a token's algorithm decides which of them it is checked against, so
// that a public key is never used as an HMAC secret.
type Options struct {
	Secret   []byte           // HS256; at least MinSecretBytes
	Keys     KeySource        // RS256, ES256, EdDSA; nil: none
	Issuer   string           // iss must be this; empty: not checked
	Audience []string         // aud must hold one of these; empty: not checked
	Leeway   time.Duration    // for clocks that differ: an exp this far past is still good
	Now      func() time.Time // nil: time.Now
}

// KeySource knows the public keys of those who sign tokens.
type KeySource interface {
	// PublicKeys returns the keys that may have signed a token with this kid and
	// algorithm (kid may be empty, or anything: it comes from the token), of those
	// that fit the algorithm maxKeysTried at most. It must not wait: a source that
	// has to fetch starts that and answers with what it has. The slice is the
	// caller's.
	PublicKeys(kid, alg string) []Key
}

// Key is a public key of a source.
type Key struct {
	Public crypto.PublicKey
	Tag    KeyTag
}

// maxUnixSeconds is the end of the year 9999. A larger exp is a mistake (often
// milliseconds), and a token that never expires can't be told from a stolen one.
const maxUnixSeconds = 253402300799

// maxKeysTried bounds the signatures that a source has checked for one token
// without a kid: each costs up to 64 µs.
const maxKeysTried = 8

// keyAlgorithms are those whose tokens are checked with a public key.
var keyAlgorithms = [...]string{"RS256", "ES256", "EdDSA"}

type jwtVerifier struct {
	secret []byte
	keys   KeySource
	issuer string
	parser *jwt.Parser
}

// New returns a Verifier of JWTs.
func New(o Options) (Verifier, error) {
	v := &jwtVerifier{keys: o.Keys, issuer: o.Issuer}
	var algs []string
	if o.Secret != nil {
		if err := checkSecret(o.Secret); err != nil {
			return nil, err
		}
		v.secret = bytes.Clone(o.Secret)
		algs = append(algs, "HS256")
	}
	if o.Keys != nil {
		algs = append(algs, keyAlgorithms[:]...)
	}
	if algs == nil {
		return nil, errors.New("auth: neither a secret nor keys to verify tokens with")
	}
	if o.Leeway < 0 {
		return nil, fmt.Errorf("auth: negative leeway %v", o.Leeway)
	}
	opts := []jwt.ParserOption{
		jwt.WithValidMethods(algs),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithStrictDecoding(), // one token, one spelling
		jwt.WithLeeway(o.Leeway),
	}
	if o.Issuer != "" {
		opts = append(opts, jwt.WithIssuer(o.Issuer))
	}
	if len(o.Audience) > 0 {
		opts = append(opts, jwt.WithAudience(o.Audience...))
	}
	if o.Now != nil {
		opts = append(opts, jwt.WithTimeFunc(o.Now))
	}
	v.parser = jwt.NewParser(opts...)
	return v, nil
}

func checkSecret(secret []byte) error {
	if len(secret) < MinSecretBytes {
		return fmt.Errorf("auth: the JWT secret has %d bytes, at least %d are needed (try: openssl rand -base64 32)", len(secret), MinSecretBytes)
	}
	// Whoever knows a public key could sign with it.
	if bytes.Contains(secret, []byte("-----BEGIN")) {
		return errors.New("auth: the JWT secret is a PEM file: give public keys as a key file, they are not secrets")
	}
	return nil
}

func (v *jwtVerifier) Verify(token string) (Claims, error) {
	if len(token) > MaxTokenBytes {
		return Claims{}, errTooLong
	}
	if strings.ContainsAny(token, "\r\n") { // encoding/base64 passes over them, also when it is strict
		return Claims{}, errMalformed
	}
	var claims registered
	parsed, err := v.parser.ParseWithClaims(token, &claims, v.keyFor)
	if err != nil {
		return Claims{}, v.translate(err, &claims)
	}
	if !protocol.ValidUser(claims.Subject) {
		return Claims{}, errSubject
	}
	c := Claims{User: claims.Subject, Expires: claims.ExpiresAt.date.Unix(), Key: claims.signedBy(parsed)}
	if claims.IssuedAt.told {
		c.IssuedAt = claims.IssuedAt.date.Unix()
	}
	return c, nil
}

// keyFor picks what the signature is checked against. The method's type is
// already one of ours (WithValidMethods).
func (v *jwtVerifier) keyFor(t *jwt.Token) (any, error) {
	for _, name := range [...]string{"jwk", "jku", "x5u", "crit"} {
		// A token that brings its own key, or demands an extension we don't have.
		if _, there := t.Header[name]; there {
			return nil, errHeader
		}
	}
	alg := t.Method.Alg()
	if alg == "HS256" {
		return v.secret, nil
	}
	kid, _ := t.Header["kid"].(string)
	claims := t.Claims.(*registered)
	var set jwt.VerificationKeySet
	claims.tried = fitting(v.keys.PublicKeys(kid, alg), alg)
	for _, key := range claims.tried {
		set.Keys = append(set.Keys, key.Public)
	}
	if len(set.Keys) == 0 {
		return nil, errUnknownKey
	}
	return set, nil
}

// signedBy is the tag of the key that a good token is signed with. The parser does
// not tell which of several it was; they are several when the token names none.
func (r *registered) signedBy(t *jwt.Token) KeyTag {
	if len(r.tried) == 1 {
		return r.tried[0].Tag
	}
	text := t.Raw[:max(0, strings.LastIndexByte(t.Raw, '.'))]
	for _, key := range r.tried {
		if t.Method.Verify(text, t.Signature, key.Public) == nil {
			return key.Tag
		}
	}
	return 0
}

// fitting are those of keys that are for the algorithm.
func fitting(keys []Key, alg string) []Key {
	return slices.DeleteFunc(keys, func(k Key) bool { return !fits(k.Public, alg) })
}

// fits says whether a key is one for the algorithm.
func fits(key crypto.PublicKey, alg string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return alg == "RS256"
	case *ecdsa.PublicKey:
		return alg == "ES256" && k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// translate turns the library's errors, which quote what was sent, into ours.
// Expiry comes last: a token that is wrong otherwise is not made good by a new one.
func (v *jwtVerifier) translate(err error, claims *registered) error {
	for _, c := range [...]struct{ theirs, ours error }{
		{errHeader, errHeader},
		{errUnknownKey, errUnknownKey},
		{errAbsurdTime, errAbsurdTime},
		{jwt.ErrTokenMalformed, errMalformed},
		{jwt.ErrTokenUnverifiable, errAlgorithm},
		{jwt.ErrTokenRequiredClaimMissing, v.missing(claims)},
		{jwt.ErrTokenInvalidIssuer, errIssuer},
		{jwt.ErrTokenInvalidAudience, errAudience},
		{jwt.ErrTokenNotValidYet, errNotYet},
		{jwt.ErrTokenUsedBeforeIssued, errNotYet},
		{jwt.ErrTokenExpired, ErrExpired},
		{jwt.ErrTokenSignatureInvalid, errSignature},
	} {
		if errors.Is(err, c.theirs) {
			return c.ours
		}
	}
	return errOtherClaims
}

// missing is the error of claims that lack one that is required.
func (v *jwtVerifier) missing(claims *registered) error {
	switch {
	case !claims.ExpiresAt.told:
		return errNoExpiry
	case v.issuer != "" && claims.Issuer == "":
		return errIssuer
	}
	return errAudience
}
