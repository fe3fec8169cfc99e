package sender

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/answer"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/loadtest/target"
)

type state uint8

const (
	resting state = iota // no socket, or one that waits for the next send
	busy                 // has a send
	cooling              // could not connect; waits
)

// conn is one keep-alive connection.
type conn struct {
	fd      int32
	state   state
	dialing bool // connect has not been confirmed
	reused  bool // has carried an answer: an end before the next one may be an idle time-out
	job     job
	issued  int64
	until   int64  // cooling
	rest    []byte // of the request, not yet taken by the socket
	part    []byte // of the answer
	fails   uint8
}

// attempt sends a job on an idle connection.
func (s *Sender) attempt(j job) {
	i := s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	c := &s.conns[i]
	j.tries++
	c.job, c.issued, c.state = j, s.now, busy
	if !j.carries {
		s.stats.Attempts++
	}
	if c.fd < 0 && !s.dial(i) {
		return
	}
	if s.cfg.Mint != nil {
		s.token = s.cfg.Mint.Append(s.token[:0], s.cfg.Crowd.User(s.cfg.Crowd.Member(int(j.room), int(j.member))))
	}
	host := s.dials[int(i)%len(s.dials)].host
	if j.carries {
		s.out = s.uploader.AppendUpload(s.out[:0], target.Upload{Host: host, Token: s.token, Content: s.file})
	} else {
		var key [stamp.Len]byte
		s.out = s.cfg.Dialect.AppendSend(s.out[:0], target.Send{
			Host: host, Room: s.cfg.Crowd.Room(int(j.room)), Token: s.token,
			Key: stamp.Append(key[:0], j.due, j.send), Text: s.text, File: j.file,
		})
	}
	if c.dialing {
		c.rest = append(c.rest[:0], s.out...)
		return
	}
	s.write(i, s.out)
}

// dial begins a connection; false when it failed at once.
func (s *Sender) dial(i uint32) bool {
	c := &s.conns[i]
	d := s.dials[int(i)%len(s.dials)]
	fd, err := reactor.Socket(d.family)
	if err != nil {
		s.broken(i, "connect", err)
		return false
	}
	c.fd, c.dialing, c.reused = int32(fd), true, false
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Connect(fd, d.addr); err != nil && err != unix.EINPROGRESS {
		s.broken(i, "connect", err)
		return false
	}
	if err := s.poll.Add(fd, i, reactor.In|reactor.Out); err != nil {
		s.broken(i, "epoll", err)
		return false
	}
	return true
}

func (s *Sender) write(i uint32, b []byte) {
	c := &s.conns[i]
	n, err := unix.Write(int(c.fd), b)
	if err != nil && err != unix.EAGAIN {
		s.broken(i, "write", err)
		return
	}
	if n = max(n, 0); n < len(b) {
		c.rest = append([]byte(nil), b[n:]...)
		s.poll.Watch(int(c.fd), i, reactor.In|reactor.Out)
	}
}

func (s *Sender) handleEvent(i, what uint32) {
	c := &s.conns[i]
	if c.fd < 0 {
		return // closed earlier in this turn
	}
	if what&reactor.Out != 0 && (c.dialing || len(c.rest) > 0) {
		if c.dialing {
			if code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
				s.broken(i, "connect", unix.Errno(code))
				return
			}
			c.dialing, c.fails = false, 0
		}
		s.poll.Watch(int(c.fd), i, reactor.In)
		rest := c.rest
		c.rest = nil
		s.write(i, rest)
		if c.fd < 0 {
			return
		}
	}
	if what&(reactor.In|reactor.Hang) != 0 {
		s.handleReadable(i)
	}
}

func (s *Sender) handleReadable(i uint32) {
	c := &s.conns[i]
	have := copy(s.buf, c.part)
	c.part = c.part[:0]
	n, errno := reactor.Read(int(c.fd), s.buf[have:])
	if n <= 0 {
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			c.part = append(c.part, s.buf[:have]...)
		case c.state != busy:
			s.disconnect(i) // the server closed an idle connection: it stays among the idle
		case errno != 0:
			s.broken(i, "read", errno)
		default:
			s.broken(i, "read", errClosed)
		}
		return
	}
	s.now = s.cfg.Clock.Now()
	data := s.buf[:have+n]
	h, body, size, err := answer.Cut(data, len(s.buf))
	switch {
	case c.state != busy:
		s.disconnect(i)
	case err != nil:
		s.broken(i, "answer", err)
	case size > 0 && size < len(data):
		s.broken(i, "answer", errUnasked)
	case size == 0:
		c.part = append(c.part, data...)
	default:
		s.answered(i, h, body)
	}
}

