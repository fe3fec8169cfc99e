// Package hub is the goroutine between Redis and the event loops: it owns the
// follow.Core, feeds it what links, reads and loops report, and carries out what
// it decides. Nothing that is posted to it waits, and it waits for nothing but
// its mailbox: reads run on goroutines of their own, at most readBatches at
// a time, and what can be asked together is asked together.
//
// A mailbox that is full breaks the link that filled it (Listener.Event returns
// false), which is audited when it is re-made: never silence.
package hub

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/gateway/pace"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// Options configure a Hub.
type Options struct {
	Feed   chat.Feed
	Follow follow.Config // Links, LinkOf and PartitionOf are filled in from Feed
	Logger *slog.Logger
	// Pacer holds senders back from rooms that fall behind; nil: nobody is.
	Pacer chat.Pacer

	// Seats and Markers are where presence and markers are kept; nil: nobody is
	// told of either, and what clients say of them goes unheard.
	Seats   chat.Seats
	Markers chat.Markers
	Live    live.Config // what it needs of Feed and Follow is filled in
	// Addr is where clients reach this gateway, for the fleet to know; Conns is
	// how many are here. nil: those the hub knows of.
	Addr  string
	Conns func() int

	// ReadTimeout bounds one batch of reads.
	ReadTimeout time.Duration // default 3 s
}

const (
	// readBatches bounds the batches of reads in flight. More shortens a storm's
	// tail on a Redis with several nodes; each costs a connection.
	readBatches = 4
	// readBatch bounds the questions of one batch. Larger means fewer round
	// trips and longer pauses for others on a Redis that is single-threaded.
	readBatch = 512
	// mailboxBytes bounds the publications that wait for the hub.
	mailboxBytes = 64 << 20
)

// Hub is one gateway's hub.
type Hub struct {
	opts  Options
	feed  chat.Feed
	log   *slog.Logger
	loops edge.Loops
	core  *follow.Core
	alive *alive // nil without Options.Seats

	cancel context.CancelFunc // ends reads
	ctx    context.Context
	quit   chan struct{}
	done   chan struct{}
	wake   chan struct{}

	mu      sync.Mutex // guards what follows
	in      inbox
	stopped bool
	stats   Stats

	// Owned by the hub's goroutine.
	spare    inbox
	out      outbox
	inflight int
	failed   map[int]int64 // partitions whose last read failed, and when that was
	apart    bool          // a batch for them is in flight
	readers  sync.WaitGroup
	paces    paces
}

// Stats is what a hub has done and holds.
type Stats struct {
	follow.Stats
	Turns      uint64
	BusyNs     uint64        // time spent in turns
	Lag        time.Duration // how long the oldest input of the last turn had waited
	QueueBytes int           // publications that wait
	Broken     uint64        // links broken because the mailbox was full
	Live       LiveStats
}

// inbox is what was posted since the hub last looked. Order holds within each
// of its queues; across them there is none to keep.
type inbox struct {
	events    []edge.Event
	links     []linkInput
	linkBytes int
	answers   []answer
	calls     []func(now int64) // answers to what gateway/live asked
	since     time.Time         // when the first of them came
}

func (b *inbox) empty() bool {
	return len(b.events) == 0 && len(b.links) == 0 && len(b.answers) == 0 && len(b.calls) == 0
}

func (b *inbox) reset() {
	b.events, b.links, b.answers, b.calls = emptied(b.events), emptied(b.links), emptied(b.answers), emptied(b.calls)
	b.linkBytes = 0
}

// emptied is a slice to be filled again, without what was in it and without the memory
// of a storm.
func emptied[T any](s []T) []T {
	const most = 1 << 14
	if cap(s) > most {
		return nil
	}
	clear(s)
	return s[:0]
}

// linkInput is a call of chat.Listener, kept.
type linkInput struct {
	kind      linkKind
	link      int32
	partition int32
	gen       uint64
	ch        chat.Channel
	payload   []byte
	epoch     string
	ms        uint64
}

type linkKind uint8

const (
	linkUp linkKind = iota
	linkDown
	linkConfirmed
	linkEvent
	linkCanary
)

