package test

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// opens connects and returns what the first frame says.
func opens(t *testing.T, url string, client *http.Client, header http.Header) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client, HTTPHeader: header, Subprotocols: []string{"madang.v1"}})
	if err != nil {
		if resp != nil {
			return resp.Status
		}
		t.Fatal(err)
	}
	defer conn.CloseNow()
	_, hello, err := conn.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(hello)
}

func TestTLSOnBothSides(t *testing.T) {
	cert, key, trust := testkit.CertFiles(t)
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 1,
		fleet.API(func(c *config.API) { c.APITLSCert, c.APITLSKey = cert, key }),
		fleet.Gateway(func(c *config.Gateway) { c.TLSCert, c.TLSKey = cert, key }))
	alice := f.User("alice")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}}}
	bearer := http.Header{"Authorization": {"Bearer " + alice.Token}}
	if got := opens(t, "wss://"+f.Gateways[0].Addr+"/v1/ws", client, bearer); !strings.Contains(got, `"type":"hello"`) {
		t.Errorf("got %s", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.APIs[0].Addr+"/v1/rooms", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = bearer
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.TLS == nil {
		t.Errorf("the API answers %s", resp.Status)
	}
}
