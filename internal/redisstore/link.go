package redisstore

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/chat"
)

const (
	// subscribeBatch is how many channels one SUBSCRIBE carries.
	subscribeBatch = 500
	// writeLimit bounds a write to a subscriber connection: a server that does not
	// read is away.
	writeLimit = 5 * time.Second
	// backoffMin and backoffMax bound the pause before a link is made again. A
	// longer one lengthens every outage by what is left of it when Redis is back; an
	// attempt that is refused costs 50 µs. Links that broke together come back
	// spread over its second half and as much again (pauseOf), so that their
	// subscriptions and audits do not start together.
	backoffMin, backoffMax = 20 * time.Millisecond, 500 * time.Millisecond
	// leap is by how much a clock has to jump ahead to matter: less than it takes for
	// what says who is online to expire before it is refreshed.
	leap = time.Minute
)

var (
	errDeaf      = errors.New("no canary came back in time")
	errElsewhere = errors.New("sends go to another server than the link's")
	errOvertaken = errors.New("a canary did not come back, a later one did: what was sent between them was missed")
	errListener  = errors.New("the listener could not take an event")
	errMovedOff  = errors.New("the server ended a subscription: the slot moved")
)

// link is one subscriber connection, made again for as long as the Store lives.
// Its primary is chosen anew each time, as the command client sees it then.
//
// Two goroutines own it: run reads and calls the listener; write sends what was
// asked for. They share what mu guards.
type link struct {
	s       *Store
	id      int
	home    int    // the partition its canaries run in
	key     string // decides whose connection it is
	channel string // of its canaries
	// By run alone: the epoch that was told last, the Redis time of the last canary and
	// when that came, and how often that clock has leapt ahead.
	epoch  string
	passed uint64
	came   time.Time
	leaps  int

	mu       sync.Mutex
	gen      uint64
	conn     net.Conn // nil between makings
	broken   error    // why conn is to end
	up       bool     // subscribed to its canaries
	queue    []request
	more     *sync.Cond     // queue grew, or the making ended
	leaving  map[string]int // unsubscriptions under way; a Cluster's only
	sent     time.Time      // of the last canary
	sentWhat uint64         // its number
	back     time.Time      // when one came back last; of the making before that
	heard    bool           // one came back in this making
	// owed are the canaries of this making that were published, or may have been,
	// and have not come back; ascending. A link carries them in the order in which
	// they were published: one that is overtaken went to a server that the link
	// does not hang on (sends were there for a moment, and are back), or was
	// dropped, and so was what was sent then.
	owed []uint64
}

// request is a channel to take up or to leave.
type request struct {
	channel string
	join    bool
}

func newLink(s *Store, id int) *link {
	l := &link{s: s, id: id, home: id, key: s.keys.prefix[id], channel: s.keys.database + s.keys.gateway(id, s.id)}
	l.more = sync.NewCond(&l.mu)
	return l
}

// run makes the link again and again until ctx ends.
func (l *link) run(ctx context.Context, listener chat.Listener) {
	backoff := backoffMin
	for ctx.Err() == nil {
		wasUp, err := l.making(ctx, listener)
		if ctx.Err() != nil {
			return
		}
		l.s.nodes.refresh(ctx)
		switch {
		case wasUp:
			backoff = backoffMin
		case backoff == backoffMin: // once, not at every attempt
			l.s.log.Warn("link not made", "link", l.id, "error", err)
		}
		timer := time.NewTimer(pauseOf(backoff))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		backoff = min(2*backoff, backoffMax)
	}
}

// pauseOf spreads a pause over half to one and a half of it.
func pauseOf(backoff time.Duration) time.Duration { return backoff/2 + rand.N(backoff) }

