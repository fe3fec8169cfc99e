package loop

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// A ticket stands for a token that is not to appear in a URL. Redeeming one asks
// Redis, so it is done by goroutines of their own: a loop hands the ticket over,
// holds the request meanwhile, and answers it when the claims come back.

// ErrNoTicket is what Options.Redeem answers for a ticket that was never issued,
// was used before, or has expired.
var ErrNoTicket = errors.New("no such ticket")

// redeemWorkers is how many tickets are asked about at once. What they ask
// shares pipelines, so that this many wait for one round trip.
const redeemWorkers = 64

var (
	errBadTicket  = &refusal{status: 401, outcome: UpgradeUnauthorized, code: protocol.ErrUnauthorized, detail: "the ticket is not valid: it is taken once, within seconds", header: challenge}
	errNoTickets  = &refusal{status: 401, outcome: UpgradeUnauthorized, code: protocol.ErrUnauthorized, detail: "tickets are not taken here", header: challenge}
	errTicketLate = &refusal{status: 503, outcome: UpgradeUnavailable, code: protocol.ErrUnavailable, detail: "the ticket could not be checked in time"}
)

// redeemer is the desk that all loops hand tickets to.
type redeemer struct {
	redeem func(ctx context.Context, ticket string) (auth.Claims, error)
	jobs   chan redemption
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type redemption struct {
	loop      *loop
	slot, gen uint32
	ticket    string
}

func newRedeemer(o *Options) *redeemer {
	if o.Redeem == nil {
		return nil
	}
	// As many as there can be connections whose request is not answered.
	return &redeemer{redeem: o.Redeem, jobs: make(chan redemption, o.MaxUpgrades+o.Loops)}
}

func (r *redeemer) start(g *Group) {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	for range redeemWorkers {
		r.wg.Go(func() { // ends with stop, which waits for it
			for {
				select {
				case <-ctx.Done():
					return
				case job := <-r.jobs:
					deadline, done := context.WithTimeout(ctx, g.opts.HeadTimeout)
					claims, err := r.redeem(deadline, job.ticket)
					done()
					job.loop.call(func() { job.loop.redeemed(job.slot, job.gen, claims, err) })
				}
			}
		})
	}
}

func (r *redeemer) stop() {
	r.cancel()
	r.wg.Wait()
}

// askTicket hands a request's ticket over. The head stays, because the answer is
// made from it.
func (l *loop) askTicket(slot uint32, c *conn, head []byte, req *request) *refusal {
	if l.g.redeemer == nil {
		return errNoTickets
	}
	job := redemption{loop: l, slot: slot, gen: c.gen, ticket: string(req.ticket)}
	select {
	case l.g.redeemer.jobs <- job:
	default:
		return l.full()
	}
	l.expectBody(slot, c, head, req) // it may already be on its way
	c.phase = phaseTicket
	c.deadline = l.tick + l.headTicks
	return nil
}

// receivedEarly takes what a client sends before it has its answer.
func (l *loop) receivedEarly(slot uint32, c *conn, p []byte) {
	k := l.carries[slot]
	if len(k.head)+len(p) > l.g.opts.MaxHeadBytes+k.body {
		l.refuse(slot, c, errHeadTooLarge)
		return
	}
	if k.body > 0 && !l.holdBody(k, len(p)) {
		l.refuse(slot, c, spread(errBodies))
		return
	}
	k.head = l.pool.Append(k.head, p)
}

// redeemed: the answer about a ticket has come.
func (l *loop) redeemed(slot, gen uint32, claims auth.Claims, err error) {
	c := l.conns.get(slot, gen)
	if c == nil || c.phase != phaseTicket {
		return // it left, or its time was up
	}
	if err != nil {
		if errors.Is(err, ErrNoTicket) {
			l.refuse(slot, c, errBadTicket)
			return
		}
		l.refuse(slot, c, spread(errTicketLate))
		return
	}
	switch {
	case claims.Expires != 0 && claims.Expires <= l.unix:
		l.refuse(slot, c, errOldToken)
		return
	case !protocol.ValidUser(claims.User):
		l.refuse(slot, c, errBadTicket)
		return
	}
	k := l.carries[slot]
	head := k.head[:k.end]
	req, bad := parseRequest(head, l.g.opts.Session.Echo) // what it refers to is where the head is now
	if bad == nil {
		bad = l.admitted(slot, c, head, &req, claims)
	}
	switch {
	case bad != nil:
		l.refuse(slot, c, bad)
		return
	case c.phase == phaseBody: // some of it may have come
		l.receivedBody(slot, c, nil)
		return
	}
	rest := l.readBuf[:copy(l.readBuf, k.head[k.end:])]
	l.dropCarry(slot, c)
	if len(rest) > 0 && c.phase == phaseOpen {
		l.received(slot, c, rest)
	}
}

// spread is a refusal with a spread time to come back.
func spread(r *refusal) *refusal {
	with := *r
	with.header = "Retry-After: " + strconv.Itoa(1+rand.IntN(10)) + "\r\n"
	return &with
}
