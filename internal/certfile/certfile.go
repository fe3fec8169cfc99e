// Package certfile keeps a TLS certificate that lives in files which somebody
// else renews (an ACME client, cert-manager, a person). It looks at them when it is
// told to and serves what they hold to new handshakes; connections that are open
// keep what they have. Files that do not fit together, because a renewal is
// half written, leave the certificate as it was until they do.
package certfile

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Options say where the files are, in PEM.
type Options struct {
	Cert, Key string // the chain, leaf first, and the leaf's key
	// ClientCA are the authorities of which clients need a certificate; "": none
	// is asked for.
	ClientCA string
	Logger   *slog.Logger
}

// Source is a certificate in files.
type Source struct {
	opts    Options
	current atomic.Pointer[content]
	seen    [3]stamp
	failed  string
}

// content is what the files held when they fitted together.
type content struct {
	cert   tls.Certificate
	config *tls.Config
}

// stamp tells whether a file was replaced or changed.
type stamp struct {
	modified time.Time
	size     int64
}

// Load reads the files; what is wrong with them now is an error.
func Load(o Options) (*Source, error) {
	s := &Source{opts: o}
	s.seen = s.stamps()
	c, err := s.read()
	if err != nil {
		return nil, err
	}
	s.current.Store(c)
	return s, nil
}

// GetCertificate is for tls.Config: the certificate of the moment.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return &s.current.Load().cert, nil
}

// Config is for a server: each handshake gets what the files hold by then.
func (s *Source) Config() *tls.Config {
	c := s.base()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load().config, nil }
	return c
}

func (s *Source) base() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.GetCertificate,
		NextProtos:     []string{"http/1.1"}, // RFC 6455 is over HTTP/1.1
	}
}

// Look reads the files again if one has changed, or did not fit the last time: it costs
// three calls of stat. One goroutine at a time may call it.
func (s *Source) Look() {
	now := s.stamps()
	if now == s.seen && s.failed == "" {
		return
	}
	s.seen = now
	c, err := s.read()
	if err != nil {
		if s.failed != err.Error() {
			s.failed = err.Error()
			s.opts.Logger.Warn("the certificate's files changed and can't be used: the old one stays", "err", err)
		}
		return
	}
	s.failed = ""
	s.current.Store(c)
	s.opts.Logger.Info("new certificate", "file", s.opts.Cert, "expires", c.cert.Leaf.NotAfter.UTC())
}

func (s *Source) stamps() (all [3]stamp) {
	for i, name := range [...]string{s.opts.Cert, s.opts.Key, s.opts.ClientCA} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil { // through links: a mounted secret is one
			all[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return all
}

func (s *Source) read() (*content, error) {
	cert, err := tls.LoadX509KeyPair(s.opts.Cert, s.opts.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c := &content{cert: cert, config: s.base()}
	if s.opts.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(s.opts.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("client authorities: %w", err)
	}
	c.config.ClientCAs, c.config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client authorities: %w", errors.New("no certificate in "+s.opts.ClientCA))
	}
	return c, nil
}
