// Package server is an echo of WebSocket messages over the gateway's own loops,
// sessions and frames, with nothing behind them: what a conformance suite talks
// to.
package server

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/internal/auth"
)

// maxMessageBytes lets messages of 16 MiB through.
const maxMessageBytes = 17 << 20

// quiet is for times that must not pass during a test: a suite of slow clients
// sends a message for a minute, and takes a ping of ours for a mistake.
const quiet = 24 * time.Hour

// New listens on addr; Start begins to echo. With compress, clients that offer
// permessage-deflate get it, and every echo compressed.
func New(addr string, compress bool) (*loop.Group, error) {
	g, err := loop.New(loop.Options{
		Addr: addr, Hub: nobody{}, Verifier: anybody{}, Origins: []string{"*"},
		Session: session.Limits{
			Echo: true, MaxMessageBytes: maxMessageBytes, MaxResumeBytes: maxMessageBytes,
		},
		Compress:   compress,
		MaxPerUser: 1 << 20, QueueBytes: 8 * maxMessageBytes,
		Heartbeat: quiet, MessageTimeout: quiet, SlowTimeout: quiet,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, fmt.Errorf("echo: %w", err)
	}
	return g, nil
}

// nobody hears what happens on the connections.
type nobody struct{}

func (nobody) Post([]edge.Event) {}

// anybody may connect.
type anybody struct{}

func (anybody) Verify(string) (auth.Claims, error) { return auth.Claims{User: "anybody"}, nil }
