// Package auth decides who a token speaks for: it verifies JWTs and server keys
// and mints development tokens. It owns the keys it was given and a bounded
// memory of tokens it has verified. It never does I/O on Verify's path, knows
// nothing of HTTP or sockets, and never puts a token, or a part of one, into an
// error. The API asks it for every request, a gateway for every connection.
package auth

import (
	"errors"
	"fmt"
)

// Verifier tells whom a token speaks for. Verify uses CPU only, never waits, and
// may be called by many goroutines at once. Its errors are ErrExpired and
// ErrInvalid (wrapped, with a text that may be shown to the client).
type Verifier interface {
	Verify(token string) (Claims, error)
}

// Claims are what a valid token says.
type Claims struct {
	User     string // protocol.ValidUser; empty for a server key
	Expires  int64  // Unix seconds; 0: never (server keys only)
	IssuedAt int64  // Unix seconds; 0: not told
	Server   bool   // a server key: may act for any user
	Key      KeyTag // of the published key that signed it
}

// KeyTag stands for a key that an issuer publishes: a piece of its hash, so that all
// processes call it the same. 0: a key that is not withdrawn while they run, which
// is a secret, or in a file.
type KeyTag uint64

// Short is what fits where a tag is kept for each of a million connections; not 0
// unless the tag is. Two keys may share one: who takes it for the key that was
// withdrawn is wrong once in 65,535 times, and never misses it.
func (t KeyTag) Short() uint16 {
	if t == 0 {
		return 0
	}
	return uint16(t%0xffff) + 1
}

// Outcomes for the client. What wraps them adds a reason, never the token.
var (
	ErrExpired = errors.New("the token has expired")
	ErrInvalid = errors.New("the token is not valid")
)

// MaxTokenBytes bounds a token before anything of it is parsed. Tokens with many
// group claims reach 4 KiB; a gateway's handshake head ends at 8 KiB as well.
const MaxTokenBytes = 8 << 10

// MinSecretBytes is the least length of an HMAC secret or a server key: RFC 7518
// §3.2 wants as many bits as SHA-256 has.
const MinSecretBytes = 32

// Reasons. All are made once: refusing a flood of bad tokens should not cost
// formatting, and a fixed text can't leak what was sent.
var (
	errTooLong     = reason("longer than 8 KiB")
	errMalformed   = reason("malformed")
	errAlgorithm   = reason("its algorithm is not accepted here")
	errHeader      = reason("its header has jwk, jku, x5u or crit")
	errUnknownKey  = reason("no key for it")
	errSignature   = reason("the signature does not match")
	errNoExpiry    = reason("it has no exp")
	errAbsurdTime  = reason("exp, iat or nbf is not a plausible time in seconds")
	errNotYet      = reason("not yet (nbf or iat is in the future)")
	errIssuer      = reason("iss is not the expected one")
	errAudience    = reason("aud is not the expected one")
	errSubject     = reason("sub is not a user name (1-128 bytes of UTF-8 without control characters)")
	errOtherClaims = reason("its claims are refused")
)

func reason(text string) error { return fmt.Errorf("%w: %s", ErrInvalid, text) }
