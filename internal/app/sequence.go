package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// part is something that is started and stopped.
type part struct {
	name  string
	start func(ctx context.Context) error
	stop  func(ctx context.Context) error
}

// sequence starts parts one after the other and stops them in reverse.
type sequence struct {
	log   *slog.Logger
	parts []part

	mu      sync.Mutex
	started int // guarded by mu: parts[:started] are to be stopped
	stopped bool
}

// start starts all parts. When one fails, or ctx ends, those before it are
// stopped again.
func (s *sequence) start(ctx context.Context) error {
	for _, p := range s.parts {
		if err := s.startOne(ctx, p); err != nil {
			stopCtx := context.WithoutCancel(ctx)
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), s.stop(stopCtx))
		}
	}
	return nil
}

func (s *sequence) startOne(ctx context.Context, p part) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.start(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.Join(errors.New("stopped while starting"), p.stop(context.WithoutCancel(ctx)))
	}
	s.started++
	return nil
}

// stop stops what was started, the last first; each part is asked, whatever the
// others answered. It is idempotent.
func (s *sequence) stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	parts := s.parts[:s.started]
	s.started = 0
	s.mu.Unlock()
	var errs []error
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		s.log.Debug("stopping", "part", p.name)
		if err := p.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stopping %s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}
