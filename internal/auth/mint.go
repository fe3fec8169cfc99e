package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/madang-chat/madang/protocol"
)

// MintOptions are what a minted token may say beyond user and expiry.
type MintOptions struct {
	Issuer   string    // iss; empty: none
	Audience []string  // aud; empty: none
	Now      time.Time // iat; zero: time.Now()
}

// Mint makes an HS256 token for development and tests. A team's own back end
// makes the tokens of real users, with any JWT library.
func Mint(secret []byte, user string, ttl time.Duration, o MintOptions) (string, error) {
	if err := checkSecret(secret); err != nil {
		return "", err
	}
	if !protocol.ValidUser(user) {
		return "", errors.New("auth: a user name is 1-128 bytes of UTF-8 without control characters")
	}
	if ttl < time.Second {
		return "", fmt.Errorf("auth: a token's life of %v is shorter than a second", ttl)
	}
	now := o.Now
	if now.IsZero() {
		now = time.Now()
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Subject:   user,
		Issuer:    o.Issuer,
		Audience:  o.Audience,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}).SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("auth: signing a token: %w", err)
	}
	return token, nil
}
