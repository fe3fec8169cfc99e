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

// serve runs a role until ctx ends, and stops it within its time. started is
// called once it serves.
func serve(ctx context.Context, r role, c config.Process, log *slog.Logger, started func()) error {
	// The log's reader may go while clients are here. Go would end the process with
	// the next line; other subcommands are to end so, in a pipe.
	signal.Ignore(syscall.SIGPIPE)
	if err := r.Start(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // asked to stop while it waited for something
		}
		return err
	}
	started()
	<-ctx.Done()
	drain := max(c.DrainTimeout, stopLeast)
	log.Info("stopping", "within", c.DrainDelay+drain)
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainDelay+drain-min(drain/10, stopMargin))
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
	log := app.NewLogger(c.Process, os.Stderr)
	defer app.CloseLog(log)
	a, err := app.NewAPI(c.API, log)
	if err != nil {
		return wrongSetting{err} // nothing else was looked at yet
	}
	return serve(ctx, a, c.Process, log, func() {})
}

type gatewayCommand struct{ config.Gateway }

// Run serves sockets until a signal.
func (c *gatewayCommand) Run(ctx context.Context) error {
	log := app.NewLogger(c.Process, os.Stderr)
	defer app.CloseLog(log)
	g, err := app.NewGateway(c.Gateway, log)
	if err != nil {
		return wrongSetting{err} // nothing else was looked at yet
	}
	return serve(ctx, g, c.Process, log, func() {})
}

type devCommand struct{ config.Dev }

// Run serves everything until a signal.
func (c *devCommand) Run(ctx context.Context) error {
	log := app.NewLogger(c.Process, os.Stderr)
	defer app.CloseLog(log)
	d, err := app.NewDev(c.Dev, log)
	if err != nil {
		return wrongSetting{err} // nothing else was looked at yet
	}
	return serve(ctx, d, c.Process, log, func() { fmt.Fprint(os.Stdout, d.Banner()) })
}
