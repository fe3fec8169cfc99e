package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/madang-chat/madang/internal/certfile"
	"github.com/madang-chat/madang/internal/config"
)

// The certificates of both roles. They are read before anything starts, so that
// what is wrong with them ends the start, and are looked at again as long as the
// process runs.

// apiCertificate is nil without TLS.
func apiCertificate(p *process, c config.HTTP) (*tls.Config, error) {
	if c.APITLSCert == "" {
		return nil, nil
	}
	cert, err := certfile.Load(certfile.Options{Cert: c.APITLSCert, Key: c.APITLSKey, Logger: p.log})
	if err != nil {
		return nil, fmt.Errorf("--api-tls-cert: %w", err)
	}
	p.also = append(p.also, certificatePart("API's certificate", cert))
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.GetCertificate}, nil
}

// gatewayCertificate is nil without TLS.
func gatewayCertificate(p *process, c config.Sockets) (*tls.Config, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	cert, err := certfile.Load(certfile.Options{Cert: c.TLSCert, Key: c.TLSKey, ClientCA: c.TLSClientCA, Logger: p.log})
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	p.also = append(p.also, certificatePart("gateway's certificate", cert))
	return cert.Config(), nil
}

// certificatesEvery is how often a certificate's files are looked at.
const certificatesEvery = 5 * time.Second

func certificatePart(name string, cert *certfile.Source) part {
	var r rounds
	return part{
		name,
		func(ctx context.Context) error {
			r.begin(ctx, certificatesEvery, func(context.Context) { cert.Look() })
			return nil
		},
		func(context.Context) error { r.stop(); return nil },
	}
}
