package auth

import (
	"errors"
	"sync"
)

// ErrRevoked: the token was good until its user was disconnected.
var ErrRevoked = errors.New("the token was revoked")

// Revoked remembers since when what was issued to users is good: a few of them,
// those who were ever disconnected. Somebody else finds out and says so through
// Add; asking costs no I/O. It may be used by many goroutines at once.
type Revoked struct {
	before sync.Map // user → uint64 (Unix ms)
}

// Add says that what was issued to a user before a time (Unix ms) is no good. An
// earlier time than is known changes nothing.
func (r *Revoked) Add(user string, beforeMs uint64) {
	for {
		known, found := r.before.LoadOrStore(user, beforeMs)
		if !found || known.(uint64) >= beforeMs || r.before.CompareAndSwap(user, known, beforeMs) {
			return
		}
	}
}

// has says whether a token is one of those: by the rule of gateways, which close
// connections. The age of a token that does not tell it is unknown, and it is
// believed.
func (r *Revoked) has(c Claims) bool {
	if c.Server || c.IssuedAt <= 0 {
		return false
	}
	before, found := r.before.Load(c.User)
	return found && uint64(c.IssuedAt)*1000 <= before.(uint64)
}

// Unless is v, but for tokens that were revoked.
func (r *Revoked) Unless(v Verifier) Verifier { return unlessRevoked{v, r} }

type unlessRevoked struct {
	next    Verifier
	revoked *Revoked
}

// Verify implements Verifier. It looks each time, behind any memory of good tokens.
func (v unlessRevoked) Verify(token string) (Claims, error) {
	c, err := v.next.Verify(token)
	if err == nil && v.revoked.has(c) {
		return Claims{}, ErrRevoked
	}
	return c, err
}