// New returns a hub that has not started.
func New(o Options) (*Hub, error) {
	if o.Feed == nil {
		return nil, fmt.Errorf("hub: no feed")
	}
	o.ReadTimeout = cmp.Or(o.ReadTimeout, 3*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	h := &Hub{
		opts: o,
		feed: o.Feed,
		log:  o.Logger,
		quit: make(chan struct{}),
		done: make(chan struct{}),
		wake: make(chan struct{}, 1),

		failed: map[int]int64{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	o.Follow.Links = o.Feed.Links()
	o.Follow.LinkOf = o.Feed.LinkOf
	o.Follow.PartitionOf = o.Feed.PartitionOf
	if o.Follow.ConnPrefix == "" {
		o.Follow.ConnPrefix = newGatewayID()[:8] + "."
	}
	h.core = follow.New(o.Follow, &h.out)
	if o.Seats != nil && o.Markers != nil {
		h.alive = newAlive(h, o)
		h.out.alive = h.alive
	}
	h.paces = paces{h: h, rooms: map[string]*pacedRoom{}}
	return h, nil
}

// Start starts the hub: from here on it listens to Redis and commands loops.
func (h *Hub) Start(loops edge.Loops) {
	h.loops = loops
	h.out.cmds = make([][]edge.Cmd, loops.Count())
	h.out.subs = make([][]subOp, h.feed.Links())
	go h.run()
	if h.alive != nil {
		h.readers.Go(func() { h.alive.fleet.run(h.ctx) })
	}
	h.feed.Listen(h)
}

// Stop ends the hub, when what it reads has been called off. It is idempotent.
func (h *Hub) Stop() {
	h.mu.Lock()
	first := !h.stopped
	h.stopped = true
	h.mu.Unlock()
	if first {
		h.cancel()
		close(h.quit)
	}
	if h.loops != nil {
		<-h.done
	}
}

// Stats returns counts so far.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.QueueBytes = h.in.linkBytes
	if h.alive != nil {
		s.Live.Fleet = h.alive.fleet.stats()
	}
	return s
}

// Post implements edge.Hub.
func (h *Hub) Post(batch []edge.Event) {
	h.mu.Lock()
	h.arrived()
	h.in.events = append(h.in.events, batch...)
	h.mu.Unlock()
	h.poke()
}

// LinkUp implements chat.Listener.
func (h *Hub) LinkUp(link int, gen uint64) {
	h.postLink(linkInput{kind: linkUp, link: int32(link), gen: gen})
}

// LinkDown implements chat.Listener.
func (h *Hub) LinkDown(link int, gen uint64, err error) {
	h.postLink(linkInput{kind: linkDown, link: int32(link), gen: gen})
}

// Confirmed implements chat.Listener.
func (h *Hub) Confirmed(link int, gen uint64, ch chat.Channel) {
	h.postLink(linkInput{kind: linkConfirmed, link: int32(link), gen: gen, ch: ch})
}

// Canary implements chat.Listener.
func (h *Hub) Canary(link int, gen uint64, partition int, epoch string, ms uint64) {
	h.postLink(linkInput{kind: linkCanary, link: int32(link), gen: gen, partition: int32(partition), epoch: epoch, ms: ms})
}

// Event implements chat.Listener.
func (h *Hub) Event(link int, gen uint64, ch chat.Channel, payload []byte) bool {
	return h.postLink(linkInput{kind: linkEvent, link: int32(link), gen: gen, ch: ch, payload: payload})
}

func (h *Hub) postLink(in linkInput) bool {
	h.mu.Lock()
	if in.kind == linkEvent {
		if h.in.linkBytes > mailboxBytes {
			h.stats.Broken++
			h.mu.Unlock()
			return false
		}
		h.in.linkBytes += len(in.payload) + 64
	}
	h.arrived()
	h.in.links = append(h.in.links, in)
	h.mu.Unlock()
	h.poke()
	return true
}

// arrived notes when the first input of a turn came; mu is held.
func (h *Hub) arrived() {
	if h.in.empty() {
		h.in.since = time.Now()
	}
}

func (h *Hub) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// tickEvery is how finely deadlines are kept.
const tickEvery = 50 * time.Millisecond

func (h *Hub) run() {
	defer close(h.done)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-h.quit:
			h.readers.Wait()
			return
		case <-h.wake:
		case <-ticker.C:
		}
		h.turn()
	}
}

// flushEvery is after how many inputs of a turn its outputs so far are posted,
// so that the first of a long turn do not wait for the last.
const flushEvery = 256

