package reactor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket makes a TCP socket that never blocks and is not inherited.
func Socket(family int) (int, error) {
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

// BindLate leaves the choice of a port to connect(2), by the whole of the
// connection's addresses: bind alone would take one port of 28,000 for good.
func BindLate(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}

// Read is a read of a non-blocking socket, without telling Go's scheduler: it
// can't block.
func Read(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), 0
}
