package auth

import (
	"errors"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// registered is what is read of a token's claims: jwt.RegisteredClaims, but that
// names are the claims' only in their exact spelling, that reading a time makes no
// garbage (a gateway reads one token per connection), and that a time beyond all
// reason is refused. The library would convert it to int64 unchecked, and 1e300
// become anything.
type registered struct {
	Issuer    string           `json:"iss"`
	Subject   string           `json:"sub"`
	Audience  jwt.ClaimStrings `json:"aud"`
	ExpiresAt instant          `json:"exp"`
	NotBefore instant          `json:"nbf"`
	IssuedAt  instant          `json:"iat"`

	tried []Key // not a claim: what the signature was checked against
}

// UnmarshalJSON takes "SUB" for another claim than "sub" (RFC 7519 §10.1.1), and
// neither a name twice nor what is no UTF-8. encoding/json, which the library decodes
// with, does all three: who may add claims to their token would choose their name.
func (r *registered) UnmarshalJSON(b []byte) error {
	type fields registered // without this method
	return json.Unmarshal(b, (*fields)(r))
}

// instant is a NumericDate (RFC 7519 §2), fractions cut off.
type instant struct {
	told, absurd, negative bool
	date                   jwt.NumericDate
}

func (i *instant) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return errMalformed // what was sent is not for logs
	}
	i.told, i.negative = true, seconds < 0
	if i.absurd = seconds < 0 || seconds > maxUnixSeconds; !i.absurd {
		i.date.Time = time.Unix(int64(seconds), 0)
	}
	return nil
}

func (i *instant) numericDate() (*jwt.NumericDate, error) {
	switch {
	case i.absurd:
		return nil, errAbsurdTime
	case !i.told:
		return nil, nil
	}
	return &i.date, nil
}

// GetExpirationTime: one before 1970 is no worse than another that is past.
func (r *registered) GetExpirationTime() (*jwt.NumericDate, error) {
	if r.ExpiresAt.negative {
		return jwt.NewNumericDate(time.Unix(0, 0)), nil
	}
	return r.ExpiresAt.numericDate()
}

func (r *registered) GetNotBefore() (*jwt.NumericDate, error) { return r.NotBefore.numericDate() }
func (r *registered) GetIssuedAt() (*jwt.NumericDate, error)  { return r.IssuedAt.numericDate() }
func (r *registered) GetAudience() (jwt.ClaimStrings, error)  { return r.Audience, nil }
func (r *registered) GetIssuer() (string, error)              { return r.Issuer, nil }
func (r *registered) GetSubject() (string, error)             { return r.Subject, nil }
