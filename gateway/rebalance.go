package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/madang-chat/madang/gateway/balance"
	"github.com/madang-chat/madang/protocol"
)

// rebalancer asks clients to move when this gateway has far more of them than the
// fleet's mean. Those that leave the fleet don't count: their clients are on their
// way, and would make the others look crowded.
type rebalancer struct {
	gateway *Gateway
	conf    balance.Config
	log     *slog.Logger
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func newRebalancer(g *Gateway, conf balance.Config, log *slog.Logger) *rebalancer {
	return &rebalancer{gateway: g, conf: conf.WithDefaults(), log: cmp.Or(log, slog.New(slog.DiscardHandler))}
}

func (r *rebalancer) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	if r.conf.Percent > 0 {
		r.done.Go(func() { r.run(ctx) }) // ends with stop, which waits for it
	}
}

func (r *rebalancer) stop() {
	if r.cancel != nil {
		r.cancel()
		r.done.Wait()
	}
}

func (r *rebalancer) run(ctx context.Context) {
	ticker := time.NewTicker(r.conf.Every)
	defer ticker.Stop()
	var decide balance.Balance
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		self, alive := r.gateway.Peers()
		var others []int
		now, own := time.Since(began), r.gateway.grp.Open()
		for _, l := range alive {
			switch {
			case l.Gateway == self:
				// As old as the others': in a storm everybody's own count is ahead of
				// what it knows of them.
				own = min(own, l.Conns)
			case !l.Leaving:
				others = append(others, l.Conns)
			}
		}
		rested := decide.Resting(now)
		if n := decide.Next(now, own, others, r.conf); n > 0 {
			r.log.Info("asking clients to move", "clients", n, "connections", own, "others", others)
			r.gateway.grp.Shed(n, protocol.ByeRebalance)
		} else if !rested && decide.Resting(now) {
			r.log.Warn("clients that are asked to move come back: leaving them alone for a while", "connections", own)
		}
	}
}
