package hub

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/chat"
)

// fleet keeps this gateway's lease and watches the others': it renews, looks,
// declares dead who gave no sign of life, and announces the dead one's users. It
// runs on a goroutine of its own, because a lease must not wait behind a storm.
type fleet struct {
	seats chat.Seats
	log   *slog.Logger
	addr  string
	conns func() int
	// reborn hears that the gateway has a new ID.
	reborn func(id string)
	opened time.Time

	mu       sync.Mutex // guards what follows
	id       string
	renewed  time.Time // zero: the present ID has no lease yet
	counter  uint64
	unheard  bool // the last renewal failed
	judge    chat.Fleet
	sealed   bool // a write was refused because this ID was declared dead
	leaving  bool // it drains
	told     bool // and the fleet knows
	sweeping map[string]bool
	st       FleetStats
}

// FleetStats is what a gateway knows of the fleet and has done for it.
type FleetStats struct {
	Alive       int    // gateways, this one included
	Conns       int    // their connections, summed
	Declared    uint64 // gateways declared dead from here
	Announced   uint64 // users of dead gateways announced from here
	Reborn      uint64 // times this one was declared dead
	RenewFailed uint64
}

const (
	// wakeEvery is how often the others' leases are looked at.
	wakeEvery = time.Second
	// renewEvery is how often a lease is renewed: thrice before it would be missed.
	renewEvery = 3 * time.Second
	// leaseDoubt is how long after the last renewal a gateway takes itself for
	// alive. It is less than others take to judge (chat.DeadMs): one that was
	// stopped for long writes nothing before it knows what became of it.
	leaseDoubt = 8 * time.Second
	// forgottenAfter is when a death may have been forgotten (redisstore keeps it
	// for an hour): a gateway that slept longer takes a new ID without being told.
	forgottenAfter = 30 * time.Minute
	// fleetTimeout bounds a renewal and a look; sweepTimeout a dead gateway's end.
	fleetTimeout, sweepTimeout = 2 * time.Second, 30 * time.Second
	// lastWordTimeout is how long a process that stops waits for Redis to hear of it.
	lastWordTimeout = 300 * time.Millisecond
)

func newFleet(h *Hub, o Options) *fleet {
	f := &fleet{
		seats: o.Seats, log: h.log, addr: o.Addr, conns: o.Conns, opened: time.Now(),
		id: newGatewayID(), sweeping: map[string]bool{},
	}
	f.reborn = func(id string) {
		h.mu.Lock()
		h.arrived()
		h.in.calls = append(h.in.calls, func(now int64) { h.alive.reborn(now, id) })
		h.mu.Unlock()
		h.poke()
	}
	if f.conns == nil {
		f.conns = func() int { return h.Stats().Conns }
	}
	return f
}

func newGatewayID() string { return strings.ToLower(rand.Text()[:16]) }

// run keeps the lease until ctx ends. It is not given back then: clients that
// come back elsewhere within the time of a death were never away.
func (f *fleet) run(ctx context.Context) {
	var sweeps sync.WaitGroup
	defer sweeps.Wait()
	ticker := time.NewTicker(wakeEvery)
	defer ticker.Stop()
	for {
		f.renew(ctx)
		f.look(ctx, &sweeps)
		select {
		case <-ctx.Done():
			f.lastWord(ctx)
			return
		case <-ticker.C:
		}
	}
}

// lastWord has the fleet told that this gateway leaves, if there was no time for it yet:
// one that nobody is connected to stops at once. Others would take it for one that has
// room for their clients, and then for dead.
func (f *fleet) lastWord(ctx context.Context) {
	f.mu.Lock()
	wanted := f.leaving && !f.told && !f.renewed.IsZero()
	f.mu.Unlock()
	if wanted {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWordTimeout)
		defer cancel()
		f.renew(ctx)
	}
}

func (f *fleet) renew(ctx context.Context) {
	f.mu.Lock()
	since := time.Since(f.renewed)
	if !f.sealed && f.leaving == f.told && since < renewEvery-wakeEvery/2 {
		f.mu.Unlock()
		return
	}
	if f.sealed || !f.renewed.IsZero() && since > forgottenAfter {
		f.mu.Unlock()
		f.takeNewID()
		f.mu.Lock()
	}
	f.counter++
	l := chat.Lease{Gateway: f.id, Counter: f.counter, Addr: f.addr, Leaving: f.leaving}
	f.mu.Unlock()
	l.Conns = f.conns()

	ctx, cancel := context.WithTimeout(ctx, fleetTimeout)
	defer cancel()
	began := time.Now()
	err := f.seats.RenewLease(ctx, l)
	switch {
	case err == nil:
		f.mu.Lock()
		f.renewed, f.told, f.unheard = began, l.Leaving, false
		f.mu.Unlock()
	case errors.Is(err, chat.ErrDeclaredDead):
		f.takeNewID()
	case ctx.Err() == nil || !errors.Is(ctx.Err(), context.Canceled):
		f.mu.Lock()
		f.st.RenewFailed++
		f.unheard = true
		f.mu.Unlock()
		f.log.Warn("lease not renewed", "err", err)
	}
}

