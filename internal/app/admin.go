package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminReadTimeout bounds a request to the admin server. There is none for
// writing: a CPU profile takes as long as it was asked to.
const adminReadTimeout = 5 * time.Second

// admin serves what operators look at: metrics, health, readiness, profiles. It
// starts first and stops last, so that it can tell how things are going.
type admin struct {
	addr     string // "": none
	server   http.Server
	listener net.Listener
	served   chan struct{} // closed when serving has ended
}

// newAdmin builds the server. notReady returns why the process is not ready.
func newAdmin(addr string, log *slog.Logger, registry *prometheus.Registry, notReady func(context.Context) []string) *admin {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:     promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		reasons := notReady(r.Context())
		if len(reasons) == 0 {
			fmt.Fprintln(w, "ready")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "not ready\n%s\n", strings.Join(reasons, "\n"))
	})
	mux.HandleFunc("GET /loglevel", logLevel(log))
	mux.HandleFunc("PUT /loglevel", logLevel(log))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "/metrics\n/healthz\n/readyz\n/loglevel\n/debug/pprof/")
	})
	return &admin{
		addr:   addr,
		server: http.Server{Handler: mux, ReadTimeout: adminReadTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)},
	}
}

func (a *admin) start(context.Context) error {
	if a.addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", a.addr)
	if err != nil {
		return fmt.Errorf("--admin-addr: %w", err)
	}
	a.listener = l
	a.served = make(chan struct{})
	go func() { // ends when stop closes the server, which waits for it
		defer close(a.served)
		_ = a.server.Serve(l) // always ErrServerClosed, or the listener is gone
	}()
	return nil
}

// stop does not wait for profiles and scrapes under way for longer than a moment:
// nothing depends on them.
func (a *admin) stop(ctx context.Context) error {
	if a.listener == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = a.server.Close()
	}
	<-a.served
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Addr is where the server listens; "" when it does not.
func (a *admin) Addr() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}
