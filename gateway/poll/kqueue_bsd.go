//go:build darwin || freebsd || openbsd || dragonfly

package poll

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Poller is one kqueue with its wake-up. It is for development: production runs
// on Linux.
type Poller struct {
	kq           int
	wakeR, wakeW int // a pipe
	woken        atomic.Bool
	watched      []watch // by descriptor: a kevent can't carry 64 bits portably
	raw          []unix.Kevent_t
	out          []Event
}

type watch struct {
	token uint64
	in    Interest
}

// New makes a Poller that reports up to maxEvents at a time.
func New(maxEvents int) (*Poller, error) {
	kq, err := unix.Kqueue()
	if err != nil {
		return nil, fmt.Errorf("kqueue: %w", err)
	}
	unix.CloseOnExec(kq)
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		unix.Close(kq)
		return nil, fmt.Errorf("pipe: %w", err)
	}
	p := &Poller{
		kq: kq, wakeR: fds[0], wakeW: fds[1],
		raw: make([]unix.Kevent_t, maxEvents),
		out: make([]Event, 0, maxEvents),
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			p.Close()
			return nil, fmt.Errorf("set nonblock: %w", err)
		}
	}
	if err := p.Add(p.wakeR, 0, Read); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Add watches fd; its events carry token.
func (p *Poller) Add(fd int, token uint64, in Interest) error {
	for fd >= len(p.watched) {
		p.watched = append(p.watched, make([]watch, 64+len(p.watched))...)
	}
	p.watched[fd] = watch{}
	return p.Mod(fd, token, in)
}

// Mod changes what fd is watched for.
func (p *Poller) Mod(fd int, token uint64, in Interest) error {
	had := p.watched[fd].in
	p.watched[fd] = watch{token, in}
	var changes [2]unix.Kevent_t
	n := 0
	for _, f := range [...]struct {
		in     Interest
		filter int
	}{{Read, unix.EVFILT_READ}, {Write, unix.EVFILT_WRITE}} {
		switch {
		case in&f.in != 0 && had&f.in == 0:
			unix.SetKevent(&changes[n], fd, f.filter, unix.EV_ADD)
			n++
		case in&f.in == 0 && had&f.in != 0:
			unix.SetKevent(&changes[n], fd, f.filter, unix.EV_DELETE)
			n++
		}
	}
	if n == 0 {
		return nil
	}
	if _, err := unix.Kevent(p.kq, changes[:n], nil, nil); err != nil {
		return fmt.Errorf("kevent: %w", err)
	}
	return nil
}

// Wait returns what is ready, at most timeoutMs later (-1: however long it
// takes). What it returns is valid until the next call.
func (p *Poller) Wait(timeoutMs int) ([]Event, error) {
	var timeout *unix.Timespec
	if timeoutMs >= 0 {
		ts := unix.NsecToTimespec(int64(timeoutMs) * 1e6)
		timeout = &ts
	}
	n, err := unix.Kevent(p.kq, nil, p.raw, timeout)
	if err != nil {
		if err == unix.EINTR {
			return p.out[:0], nil
		}
		return nil, fmt.Errorf("kevent: %w", err)
	}
	out := p.out[:0]
	for i := range p.raw[:n] {
		ev := &p.raw[i]
		fd := int(ev.Ident)
		if fd == p.wakeR {
			p.consumeWake()
			continue
		}
		out = append(out, Event{
			Token:    p.watched[fd].token,
			Readable: ev.Filter == unix.EVFILT_READ,
			Writable: ev.Filter == unix.EVFILT_WRITE,
			Failed:   ev.Flags&unix.EV_ERROR != 0,
		})
	}
	return out, nil
}

// Wake makes the current or next Wait return.
func (p *Poller) Wake() {
	if p.woken.Swap(true) {
		return
	}
	_, _ = unix.Write(p.wakeW, []byte{1})
}

func (p *Poller) consumeWake() {
	var buf [8]byte
	_, _ = unix.Read(p.wakeR, buf[:])
	p.woken.Store(false) // after the read: see epoll_linux.go
}

// Close frees the descriptors. No Wake may follow.
func (p *Poller) Close() error {
	err := unix.Close(p.kq)
	for _, fd := range [...]int{p.wakeR, p.wakeW} {
		if e := unix.Close(fd); err == nil {
			err = e
		}
	}
	return err
}
