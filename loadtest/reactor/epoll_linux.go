package reactor

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What to watch a descriptor for.
const (
	In   = unix.EPOLLIN
	Out  = unix.EPOLLOUT
	Hang = unix.EPOLLHUP | unix.EPOLLERR // always watched
)

// Reactor is an epoll set with a mailbox. All methods but Post belong to the
// goroutine that calls Wait.
type Reactor struct {
	epfd, wakefd int
	events       []unix.EpollEvent
	coarse       bool // the kernel has no epoll_pwait2: time-outs are whole milliseconds
	woke         time.Time
	working      time.Duration // since Share was asked for
	asked        time.Time
	cpu          time.Duration // of the thread, when Share was asked for

	mu      sync.Mutex // guards what follows
	mailbox []func()
	closed  bool // the descriptors may be somebody else's by now
}

// wakeIndex is what the wake-up's event carries in place of an index.
const wakeIndex = -1

// eventsPerWait bounds how much is handled between two looks at the clock.
const eventsPerWait = 512

// New makes a reactor.
func New() (*Reactor, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	r := &Reactor{epfd: epfd, wakefd: wakefd, events: make([]unix.EpollEvent, eventsPerWait)}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeIndex}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wakefd, &event); err != nil {
		r.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return r, nil
}

// Add watches a descriptor; its events carry index. Closing the descriptor ends it.
func (r *Reactor) Add(fd int, index uint32, what uint32) error {
	event := unix.EpollEvent{Events: what, Fd: int32(index)}
	return unix.EpollCtl(r.epfd, unix.EPOLL_CTL_ADD, fd, &event)
}

// Watch changes what a descriptor is watched for.
func (r *Reactor) Watch(fd int, index uint32, what uint32) {
	event := unix.EpollEvent{Events: what, Fd: int32(index)}
	_ = unix.EpollCtl(r.epfd, unix.EPOLL_CTL_MOD, fd, &event) // fails only for a descriptor that was never added
}

// Wait waits for events, at most for patience, and then calls begin and, for
// every event, handle; what was posted runs among them.
func (r *Reactor) Wait(patience time.Duration, begin func(), handle func(index, what uint32)) error {
	if !r.woke.IsZero() {
		r.working += time.Since(r.woke)
	}
	n, err := r.wait(patience)
	r.woke = time.Now()
	begin()
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	for _, ev := range r.events[:max(n, 0)] {
		if ev.Fd == wakeIndex {
			r.runMailbox()
			continue
		}
		handle(uint32(ev.Fd), ev.Events)
	}
	return nil
}

// wait uses epoll_pwait2 for its nanoseconds: a schedule of a thousand sends a
// second can't be kept in milliseconds.
func (r *Reactor) wait(patience time.Duration) (int, error) {
	if !r.coarse {
		ts := unix.NsecToTimespec(int64(max(patience, 0)))
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(r.epfd), uintptr(unsafe.Pointer(&r.events[0])),
			uintptr(len(r.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.ENOSYS, unix.EPERM: // EPERM: a container's filter of system calls is older than this one
			r.coarse = true
		default:
			return 0, errno
		}
	}
	return unix.EpollWait(r.epfd, r.events, int((patience+time.Millisecond-1)/time.Millisecond))
}

// Post runs f on the reactor's goroutine, from any other. It does not block;
// after Close it does nothing.
func (r *Reactor) Post(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.mailbox = append(r.mailbox, f)
	one := [8]byte{1}
	_, _ = unix.Write(r.wakefd, one[:]) // an eventfd this far from its bound never refuses
}

func (r *Reactor) runMailbox() {
	var b [8]byte
	_, _ = unix.Read(r.wakefd, b[:])
	r.mu.Lock()
	mail := r.mailbox
	r.mailbox = nil
	r.mu.Unlock()
	for _, f := range mail {
		f()
	}
}

// Close frees the descriptors.
func (r *Reactor) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	unix.Close(r.wakefd)
	unix.Close(r.epfd)
}

// Share is how the loop spent the time since it was last asked. The goroutine
// must be locked to its thread.
func (r *Reactor) Share() Share {
	now := time.Now()
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	cpu := time.Duration(ts.Nano())
	s := Share{Working: r.working + now.Sub(r.woke), CPU: cpu - r.cpu}
	if !r.asked.IsZero() {
		s.Whole = now.Sub(r.asked)
	}
	r.asked, r.cpu, r.working, r.woke = now, cpu, 0, now
	return s
}
