package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/metrics"
	"github.com/madang-chat/madang/internal/procs"
)

// API is the process that people send through.
type API struct {
	process *process
	api     *api.API
	seq     sequence
}

// NewAPI builds it; nothing is started or connected.
func NewAPI(c config.API, log *slog.Logger) (*API, error) {
	p, err := newProcess("api", c.Process, c.Redis, c.Auth, sendersTokens, limits(c.HTTP, c.Receipts), log)
	if err != nil {
		return nil, err
	}
	a, err := newAPI(p, c, nil)
	if err != nil {
		return nil, err
	}
	return &API{process: p, api: a, seq: sequence{log: log, parts: append(p.parts(), sweeperPart(p), apiPart(p, a, c), procsPart(procs.New()))}}, nil
}

func newAPI(p *process, c config.API, extra []api.Extra) (*api.API, error) {
	serverKeys, err := c.ServerKeys()
	if err != nil {
		return nil, err
	}
	var verifier auth.Verifier = p.tokens.verifier
	if len(serverKeys) > 0 {
		if verifier, err = auth.WithServerKeys(verifier, serverKeys); err != nil {
			return nil, fmt.Errorf("--server-key-file: %w", err)
		}
	}
	revoked := &auth.Revoked{}
	verifier = revoked.Unless(verifier)
	p.also = append(p.also, (&revocations{from: p.store, revoked: revoked, log: p.log}).asPart())
	tlsConfig, err := apiCertificate(p, c.HTTP)
	if err != nil {
		return nil, err
	}
	counts := metrics.NewAPI(p.registry, api.SendOutcomes, api.UploadOutcomes)
	files, err := newAttachments(p, c.Files, counts.Swept)
	if err != nil {
		return nil, err
	}
	return api.New(api.Options{
		TLS:        tlsConfig,
		Store:      p.store,
		Verifier:   verifier,
		Logger:     p.log,
		Observer:   counts,
		OnAnswered: traceRequests(p.tracer),
		Limits: api.Limits{
			BodyBytes: int(c.MaxBody), TextChars: c.MaxText, StoreTimeout: c.RedisTimeout,
			SendsPerSecond: c.SendsPerSecond, SendBurst: c.SendBurst, AnswerBytes: int64(c.MaxAnswers),
		},
		Attachments:    files,
		ShowFocus:      c.ShowFocus,
		Origins:        c.Origins.Origins,
		TrustedProxies: c.TrustedProxies,
		Extra:          extra,
	})
}

// apiPart serves requests. Stopping says so first: a balancer looks at readiness.
func apiPart(p *process, a *api.API, c config.API) part {
	p.ready.set("api", "not started")
	memory := &memoryGuard{
		root: os.DirFS("/"), shedPercent: float64(c.ShedPercent),
		shed: a.KeepNone, what: "connections are closed after each answer", log: p.log,
	}
	return part{
		name: "api",
		start: func(context.Context) error {
			if err := a.Start(c.APIAddr); err != nil {
				return fmt.Errorf("--api-addr: %w", err)
			}
			collectBefore(memory.root, c.ShedPercent)
			memory.start()
			p.ready.set("api", "")
			p.log.Info("the API serves", "addr", a.Addr().String())
			return nil
		},
		stop: func(ctx context.Context) error {
			p.ready.set("api", "stopping")
			p.letBalancersNotice(ctx)
			memory.stop()
			return a.Stop(ctx)
		},
	}
}

// procsPart has the process use as many processors as it needs. It comes last: what
// starts before counts them.
func procsPart(g *procs.Governor) part {
	return part{
		name:  "processors",
		start: func(context.Context) error { g.Start(); return nil },
		stop:  func(context.Context) error { g.Stop(); return nil },
	}
}

// sweeperPart finishes membership changes that a process died in the middle of.
func sweeperPart(p *process) part {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	return part{
		name: "sweeper",
		start: func(context.Context) error {
			go func() {
				defer close(done)
				p.store.RunSweeper(ctx)
			}()
			return nil
		},
		stop: func(context.Context) error {
			cancel()
			<-done // its calls have time-outs, and end with the context
			return nil
		},
	}
}

// Start returns when the API serves, or with ctx's error. While Redis does not
// answer it waits.
func (a *API) Start(ctx context.Context) error {
	collectByNeed(apiGarbage)
	return a.seq.start(ctx)
}

// Stop finishes the requests that were accepted, and undoes Start.
func (a *API) Stop(ctx context.Context) error { return a.seq.stop(ctx) }

// Addr is where the API listens, once it has started.
func (a *API) Addr() string { return a.api.Addr().String() }

// AdminAddr is where the admin server listens; "" when it does not.
func (a *API) AdminAddr() string { return a.process.admin.Addr() }
