package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/config"
)

type tokenCommand struct {
	User          string        `help:"Whom the token is for: its sub." required:"" placeholder:"NAME"`
	TTL           time.Duration `name:"ttl" help:"How long it is valid." default:"24h"`
	config.Secret `embed:""`
	JWTIssuer     string   `name:"jwt-issuer" help:"Its iss." placeholder:"ISS"`
	JWTAudience   []string `name:"jwt-audience" help:"Its aud." placeholder:"AUD"`
}

// Run prints the token and nothing else.
func (c *tokenCommand) Run(stdout io.Writer) error {
	secret, err := c.Bytes()
	if err != nil {
		return err
	}
	if secret == nil {
		return errors.New("--jwt-secret-file or --jwt-secret must be given: it is what the token is signed with")
	}
	token, err := auth.Mint(secret, c.User, c.TTL, auth.MintOptions{Issuer: c.JWTIssuer, Audience: c.JWTAudience})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, token)
	return err
}
