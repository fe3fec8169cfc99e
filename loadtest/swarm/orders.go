package swarm

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/reactor"
)

// The methods here may be called from any goroutine; they post to the loop.

// Ramp lets all clients connect, at the configured rate.
func (s *Swarm) Ramp() {
	s.poll.Post(func() {
		s.refilled = s.cfg.Clock.Now()
		for i := range s.clients {
			if s.clients[i].state == unborn {
				s.enqueue(uint32(i))
			}
		}
	})
}

// SendsBegin tells that from here on messages are sent: whoever connects for the
// first time later must resume from the rooms' bases, or it would miss some.
func (s *Swarm) SendsBegin() { s.poll.Post(func() { s.resumeFirst = true }) }

// Drop closes live connections without a word, as when a network goes: a random
// share of them, or all (1). Clients come back, each after a random part of
// spread, and rate then bounds how many per second (0: none).
func (s *Swarm) Drop(share float64, spread time.Duration, rate float64) {
	s.poll.Post(func() {
		s.cfg.Rate = rate
		now := s.cfg.Clock.Now()
		for i := range s.clients {
			c := &s.clients[i]
			if c.state != live || share < 1 && s.rng.Float64() >= share {
				continue
			}
			s.stats.Drops.Count(DroppedByUs)
			s.leave(uint32(i))
			c.since = now
			if spread <= 0 {
				s.enqueue(uint32(i))
				continue
			}
			s.waitFor(uint32(i), time.Duration(s.rng.Int64N(int64(spread))))
		}
		s.refilled = now
	})
}

// DroppedByUs is the reason under which Drop counts.
const DroppedByUs = "dropped by the tester"

// Receive buffers of a client that does not read, and of one that does again: the
// kernel no longer sizes it by itself.
const (
	stalledBuffer = 4096
	readersBuffer = 1 << 20
)

// Stall makes n clients stop reading; their sockets stay open. They are spread evenly
// over all, and so over the rooms: who reads sits beside who does not. What the
// server cuts off for it reads when it is back, and is not measured before Unstall.
func (s *Swarm) Stall(n int) {
	s.poll.Post(func() {
		n = min(n, len(s.clients))
		for k := range n {
			i := k * len(s.clients) / n
			c := &s.clients[i]
			if c.state != live || c.stalled {
				continue
			}
			c.stalled, c.aside = true, true
			// The kernel would take megabytes in the reader's place.
			_ = unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_RCVBUF, stalledBuffer)
			s.watch(uint32(i), 0)
		}
	})
}

// Unstall lets stalled clients read again.
func (s *Swarm) Unstall() {
	s.poll.Post(func() {
		for i := range s.clients {
			c := &s.clients[i]
			c.aside = false
			if !c.stalled {
				continue
			}
			c.stalled = false
			c.heard = s.ticks()
			if c.fd >= 0 {
				// Through a window of two packets it would be minutes late, whatever
				// the server does.
				_ = unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_RCVBUF, readersBuffer)
				s.watch(uint32(i), reactor.In)
			}
		}
	})
}

// Paged hands over what a client read from history after a gap: entries up to
// head. more says that another page follows.
func (s *Swarm) Paged(user int, room uint32, entries []Paged, head ledger.Pos, more bool) {
	s.poll.Post(func() {
		reader, ok := s.readerOf(uint32(user-s.cfg.First), room)
		if !ok {
			return
		}
		for _, e := range entries {
			s.book.Page(reader, e.Pos, e.Send)
		}
		if !more {
			s.book.Paged(reader, head)
		}
	})
}

// Paged is a message read from history.
type Paged struct {
	Pos  ledger.Pos
	Send ledger.Send
}

// Snapshot returns what happened since the last one. ok is false when the loop
// has ended or does not answer in time.
func (s *Swarm) Snapshot(patience time.Duration) (snap Snapshot, ok bool) {
	return reactor.Ask(s.poll, patience, s.snapshot)
}

// Judge compares what arrived with what was acknowledged.
func (s *Swarm) Judge(acks []ledger.Ack, patience time.Duration) (j ledger.Judgement, ok bool) {
	return reactor.Ask(s.poll, patience, func() ledger.Judgement {
		return s.book.Judge(acks, ledger.Names{
			Room:   func(room uint32) string { return s.cfg.Crowd.Room(int(room)) },
			Reader: s.readerName,
		})
	})
}

// readerName says whose reader it is.
func (s *Swarm) readerName(id ledger.ReaderID) string {
	low, high := 0, len(s.clients)
	for low+1 < high {
		if middle := (low + high) / 2; s.firstReader[middle] <= uint32(id) {
			low = middle
		} else {
			high = middle
		}
	}
	return s.cfg.Crowd.User(s.cfg.First + low)
}

// Stop ends Run.
func (s *Swarm) Stop() { s.poll.Post(func() { s.stopping = true }) }

// seconds32 bounds a Retry-After.
func seconds32(seconds int) time.Duration { return time.Duration(min(seconds, 120)) * time.Second }
