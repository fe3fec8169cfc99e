// Package mint makes HS256 tokens for the tester's users, cheaply enough to be
// made again at every use instead of being kept: a token is a function of the
// user's name, so nobody has to hold a hundred thousand of them.
package mint

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"strconv"
	"time"

	"github.com/madang-chat/madang/protocol"
)

// minSecretBytes is what servers refuse to go below (RFC 7518 §3.2: a key at
// least as long as the hash).
const minSecretBytes = 32

// ErrShortSecret says that no server would accept tokens of this secret.
var ErrShortSecret = errors.New("the JWT secret is shorter than 32 bytes: give the one the servers run with (--jwt-secret or --jwt-secret-file)")

// Claims are what every token of a run has beside its subject.
type Claims struct {
	Issued   time.Time
	Expires  time.Time
	Issuer   string // left out when empty
	Audience string // left out when empty
}

// Minter makes tokens. It is for one goroutine.
type Minter struct {
	mac    hash.Hash
	claims []byte // `","exp":…}`, after the subject
	buf    []byte
}

// header is {"alg":"HS256","typ":"JWT"} and the dot after it.
const header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."

// New returns a minter for the secret.
func New(secret []byte, c Claims) (*Minter, error) {
	if len(secret) < minSecretBytes {
		return nil, ErrShortSecret
	}
	claims := append([]byte(nil), `,"iat":`...)
	claims = strconv.AppendInt(claims, c.Issued.Unix(), 10)
	claims = append(claims, `,"exp":`...)
	claims = strconv.AppendInt(claims, c.Expires.Unix(), 10)
	if c.Issuer != "" {
		claims = protocol.AppendString(append(claims, `,"iss":`...), c.Issuer)
	}
	if c.Audience != "" {
		claims = protocol.AppendString(append(claims, `,"aud":`...), c.Audience)
	}
	return &Minter{mac: hmac.New(sha256.New, secret), claims: append(claims, '}')}, nil
}

// Append appends the user's token. The same user always gets the same token, so
// that a server's cache of verified tokens works as it would for real users.
func (m *Minter) Append(dst []byte, user string) []byte {
	start := len(dst)
	dst = append(dst, header...)
	m.buf = append(m.buf[:0], `{"sub":`...)
	m.buf = protocol.AppendString(m.buf, user)
	m.buf = append(m.buf, m.claims...)
	dst = base64.RawURLEncoding.AppendEncode(dst, m.buf)
	m.mac.Reset() // restores the key's inner state instead of hashing the key again
	m.mac.Write(dst[start:])
	m.buf = m.mac.Sum(m.buf[:0])
	dst = append(dst, '.')
	return base64.RawURLEncoding.AppendEncode(dst, m.buf)
}
