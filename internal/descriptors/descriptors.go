// Package descriptors keeps some of a process's descriptors from its clients.
//
// Clients that wait in the backlog take each that becomes free, what a broken connection
// to Redis leaves too. It could not be made again then, nor a file opened, nor anybody
// ask for metrics, until clients go by themselves.
package descriptors

import (
	"math"

	"golang.org/x/sys/unix"
)

// own are those that no client gets, or an eighth of all if that is less. A gateway on a
// Cluster takes the most: a link for each partition.
const own = 512

// Line is the descriptor that no client is to have, nor any above it.
func Line() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	files := int(min(limit.Cur, math.MaxInt32))
	return files - min(files/8, own)
}

// Next is the one that a client would get now: the kernel gives the lowest that is free.
// It is an error when there is none. of is any open one.
func Next(of int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Close(fd)
}
