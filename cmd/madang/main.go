// Command madang is the chat backend: every process it needs, one binary.
//
// This package owns flags, signals and exit codes, and nothing else: what a
// subcommand does is in internal/app. Each subcommand has a type in a file here,
// alone or with those that it belongs to, and a line in the commands type.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/madang-chat/madang/internal/app"
	"github.com/madang-chat/madang/internal/config"
)

type commands struct {
	config.Base
	Version kong.VersionFlag `help:"Print the version and exit."`

	Dev     devCommand     `cmd:"" help:"Everything in one process: API, gateway, an embedded Redis and a page to chat on."`
	API     apiCommand     `cmd:"" name:"api" help:"The HTTP API that people send through."`
	Gateway gatewayCommand `cmd:"" help:"The gateway that people receive from."`
	Token   tokenCommand   `cmd:"" help:"Print a token for a user, for development and scripts."`
	Doctor  doctorCommand  `cmd:"" help:"Look at this host and a Redis: what is wrong, how to fix it, how many clients fit."`
	Plan    planCommand    `cmd:"" help:"Say how many machines, Redis shards, memory and network a load needs, and what runs out first."`

	Loadtest loadtestCommand `cmd:"" help:"Put load on a deployment and judge what it does with it."`
	Check    checkCommand    `cmd:"" help:"Check a live deployment with a ledger: every acknowledged message must reach every member, in order."`
}

const description = `A chat backend that a team runs itself: people send over HTTP and receive over a held socket.

Every setting can be given as a flag, as the environment variable named beside it, or in a YAML file (--config) under the flag's name; a flag goes before the environment, that before the file.`

// Exit codes.
const (
	exitFailed = 1 // the process could not start or stop as it should
	exitUsage  = 2 // a setting is wrong
)

// oneSignal is for how long a signal may come again and be the same: timeout(1) and
// other wrappers signal the program and then its group.
const oneSignal = 300 * time.Millisecond

func main() {
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		ends = append(ends, syscall.SIGHUP) // a terminal that is closed is no reason to drop everybody
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	// A second signal ends the process at once; what comes with the first is no second.
	context.AfterFunc(ctx, func() { time.AfterFunc(oneSignal, stop) })
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: what it returns is the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	exited := -1
	var cmds commands
	parser, err := kong.New(&cmds, append(config.Options(),
		kong.Name("madang"),
		kong.Description(description),
		kong.Vars{"version": app.Version()},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code; panic(helpPrinted{}) }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
	)...)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	kctx, err := parse(parser, args)
	if exited >= 0 {
		return exited
	}
	if err == nil {
		err = kctx.Run()
	} else {
		err = wrongSetting{err}
	}
	if wrong := (wrongSetting{}); errors.As(err, &wrong) {
		fmt.Fprintf(stderr, "madang: %v\nRun \"madang --help\", or \"madang COMMAND --help\", for all settings.\n", err)
		return exitUsage
	}
	if err != nil {
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return 0
		}
		fmt.Fprintf(stderr, "madang: %v\n", err)
		return exitFailed
	}
	return 0
}

// wrongSetting is an error that another start meets again, with the same settings.
type wrongSetting struct{ error }

func (w wrongSetting) Unwrap() error { return w.error }

// helpPrinted ends parsing after --help and --version, which kong prints from
// within.
type helpPrinted struct{}

func parse(parser *kong.Kong, args []string) (kctx *kong.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(helpPrinted); !ok {
				panic(r)
			}
		}
	}()
	return parser.Parse(args)
}
