package redisstore_test

import (
	"crypto/tls"
	"strconv"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

func TestTLSIsUsedForCommandsAndLinks(t *testing.T) {
	cert, key, roots := testkit.CertFiles(t)
	port := strconv.Itoa(testkit.FreePort())
	testkit.Redis(t, "--tls-port", port, "--tls-auth-clients", "no",
		"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert)
	url := "rediss://127.0.0.1:" + port

	s := open(t, url, func(o *redisstore.Options) {
		o.TLS = func() (*tls.Config, error) { return &tls.Config{RootCAs: roots}, nil }
	})
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantDelivery(t, id, 5*time.Second)
	e.wantHealthy(t, 5*time.Second)

	if err := open(t, url).Ready(t.Context()); err == nil {
		t.Error("a certificate of an unknown authority was accepted")
	}
}
