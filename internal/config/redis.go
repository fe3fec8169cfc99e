package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Where is Redis's URL, from the file when one is given.
func (c Redis) Where() (string, error) {
	if c.RedisFile == "" {
		return c.URL, nil
	}
	b, err := os.ReadFile(c.RedisFile)
	if err != nil {
		return "", fmt.Errorf("--redis-file: %w", err)
	}
	url := string(bytes.TrimSpace(b))
	if err := checkRedisURL(url); err != nil {
		return "", fmt.Errorf("--redis-file: %s: %w", c.RedisFile, err)
	}
	return url, nil
}

// TLS is how Redis is spoken to when the URL says so, as the files say now; nil when
// none is given, which means the system's authorities and no certificate of ours.
func (c Redis) TLS() (*tls.Config, error) {
	if c.RedisCA == "" && c.RedisCert == "" && c.RedisKey == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.RedisCA != "" {
		pem, err := os.ReadFile(c.RedisCA)
		if err != nil {
			return nil, fmt.Errorf("--redis-ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--redis-ca: %s holds no certificate in PEM form", c.RedisCA)
		}
	}
	if c.RedisCert != "" && c.RedisKey != "" {
		cert, err := tls.LoadX509KeyPair(c.RedisCert, c.RedisKey)
		if err != nil {
			return nil, fmt.Errorf("--redis-cert: %w", err)
		}
		// Whatever authorities Redis says it takes.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return t, nil
}
