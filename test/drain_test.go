package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// TestWhatIsQueuedGoesBeforeTheDrain: a gateway is told to stop while a client has
// not read what it should get. First it stops being ready and serves as before,
// newcomers too; then the client gets all that was queued, a bye, and the close
// frame; then the process ends, in time.
func TestWhatIsQueuedGoesBeforeTheDrain(t *testing.T) {
	const messages = 200
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 1, 1,
		fleet.Flags("gateway", "--drain-timeout=10s", "--drain-delay=2s"))
	alice, bob := f.User("alice"), f.User("bob")
	alice.CreatesRoom("yard", "bob")
	gateway := f.Gateways[0]

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// A small window, so that most waits in the gateway and not on the way.
	dialer := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10) })
	}}
	dial := func(token string) (*websocket.Conn, error) {
		c, _, err := websocket.Dial(ctx, "ws://"+gateway.Addr+"/v1/ws", &websocket.DialOptions{
			Subprotocols: []string{"madang.v1"}, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
			HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}},
		})
		return c, err
	}
	conn, err := dial(bob.Token)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, hello, err := conn.Read(ctx); err != nil || !strings.Contains(string(hello), `"hello"`) {
		t.Fatalf("%s, %v", hello, err)
	}
	pad := strings.Repeat("x", 2000)
	for i := range messages {
		alice.Sends("yard", fmt.Sprint(pad, i))
	}
	fleet.Await(t, "some of it waits in the gateway", func() bool { return gateway.Metric("madang_out_queue_bytes") > 50_000 })

	began := time.Now()
	gateway.Signal(syscall.SIGTERM)
	fleet.Await(t, "it is not ready", func() bool { status, _ := gateway.Admin("/readyz"); return status == http.StatusServiceUnavailable })
	late, err := dial(alice.Token) // from a balancer that has not noticed yet
	if err != nil {
		t.Fatalf("a newcomer while the balancer notices: %v", err)
	}
	defer late.CloseNow()

	var last struct {
		Type, Reason string
		N            int
		RetryInMs    int `json:"retry_in_ms"`
	}
	next := 1
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			if code := websocket.CloseStatus(err); code != 4012 {
				t.Errorf("closed with %v", err)
			}
			break
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if last.Type == "bye" {
				t.Fatalf("after the bye: %s", line)
			}
			last.Type = ""
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				t.Fatal(err)
			}
			if last.Type == "message" {
				if last.N != next {
					t.Fatalf("message %d after %d", last.N, next-1)
				}
				next++
			}
		}
	}
	if next != messages+1 || last.Type != "bye" || last.Reason != "drain" || last.RetryInMs <= 0 {
		t.Errorf("%d of %d messages, and in the end %+v", next-1, messages, last)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("closed after %v, before the balancer could notice", took)
	}
	fleet.Await(t, "the process has ended", func() bool { return gateway.ExitCode() >= 0 })
	if code, took := gateway.ExitCode(), time.Since(began); code != 0 || took > 20*time.Second {
		t.Errorf("code %d after %v:\n%s", code, took, gateway.Log())
	}
}

// A gateway that drained is gone, and that is no death; nor when it had nobody to ask,
// and stopped at once.
func TestAnOrderlyStopIsNoDeath(t *testing.T) {
	for name, delay := range map[string]string{"after a while": "--drain-delay=2s", "at once": "--drain-delay=0s"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 1, 2, fleet.Flags("gateway", "--drain-timeout=5s", delay))
			stays, goes := f.Gateways[0], f.Gateways[1]
			fleet.Await(t, "they know each other", func() bool { return stays.Metric("madang_fleet_gateways") == 2 })
			if name != "at once" {
				f.User("bob", fleet.OnGateway(1)).Connects()
			}
			goes.Signal(syscall.SIGTERM)
			fleet.Await(t, "one is gone", func() bool { return stays.Metric("madang_fleet_gateways") == 1 })
			if died := stays.Metric("madang_fleet_deaths_total"); died != 0 {
				t.Errorf("%v deaths:\n%s", died, stays.Log())
			}
		})
	}
}

// Clients that were asked to leave, and do not go, hold nobody up.
func TestADrainEndsInTimeThoughClientsStay(t *testing.T) {
	t.Parallel() // it waits, mostly
	const drain = 4 * time.Second
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 1, 1, fleet.Flags("gateway", "--drain-timeout="+drain.String()))
	gateway := f.Gateways[0]
	conn, err := net.Dial("tcp", gateway.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: madang.v1\r\nAuthorization: Bearer %s\r\n\r\n", f.User("bob").Token)
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for hello, buf := "", make([]byte, 4096); !strings.Contains(hello, `"type":"hello"`); {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, hello)
		}
		hello += string(buf[:n])
	}
	began := time.Now()
	gateway.Signal(syscall.SIGTERM)
	fleet.Await(t, "the process has ended", func() bool { return gateway.ExitCode() >= 0 })
	if code, took := gateway.ExitCode(), time.Since(began); code != 0 || took > drain+time.Second {
		t.Errorf("code %d after %v:\n%s", code, took, gateway.Log())
	}
}
