//go:build !linux

package loop

import (
	"time"

	"golang.org/x/sys/unix"
)

// Other systems are for development: they get the portable calls.

type sysErr = unix.Errno

const (
	sysAgain = unix.EAGAIN
	sysIntr  = unix.EINTR

	sysTimedOut = unix.ETIMEDOUT
)

func errnoOf(err error) sysErr {
	if err == nil {
		return 0
	}
	if errno, ok := err.(unix.Errno); ok {
		return errno
	}
	return unix.EIO
}

func sysAccept(fd int) (int, sysErr) {
	conn, _, err := unix.Accept(fd)
	return conn, errnoOf(err)
}

func sysRead(fd int, buf []byte) (int, sysErr) {
	n, err := unix.Read(fd, buf)
	return max(n, 0), errnoOf(err)
}

// iovecs gathers by copying.
type iovecs struct {
	v   [maxIov][]byte
	buf []byte
}

func (io *iovecs) set(i int, buf []byte) { io.v[i] = buf }

func (io *iovecs) writeTo(fd, count int) (int, sysErr) {
	out := io.v[0]
	if count > 1 {
		io.buf = io.buf[:0]
		for _, part := range io.v[:count] {
			io.buf = append(io.buf, part...)
		}
		out = io.buf
	}
	n, err := unix.Write(fd, out)
	return max(n, 0), errnoOf(err)
}

// setUserTimeout is for Linux: here a peer that is gone is found when the kernel
// gives up by itself.
func setUserTimeout(int, time.Duration) {}

// sysAcked is for Linux: here who takes events holds no sender back.
func sysAcked(int) (acked, sent uint64, ok bool) { return 0, 0, false }

// prepareConn does what accept4 and inheritance do on Linux.
func prepareConn(fd int) error {
	unix.CloseOnExec(fd)
	// Of a client that is gone already BSDs and macOS set no option. It is no reason to
	// leave the others waiting: reading finds out.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return unix.SetNonblock(fd, true)
}