// takeNewID ends this gateway's old self (DELIVERY P1). The next renewal is the
// new one's first.
func (f *fleet) takeNewID() {
	f.mu.Lock()
	f.id, f.renewed, f.sealed = newGatewayID(), time.Time{}, false
	f.st.Reborn++
	id := f.id
	f.mu.Unlock()
	f.reborn(id)
}

// mayWrite says whether this gateway may take itself for alive.
func (f *fleet) mayWrite() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.renewed.IsZero() && !f.sealed && time.Since(f.renewed) < leaseDoubt
}

// refused takes in that a write was refused because id was declared dead. The
// lease may not say so (its shard may have lost that): the ID is given up.
func (f *fleet) refused(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.id == id {
		f.sealed = true
	}
}

// look reads the leases and acts on those of the dead.
func (f *fleet) look(ctx context.Context, sweeps *sync.WaitGroup) {
	lookCtx, cancel := context.WithTimeout(ctx, fleetTimeout)
	leases, err := f.seats.Leases(lookCtx)
	cancel()

	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || f.unheard {
		// A Redis that answers and takes no writes (it is full) keeps everybody from
		// renewing: who can't renew judges nobody.
		f.judge.Missed()
		return
	}
	f.judge.Look(time.Since(f.opened).Milliseconds(), leases)
	for _, l := range f.judge.Dead() {
		if l.Gateway == f.id || f.sweeping[l.Gateway] {
			continue
		}
		f.sweeping[l.Gateway] = true
		// In a large fleet the first to come spares the others the work.
		turn := min(time.Duration(len(leases))*10*time.Millisecond, 1500*time.Millisecond)
		sweeps.Go(func() {
			if pause(ctx, mrand.N(turn)) && f.knows(l.Gateway) {
				f.end(ctx, l)
			}
			f.mu.Lock()
			delete(f.sweeping, l.Gateway)
			f.mu.Unlock()
		})
	}
}

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// knows says whether a gateway is still in the fleet.
func (f *fleet) knows(gateway string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.judge.Knows(gateway)
}

// end declares a gateway dead and announces its users. What fails is tried again
// at the next look: the dead one stays in the fleet until it is swept.
func (f *fleet) end(ctx context.Context, l chat.Lease) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	dead, err := f.seats.DeclareDead(ctx, l)
	if err != nil || !dead {
		return
	}
	began := time.Now()
	n, err := f.seats.SweepSeats(ctx, l.Gateway)
	f.mu.Lock()
	if !l.Leaving {
		f.st.Declared++
	}
	f.st.Announced += uint64(n)
	f.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			f.log.Warn("a dead gateway's users are not all announced yet", "gateway", l.Gateway, "err", err)
		}
		return
	}
	what := "a gateway died"
	if l.Leaving {
		what = "a gateway that drained is gone"
	}
	f.log.Info(what, "gateway", l.Gateway, "addr", l.Addr, "announced", n, "took", time.Since(began))
}

// peers are the gateways that live, this one included.
func (f *fleet) peers() []chat.Lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	alive := f.judge.Alive()
	slices.SortFunc(alive, func(a, b chat.Lease) int { return strings.Compare(a.Gateway, b.Gateway) })
	return alive
}

// leave has the fleet told that this gateway drains.
func (f *fleet) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = true
}

func (f *fleet) stats() FleetStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.st
	for _, l := range f.judge.Alive() {
		st.Alive++
		st.Conns += l.Conns
	}
	return st
}

// Leave tells the fleet that this gateway's clients are being asked to go: its
// count is no measure of anything any more.
func (h *Hub) Leave() {
	if h.alive != nil {
		h.alive.fleet.leave()
	}
}

// Peers are the gateways of the fleet that live, this one included, with their
// connections as of a few seconds ago, and this one's ID. Without Options.Seats
// there are none.
func (h *Hub) Peers() (self string, alive []chat.Lease) {
	if h.alive == nil {
		return "", nil
	}
	f := h.alive.fleet
	alive = f.peers()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id, alive
}
