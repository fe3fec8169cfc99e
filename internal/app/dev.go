package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/embedded"
)

// Dev is everything in one process, for development: API, gateway, an embedded
// Redis unless one is given, and the demo page.
type Dev struct {
	config config.Dev
	log    *slog.Logger
	seq    sequence

	blobDir string // for attachments, when none is given; from Start on

	// SecretSource says where the JWT secret came from.
	SecretSource string

	mini    *embedded.Redis // nil when Redis is given
	process *process        // from Start on, as is what follows
	api     *api.API
	gateway *gatewayPart
}

// NewDev checks the settings. Unlike the other roles, Dev is built in Start,
// because the embedded Redis has no address before.
func NewDev(c config.Dev, log *slog.Logger) (*Dev, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	d := &Dev{config: c, log: log}
	switch {
	case c.JWTSecretFile != "":
		d.SecretSource = c.JWTSecretFile
	case c.JWTSecret != "":
		d.SecretSource = "as given"
	case c.JWTKeyFile != "" || c.JWKSURL != "":
		// Tokens of the page are signed with a secret, beside those of the issuer.
		d.SecretSource = "random, beside the keys given; new at each start"
		d.config.JWTSecret = rand.Text() + rand.Text()
	default:
		d.SecretSource = "random; new at each start (--jwt-secret-file keeps tokens valid)"
		d.config.JWTSecret = rand.Text() + rand.Text()
	}
	if c.Redis.URL == "" && c.RedisFile == "" {
		d.mini = embedded.New()
	}
	return d, nil
}

// Start returns when everything serves, or with ctx's error.
func (d *Dev) Start(ctx context.Context) error {
	d.seq.log = d.log
	if d.mini != nil {
		d.seq.parts = append(d.seq.parts, part{
			name:  "embedded redis",
			start: func(context.Context) error { return d.mini.Start() },
			stop:  func(context.Context) error { d.mini.Close(); return nil },
		})
		// The rest needs its address, so it is started by a sequence of its own.
	}
	if !d.config.Files.On() {
		d.seq.parts = append(d.seq.parts, part{
			name: "directory for attachments",
			start: func(context.Context) (err error) {
				if d.blobDir, err = os.MkdirTemp("", "madang-dev-"); err != nil {
					err = fmt.Errorf("%w (--blob-dir names another place)", err)
				}
				return err
			},
			stop: func(context.Context) error { return os.RemoveAll(d.blobDir) },
		})
	}
	var inner *sequence
	d.seq.parts = append(d.seq.parts, part{
		name: "dev",
		start: func(ctx context.Context) (err error) {
			if inner, err = d.build(); err != nil {
				return err
			}
			return inner.start(ctx)
		},
		stop: func(ctx context.Context) error { return inner.stop(ctx) },
	})
	return d.seq.start(ctx)
}

// build puts the parts together. The gateway starts before the API and stops
// after it: receivers are there as long as somebody may send.
func (d *Dev) build() (*sequence, error) {
	c := d.config
	if d.mini != nil {
		c.Redis.URL = d.mini.URL()
	}
	if d.blobDir != "" {
		c.BlobDir = d.blobDir
	}
	p, err := newProcess("dev", c.Process, c.Redis, c.Auth, sendersTokens, limits(c.HTTP, c.Receipts), d.log)
	if err != nil {
		return nil, err
	}
	gatewayConfig := c.Gateway()
	if len(c.Origins.Origins) > 0 {
		gatewayConfig.Origins.Origins = append(pageOrigins(c), c.Origins.Origins...)
	} else {
		// A token is what lets one in, and only this server's own page can read the
		// ones it hands out: any host name the machine has is fine.
		gatewayConfig.Origins.Origins = []string{"*"}
	}
	// Nobody's gateway is elsewhere: pages come back to the next start at once.
	gatewayConfig.DrainTimeout = 0
	gateway, err := newGatewayPart(p, gatewayConfig)
	if err != nil {
		return nil, err
	}
	secret, err := c.Secret.Bytes()
	if err != nil {
		return nil, err
	}
	page := &page{store: p.store, secret: secret, auth: c.Auth, gatewayAddr: gateway.addr, gatewayScheme: scheme("ws", c.TLSCert)}
	apiConfig := c.API()
	extra, err := page.routes()
	if err != nil {
		return nil, err
	}
	a, err := newAPI(p, apiConfig, extra)
	if err != nil {
		return nil, err
	}
	d.process, d.api, d.gateway = p, a, gateway
	return &sequence{log: d.log, parts: append(p.parts(), gateway.asPart(), sweeperPart(p), apiPart(p, a, apiConfig))}, nil
}

// Stop undoes Start.
func (d *Dev) Stop(ctx context.Context) error { return d.seq.stop(ctx) }

// URL is where the page is, for a browser on this machine.
func (d *Dev) URL() string { return scheme("http", d.config.APITLSCert) + local(d.APIAddr()) }

// pageOrigins are those of the page as a browser on this machine may have it. Under
// another name, from another machine for instance, it has to be given like others.
func pageOrigins(c config.Dev) []string {
	_, port, err := net.SplitHostPort(c.APIAddr)
	if err != nil {
		return nil
	}
	own := scheme("http", c.APITLSCert)
	var origins []string
	for _, host := range [...]string{"localhost", "127.0.0.1", "[::1]"} {
		origin := own + host
		if own+port != "http://80" && own+port != "https://443" { // which browsers leave out
			origin += ":" + port
		}
		origins = append(origins, origin)
	}
	return origins
}

// scheme is how a URL begins: with an s where there is a certificate.
func scheme(name, cert string) string {
	if cert != "" {
		name += "s"
	}
	return name + "://"
}

// APIAddr is where the API and the page are served, once started.
func (d *Dev) APIAddr() string { return d.api.Addr().String() }

// GatewayAddr is where sockets connect, once started.
func (d *Dev) GatewayAddr() string { return d.gateway.addr() }

// AdminAddr is where the admin server listens; "" when it does not.
func (d *Dev) AdminAddr() string { return d.process.admin.Addr() }

// Banner is what a person wants to know after the start.
func (d *Dev) Banner() string {
	redis := "embedded, forgets everything at the end (--redis for a real one)"
	if d.mini == nil {
		redis = d.process.redis
	}
	admin := "none"
	if addr := d.AdminAddr(); addr != "" {
		admin = "http://" + local(addr)
	}
	return fmt.Sprintf(`
  madang is open:  %s

  Pick a name, make a room, open its link (Share) in a second tab under another name, and talk.

  api      %s   (reference at /docs)
  gateway  %s/v1/ws
  admin    %s   (metrics, health, profiles)
  redis    %s
  secret   %s

  Ctrl-C stops it. It hands a token to whoever asks: not for production.

`, d.URL(), d.URL(), scheme("ws", d.config.TLSCert)+local(d.GatewayAddr()), admin, redis, d.SecretSource)
}

// local is an address as a browser on this machine would write it.
func local(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
