// Package rawconn makes TCP connections that read and write without telling Go's
// scheduler.
//
// What package net does around a system call is meant for calls that may block: the
// scheduler gives the processor away meanwhile, and its monitor wakes up to look at
// it, every 20 µs for a while. A socket that is watched by the runtime's poller never
// blocks. On a process that handles a thousand small requests a second, one by one,
// the monitor took a fifth of all processor time.
//
// A Conn is otherwise a *net.TCPConn: goroutines that wait are parked, deadlines and
// Close end the wait.
package rawconn

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// Conn is a TCP connection. It is safe for concurrent use as any net.Conn is.
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn
	in  half
	out half
}

// half is one direction: the call that is under way. try is a method value, made
// once, so that no call allocates.
type half struct {
	mu    sync.Mutex // held while a call waits, as package net's own lock is
	buf   []byte
	n     int
	errno syscall.Errno
	try   func(fd uintptr) (done bool)
}

// New takes over a connection. Where it is not TCP, or the system is not Linux, it
// is returned as it is.
func New(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok || !supported {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	conn := &Conn{TCPConn: tcp, raw: raw}
	conn.in.try = func(fd uintptr) bool { return conn.in.call(fd, sysRead) }
	conn.out.try = func(fd uintptr) bool { return conn.out.call(fd, sysWrite) }
	return conn
}

// call makes the system call, again when a signal interrupted it; false: it would
// have to wait.
func (h *half) call(fd uintptr, sys func(fd uintptr, p []byte) (int, syscall.Errno)) bool {
	for {
		switch h.n, h.errno = sys(fd, h.buf); h.errno {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			return true
		}
	}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	h := &c.in
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf = p
	err := c.raw.Read(h.try)
	h.buf = nil
	switch {
	case err != nil:
		return 0, err
	case h.errno != 0:
		return 0, c.failed("read", h.errno)
	case h.n == 0:
		return 0, io.EOF
	}
	return h.n, nil
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (done int, err error) {
	h := &c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for done < len(p) {
		h.buf = p[done:]
		err := c.raw.Write(h.try)
		h.buf = nil
		switch {
		case err != nil:
			return done, err
		case h.errno != 0:
			return done, c.failed("write", h.errno)
		}
		done += h.n
	}
	return done, nil
}

// SyscallConn implements syscall.Conn. Whoever reads through it is first spared the
// call when there is nothing to read: that is what a pool asks before it hands out a
// connection.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return peeking{c.raw}, nil }

type peeking struct{ syscall.RawConn }

func (p peeking) Read(f func(fd uintptr) bool) error {
	return p.RawConn.Read(func(fd uintptr) bool { return sysNothing(fd) || f(fd) })
}

// failed is the error that package net would return.
func (c *Conn) failed(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: errno}
}

// listener hands out Conns.
type listener struct{ net.Listener }

// Listener makes a listener's connections Conns.
func Listener(l net.Listener) net.Listener { return listener{l} }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return New(c), nil
}