func (h *Hub) turn() {
	h.mu.Lock()
	h.in, h.spare = h.spare, h.in
	h.mu.Unlock()
	in := &h.spare
	began := time.Now()
	now := edge.NowMs()

	done := 0
	count := func() {
		if done++; done%flushEvery == 0 {
			h.flush(now)
		}
	}
	for i := range in.links {
		h.handleLink(now, &in.links[i])
		count()
	}
	for i := range in.answers {
		h.handleAnswer(now, &in.answers[i])
		count()
	}
	for _, f := range in.calls {
		f(now)
		count()
	}
	for i := range in.events {
		h.handleEvent(now, &in.events[i])
		count()
	}
	h.forgetFailed(now)
	h.core.Tick(now)
	if h.alive != nil {
		h.alive.core.Tick(now)
	}
	h.paces.advance(now)
	h.flush(now)

	lag := time.Duration(0)
	if !in.empty() {
		lag = began.Sub(in.since)
	}
	in.reset()
	h.mu.Lock()
	h.stats.Stats = h.core.Stats()
	h.stats.Turns++
	h.stats.BusyNs += uint64(time.Since(began))
	h.stats.Lag = lag
	if h.alive != nil {
		h.stats.Live = h.alive.stats()
	}
	h.mu.Unlock()
}

func (h *Hub) handleLink(now int64, in *linkInput) {
	if h.alive != nil && h.alive.handleLink(now, in) {
		return
	}
	link := int(in.link)
	switch in.kind {
	case linkUp:
		h.core.LinkUp(link, in.gen)
	case linkDown:
		h.core.LinkDown(link, in.gen)
	case linkConfirmed:
		h.core.Confirmed(link, in.gen, in.ch)
	case linkEvent:
		h.core.Event(link, in.gen, in.ch, in.payload)
	case linkCanary:
		h.core.Canary(link, in.gen, int(in.partition), in.epoch)
		h.core.Clock(link, in.gen, in.ms) // behind it: a new epoch has everything read first
	}
}

func (h *Hub) handleEvent(now int64, ev *edge.Event) {
	if h.alive != nil {
		h.alive.handleEvent(now, ev)
	}
	switch ev.Kind {
	case edge.EvOpened:
		h.core.Open(now, ev.Conn, ev.User, follow.Opening{Via: ev.Via, Resume: ev.Resume, Since: ev.Since, IssuedAt: ev.IssuedAt, Known: h.alive.knownAs(ev.Conn)})
		h.alive.back(now, ev.Conn)
	case edge.EvClosed:
		h.core.Close(now, ev.Conn)
	case edge.EvPositions:
		if !h.core.Positions(ev.Conn, ev.Positions, ev.More) {
			h.out.Unicast(ev.Conn, edge.NewFrame(96, func(b []byte) []byte {
				return protocol.AppendError(b, protocol.ErrInvalid, "positions are taken once, after connecting with ?resume")
			}))
		}
	case edge.EvLagged:
		h.core.Lagged(ev.Conn, ev.Lag)
	case edge.EvDrained:
		h.core.Drained(ev.Conn)
	case edge.EvRenewed:
		h.core.Renew(ev.Conn, ev.IssuedAt)
	case edge.EvHot:
		if h.opts.Pacer != nil {
			h.paces.report(h.core.RoomName(ev.RoomNum), pace.Report{LateMs: int64(ev.LateMs), Events: int(ev.Events), Members: int(ev.Members)})
		}
	}
}

// flush carries out what was decided so far.
func (h *Hub) flush(now int64) {
	h.core.Flush()
	if h.alive != nil {
		h.alive.dispatch(now)
	}
	o := &h.out
	for i, ops := range o.subs {
		if len(ops) > 0 {
			h.flushSubs(i, ops)
			o.subs[i] = emptied(ops)
		}
	}
	for i, cmds := range o.cmds {
		if len(cmds) > 0 {
			h.loops.Post(i, cmds)
			o.cmds[i] = emptied(cmds)
		}
	}
	h.dispatch()
}

// flushSubs hands a link its subscriptions in order, in runs of one kind.
func (h *Hub) flushSubs(link int, ops []subOp) {
	for len(ops) > 0 {
		n := 1
		for n < len(ops) && ops[n].on == ops[0].on && ops[n].gen == ops[0].gen {
			n++
		}
		chs := make([]chat.Channel, n)
		for i := range chs {
			chs[i] = ops[i].ch
		}
		if ops[0].on {
			h.feed.Subscribe(link, ops[0].gen, chs)
		} else {
			h.feed.Unsubscribe(link, ops[0].gen, chs)
		}
		ops = ops[n:]
	}
}
