package loop

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls on non-blocking sockets are made without telling the scheduler:
// none of them waits, and at a million a second its bookkeeping shows.

type sysErr = unix.Errno

const (
	sysAgain = unix.EAGAIN
	sysIntr  = unix.EINTR

	sysTimedOut = unix.ETIMEDOUT
)

// sysAccept takes a connection off the backlog, non-blocking. The peer's address
// is not asked for: it would be allocated for every client and used for few.
// TCP_NODELAY is inherited from the listener.
func sysAccept(fd int) (int, sysErr) {
	conn, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(conn), errno
}

func sysRead(fd int, buf []byte) (int, sysErr) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	return int(n), errno
}

// iovecs is what one write gathers.
type iovecs struct {
	v [maxIov]unix.Iovec
}

func (io *iovecs) set(i int, buf []byte) {
	io.v[i].Base = unsafe.SliceData(buf)
	io.v[i].SetLen(len(buf))
}

func (io *iovecs) writeTo(fd, count int) (int, sysErr) {
	var n uintptr
	var errno sysErr
	if count == 1 { // the usual case is a little cheaper as a plain write
		n, _, errno = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(io.v[0].Base)), uintptr(io.v[0].Len))
	} else {
		n, _, errno = unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&io.v[0])), uintptr(count))
	}
	return int(n), errno
}

// setUserTimeout has the kernel end a connection whose peer does not acknowledge
// what it is sent.
func setUserTimeout(fd int, after time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
}

// sysAcked says how many bytes a connection's peer has acknowledged since it was opened,
// and how many were sent that it has not; not ok where the kernel does not tell.
func sysAcked(fd int) (acked, sent uint64, ok bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Bytes_acked == 0 { // before Linux 4.1
		return 0, 0, false
	}
	rest, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return info.Bytes_acked, uint64(max(rest, 0)), err == nil
}

// prepareConn has nothing to do: accept4 and inheritance did it.
func prepareConn(int) error { return nil }
