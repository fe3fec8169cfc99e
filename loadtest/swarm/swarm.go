// Package swarm holds the receiving clients: one event loop on raw epoll, a few
// hundred bytes per client, no goroutine, timer or buffer for any of them, so
// that one core holds and reads a hundred thousand and the tester is not what is
// measured.
//
// A Swarm belongs to the goroutine that runs Run. Others talk to it through the
// methods that say so; these post to the loop and never block. Every client
// lives through
//
//	queued → connecting → upgrading → greeting → live → (dropped) → waiting → queued …
//
// and is gone when there is no sense in trying again. What goes over the socket
// from upgrading on is the transport's business (wire): frames of a WebSocket, an
// event stream, or polls, which have no greeting. What arrives is judged by the
// ledger, entry by entry; latencies run from the time a message was meant to
// be sent to the read that brought it.
package swarm

import (
	"cmp"
	"context"
	"errors"
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

// Config is what a swarm is made of. Durations of 0 take the default.
type Config struct {
	Dialect   target.Dialect
	Transport target.Transport
	PollWait  time.Duration    // LongPoll: whole seconds; default 25 s
	PollEvery time.Duration    // Polling: default 1 s
	APIs      []netip.AddrPort // for what clients say that can't say it where they receive

	Clock    clock.Clock
	Gateways []netip.AddrPort // client i starts at the i-th, and goes on to the next when one fails
	Host     string           // Host header; default: the gateway's address
	Sources  []netip.Addr     // addresses to connect from, used in turn; default: the kernel's choice
	Mint     *mint.Minter     // nil: clients have no token
	Crowd    *crowd.Crowd
	First    int // users First … First+Count-1 are here, one client each
	Count    int
	// Base is a room's head before the run.
	Base func(room uint32) ledger.Pos

	Rate      float64       // new connections per second; 0: as fast as InFlight allows
	InFlight  int           // connections being opened at once; default 512. Larger: a deeper accept queue at the server
	Timeout   time.Duration // from connect to live; default 30 s
	PingEvery time.Duration // application-level heartbeat; 0: none, the server's pings are answered anyway
	Backoff   time.Duration // first wait after a failure, jittered, doubling up to 10 s; default 200 ms
	Retries   int           // attempts before a client is given up; 0: never

	// Echo is what clients of an echoing target send.
	Echo Echo

	// OnGap is told that a client must page history: everything after `after` up
	// to head. It must not block; the outcome comes back through Paged.
	OnGap func(user int, room uint32, after, head ledger.Pos)
}

const (
	tick           = 16 * time.Millisecond
	readBufBytes   = 1 << 20 // a frame must fit; gateways bound a client's queue at 256 KiB
	maxBackoff     = 10 * time.Second
	silenceAllowed = 150 * time.Second // two heartbeats of a minute, which some servers have, and more
)

// Swarm is a process's clients.
type Swarm struct {
	cfg Config

	// Owned by the loop.
	poll        *reactor.Reactor
	wire        wire
	clients     []client
	firstReader []uint32 // client i reads with readers firstReader[i] … firstReader[i+1]-1
	book        ledger.Book
	arrivedAt   []uint32     // tick of a reader's last message
	told        []ledger.Pos // polls: what a reader polls with next
	wheel       wheel
	queue       []uint32 // clients that want to connect, in order
	inFlight    int
	allowance   float64 // connections that Rate lets us open now
	refilled    int64
	resumeFirst bool // sends have begun: a first connection resumes from the base
	stopping    bool
	now         int64 // of this turn
	buf         []byte
	greets      bool   // clients say something after the upgrade
	out, token  []byte // scratch
	frame       []byte // scratch for frames
	names       []string
	positions   []target.Position
	pending     map[uint32][]byte // rest of a write that the socket did not take
	spare       [][]byte
	dials       dials
	wsKey       string
	wsAccept    string
	stats       Stats
	meters      meters
	rng         *rand.Rand
	chatter     Chatter
	chattered   int64   // when chat last looked
	chatDue     float64 // chatter that is due
	echo        echo
	aside       aside
	called      [][]byte // the clients' connections, as the server calls them; nil: nobody has to say it
}

// New makes a swarm; nothing is connected before Ramp.
func New(cfg Config) (*Swarm, error) {
	if len(cfg.Gateways) == 0 {
		return nil, errors.New("no gateway to connect to")
	}
	cfg.InFlight = cmp.Or(cfg.InFlight, 512)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Backoff = cmp.Or(cfg.Backoff, 200*time.Millisecond)
	cfg.PollWait = cmp.Or(cfg.PollWait, 25*time.Second)
	cfg.PollEvery = cmp.Or(cfg.PollEvery, time.Second)
	s := &Swarm{
		cfg:     cfg,
		clients: make([]client, cfg.Count),
		buf:     make([]byte, readBufBytes),
		pending: make(map[uint32][]byte),
		meters:  newMeters(),
		out:     make([]byte, 0, 4096),
		rng:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), //nolint:gosec // jitter and masks
	}
	s.wheel.init(cfg.Count)
	s.dials.init(cfg)
	s.echo.init(cfg)
	s.openReaders()
	s.greets = len(cfg.Dialect.AppendGreeting(nil, target.Opening{}, nil)) > 0
	var err error
	if s.wire, err = s.wireOf(cfg.Transport); err != nil {
		return nil, err
	}
	if s.poll, err = reactor.New(); err != nil {
		return nil, err
	}
	s.aside.init(s)
	if s.aside.http != nil || cfg.Transport.Polls() {
		s.called = make([][]byte, cfg.Count)
	}
	s.makeKey()
	return s, nil
}

// know keeps what the server calls a client's connection.
func (s *Swarm) know(i uint32, conn []byte) {
	if s.called != nil && len(conn) > 0 {
		s.called[i] = append(s.called[i][:0], conn...)
	}
}

func (s *Swarm) openReaders() {
	s.firstReader = make([]uint32, s.cfg.Count+1)
	var rooms []uint32
	total := 0
	for i := range s.clients {
		s.clients[i].fd = -1
		s.firstReader[i] = uint32(total)
		rooms = s.cfg.Crowd.AppendRoomsOf(rooms[:0], s.cfg.First+i)
		for _, room := range rooms {
			s.book.Open(room, s.cfg.Base(room))
		}
		total += len(rooms)
	}
	s.firstReader[s.cfg.Count] = uint32(total)
	s.arrivedAt = make([]uint32, total)
}

// Run is the loop. It returns after Stop, or when ctx ends, with every socket
// closed.
func (s *Swarm) Run(ctx context.Context) error {
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
		s.wheel.advance(s.ticks(), s.advance)
		s.connectSome()
		s.chat()
		s.echoDue()
	}
	return nil
}

func (s *Swarm) ticks() uint32 { return uint32(s.now / int64(tick)) }

// patience is how long the loop may sleep: to the next tick, or less while
// connections wait for their turn.
func (s *Swarm) patience() time.Duration {
	if len(s.queue) > 0 && s.inFlight < s.cfg.InFlight {
		return time.Millisecond
	}
	return s.echoPatience(tick - time.Duration(s.now%int64(tick)))
}

func (s *Swarm) closeAll() {
	for i := range s.clients {
		if c := &s.clients[i]; c.fd >= 0 {
			// A reset: a hundred thousand sockets in TIME_WAIT would be in the
			// next run's way.
			_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(int(c.fd))
			c.fd = -1
		}
	}
	s.aside.closeAll()
	s.poll.Close()
}
