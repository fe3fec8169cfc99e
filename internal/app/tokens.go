package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/config"
)

const (
	// sendersTokens and receiversTokens are how many verified tokens are
	// remembered, at ~190 bytes each. Verifying one costs 3 µs (HS256) to 64 µs
	// (ES256). A sender comes with its token every time; a receiver once, and again
	// in a reconnect storm, so that remembering all of them would cost more memory
	// than it spares processor time.
	sendersTokens, receiversTokens = 1 << 16, 1 << 10
	// tokenLeeway is how far the clocks of issuer and gateway may differ.
	tokenLeeway = 5 * time.Second
)

// tokens is who checks them, and where the issuer's keys come from.
type tokens struct {
	verifier *auth.Cache
	jwks     *auth.JWKS // nil when there is no URL
	// closeKeys ends the connections of keys that were withdrawn; nil: there are none.
	closeKeys atomic.Pointer[func([]auth.KeyTag)]
}

func newTokens(c config.Auth, remember int, log *slog.Logger) (*tokens, error) {
	secret, err := c.Bytes()
	if err != nil {
		return nil, err
	}
	t := &tokens{}
	var keys auth.KeySources
	if c.JWTKeyFile != "" {
		static, err := auth.KeysFromFile(c.JWTKeyFile)
		if err != nil {
			return nil, fmt.Errorf("--jwt-key-file: %w", err)
		}
		keys = append(keys, static)
	}
	if c.JWKSURL != "" {
		t.jwks, err = auth.NewJWKS(auth.JWKSOptions{
			URL: c.JWKSURL, Logger: log,
			Every:       c.JWKSRefresh,
			OnWithdrawn: t.withdrawn, // by Start's goroutine: verifier is set by then
		})
		if err != nil {
			return nil, fmt.Errorf("--jwks-url: %w", err)
		}
		keys = append(keys, t.jwks)
	}
	o := auth.Options{Secret: secret, Issuer: c.JWTIssuer, Audience: c.JWTAudience, Leeway: tokenLeeway}
	if len(keys) > 0 {
		o.Keys = keys
	}
	verifier, err := auth.New(o)
	if err != nil {
		return nil, err
	}
	t.verifier = auth.Cached(verifier, remember)
	return t, nil
}

// withdrawn forgets first, so that nobody comes in behind those who are closed.
func (t *tokens) withdrawn(keys []auth.KeyTag) {
	t.verifier.Purge()
	if closeKeys := t.closeKeys.Load(); closeKeys != nil {
		(*closeKeys)(keys)
	}
}

// good says whether a key that another process has seen is good here as well.
func (t *tokens) good(key auth.KeyTag) bool { return t.jwks == nil || t.jwks.Publishes(key) }

func (t *tokens) start(context.Context) error {
	if t.jwks != nil {
		t.jwks.Start()
	}
	return nil
}

func (t *tokens) stop(context.Context) error {
	if t.jwks != nil {
		t.jwks.Stop()
	}
	return nil
}

// notReady says why no token of the issuer would be believed; "" when all is well.
func (t *tokens) notReady(context.Context) string {
	if t.jwks != nil && !t.jwks.Ready() {
		return "the issuer's keys have not been fetched yet"
	}
	return ""
}
