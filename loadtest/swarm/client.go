package swarm

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/answer"
	"github.com/madang-chat/madang/loadtest/target"
)

// state is where a client is in its life.
type state uint8

const (
	unborn     state = iota // before Ramp
	queued                  // wants to connect, waits for its turn
	connecting              // TCP
	upgrading               // request sent, answer not complete
	greeting                // opened, hello (or resumed) not yet here
	live                    // also a client that polls and rests, whose socket the server has not kept
	waiting                 // for a deadline, to be queued again
	gone                    // given up
)

// client is one receiving client; the socket and nothing that others could share.
type client struct {
	fd       int32
	heard    uint32 // tick of the last byte
	since    int64  // when it began to want the connection: at its turn in the ramp, or when it lost it
	part     []byte // of what is being received
	state    state
	attempts uint8  // since it was live; beyond 255 it goes on from 128
	wasLive  bool   // it has positions: a new connection resumes
	resuming bool   // this connection was opened with resume
	stalled  bool   // does not read
	aside    bool   // was told not to read, and not yet to read again: cut off and back it is late, and none of the others
	asking   bool   // polls: not answered yet
	reopened bool   // polls: the server had not kept the socket of a client that rested
	lazilyMs uint32 // after a bye: how long to stay away
	nextPoll uint32 // plain polling: tick at which it is due
}

// user is a client's user.
func (s *Swarm) user(i uint32) int { return s.cfg.First + int(i) }

// opening is what client i opens with. The token is made anew: cheaper than
// keeping it.
func (s *Swarm) opening(i uint32) target.Opening {
	c := &s.clients[i]
	gateway := (s.cfg.First + int(i) + int(c.attempts)) % len(s.dials.gateways)
	c.resuming = (c.wasLive || s.resumeFirst) && s.speaksResume()
	o := target.Opening{Host: s.dials.hosts[gateway], Key: s.wsKey, User: s.cfg.Crowd.User(s.user(i)), Resume: c.resuming}
	if s.cfg.Mint != nil {
		s.token = s.cfg.Mint.Append(s.token[:0], o.User)
		o.Token = s.token
	}
	return o
}

func (s *Swarm) speaksResume() bool { return len(s.cfg.Dialect.AppendResume(nil, nil, false)) > 0 }

// enqueue lets a client wait for its turn to connect.
func (s *Swarm) enqueue(i uint32) {
	s.clients[i].state = queued
	s.queue = append(s.queue, i)
}

// failure names a failure, to be counted under.
func failure(step string, err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return step + ": " + errno.Error()
	}
	return step + ": " + err.Error()
}

// leave closes a client's socket, whatever its state, and forgets what belonged
// to the connection.
func (s *Swarm) leave(i uint32) {
	c := &s.clients[i]
	switch c.state {
	case connecting, upgrading, greeting:
		s.inFlight--
	case live:
		s.stats.Live--
	}
	s.wheel.clear(i)
	s.disconnect(i)
	c.stalled = false
}

// disconnect closes a client's socket and forgets what was under way on it.
func (s *Swarm) disconnect(i uint32) {
	c := &s.clients[i]
	if c.fd >= 0 {
		unix.Close(int(c.fd)) // also leaves the epoll set
		c.fd = -1
	}
	s.free(c.part)
	c.part = nil
	c.asking = false
	delete(s.pending, i)
}

// fail ends an attempt to connect; the client tries again later, or gives up.
func (s *Swarm) fail(i uint32, reason string) {
	c := &s.clients[i]
	s.stats.Failures.Count(reason)
	s.leave(i)
	c.tried()
	if s.exhausted(c) {
		s.giveUp(i)
		return
	}
	s.waitFor(i, s.backoff(int(c.attempts)))
}

