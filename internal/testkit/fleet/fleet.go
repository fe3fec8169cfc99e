// Package fleet starts whole deployments for tests, in process or as processes,
// and has users who talk to them: a scenario reads as what people do,
//
//	f := fleet.Start(t, redis.URL(), 1, 2)
//	alice, bob := f.User("alice", fleet.OnGateway(0)), f.User("bob", fleet.OnGateway(1))
//	alice.CreatesRoom("yard", "bob")
//	bob.Connects()
//	alice.Sends("yard", "hi")
//	bob.WantMessage("yard", "hi")
//
// Its clients are coder/websocket and net/http, none of our own code: what they
// understand, others will.
package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/app"
	"github.com/madang-chat/madang/internal/config"
)

// timeout is how long a scenario waits for something that must happen: far more
// than it takes on a busy machine, so that only what never happens fails.
const timeout = 30 * time.Second

// Fleet is a deployment: APIs and gateways on one Redis.
type Fleet struct {
	TB       testing.TB
	Redis    string
	Secret   string
	APIs     []*Node
	Gateways []*Node
}

// Node is one process of a fleet, or its equivalent in this one.
type Node struct {
	Kind            string // "api" or "gateway"
	Addr, AdminAddr string

	tb   testing.TB
	stop func() // gracefully; in process
	proc *process
}

// Option changes what nodes are told.
type Option func(*settings)

type settings struct {
	api     []func(*config.API)
	gateway []func(*config.Gateway)
	flags   map[string][]string // by kind; processes
}

// API changes the settings of APIs in process.
func API(change func(*config.API)) Option {
	return func(s *settings) { s.api = append(s.api, change) }
}

// Gateway changes the settings of gateways in process.
func Gateway(change func(*config.Gateway)) Option {
	return func(s *settings) { s.gateway = append(s.gateway, change) }
}

// Flags are given to processes of a kind.
func Flags(kind string, flags ...string) Option {
	return func(s *settings) { s.flags[kind] = append(s.flags[kind], flags...) }
}

func settingsOf(options []Option) *settings {
	s := &settings{flags: map[string][]string{}}
	for _, o := range options {
		o(s)
	}
	return s
}

// Start runs a fleet in this process, on free ports, and returns when all of it
// is ready. It stops with the test.
func Start(tb testing.TB, redisURL string, apis, gateways int, options ...Option) *Fleet {
	tb.Helper()
	f := &Fleet{TB: tb, Redis: redisURL, Secret: rand.Text() + rand.Text()}
	s := settingsOf(options)
	log := testLog(tb)
	for range gateways {
		c := config.Defaults[config.Gateway]()
		c.Redis.URL, c.JWTSecret = redisURL, f.Secret
		c.GatewayAddr, c.AdminAddr = "127.0.0.1:0", "127.0.0.1:0"
		c.DrainTimeout = 0 // tests that mean to drain say so
		for _, change := range s.gateway {
			change(&c)
		}
		g, err := app.NewGateway(c, log)
		if err != nil {
			tb.Fatal(err)
		}
		n := f.start("gateway", g)
		n.Addr, n.AdminAddr = g.Addr(), g.AdminAddr()
		f.Gateways = append(f.Gateways, n)
	}
	for range apis {
		c := config.Defaults[config.API]()
		c.Redis.URL, c.JWTSecret = redisURL, f.Secret
		c.APIAddr, c.AdminAddr = "127.0.0.1:0", "127.0.0.1:0"
		c.SendsPerSecond = 0
		for _, change := range s.api {
			change(&c)
		}
		a, err := app.NewAPI(c, log)
		if err != nil {
			tb.Fatal(err)
		}
		n := f.start("api", a)
		n.Addr, n.AdminAddr = a.Addr(), a.AdminAddr()
		f.APIs = append(f.APIs, n)
	}
	f.WaitReady()
	return f
}

// role is what all roles of internal/app can do.
type role interface {
	Start(context.Context) error
	Stop(context.Context) error
}

func (f *Fleet) start(kind string, r role) *Node {
	f.TB.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := r.Start(ctx); err != nil {
		f.TB.Fatalf("starting the %s: %v", kind, err)
	}
	n := &Node{Kind: kind, tb: f.TB}
	n.stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			f.TB.Errorf("stopping the %s: %v", kind, err)
		}
	}
	f.TB.Cleanup(n.stop)
	return n
}

// Stop stops a node as SIGTERM does. It is idempotent.
func (n *Node) Stop() {
	if n.proc != nil {
		n.proc.terminate()
		return
	}
	n.stop()
}

// WaitReady returns when every node says that it is ready.
func (f *Fleet) WaitReady() {
	f.TB.Helper()
	for _, n := range append(append([]*Node(nil), f.Gateways...), f.APIs...) {
		n.WaitReady()
	}
}

// WaitReady returns when the node says that it is ready.
func (n *Node) WaitReady() {
	n.tb.Helper()
	var last string
	Await(n.tb, n.Kind+" is ready", func() bool {
		var status int
		status, last = n.Admin("/readyz")
		return status == http.StatusOK
	}, func() string { return last })
}

// Admin gets a page of the node's admin server. Status 0: it does not answer.
func (n *Node) Admin(path string) (status int, body string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.AdminAddr+path, nil)
	if err != nil {
		n.tb.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// Metric is the value of one of the node's series, as it is written in /metrics:
// "madang_deliveries_total", or `madang_sends_total{outcome="accepted"}`. A
// series that is not there is 0.
func (n *Node) Metric(series string) (value float64) {
	n.tb.Helper()
	_, body := n.Admin("/metrics")
	for line := range strings.SplitSeq(body, "\n") {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				n.tb.Fatalf("%s: %v", line, err)
			}
		}
	}
	return value
}

// Await polls until a condition holds, and fails the test when it never does.
// detail, if given, tells what the last look found.
func Await(tb testing.TB, what string, holds func() bool, detail ...func() string) {
	tb.Helper()
	wait := time.Millisecond
	for deadline := time.Now().Add(timeout); !holds(); wait = min(2*wait, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			why := ""
			for _, d := range detail {
				why += ": " + d()
			}
			tb.Fatalf("waited %v in vain until %s%s", timeout, what, why)
		}
		time.Sleep(wait)
	}
}

// testLog writes to stderr when MADANG_TEST_LOG is set: a log through tb would
// panic when something is still said after the test.
func testLog(testing.TB) *slog.Logger {
	if os.Getenv("MADANG_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
