package app

import (
	"context"
	"time"
)

// rounds are what a goroutine of its own does again and again.
type rounds struct {
	cancel context.CancelFunc // nil: not begun
	done   chan struct{}
}

// begin has do called each time that every is over, until stop.
func (r *rounds) begin(ctx context.Context, every time.Duration, do func(context.Context)) {
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.done = make(chan struct{})
	go func() { // ends with ctx; stop waits for it
		defer close(r.done)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				do(ctx)
			}
		}
	}()
}

// stop waits for a round that is under way: its calls have time-outs, and end with
// the context.
func (r *rounds) stop() {
	if r.cancel != nil {
		r.cancel()
		<-r.done
	}
}
