package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/madang-chat/madang/internal/app"
	"github.com/madang-chat/madang/internal/config"
)

// role is a long-running process of internal/app.
type role interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

const (
	// stopLeast is what a stop may take, however short the drain time is: requests that
	// were accepted are answered.
	stopLeast = 2 * time.Second
	// stopMargin is the part of it that is left for what waits for nobody: connections
	// are closed, the log is written. Of a short drain time it is a tenth.
	stopMargin = 500 * time.Millisecond
)

// serve builds a role, runs it until ctx ends, and stops it within its time. started
// is called once it serves.
func serve[C any, R role](ctx context.Context, p config.Process, c C, build func(C, *slog.Logger) (R, error), started func(R)) error {
	log := app.NewLogger(p, os.Stderr)
	defer app.CloseLog(log)
	r, err := build(c, log)
	if err != nil {
		return wrongSetting{err} // nothing else was looked at yet
	}
	// The log's reader may go while clients are here. Go would end the process with
	// the next line; other subcommands are to end so, in a pipe.
	signal.Ignore(syscall.SIGPIPE)
	if err := r.Start(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // asked to stop while it waited for something
		}
		return err
	}
	started(r)
	<-ctx.Done()
	drain := max(p.DrainTimeout, stopLeast)
	log.Info("stopping", "within", p.DrainDelay+drain)
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.DrainDelay+drain-min(drain/10, stopMargin))
	defer cancel()
	if err := r.Stop(stopCtx); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

type apiCommand struct{ config.API }

// Run serves the API until a signal.
func (c *apiCommand) Run(ctx context.Context) error {
	return serve(ctx, c.Process, c.API, app.NewAPI, func(*app.API) {})
}

type gatewayCommand struct{ config.Gateway }

// Run serves sockets until a signal.
func (c *gatewayCommand) Run(ctx context.Context) error {
	return serve(ctx, c.Process, c.Gateway, app.NewGateway, func(*app.Gateway) {})
}

type devCommand struct{ config.Dev }

// Run serves everything until a signal.
func (c *devCommand) Run(ctx context.Context) error {
	return serve(ctx, c.Process, c.Dev, app.NewDev, func(d *app.Dev) { fmt.Fprint(os.Stdout, d.Banner()) })
}