// making is one life of the link: connect, subscribe, read until it breaks.
func (l *link) making(ctx context.Context, listener chat.Listener) (wasUp bool, err error) {
	if err := l.s.checked(ctx); err != nil {
		return false, err // canaries write: not into another deployment's data
	}
	conn, r, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	l.gen++
	gen := l.gen
	l.conn, l.broken, l.up, l.heard = conn, nil, true, false
	l.queue, l.leaving, l.owed = nil, map[string]int{}, nil
	l.sent, l.back = time.Time{}, time.Now()
	l.mu.Unlock()
	if ctx.Err() != nil { // Close may have looked before there was a connection
		l.interrupt(errClosed)
	}

	written := make(chan struct{})
	go func() {
		defer close(written)
		l.write(conn)
	}()
	level := slog.LevelDebug // a Cluster has a link per partition
	if gen > 1 {
		level = slog.LevelInfo
	}
	l.s.log.Log(ctx, level, "link up", "link", l.id, "gen", gen, "server", conn.RemoteAddr().String())
	if f := l.s.opt.Observer.LinkUp; f != nil {
		f(l.id)
	}
	listener.LinkUp(l.id, gen)
	l.beat(time.Now())
	err = l.read(r, gen, listener)
	err = l.interrupt(err)
	<-written
	l.mu.Lock()
	l.conn, l.up = nil, false
	l.mu.Unlock()
	if ctx.Err() == nil {
		l.s.log.Warn("link down", "link", l.id, "gen", gen, "error", err)
	}
	if f := l.s.opt.Observer.LinkDown; f != nil {
		f(l.id, err)
	}
	listener.LinkDown(l.id, gen, err)
	return true, err
}

// connect dials, signs in and subscribes the link's own channel, confirmed.
func (l *link) connect(ctx context.Context) (net.Conn, *pushReader, error) {
	opt := &l.s.opt
	ctx, cancel := context.WithTimeout(ctx, opt.DialTimeout+opt.CommandTimeout)
	defer cancel()
	conn, err := l.s.nodes.dial(ctx, l.key)
	if err != nil {
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	// Close does not know this connection yet.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var hello []byte
	if t := &l.s.target; t.user != "" {
		hello = appendCommand(hello, "AUTH", t.user, t.password)
	} else if t.password != "" {
		hello = appendCommand(hello, "AUTH", t.password)
	}
	hello = appendCommand(hello, l.command(true), l.channel)
	r := newPushReader(conn)
	if _, err = conn.Write(hello); err == nil {
		for {
			var kind pushKind
			if kind, _, err = r.next(); err != nil || kind == pushSubscribe {
				break
			}
		}
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{}) // from here on canaries decide
	return conn, r, nil
}

// command is how channels are taken up or left.
func (l *link) command(join bool) string {
	sharded := l.s.target.kind == cluster
	switch {
	case sharded && join:
		return "SSUBSCRIBE"
	case sharded:
		return "SUNSUBSCRIBE"
	case join:
		return "SUBSCRIBE"
	}
	return "UNSUBSCRIBE"
}

// read hands over what comes until the connection ends.
func (l *link) read(r *pushReader, gen uint64, listener chat.Listener) error {
	// There is no table of what the link carries: it would cost more memory per
	// idle user than anything else here, and spares one small allocation per
	// publication. The listener knows what it follows.
	for {
		kind, payload, err := r.next()
		if err != nil {
			return err
		}
		switch kind {
		case pushMessage:
			if string(r.channel) == l.channel {
				l.canaryBack(gen, string(payload), listener)
			} else if ch, ok := l.s.keys.parseChannel(string(r.channel)); ok && !listener.Event(l.id, gen, ch, payload) {
				return errListener
			}
		case pushSubscribe:
			if ch, ok := l.s.keys.parseChannel(string(r.channel)); ok {
				listener.Confirmed(l.id, gen, ch)
			}
		case pushUnsubscribe:
			if l.s.target.kind == cluster && !l.asked(string(r.channel)) {
				return errMovedOff
			}
		}
	}
}

// asked says whether an unsubscription that was confirmed had been asked for.
func (l *link) asked(channel string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.leaving[channel]
	if n <= 1 {
		delete(l.leaving, channel)
	} else {
		l.leaving[channel] = n - 1
	}
	return n > 0
}

// ask queues channels for the writer.
func (l *link) ask(gen uint64, chs []chat.Channel, join bool) {
	rs := make([]request, len(chs))
	for i, ch := range chs {
		rs[i] = request{l.s.keys.channel(ch), join}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if gen != l.gen || !l.up || l.broken != nil {
		return
	}
	if !join && l.s.target.kind == cluster {
		for _, r := range rs {
			l.leaving[r.channel]++
		}
	}
	l.queue = append(l.queue, rs...)
	l.more.Signal()
}

// write sends what was asked for, in order, until the making ends.
func (l *link) write(conn net.Conn) {
	var buf []byte
	var names []string
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && l.broken == nil {
			l.more.Wait()
		}
		queue := l.queue
		l.queue = nil
		ended := l.broken != nil
		l.mu.Unlock()
		if ended {
			return
		}
		for len(queue) > 0 {
			join := queue[0].join
			names = names[:0]
			for len(queue) > 0 && queue[0].join == join && len(names) < subscribeBatch {
				names = append(names, queue[0].channel)
				queue = queue[1:]
			}
			buf = appendCommand(buf[:0], l.command(join), names...)
			_ = conn.SetWriteDeadline(time.Now().Add(writeLimit))
			if _, err := conn.Write(buf); err != nil {
				l.interrupt(err)
				return
			}
		}
	}
}

// interrupt ends the present making, for the first reason given, which it returns.
func (l *link) interrupt(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return err
	}
	if l.broken == nil {
		l.broken = err
		l.conn.Close()
		l.more.Signal()
	}
	return l.broken
}

