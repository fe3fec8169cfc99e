// Package sender sends the run's messages over HTTP: one event loop, a fixed
// number of keep-alive connections, one request at a time on each, a few
// microseconds of its own per send, so that the sender is not what is measured.
//
// With a rate the schedule is open: send k is due at its time whatever became of
// the ones before it, and its latency counts from then. Without one every
// connection sends again as soon as it is answered ("flat out").
//
// A send keeps its idempotency key until its outcome is known: what was refused
// with 429 or 503 goes again when the server says (Retry-After), what timed out
// or lost its connection goes again at once. Every acknowledged send is recorded
// for the judge.
package sender

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/target"
)

// Config is what a sender is made of. Values of 0 take the default.
type Config struct {
	Dialect target.Dialect
	Clock   clock.Clock
	APIs    []netip.AddrPort // connections are spread over them
	Host    string           // Host header; default: the API's address
	Mint    *mint.Minter     // nil: no token
	Crowd   *crowd.Crowd

	Conns     int         // default 32
	Poisson   bool        // exponential gaps instead of even ones
	BySize    bool        // rooms are chosen in proportion to their members, not in turn
	First     ledger.Send // number of this process's first send, from 1
	Stride    int         // number of sender processes
	TextBytes int         // of a message's text; default 100
	// UploadShare of the sends carry a file of UploadBytes, where the dialect has
	// files.
	UploadShare float64
	UploadBytes int
	Timeout     time.Duration // of one attempt; default 10 s
	Tries       int           // attempts of one send; default 20
}

// maxHeld bounds the sends that wait for their next attempt. What is refused
// beyond it is given up, and counted.
const maxHeld = 200_000

// Sender is a process's sends.
type Sender struct {
	cfg      Config
	rate     float64 // of the whole run; 0: flat out
	text     []byte
	file     []byte          // that some sends carry
	uploader target.Uploader // nil: nothing is uploaded

	// Owned by the loop.
	poll      *reactor.Reactor
	conns     []conn
	idle      []uint32
	held      heldSends
	unissued  job    // the next send of the schedule, when its time has not come
	scheduled uint64 // sends that got a number
	beginAt   uint64 // of these, before this schedule began
	running   bool
	stopping  bool
	begin     int64 // of the schedule
	endAt     int64 // nothing becomes due after it
	nextDue   int64
	starved   int64 // last time at which no connection was idle
	swept     int64
	now       int64
	buf       []byte
	out       []byte
	token     []byte
	dials     []dial
	stats     Stats
	meters    meters
	acks      []ledger.Ack
	rng       *rand.Rand
}

type dial struct {
	addr   unix.Sockaddr
	family int
	host   string
}

// job is one send.
type job struct {
	send   ledger.Send
	room   uint32
	member uint32
	due    int64
	tries  int
	// carries: a file is to be uploaded first; file is its ID when that is done.
	carries bool
	file    string
}

// New makes a sender; nothing is sent before Begin.
func New(cfg Config) (*Sender, error) {
	switch {
	case len(cfg.APIs) == 0:
		return nil, fmt.Errorf("no API to send to")
	case cfg.Crowd.Rooms() == 0:
		return nil, fmt.Errorf("no rooms to send to")
	}
	cfg.Conns = cmp.Or(cfg.Conns, 32)
	cfg.TextBytes = cmp.Or(cfg.TextBytes, 100)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.Tries = cmp.Or(cfg.Tries, 20)
	cfg.Stride = cmp.Or(cfg.Stride, 1)
	cfg.First = max(cfg.First, 1)
	s := &Sender{
		cfg: cfg, meters: newMeters(), buf: make([]byte, 256<<10),
		rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), //nolint:gosec // a schedule and jitter
	}
	for i := range cfg.TextBytes {
		s.text = append(s.text, "the quick brown fox jumps over the lazy dog "[i%44])
	}
	if s.uploader = uploader(cfg); s.uploader != nil {
		s.file = file(cfg.UploadBytes)
	}
	for _, a := range cfg.APIs {
		d := dial{host: cmp.Or(cfg.Host, a.String())}
		if ip := a.Addr().Unmap(); ip.Is4() {
			d.family, d.addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
		} else {
			d.family, d.addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16()}
		}
		s.dials = append(s.dials, d)
	}
	var err error
	if s.poll, err = reactor.New(); err != nil {
		return nil, err
	}
	s.conns = make([]conn, cfg.Conns)
	for i := range s.conns {
		s.conns[i].fd = -1
		s.idle = append(s.idle, uint32(i))
	}
	return s, nil
}

// Run is the loop. It returns after Stop, or when ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	defer s.closeAll()

	s.now = s.cfg.Clock.Now()
	for !s.stopping {
		err := s.poll.Wait(s.patience(), func() { s.now = s.cfg.Clock.Now() }, s.handleEvent)
		if err != nil {
			return err
		}
		s.now = s.cfg.Clock.Now()
		s.issue()
		s.sweep()
	}
	return nil
}

// patience is how long the loop may sleep: until the next send is due.
func (s *Sender) patience() time.Duration {
	const sweepEvery = 50 * time.Millisecond
	until := s.now + int64(sweepEvery)
	if len(s.idle) > 0 {
		if next, ok := s.held.next(); ok {
			until = min(until, next)
		}
		if s.running && s.rate > 0 {
			until = min(until, s.nextDue)
		}
	}
	return time.Duration(max(0, until-s.cfg.Clock.Now()))
}

// Begin starts a schedule of so many sends per second of the whole run; 0: flat
// out. It may follow an End, or take the place of another schedule: what was due by
// then is still sent. Numbers go on.
func (s *Sender) Begin(rate float64) {
	s.poll.Post(func() {
		s.now = s.cfg.Clock.Now()
		s.carryOver()
		s.rate = rate
		s.running, s.endAt = true, math.MaxInt64
		s.begin, s.beginAt = s.cfg.Clock.Now(), s.scheduled
		s.starved = s.begin
		s.schedule()
	})
}

// End ends the schedule: nothing more becomes due. What is due is still sent, and
// seen through.
func (s *Sender) End() {
	s.poll.Post(func() {
		s.now = s.cfg.Clock.Now()
		s.endAt = s.now
		s.issue()
	})
}

// Abandon gives up every send that is not answered yet, or was due and could not
// be begun.
func (s *Sender) Abandon() {
	s.poll.Post(func() {
		s.stats.Unsent += s.behind()
		s.running = false
		for range s.held {
			s.stats.Failed.Count("given up: the run ended while it was held back")
		}
		s.held = nil
		for i := range s.conns {
			if c := &s.conns[i]; c.state == busy {
				s.stats.Failed.Count("given up: not answered when the run ended")
				s.disconnect(uint32(i))
				s.idle = append(s.idle, uint32(i)) // another schedule may follow
			}
		}
	})
}

// Snapshot returns what happened since the last one.
func (s *Sender) Snapshot(patience time.Duration) (Snapshot, bool) {
	return reactor.Ask(s.poll, patience, s.snapshot)
}

// Stop ends Run.
func (s *Sender) Stop() { s.poll.Post(func() { s.stopping = true }) }

func (s *Sender) closeAll() {
	for i := range s.conns {
		if fd := s.conns[i].fd; fd >= 0 {
			unix.Close(int(fd))
		}
	}
	s.poll.Close()
}
