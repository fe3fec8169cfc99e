package poll

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller is one epoll instance with its wake-up.
type Poller struct {
	epfd   int
	wakefd int // eventfd
	woken  atomic.Bool
	raw    []unix.EpollEvent
	out    []Event
}

// New makes a Poller that reports up to maxEvents at a time.
func New(maxEvents int) (*Poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	p := &Poller{
		epfd: epfd, wakefd: wakefd,
		raw: make([]unix.EpollEvent, maxEvents),
		out: make([]Event, 0, maxEvents),
	}
	if err := p.Add(wakefd, WakeToken, Read); err != nil {
		p.Close()
		return nil, err
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

// Del stops watching fd. Closing a descriptor that was never duplicated does
// the same.
func (p *Poller) Del(fd int) error {
	return p.ctl(unix.EPOLL_CTL_DEL, fd, 0, 0)
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
	// First without waiting: a busy loop nearly always finds something, and then
	// the scheduler need not hear of the call.
	n, errno := p.wait(0, true)
	if errno == 0 && n == 0 && timeoutMs != 0 {
		n, errno = p.wait(timeoutMs, false)
	}
	if errno != 0 {
		if errno == unix.EINTR {
			return p.out[:0], nil
		}
		return nil, fmt.Errorf("epoll_wait: %w", errno)
	}
	out := p.out[:0]
	for i := range p.raw[:n] {
		ev := &p.raw[i]
		token := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
		if token == WakeToken {
			p.consumeWake()
			continue
		}
		out = append(out, Event{
			Token:    token,
			Readable: ev.Events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0,
			Writable: ev.Events&unix.EPOLLOUT != 0,
			Failed:   ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0,
		})
	}
	return out, nil
}

func (p *Poller) wait(timeoutMs int, raw bool) (int, unix.Errno) {
	var n uintptr
	var errno unix.Errno
	buf := uintptr(unsafe.Pointer(&p.raw[0]))
	if raw {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd), buf, uintptr(len(p.raw)), uintptr(timeoutMs), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd), buf, uintptr(len(p.raw)), uintptr(timeoutMs), 0, 0)
	}
	return int(n), errno
}

// Wake makes the current or next Wait return. Calls between two Waits cost one
// system call in all.
func (p *Poller) Wake() {
	if p.woken.Swap(true) {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// It can only fail when the counter is full, and then it is awake.
	_, _ = unix.Write(p.wakefd, one[:])
}

func (p *Poller) consumeWake() {
	// The counter goes first. A Wake in between is skipped, and rightly: what it
	// announces was posted before, and the caller looks at its mailbox after
	// Wait. The other way round a Wake in between would be read away with its
	// flag left set, and every later one skipped.
	var buf [8]byte
	_, _ = unix.Read(p.wakefd, buf[:])
	p.woken.Store(false)
}

// Close frees both descriptors. No Wake may follow.
func (p *Poller) Close() error {
	err := unix.Close(p.epfd)
	if e := unix.Close(p.wakefd); err == nil {
		err = e
	}
	return err
}