// refused is called for an answer that opens nothing, or brings nothing.
func (s *Swarm) refused(i uint32, h *answer.Head) {
	c := &s.clients[i]
	reason := s.wire.opens() + ": refused with " + strconv.Itoa(h.Status)
	var wait time.Duration
	if h.RetryAfter >= 0 {
		wait = seconds32(h.RetryAfter)
	}
	if c.state == live { // a poll
		c.lazilyMs = uint32((wait + s.backoff(1)) / time.Millisecond)
		s.drop(i, reason)
		return
	}
	s.stats.Failures.Count(reason)
	s.leave(i)
	c.tried()
	hopeless := h.Status == 401 || h.Status == 403 || h.Status == 404 // trying again would not help
	if hopeless || s.exhausted(c) {
		s.giveUp(i)
		return
	}
	s.waitFor(i, wait+s.backoff(int(c.attempts)))
}

// tried counts an attempt. The count also says which gateway is next, so it must
// never stand still.
func (c *client) tried() {
	if c.attempts++; c.attempts == 0 {
		c.attempts = 128
	}
}

// exhausted says whether a client has tried often enough.
func (s *Swarm) exhausted(c *client) bool {
	return s.cfg.Retries > 0 && int(c.attempts) >= s.cfg.Retries
}

// giveUp ends a client for good.
func (s *Swarm) giveUp(i uint32) {
	s.clients[i].state = gone
	s.stats.Gone++
}

// drop ends a live connection that the other side, or the network, ended; the
// client comes back with its positions.
func (s *Swarm) drop(i uint32, reason string) {
	c := &s.clients[i]
	if c.state != live {
		s.fail(i, reason)
		return
	}
	lazily := time.Duration(c.lazilyMs) * time.Millisecond
	c.lazilyMs = 0
	s.stats.Drops.Count(reason)
	s.leave(i)
	c.since = s.now
	if lazily == 0 {
		lazily = s.backoff(1)
	}
	s.waitFor(i, lazily)
}

func (s *Swarm) waitFor(i uint32, d time.Duration) {
	s.clients[i].state = waiting
	s.wheel.set(i, s.ticks()+1+uint32(d/tick))
}

// backoff is full jitter below a bound that doubles.
func (s *Swarm) backoff(attempt int) time.Duration {
	bound := min(s.cfg.Backoff<<min(attempt, 10), maxBackoff)
	return time.Duration(s.rng.Int64N(int64(bound)))
}

// advance is called when a client's deadline has come.
func (s *Swarm) advance(i uint32) {
	c := &s.clients[i]
	switch c.state {
	case waiting:
		s.enqueue(i)
	case connecting:
		s.fail(i, "connect: no answer in "+s.cfg.Timeout.String())
	case upgrading:
		s.fail(i, s.wire.opens()+": no answer in "+s.cfg.Timeout.String())
	case greeting:
		if c.resuming {
			s.fail(i, "resume: not ended in "+s.cfg.Timeout.String())
		} else {
			s.fail(i, "hello: not come in "+s.cfg.Timeout.String())
		}
	case live:
		s.wire.due(i)
	}
}

// listen notices a server that went silent; false: it is left.
func (s *Swarm) listen(i uint32) bool {
	c := &s.clients[i]
	if !c.stalled && s.ticks()-c.heard > uint32(silenceAllowed/tick) {
		s.drop(i, "silent for "+silenceAllowed.String())
		return false
	}
	s.wheel.set(i, s.ticks()+s.heartbeatTicks())
	return true
}

// heartbeatTicks spreads heartbeats: clients that came together must not ping
// together.
func (s *Swarm) heartbeatTicks() uint32 {
	every := s.cfg.PingEvery
	if every == 0 {
		every = silenceAllowed / 4
	}
	ticks := max(1, uint32(every/tick))
	return ticks - s.rng.Uint32N(max(1, ticks/10))
}

// enliven is called when a client's connection delivers.
func (s *Swarm) enliven(i uint32) {
	c := &s.clients[i]
	took := s.now - c.since
	if c.wasLive {
		s.meters.back.Record(took)
		s.stats.Returned++
	} else {
		s.meters.opened.Record(took)
		s.stats.Opened++
	}
	s.inFlight--
	s.stats.Live++
	c.state, c.wasLive, c.attempts, c.since = live, true, 0, 0
	s.wheel.set(i, s.ticks()+1+s.rng.Uint32N(s.heartbeatTicks()))
}

// closeCodeName is how a close code is counted.
func closeCodeName(code int) string { return "closed by the server: " + strconv.Itoa(code) }
