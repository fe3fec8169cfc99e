//go:build !linux

package reactor

import (
	"time"

	"golang.org/x/sys/unix"
)

// What to watch a descriptor for.
const (
	In uint32 = 1 << iota
	Out
	Hang
)

// Reactor can't be made on this system.
type Reactor struct{}

// New returns ErrUnsupported.
func New() (*Reactor, error) { return nil, ErrUnsupported }

// Add returns ErrUnsupported.
func (r *Reactor) Add(int, uint32, uint32) error { return ErrUnsupported }

// Watch does nothing.
func (r *Reactor) Watch(int, uint32, uint32) {}

// Wait returns ErrUnsupported.
func (r *Reactor) Wait(time.Duration, func(), func(index, what uint32)) error { return ErrUnsupported }

// Post does nothing.
func (r *Reactor) Post(func()) {}

// Close does nothing.
func (r *Reactor) Close() {}

// Share is empty.
func (r *Reactor) Share() Share { return Share{} }

// Socket returns ErrUnsupported.
func Socket(int) (int, error) { return -1, ErrUnsupported }

// BindLate does nothing.
func BindLate(int) {}

// Read fails.
func Read(int, []byte) (int, unix.Errno) { return -1, unix.ENOSYS }