// beat sends a canary when one is due, and ends the making when none came back
// for too long.
func (l *link) beat(now time.Time) {
	l.mu.Lock()
	if !l.up || l.broken != nil {
		l.mu.Unlock()
		return
	}
	if now.Sub(l.back) > canaryLimit {
		l.mu.Unlock()
		l.interrupt(errDeaf)
		return
	}
	if now.Sub(l.sent) < canaryEvery {
		l.mu.Unlock()
		return
	}
	l.sent = now
	l.sentWhat++
	l.owed = append(l.owed, l.sentWhat)
	gen, what := l.gen, l.sentWhat
	l.mu.Unlock()
	l.sendCanary(gen, what)
}

// sendCanary sends a canary and does not wait: what matters is what comes back.
func (l *link) sendCanary(gen, what uint64) {
	s := l.s
	token := fmt.Sprintf("%d.%d", gen, what)
	keys := []string{s.keys.canary(l.home), s.keys.epoch(l.home), s.keys.gateway(l.home, s.id)}
	// A new epoch with each canary: one that this process gave before would hide
	// that Redis has lost its data since.
	c := newCall(l.home, canaryScript, keys, token, crand.Text(), s.publish, canaryTTL.Milliseconds(), s.keys.database)
	c.then = func(reply any, err error) {
		if onTheMove(err) {
			l.sendBare(gen, what, token)
			return
		}
		l.canarySent(gen, what, reply, err)
	}
	l.submit(c)
}

// sendBare sends what is left of a canary whose slot is being moved, so that its
// script is refused for as long as that takes: the publication. Only the slot's
// primary refuses for that reason, sends are refused there as well and go nowhere
// else, and when the slot has moved the server says so on the link.
func (l *link) sendBare(gen, what uint64, token string) {
	c := newCommand(l.home, l.s.publish, l.channel, token)
	c.then = func(reply any, err error) { l.canarySent(gen, what, reply, err) }
	l.submit(c)
}

// submit gives a canary to the lane that sends take.
func (l *link) submit(c *call) {
	c.deadline = time.Now().Add(canaryEvery)
	lane, err := l.s.lane(l.s.ctx, writes, l.s.keys.prefix[l.home])
	if err != nil {
		c.finish(nil, errUnsent)
		return
	}
	lane.submit(c)
}

