package api

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// userHeader names whom a server key acts for, percent-encoded as in a path:
// header fields are safe for ASCII only.
const userHeader = "Madang-User"

// claims are what the request's token says. Verified tokens are remembered: to ask again
// costs half a microsecond.
func (a *API) claims(r *http.Request) (auth.Claims, error) {
	token, err := bearer(r.Header)
	if err != nil {
		return auth.Claims{}, err
	}
	claims, err := a.verifier.Verify(token)
	switch {
	case errors.Is(err, auth.ErrExpired), errors.Is(err, auth.ErrRevoked): // as a gateway's 4001: another token helps
		return auth.Claims{}, &problem{status: http.StatusUnauthorized, code: protocol.ErrTokenExpired, detail: err.Error(), challenge: badToken}
	case errors.Is(err, auth.ErrInvalid):
		return auth.Claims{}, &problem{status: http.StatusUnauthorized, code: protocol.ErrUnauthorized, detail: err.Error(), challenge: badToken}
	}
	return claims, err
}

// actor says who asks.
func (a *API) actor(r *http.Request, needUser bool) (chat.Actor, error) {
	claims, err := a.claims(r)
	if err != nil {
		return chat.Actor{}, err
	}
	name, named := r.Header[userHeader]
	if !claims.Server {
		if named {
			return chat.Actor{}, forbidden("only a server key may act for another user: leave " + userHeader + " out")
		}
		return chat.Actor{User: claims.User}, nil
	}
	by := chat.Actor{Server: true}
	if named {
		if by.User, err = url.PathUnescape(name[0]); err != nil || len(name) != 1 || !protocol.ValidUser(by.User) {
			return chat.Actor{}, invalid(userHeader + ": " + userRule + ", percent-encoded")
		}
	} else if needUser {
		return chat.Actor{}, invalid("a server key must name the user it acts for in " + userHeader)
	}
	return by, nil
}

const userRule = "a user name is 1-128 bytes of UTF-8 without control characters"

// Challenges of a 401 (RFC 6750 §3).
const (
	noToken  = `Bearer realm="madang"`
	badToken = `Bearer realm="madang", error="invalid_token"`
)

// bearer takes the token out of the Authorization header.
func bearer(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", &problem{status: http.StatusUnauthorized, code: protocol.ErrUnauthorized, detail: "Authorization: Bearer <token> is needed", challenge: noToken}
	}
	const scheme = "Bearer "
	v := values[0]
	if len(values) > 1 || len(v) <= len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", &problem{status: http.StatusUnauthorized, code: protocol.ErrUnauthorized, detail: "the one Authorization header must be of the form: Bearer <token>", challenge: noToken}
	}
	return v[len(scheme):], nil
}
