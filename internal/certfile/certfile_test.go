package certfile_test

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/certfile"
	"github.com/madang-chat/madang/internal/testkit"
)

// files are a certificate on disk.
type files struct {
	t         *testing.T
	cert, key string
	age       time.Time
}

func newFiles(t *testing.T) *files {
	dir := t.TempDir()
	return &files{t: t, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), age: time.Now()}
}

// write replaces a file as renewals do.
func (f *files) write(name string, content []byte) {
	f.t.Helper()
	f.age = f.age.Add(time.Second) // a file system's times may be coarse
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chtimes(name+".new", f.age, f.age); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		f.t.Fatal(err)
	}
}

// served is the name of the certificate that a client sees.
func served(t *testing.T, s *certfile.Source) string {
	t.Helper()
	a, b := net.Pipe()
	go func() { _ = tls.Server(a, s.Config()).Handshake() }() // ends with the pipe
	defer a.Close()
	c := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestRenewalIsServedWithoutARestart(t *testing.T) {
	f := newFiles(t)
	cert, key := testkit.SelfSigned(t, "first")
	f.write(f.cert, cert)
	f.write(f.key, key)
	var log testkit.Log
	s, err := certfile.Load(certfile.Options{Cert: f.cert, Key: f.key, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if got := served(t, s); got != "first" {
		t.Fatalf("served %q", got)
	}
	cert, key = testkit.SelfSigned(t, "second")
	f.write(f.cert, cert) // the new certificate with the old key
	s.Look()
	if got := served(t, s); got != "first" || !strings.Contains(log.String(), "the old one stays") {
		t.Fatalf("served %q while half of the renewal was written", got)
	}
	f.write(f.key, key)
	s.Look()
	if got := served(t, s); got != "second" {
		t.Fatalf("served %q", got)
	}

	// A file that vanishes changes nothing either.
	if err := os.Remove(f.key); err != nil {
		t.Fatal(err)
	}
	s.Look()
	if got := served(t, s); got != "second" || !strings.Contains(log.String(), "no such file") {
		t.Fatalf("served %q", got)
	}
}

func TestFilesThatAreWrongAtTheStart(t *testing.T) {
	f := newFiles(t)
	cert, key := testkit.SelfSigned(t, "a")
	_, otherKey := testkit.SelfSigned(t, "b")
	f.write(f.cert, cert)
	if _, err := certfile.Load(certfile.Options{Cert: f.cert, Key: f.key}); err == nil {
		t.Error("without a key")
	}
	f.write(f.key, otherKey)
	if _, err := certfile.Load(certfile.Options{Cert: f.cert, Key: f.key}); err == nil {
		t.Error("with another's key")
	}
	f.write(f.key, key)
	if _, err := certfile.Load(certfile.Options{Cert: f.cert, Key: f.key, ClientCA: f.key}); err == nil {
		t.Error("with authorities that are none")
	}
	s, err := certfile.Load(certfile.Options{Cert: f.cert, Key: f.key, ClientCA: f.cert})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Config().GetConfigForClient(nil)
	if err != nil || c.ClientAuth != tls.RequireAndVerifyClientCert || c.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v, %v", c, err)
	}
}
