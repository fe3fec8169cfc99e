package api

import (
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/madang-chat/madang/internal/descriptors"
)

const (
	// sparingEvery is how often a descriptor is looked for when clients have theirs.
	sparingEvery = 100 * time.Millisecond
	// sparingTellEvery is how often the log says so.
	sparingTellEvery = 10 * time.Second
)

// sparing is a listener that leaves the process descriptors of its own: without one,
// Redis can't be reached again once it was away. When only those are left it ends the
// connections that nobody uses, and who comes waits until there are others.
type sparing struct {
	net.Listener
	raw     net.Listener // for its descriptor
	endIdle func()
	log     *slog.Logger
	told    time.Time // by Accept alone

	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *sparing) Accept() (net.Conn, error) {
	for !l.hasRoom() {
		l.endIdle()
		if now := time.Now(); now.Sub(l.told) >= sparingTellEvery {
			l.told = now
			l.log.Warn("cannot accept clients: those that wait for another request are closed (too many open files: raise the limit, LimitNOFILE or ulimit -n)")
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(sparingEvery):
		}
	}
	return l.Listener.Accept()
}

// Close implements net.Listener.
func (l *sparing) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *sparing) hasRoom() bool {
	listener, ok := l.raw.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		return true
	}
	room := true
	_ = raw.Control(func(fd uintptr) { // fails when it was closed, which Accept says
		next, err := descriptors.Next(int(fd))
		room = err == nil && next < descriptors.Line()
	})
	return room
}
