package swarm

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/answer"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/target"
)

// aside is how clients type, look and read whose transport brings events and
// takes nothing: they say it to an API, over HTTP, on a few connections that all
// clients of the process share. It belongs to the swarm's loop.
type aside struct {
	s       *Swarm
	http    target.OverHTTP // nil: nobody can say anything
	conns   []asideConn
	queue   []said
	apis    dials
	scratch []byte
}

// said is something that waits for a connection.
type said struct {
	client uint32
	what   target.Chatter
	reader ledger.ReaderID
}

// asideConn is one connection to an API, with one request at a time.
type asideConn struct {
	fd    int
	busy  bool // a request is not answered
	since int64
	out   []byte // what the socket has not taken
	in    []byte // the beginning of an answer
}

const (
	asideConns  = 16
	asideQueued = 1024 // what waits beyond it is left unsaid, and counted
)

func (a *aside) init(s *Swarm) {
	a.s = s
	http, ok := s.cfg.Dialect.(target.OverHTTP)
	if !ok || s.cfg.Transport == target.WebSocket || len(s.cfg.APIs) == 0 {
		return
	}
	a.http = http
	a.apis.init(Config{Gateways: s.cfg.APIs, Host: s.cfg.Host})
	a.conns = make([]asideConn, asideConns)
	for k := range a.conns {
		a.conns[k].fd = -1
	}
}

// say says something about a reader's room, now or when a connection is free.
func (a *aside) say(i uint32, what target.Chatter, id ledger.ReaderID) {
	if a.http == nil {
		return
	}
	if len(a.queue) >= asideQueued {
		a.s.stats.Errors.Count("left unsaid: the API is too slow for what clients say over HTTP")
		return
	}
	a.queue = append(a.queue, said{i, what, id})
	a.next()
}

// next gives what waits to the connections that are free.
func (a *aside) next() {
	for k := range a.conns {
		c := &a.conns[k]
		if c.busy && a.s.now-c.since > int64(a.s.cfg.Timeout) {
			a.broken(k, errUnanswered)
		}
		for !c.busy && len(a.queue) > 0 {
			w := a.queue[0]
			a.queue = a.queue[1:]
			a.issue(k, w)
		}
	}
}

var errUnanswered = errors.New("no answer")

// issue writes a request.
func (a *aside) issue(k int, w said) {
	c := &a.conns[k]
	s := a.s
	o := target.Opening{Host: a.apis.hosts[k%len(a.apis.hosts)], User: s.cfg.Crowd.User(s.user(w.client))}
	if s.cfg.Mint != nil {
		s.token = s.cfg.Mint.Append(s.token[:0], o.User)
		o.Token = s.token
	}
	a.scratch = a.http.AppendAside(a.scratch[:0], o, string(s.called[w.client]), w.what, s.roomOf(w.reader), s.book.Position(w.reader))
	if len(a.scratch) == 0 {
		return
	}
	c.busy, c.since = true, s.now
	c.out = append(c.out, a.scratch...)
	s.stats.Chatter++
	if c.fd < 0 {
		if err := a.connect(k); err != nil {
			a.broken(k, err)
		}
		return
	}
	a.flush(k)
}

func (a *aside) connect(k int) error {
	c := &a.conns[k]
	api := k % len(a.apis.gateways)
	fd, err := reactor.Socket(a.apis.family[api])
	if err != nil {
		return err
	}
	c.fd = fd
	if err := unix.Connect(fd, a.apis.gateways[api]); err != nil && err != unix.EINPROGRESS {
		return err
	}
	return a.s.poll.Add(fd, uint32(len(a.s.clients)+k), reactor.In|reactor.Out)
}

// flush writes what waits to be written. The loop is told of a socket that takes
// bytes only while there are some.
func (a *aside) flush(k int) {
	c := &a.conns[k]
	n, err := unix.Write(c.fd, c.out)
	if err != nil && err != unix.EAGAIN {
		a.broken(k, err)
		return
	}
	what := uint32(reactor.In)
	if c.out = append(c.out[:0], c.out[max(n, 0):]...); len(c.out) > 0 {
		what |= reactor.Out
	}
	a.s.poll.Watch(c.fd, uint32(len(a.s.clients)+k), what)
}

func (a *aside) handleEvent(k int, what uint32) {
	c := &a.conns[k]
	if c.fd < 0 {
		return // closed earlier in this turn
	}
	if what&reactor.Out != 0 && len(c.out) > 0 {
		a.flush(k)
	}
	if what&(reactor.In|reactor.Hang) == 0 || c.fd < 0 {
		return
	}
	have := copy(a.s.buf, c.in)
	n, errno := reactor.Read(c.fd, a.s.buf[have:])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case n <= 0:
		if errno == 0 {
			errno = unix.ECONNRESET
		}
		a.broken(k, errno)
		return
	}
	a.take(k, a.s.buf[:have+n])
	a.next()
}

// take reads an answer. What it says is not looked at beyond whether it was liked.
func (a *aside) take(k int, data []byte) {
	c := &a.conns[k]
	h, _, size, err := answer.Cut(data, readBufBytes)
	switch {
	case err != nil:
		a.broken(k, err)
	case size == 0:
		c.in = append(c.in[:0], data...)
	default:
		c.busy, c.in = false, c.in[:0]
		if h.Status/100 != 2 {
			a.s.stats.Errors.Count("said over HTTP: " + strconv.Itoa(h.Status))
		}
		if h.Close {
			a.disconnect(k)
		}
	}
}

// broken ends a connection; what it was to say is left unsaid.
func (a *aside) broken(k int, err error) {
	if a.conns[k].busy { // else the API did not keep what nobody used
		a.s.stats.Errors.Count(failure("said over HTTP", err))
	}
	a.disconnect(k)
}

func (a *aside) disconnect(k int) {
	c := &a.conns[k]
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	*c = asideConn{fd: -1, out: c.out[:0], in: c.in[:0]}
}

func (a *aside) closeAll() {
	for k := range a.conns {
		a.disconnect(k)
	}
}
