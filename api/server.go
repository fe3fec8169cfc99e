package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/rawconn"
)

// Time-outs of the HTTP server. They bound what a client that is slow, or stops,
// can hold.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second // head and body; a body of 64 KiB at 5 KB/s
	answerTimeout     = 12 * time.Second // for the answer, behind the times of the body and of the Store
	idleTimeout       = 75 * time.Second // above the usual 60 s of balancers, so that they close first
	maxHeaderBytes    = 16 << 10         // a token has 8 KiB at most
)

// server runs an http.Server: stopped → serving → stopped for good.
type server struct {
	http   http.Server
	tls    bool
	served chan struct{} // closed when the serving goroutine has ended

	keepMu   sync.Mutex
	keepNone bool // guarded by keepMu

	mu       sync.Mutex
	listener net.Listener // guarded by mu; nil until Start
	stopped  bool         // guarded by mu
	err      error        // guarded by mu: why serving ended, if not by Stop
}

func (s *server) init(h http.Handler, log *slog.Logger, tlsConfig *tls.Config, storeTimeout time.Duration) {
	s.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + storeTimeout + answerTimeout, // from the end of the head
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		TLSConfig:         tlsConfig,
		// What net/http logs here, clients can cause at will.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.tls = tlsConfig != nil
	s.served = make(chan struct{})
}

// Start listens on addr and serves in the background. It is called once.
func (a *API) Start(addr string) error {
	s := &a.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.listener != nil {
		return errors.New("api: started before")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err // it says what it was doing
	}
	l = &sparing{Listener: rawconn.Listener(l), raw: l, endIdle: s.endIdle, log: a.log, closed: make(chan struct{})}
	s.listener = l
	go func() { // ends when Stop closes the listener; Stop waits for it
		defer close(s.served)
		var err error
		if s.tls {
			err = s.http.ServeTLS(l, "", "")
		} else {
			err = s.http.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("api: serving ended", "err", err)
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
		}
	}()
	return nil
}

// Addr is the address that Start listens on; nil before.
func (a *API) Addr() net.Addr {
	s := &a.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// KeepNone closes connections that wait for another request, and from now on each with
// its answer; or keeps them again. It is for when memory is short: a connection has some
// 10 KB between requests, and anybody may open as many as there are descriptors.
func (a *API) KeepNone(on bool) {
	s := &a.server
	s.keepMu.Lock()
	defer s.keepMu.Unlock()
	s.keepNone = on
	s.http.SetKeepAlivesEnabled(!on)
}

// endIdle closes connections that wait for another request, once.
func (s *server) endIdle() {
	s.keepMu.Lock()
	defer s.keepMu.Unlock()
	s.http.SetKeepAlivesEnabled(false)
	s.http.SetKeepAlivesEnabled(!s.keepNone)
}

// Stop accepts nothing new, finishes the requests that were accepted, and
// returns when they are answered. What ctx does not leave time for is cut off,
// and Stop says so. Calling it again, or before Start, is harmless.
func (a *API) Stop(ctx context.Context) error {
	s := &a.server
	s.mu.Lock()
	started := s.listener != nil
	s.stopped = true
	s.mu.Unlock()
	if !started {
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("api: requests were cut off: %w", errors.Join(err, s.http.Close()))
	}
	<-s.served
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.err)
}
