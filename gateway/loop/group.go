// Package loop holds a gateway's sockets: event loops on a poll.Poller that
// accept, upgrade, read, write, keep time and close. It implements edge.Loops and
// reports to an edge.Hub.
//
// A connection belongs to one loop, and only that loop's goroutine touches it: no
// lock is taken on its path. Others post to the loop's mailbox. A loop never
// waits for anything but its poller. A connection is a plain struct of a hundred
// bytes in the loop's table, known by slot and generation and never by its
// descriptor, which the kernel reuses; while it is idle it has no goroutine, no
// timer and no buffer.
//
// The package knows nothing of rooms' contents, of Redis or of users' rights: it
// delivers frames to whom the hub attached.
package loop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/protocol"
)

// maxLoops is how many the hub can tell apart: it keeps a bit of each for every room.
const maxLoops = 64

// Group is a gateway's event loops.
type Group struct {
	opts       Options
	log        *slog.Logger
	addr       netip.AddrPort
	loops      []*loop
	users      *userTable
	addrs      *userTable // counts connections by address, or only remembers addresses for the log
	redeemer   *redeemer  // nil: tickets are not taken
	handshakes handshakes
	wg         sync.WaitGroup

	open     atomic.Int64 // upgraded connections
	refusing atomic.Bool  // new connections are answered 503

	mu      sync.Mutex
	started bool
	stopped bool
	// exited is closed when every loop has ended.
	exited chan struct{}
}

// New listens on opts.Addr, so that mistakes and taken ports show, but starts
// nothing: connections wait in the backlog until Start.
func New(opts Options) (*Group, error) {
	if err := opts.normalize(); err != nil {
		return nil, fmt.Errorf("loop options: %w", err)
	}
	g := &Group{
		opts: opts, log: opts.Logger, users: newUserTable(opts.MaxPerUser), addrs: namedTable(cmp.Or(opts.MaxPerAddr, math.MaxInt32)),
		redeemer: newRedeemer(&opts), exited: make(chan struct{}),
	}
	g.handshakes.init(&opts)
	if err := vacant(opts.Addr); err != nil {
		return nil, err
	}
	addr := opts.Addr
	for i := range opts.Loops {
		l, err := newLoop(g, i, addr)
		if err != nil {
			for _, made := range g.loops {
				made.release()
			}
			return nil, err
		}
		g.loops = append(g.loops, l)
		if i == 0 {
			g.addr = l.addr
			addr = l.addr.String() // all loops share the port the first one got
		}
	}
	return g, nil
}

// Start runs the loops. It must be called once.
func (g *Group) Start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started || g.stopped {
		panic("BUG: loop.Group started twice, or after Stop")
	}
	g.started = true
	if g.redeemer != nil {
		g.redeemer.start(g)
	}
	for _, l := range g.loops {
		g.wg.Go(l.run)
	}
	go func() {
		g.wg.Wait()
		g.handshakes.wait()
		if g.redeemer != nil {
			g.redeemer.stop()
		}
		close(g.exited)
	}()
}

// Addr is where the group listens.
func (g *Group) Addr() netip.AddrPort { return g.addr }

// Count implements edge.Loops.
func (g *Group) Count() int { return len(g.loops) }

// Post implements edge.Loops.
func (g *Group) Post(loop int, batch []edge.Cmd) { g.loops[loop].post(batch) }

// Open is the number of upgraded connections.
func (g *Group) Open() int { return int(g.open.Load()) }

// Refuse makes the group answer new connections with 503 and Retry-After, or
// stops doing so: memory is short, or the gateway is not ready.
func (g *Group) Refuse(on bool) { g.refusing.Store(on) }

// Shed asks up to n connections, taken from all loops, to move elsewhere: `bye`
// with the reason, then close 4012.
func (g *Group) Shed(n int, reason protocol.ByeReason) {
	open := make([]int, len(g.loops))
	total := 0
	for i, l := range g.loops {
		open[i] = l.openNow()
		total += open[i]
	}
	n = min(n, total)
	for i, l := range g.loops {
		if total == 0 {
			return
		}
		// In proportion to what it has of what is left; the last one gets the rest.
		mine := (n*open[i] + total/2) / total
		n, total = n-mine, total-open[i]
		if mine > 0 {
			l.call(func() { l.shed(mine, reason) })
		}
	}
}

// Drain stops accepting and asks every connection to move, spread evenly over
// the given time: `bye` with reason drain and a jittered delay, what is queued,
// then close 4012. It returns when all are gone, or with ctx's error.
func (g *Group) Drain(ctx context.Context, over time.Duration) error {
	g.mu.Lock()
	started := g.started
	g.mu.Unlock()
	if !started {
		return nil
	}
	for _, l := range g.loops {
		l.call(func() { l.startDrain(over) })
	}
	for _, l := range g.loops {
		select {
		case <-l.drained:
		case <-l.ended:
		case <-ctx.Done():
			if open := g.Open(); open > 0 {
				return fmt.Errorf("draining, %d connections left: %w", open, ctx.Err())
			}
			return nil // everybody was told; some did not answer the close
		}
	}
	return nil
}

// Stop closes everything: open connections get close 1001 and the closing
// handshake's time, or less when ctx ends. It is idempotent; after it no more
// events are posted.
func (g *Group) Stop(ctx context.Context) error {
	g.mu.Lock()
	first, started := !g.stopped, g.started
	g.stopped = true
	g.mu.Unlock()
	if !started {
		if first {
			for _, l := range g.loops {
				l.release()
			}
			close(g.exited)
		}
		return nil
	}
	for _, l := range g.loops {
		l.call(l.startStop)
	}
	select {
	case <-g.exited:
		return nil
	case <-ctx.Done():
	}
	for _, l := range g.loops {
		l.call(func() { l.killed = true })
	}
	<-g.exited
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil // bounded is what was asked for
	}
	return ctx.Err()
}