var (
	errClosed  = errors.New("closed by the server before it answered")
	errUnasked = errors.New("bytes that nobody asked for")
)

// answered is called with a whole answer.
func (s *Sender) answered(i uint32, h answer.Head, body []byte) {
	c := &s.conns[i]
	j := c.job
	c.reused, c.state = true, resting
	if !j.carries {
		s.meters.service.Record(s.now - c.issued)
	}
	if h.Close {
		s.disconnect(i)
	}
	s.idle = append(s.idle, i)
	switch {
	case j.carries:
		s.uploaded(j, h, body)
	case h.Status/100 == 2:
		pos, ok := s.cfg.Dialect.Acked(body)
		if !ok {
			s.stats.Failed.Count("answered " + strconv.Itoa(h.Status) + " without the message's ID")
			return
		}
		s.stats.Acked++
		if h.Status == 200 && j.tries > 1 {
			s.stats.Replayed++
		}
		s.meters.acked.Record(s.now - j.due)
		s.acks = append(s.acks, ledger.Ack{Room: j.room, Send: j.send, Pos: pos})
	case h.Status == 429 || h.Status >= 500:
		reason := refusal(h, body)
		s.stats.Refused.Count(reason)
		wait := int64(250 * time.Millisecond)
		if h.RetryAfter >= 0 {
			wait = int64(min(h.RetryAfter, 60)) * int64(time.Second)
		}
		// Up to a quarter later: what was refused together must not return together.
		s.hold(j, wait+s.rng.Int64N(wait/4+int64(10*time.Millisecond)), reason)
	default:
		s.stats.Failed.Count(refusal(h, body))
	}
}

// refusal is an answer's status and, of a problem, its stable code.
func refusal(h answer.Head, body []byte) string {
	_, code, _ := bytes.Cut(body, []byte(`"code":`))
	code = bytes.TrimLeft(code, ` "`)
	return strings.TrimSpace(strconv.Itoa(h.Status) + " " + string(code[:max(0, bytes.IndexByte(code, '"'))]))
}

// broken ends a connection that failed. Its send's outcome is unknown; the same
// key settles it.
func (s *Sender) broken(i uint32, step string, err error) {
	c := &s.conns[i]
	var errno unix.Errno
	reason := step + ": " + err.Error()
	if errors.As(err, &errno) {
		reason = step + ": " + errno.Error()
	}
	idleEnd := c.reused && c.state == busy && step == "read"
	if !idleEnd || c.job.tries > 1 {
		s.stats.Broken.Count(reason)
	}
	job, wasBusy := c.job, c.state == busy
	s.disconnect(i)
	if step == "connect" {
		c.fails = min(c.fails+1, 6)
		c.state, c.until = cooling, s.now+int64(20*time.Millisecond)<<c.fails
	} else {
		s.idle = append(s.idle, i)
	}
	switch {
	case !wasBusy:
	case job.carries && !idleEnd:
		s.notUploaded(job, reason)
	default:
		s.hold(job, s.rng.Int64N(int64(20*time.Millisecond)), reason)
	}
}

// disconnect closes the socket; the connection has no send any more.
func (s *Sender) disconnect(i uint32) {
	c := &s.conns[i]
	if c.fd >= 0 {
		unix.Close(int(c.fd))
	}
	*c = conn{fd: -1, fails: c.fails, part: c.part[:0], rest: c.rest[:0]}
}

// sweep looks for sends that were not answered in time and for connections that
// have cooled down.
func (s *Sender) sweep() {
	if s.now-s.swept < int64(20*time.Millisecond) {
		return
	}
	s.swept = s.now
	for i := range s.conns {
		switch c := &s.conns[i]; {
		case c.state == busy && s.now-c.issued > int64(s.cfg.Timeout):
			step := "answer"
			if c.dialing {
				step = "connect"
			}
			s.broken(uint32(i), step, errSlow)
		case c.state == cooling && s.now >= c.until:
			c.state = resting
			s.idle = append(s.idle, uint32(i))
		}
	}
}

var errSlow = errors.New("none in time")
