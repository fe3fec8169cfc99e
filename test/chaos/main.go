// Command chaos runs a whole deployment as processes (Redis, APIs, gateways) under
// load, makes things fail by a seeded schedule, and judges what became of every
// acknowledged message:
//
//	go run ./test/chaos -for 10m -seed 7 -redis sentinel
//
// Without -redis it shares the time between standalone, Sentinel (one primary, two
// replicas) and Cluster (three primaries, three replicas). The same seed gives the
// same schedule. It exits with 1 when anything was lost, reordered, or did not
// come back in time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are one run's.
type options struct {
	redis    string
	during   time.Duration
	seed     uint64
	ack      int
	kinds    []fault
	flushAll bool

	apis, gateways        int
	users, rooms, members int // members of each room
	senders, rate         int // sends per second, of all together

	binary string
	dir    string
	out    io.Writer
	quiet  bool
}

// defaults are a deployment that two cores carry together with its clients.
func defaults() options {
	return options{
		apis: 2, gateways: 3, users: 40, rooms: 20, members: 6, senders: 32, rate: 600,
		out: os.Stdout, ack: -1,
	}
}

// saying keeps the lines of faults that strike together apart.
var saying sync.Mutex

func (o options) say(format string, args ...any) {
	if !o.quiet {
		saying.Lock()
		defer saying.Unlock()
		fmt.Fprintf(o.out, time.Now().Format("15:04:05.000 ")+o.redis+": "+format+"\n", args...)
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		os.Exit(1)
	}
}

func command(ctx context.Context) error {
	opt := defaults()
	redis, only := "", ""
	flag.StringVar(&redis, "redis", "standalone,sentinel,cluster", "arrangements of Redis, which share the time")
	flag.DurationVar(&opt.during, "for", 10*time.Minute, "time for faults, in all")
	flag.Uint64Var(&opt.seed, "seed", uint64(time.Now().UnixNano()), "of the schedule")
	flag.IntVar(&opt.ack, "min-replicas-ack", -1, "of the APIs; -1: 1 where there are replicas, else 0")
	flag.StringVar(&only, "only", "", "kinds of faults, a part of the name each, with commas")
	flag.IntVar(&opt.rate, "rate", opt.rate, "sends per second")
	flag.IntVar(&opt.users, "users", opt.users, "receivers")
	flag.IntVar(&opt.rooms, "rooms", opt.rooms, "rooms")
	flag.IntVar(&opt.members, "members", opt.members, "members of each room")
	flag.StringVar(&opt.binary, "binary", "", "madang to run; default: built from the present tree")
	flag.StringVar(&opt.dir, "dir", "", "directory of Redis's files, and of the logs when something went wrong; default: a temporary one, in memory where there is one")
	flag.Parse()
	arrangements := strings.Split(redis, ",")
	opt.during /= time.Duration(len(arrangements))
	if opt.members > opt.users {
		return fmt.Errorf("rooms of %d members need more than %d users", opt.members, opt.users)
	}

	keep := opt.dir != ""
	if !keep {
		dir, err := os.MkdirTemp(memoryDir(), "madang-chaos-")
		if err != nil {
			return err
		}
		opt.dir = dir
	}
	if opt.binary == "" {
		opt.binary = filepath.Join(opt.dir, "madang")
		if err := build(ctx, opt.binary); err != nil {
			return err
		}
	}
	fmt.Printf("chaos: seed %d\n", opt.seed)
	var results []*result
	bad := false
	for _, kind := range arrangements {
		opt := opt.on(kind, only)
		if len(opt.kinds) == 0 && !opt.flushAll {
			fmt.Printf("chaos: none of these faults happens to %s\n", kind)
			continue
		}
		res, err := run(ctx, opt)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		results = append(results, res)
		bad = bad || len(res.violations) > 0
	}
	acked, faults := 0, 0
	for _, r := range results {
		r.print(os.Stdout)
		acked += r.acked
		faults += r.faultCount()
	}
	fmt.Printf("\n%d acknowledged sends, %d faults, seed %d\n", acked, faults, opt.seed)
	if bad {
		return errors.New("there were violations; logs are in " + opt.dir)
	}
	if !keep {
		return os.RemoveAll(opt.dir)
	}
	return nil
}

// flushed names the scenario that follows a standalone server's faults: Redis is
// emptied while its links stay up.
const flushed = "FLUSHALL"

// on completes the options for an arrangement.
func (o options) on(redis, only string) options {
	o.redis = redis
	if o.ack < 0 {
		o.ack = 1
		if redis == standalone {
			o.ack = 0
		}
	}
	o.flushAll = redis == standalone && (only == "" || strings.Contains(only, flushed))
	for _, f := range faultsOn(redis, o.ack) {
		for _, part := range strings.Split(only, ",") {
			if strings.Contains(f.name, part) {
				o.kinds = append(o.kinds, f)
				break
			}
		}
	}
	return o
}

// memoryDir is a directory in memory, "" when there is none. Redis puts a write to
// its AOF off for up to 2 s while the disk is busy with an earlier fsync: what
// kill -9 takes then is the disk's doing, and not what is examined here.
func memoryDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func build(ctx context.Context, to string) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-tags", "nomsgpack", "-o", to, "github.com/madang-chat/madang/cmd/madang").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building madang: %w\n%s", err, out)
	}
	return nil
}
