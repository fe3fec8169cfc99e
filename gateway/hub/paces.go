package hub

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/madang-chat/madang/gateway/pace"
)

// paces is the hub's part in holding senders back: it feeds what loops report to
// gateway/pace and hands its decisions to Redis, one at a time per room.
type paces struct {
	h     *Hub
	rooms map[string]*pacedRoom
	next  int64 // when the present period ends
}

type pacedRoom struct {
	pace.Room
	told    float64     // the rate that was handed on last
	telling atomic.Bool // a decision is on its way
}

func (p *paces) report(room string, rep pace.Report) {
	if room == "" {
		return // dropped meanwhile
	}
	r := p.rooms[room]
	if r == nil {
		if !rep.Notable() {
			return
		}
		r = &pacedRoom{}
		p.rooms[room] = r
	}
	r.Report(rep)
}

// advance ends a period when it is time.
func (p *paces) advance(now int64) {
	if len(p.rooms) == 0 || now < p.next {
		return
	}
	p.next = now + pace.EveryMs
	for name, r := range p.rooms {
		rate, done := r.Advance(now)
		if rate != 0 || r.told != 0 {
			if !r.telling.CompareAndSwap(false, true) {
				continue // the next period's decision is as good
			}
			r.told = rate
			p.h.readers.Go(func() {
				defer r.telling.Store(false)
				p.tell(name, rate)
			})
		}
		if done {
			delete(p.rooms, name)
		}
	}
}

func (p *paces) tell(room string, rate float64) {
	ctx, cancel := context.WithTimeout(p.h.ctx, p.h.opts.ReadTimeout)
	defer cancel()
	err := p.h.opts.Pacer.Pace(ctx, room, rate, pace.LeaseMs*time.Millisecond)
	if err != nil && ctx.Err() == nil {
		p.h.log.Warn("pace not set", "room", room, "err", err)
	}
}
