// Package poll waits for sockets: epoll on Linux, kqueue on BSDs and macOS, and
// a wake-up that other goroutines may use. It owns the kernel's interest set and
// nothing else: no sockets, no buffers. A Poller belongs to one goroutine; only
// Wake may be called by others.
//
// Readiness is level-triggered. Edge-triggering would save the call that arms
// writing, but that call is only made for a socket whose buffer is full, and in
// return every reader would have to remember what it left in the kernel.
package poll

// Interest is what a socket is watched for.
type Interest uint8

// Interests. A socket watched for neither still reports its errors on Linux.
const (
	Read Interest = 1 << iota
	Write
)

// Event is a socket that is ready. Token is what was given to Add or Mod.
type Event struct {
	Token    uint64
	Readable bool // there are bytes, or the peer has closed
	Writable bool
	Failed   bool // the socket has an error or is closed in both directions
}
