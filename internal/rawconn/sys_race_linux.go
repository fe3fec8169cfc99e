//go:build race

package rawconn

import "syscall"

const supported = true

// The race detector takes what goes through a socket for an order of events. It hears
// of it from package syscall.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno)  { return told(syscall.Read(int(fd), p)) }
func sysWrite(fd uintptr, p []byte) (int, syscall.Errno) { return told(syscall.Write(int(fd), p)) }

func told(n int, err error) (int, syscall.Errno) {
	errno, _ := err.(syscall.Errno)
	return n, errno
}

func sysNothing(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN
}
