package poll

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller is one epoll instance with its wake-up.
//
// A Poller that has nothing to report does not wait in epoll_wait, where it would
// keep a thread: the scheduler would have to take the processor from it and give
// it another one afterwards, each with a system call or two and a thread that is
// woken. It waits like any reader of a socket: an epoll instance is itself
// readable when it has something to report, so the runtime's own poller watches
// it, and the goroutine is parked. With a message every millisecond that takes a
// third off what a gateway spends.
type Poller struct {
	epfd int
	raw  []unix.EpollEvent
	out  []Event

	file   *os.File // epfd
	conn   syscall.RawConn
	look   func(fd uintptr) (done bool) // what conn is read with
	n      int                          // what look found
	errno  unix.Errno
	parked atomic.Bool // or about to be
	woken  atomic.Bool
}

// New makes a Poller that reports up to maxEvents at a time.
func New(maxEvents int) (*Poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	// os.NewFile has the runtime watch what does not block.
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("fcntl of epoll: %w", err)
	}
	p := &Poller{
		epfd: epfd,
		raw:  make([]unix.EpollEvent, maxEvents),
		out:  make([]Event, 0, maxEvents),
		file: os.NewFile(uintptr(epfd), "epoll"),
	}
	if p.conn, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails where the runtime does not watch it
	}
	if err != nil {
		p.file.Close()
		return nil, fmt.Errorf("waiting for epoll: %w", err)
	}
	p.look = func(uintptr) bool {
		p.n, p.errno = p.wait()
		return p.n != 0 || p.errno != 0
	}
	return p, nil
}

// Add watches fd; its events carry token.
func (p *Poller) Add(fd int, token uint64, in Interest) error {
	return p.ctl(unix.EPOLL_CTL_ADD, fd, token, in)
}

// Mod changes what fd is watched for.
func (p *Poller) Mod(fd int, token uint64, in Interest) error {
	return p.ctl(unix.EPOLL_CTL_MOD, fd, token, in)
}

// ctl makes the call without telling the scheduler: epoll_ctl never waits.
func (p *Poller) ctl(op, fd int, token uint64, in Interest) error {
	ev := unix.EpollEvent{Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	if in&Read != 0 {
		// EPOLLRDHUP is not asked for: a peer that has closed makes the socket
		// readable, and the read that follows has to see what came before.
		ev.Events |= unix.EPOLLIN
	}
	if in&Write != 0 {
		ev.Events |= unix.EPOLLOUT
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll_ctl: %w", errno)
	}
	return nil
}

// Wait returns what is ready, at most timeoutMs later (-1: however long it
// takes). What it returns is valid until the next call.
func (p *Poller) Wait(timeoutMs int) ([]Event, error) {
	// First without waiting: a busy loop nearly always finds something.
	p.n, p.errno = p.wait()
	if p.n == 0 && p.errno == 0 && timeoutMs != 0 {
		if err := p.park(timeoutMs); err != nil {
			return nil, err
		}
	}
	p.woken.Store(false) // what it announced was posted before, and is looked at after Wait
	switch p.errno {
	case 0:
	case unix.EINTR:
		return p.out[:0], nil
	default:
		return nil, fmt.Errorf("epoll_wait: %w", p.errno)
	}
	out := p.out[:0]
	for i := range p.raw[:p.n] {
		ev := &p.raw[i]
		out = append(out, Event{
			Token:    uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32,
			Readable: ev.Events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0,
			Writable: ev.Events&unix.EPOLLOUT != 0,
			Failed:   ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0,
		})
	}
	return out, nil
}

// park waits until there is something, or Wake, or the time is over.
func (p *Poller) park(timeoutMs int) error {
	var at time.Time
	if timeoutMs > 0 {
		at = time.Now().Add(time.Duration(timeoutMs) * time.Millisecond)
	}
	if err := p.file.SetReadDeadline(at); err != nil {
		return fmt.Errorf("waiting for epoll: %w", err)
	}
	// In this order, and in Wake the other way round: one of the two sees the other.
	p.parked.Store(true)
	defer p.parked.Store(false)
	if p.woken.Load() {
		return nil
	}
	if err := p.conn.Read(p.look); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("waiting for epoll: %w", err)
	}
	return nil
}

// wait asks without waiting, and without telling the scheduler.
func (p *Poller) wait() (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd), uintptr(unsafe.Pointer(&p.raw[0])), uintptr(len(p.raw)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Wake makes the current or next Wait return. It costs no system call: the wait
// of whoever is parked is over.
func (p *Poller) Wake() {
	if p.woken.Swap(true) || !p.parked.Load() {
		return
	}
	_ = p.file.SetReadDeadline(longAgo) // fails when it is closed
}

var longAgo = time.Unix(1, 0)

// Close frees it. No Wake may follow.
func (p *Poller) Close() error { return p.file.Close() }