// errUnsent: there is no server to send to.
var errUnsent = fmt.Errorf("%w: no primary is known", chat.ErrUnavailable)

// notRun says of a failed call that it has not run and will not.
func notRun(err error) bool {
	return errors.Is(err, errUnsent) || errors.Is(err, errDeadline) || errors.Is(err, errOverflow) || errors.Is(err, errClosed) ||
		classify(err) != broken
}

// canarySent hears how many subscribers a canary had where sends go. None: the
// link hangs on a server that is the primary no more, and need not be waited for.
func (l *link) canarySent(gen, what uint64, reply any, err error) {
	l.mu.Lock()
	current := l.gen == gen
	if err != nil && current {
		l.sent = time.Time{} // another one with the next beat
		if notRun(err) {
			l.settle(what)
		}
	}
	l.mu.Unlock()
	if err != nil {
		if classify(err) == moved {
			l.s.nodes.refresh(l.s.ctx)
		}
		return
	}
	if subscribers, ok := reply.(int64); ok && subscribers == 0 && current {
		l.interrupt(errElsewhere)
	}
}

// settle takes a canary that nothing is to be waited for any more, and says
// whether an earlier one is still owed. mu is held.
func (l *link) settle(what uint64) (overtaken bool) {
	i, found := slices.BinarySearch(l.owed, what)
	if found {
		l.owed = slices.Delete(l.owed, i, i+1)
	}
	return i > 0
}

// canaryBack takes a canary that came through the link.
func (l *link) canaryBack(gen uint64, payload string, listener chat.Listener) {
	token, rest, _ := strings.Cut(payload, " ")
	epoch, passed, _ := strings.Cut(rest, " ")
	of, what, _ := strings.Cut(token, ".")
	if of != strconv.FormatUint(gen, 10) {
		return // of an earlier making
	}
	now := time.Now()
	number, _ := strconv.ParseUint(what, 10, 64)
	ms, _ := strconv.ParseUint(passed, 10, 64)
	l.mu.Lock()
	if l.settle(number) {
		l.mu.Unlock()
		l.interrupt(errOvertaken)
		return
	}
	l.back = now
	first := !l.heard
	l.heard = true
	took := time.Duration(-1)
	if number == l.sentWhat && !l.sent.IsZero() { // an earlier one's failure wipes it
		took = now.Sub(l.sent)
	}
	l.mu.Unlock()
	if f := l.s.opt.Observer.CanaryBack; f != nil && took >= 0 {
		f(l.id, took)
	}
	if epoch == "" {
		return // a bare one
	}
	// What a leap has ended, as if its time to live were over, is lost to us.
	if l.passed != 0 && int64(ms-l.passed) > (now.Sub(l.came)+leap).Milliseconds() {
		l.leaps++
		l.s.log.Warn("Redis's clock has leapt ahead", "link", l.id, "by", time.Duration(ms-l.passed)*time.Millisecond-now.Sub(l.came))
	}
	l.passed, l.came = ms, now
	if l.leaps > 0 {
		epoch += "+" + strconv.Itoa(l.leaps)
	}
	listener.Canary(l.id, gen, l.home, epoch, ms)
	// The other partitions of the link are on the same server, and share its fate:
	// what the canary's own partition lost, they lost too.
	if (first || epoch != l.epoch) && l.s.target.kind != cluster {
		for part := l.home + len(l.s.feed.links); part < l.s.opt.Partitions; part += len(l.s.feed.links) {
			listener.Canary(l.id, gen, part, epoch, ms)
		}
	}
	if epoch != l.epoch && l.epoch != "" {
		l.s.schema.Store(false) // it may be lost as well, and is to be written before another process writes its own
	}
	l.epoch = epoch
}

// unhealthy says why the link does not deliver, "" when it does.
func (l *link) unhealthy(now time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.up:
		return "down"
	case !l.heard:
		return "no canary has come back yet"
	case now.Sub(l.back) > canaryLimit:
		return errDeaf.Error()
	}
	return ""
}
