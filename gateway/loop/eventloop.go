package loop

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/madang-chat/madang/gateway/deflate"
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/poll"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/internal/descriptors"
	"github.com/madang-chat/madang/protocol"
)

const (
	// readBufferBytes is the one buffer a loop reads all its sockets into.
	readBufferBytes = 64 << 10
	// maxPolled is how many ready sockets one turn looks at.
	maxPolled = 512
	// crowded is how many connections to serve at once are a crowd: they take more than
	// a millisecond.
	crowded = 256
)

// loop is one event loop. Its fields belong to the goroutine that runs it, but
// for those under mu.
type loop struct {
	// Immutable.
	g              *Group
	num            int
	addr           netip.AddrPort
	start          time.Time
	queueBytes     uint32
	heartbeatTicks uint32
	graceTicks     uint32
	messageTicks   uint32
	resumeTicks    uint32
	slowTicks      uint32
	closeTicks     uint32
	headTicks      uint32
	pollTicks      uint32 // between polls at the rate that they may come at
	maxHeads       int
	acceptEveryMs  float64 // 0: as fast as they come
	retrySpreadMs  int
	frameLimits    [forms]wsframe.Limits
	compress       func(json []byte) []byte // l.compressEvent
	resumeBytes    func(sofar []byte) int   // l.allowResume
	drained        chan struct{}            // closed when a drain has emptied the loop
	ended          chan struct{}            // closed when run returns

	// The loop's own.
	poller      *poll.Poller
	listener    int // -1: closed
	accepting   bool
	acceptTold  uint32 // tick at which the log said that accepting fails
	acceptAgain uint32 // tick to try again at: out of descriptors, or ahead of the accept rate
	acceptTat   float64
	mostFile    int  // no client is to have this descriptor, nor one above
	crammed     bool // it was reached, or accepting failed: look before the next
	conns       slab
	live        int // slots in use
	heads       int // of them, those whose request is awaited
	wheel       wheel
	due         []uint32 // advance's scratch
	rooms       rooms
	slow        map[uint32]*slowReader
	late        lateRooms
	polls       map[uint32]*waiting
	answers     []uint32 // slots of polls to be answered at the end of the turn
	bodies      int64    // bytes that have come of bodies that are awaited
	out         out
	iov         iovecs
	pool        wsframe.Pool
	carries     map[uint32]*carry
	freeCarries []*carry
	tls         tlsState
	decoder     wsframe.Decoder // for connections without a carry
	deflater    deflate.Deflater
	inflater    deflate.Inflater
	http        headReader
	readBuf     []byte
	scratch     []byte
	events      []edge.Event // for the hub, posted twice a turn
	stats       Stats
	// The turn's time: ticks and milliseconds since start, and Unix seconds.
	tick  uint32
	nowMs int64
	unix  int64
	// What it is doing, for when that fails.
	at      handling
	step    int // of steps
	reading reading
	bugTold uint32 // tick of the last panic that was logged
	// How it ends.
	draining    bool
	drainUntil  uint32
	drainCursor uint32
	drainTotal  int64 // connections when it began
	drainTicks  int64 // how long it takes
	stopping    bool
	killed      bool
	// Keys whose connections are looked for, and the next slot to look at; 0: none are.
	withdrawn  []uint16
	withdrawAt uint32

	mu        sync.Mutex
	cmds      []edge.Cmd // guarded by mu, as all below
	calls     []func()
	closed    bool
	published Stats
	// The mailbox's other halves, the loop's own.
	spareCmds  []edge.Cmd
	spareCalls []func()
}

func newLoop(g *Group, num int, addr string) (*loop, error) {
	o := &g.opts
	l := &loop{
		g: g, num: num, start: time.Now(),
		queueBytes:     uint32(min(o.QueueBytes, 1<<30)),
		heartbeatTicks: ticksOf(o.Heartbeat),
		graceTicks:     ticksOf(o.Grace),
		messageTicks:   ticksOf(o.MessageTimeout),
		resumeTicks:    ticksOf(o.ResumeTimeout),
		slowTicks:      ticksOf(o.SlowTimeout),
		closeTicks:     ticksOf(o.CloseTimeout),
		headTicks:      ticksOf(o.HeadTimeout),
		maxHeads:       max(1, o.MaxUpgrades/o.Loops),
		retrySpreadMs:  2000,
		drained:        make(chan struct{}),
		ended:          make(chan struct{}),
		slow:           make(map[uint32]*slowReader),
		late:           lateRooms{hot: make(map[edge.RoomNum]*hotRoom), probed: make(map[uint32]*probe)},
		carries:        make(map[uint32]*carry),
		polls:          make(map[uint32]*waiting),
		readBuf:        make([]byte, readBufferBytes),
	}
	if n := o.Session.FramesPerSecond; n > 0 {
		l.pollTicks = ticksOf(time.Second / time.Duration(n))
	}
	l.compress, l.resumeBytes = l.compressEvent, l.allowResume
	l.frameLimits[plain] = wsframe.Limits{
		MaxMessage: o.Session.MaxMessageBytes,
		MaxLarge:   o.Session.MaxResumeBytes,
		MayBeLarge: session.LooksLikeResume,
	}
	l.frameLimits[compressed] = l.frameLimits[plain]
	l.frameLimits[compressed].Deflate = true
	l.frameLimits[compressed].Peek = func(head []byte) []byte { return l.inflater.Peek(head, wsframe.PeekBytes) }
	l.out.init()
	l.rooms.init()
	l.tls.init(l)
	if o.AcceptRate > 0 {
		l.acceptEveryMs = 1000 * float64(o.Loops) / float64(o.AcceptRate)
	}
	l.clock()
	l.wheel.done = l.tick
	var err error
	if l.listener, l.addr, err = listen(addr, o.SendBufferBytes); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if l.poller, err = poll.New(maxPolled); err != nil {
		closeFD(l.listener)
		return nil, err
	}
	if err := l.poller.Add(l.listener, listenerToken, poll.Read); err != nil {
		l.release()
		return nil, fmt.Errorf("watch the listener: %w", err)
	}
	l.accepting = true
	l.mostFile = descriptors.Line()
	return l, nil
}

// release frees what newLoop took, when run never does.
func (l *loop) release() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.closeListener()
	l.poller.Close()
}

// post puts commands into the mailbox.
func (l *loop) post(batch []edge.Cmd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.cmds = append(l.cmds, batch...)
	l.poller.Wake() // under mu, because the poller is closed after closed is set
}

// call has f run in the loop.
func (l *loop) call(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.calls = append(l.calls, f)
	l.poller.Wake()
}

// run is the loop: turn after turn until it is stopped and empty.
func (l *loop) run() {
	defer close(l.ended)
	for !l.killed && !(l.stopping && l.live == 0) {
		ms := l.sleepMs()
		if l.publish() || l.flushing() { // what wakes it up may have come while it did not look
			ms = 0
		}
		if err := l.pollSafely(ms); err != nil {
			// Nothing is left to wait with. It can't happen short of a bug.
			l.g.log.Error("event loop gives up", "loop", l.num, "error", err)
			l.killed = true
		}
		began := time.Now()
		l.turn()
		busy := time.Since(began)
		l.stats.Turns++
		l.stats.BusyNs += uint64(busy)
		l.stats.MaxTurnNs = max(l.stats.MaxTurnNs, int64(busy))
		if l.g.opts.OnTurn != nil {
			l.g.opts.OnTurn(busy)
		}
	}
	l.end()
}

// end frees everything.
func (l *loop) end() {
	l.closeListener()
	for slot := uint32(1); slot < l.conns.used; slot++ {
		l.destroySafely(slot, ClosedStop)
	}
	l.try(l.hand)
	l.publish()
	l.mu.Lock()
	l.closed = true
	l.cmds, l.calls = nil, nil
	l.mu.Unlock()
	l.poller.Close()
	if l.draining {
		l.drainDone()
	}
}

// clock reads the time once for a turn.
func (l *loop) clock() {
	now := time.Now()
	l.nowMs = now.Sub(l.start).Milliseconds()
	l.tick = uint32(l.nowMs/tickMs) + 1
	l.unix = now.Unix()
}

// sleepMs is how long the loop may wait for its sockets.
func (l *loop) sleepMs() int {
	if l.withdrawAt != 0 {
		return 0
	}
	ms := l.untilDue()
	if l.draining || l.acceptAgain != 0 {
		if ms < 0 || ms > tickMs {
			ms = tickMs
		}
	}
	if len(l.late.hot) > 0 && (ms < 0 || ms > lateEveryMs) {
		ms = lateEveryMs
	}
	return ms
}

// poll looks after the sockets that are ready.
func (l *loop) poll(timeoutMs int) error {
	ready, err := l.poller.Wait(timeoutMs)
	l.clock()
	l.crowd(len(ready))
	for i := range ready {
		ev := &ready[i]
		if ev.Token == listenerToken {
			l.at.slot = 0
			l.acceptSome()
			continue
		}
		slot, gen := uint32(ev.Token), uint32(ev.Token>>32)
		l.at.slot = slot
		if ev.Writable {
			if c := l.conns.get(slot, gen); c != nil && c.has(flagArmed) && !c.has(flagDoomed) {
				l.flushConn(slot, c)
				// What was full has room again: the peer reads, so it lives.
				c.lastRead = l.tick
				c.clear(flagPinged)
			}
		}
		if ev.Readable || ev.Failed {
			if c := l.conns.get(slot, gen); c != nil {
				l.readable(slot, c)
			}
		}
	}
	l.at.slot = 0
	return err
}

// crowd says so when there are many connections to serve.
func (l *loop) crowd(conns int) {
	if conns >= crowded && l.g.opts.OnCrowd != nil {
		l.g.opts.OnCrowd()
	}
}

// again does what is to be tried once more.
func (l *loop) again() {
	if l.acceptAgain != 0 && l.tick >= l.acceptAgain {
		l.acceptAgain = 0
		l.headsChanged()
	}
	if l.draining {
		l.drainSome()
	}
	if l.withdrawAt != 0 {
		l.closeWithdrawn()
	}
}

// report notes an event for the hub.
func (l *loop) report(ev edge.Event) { l.events = append(l.events, ev) }

// hand gives the hub what was noted. The hub owns what the events refer to, not
// the slice.
func (l *loop) hand() {
	if len(l.events) == 0 {
		return
	}
	events := l.events
	l.events = nil
	l.g.opts.Hub.Post(events)
	clear(events)
	if cap(events) <= 1<<14 { // else a storm is over
		l.events = events[:0]
	}
}

// reading is what was posted, and how far it has been carried out.
type reading struct {
	begun     bool
	calls     []func()
	cmds      []edge.Cmd
	call, cmd int // the next of each
}

// readMailbox carries out what was posted, but while a flush goes on.
func (l *loop) readMailbox() {
	if l.flushing() {
		return
	}
	r := &l.reading
	if !r.begun {
		l.mu.Lock()
		r.cmds, r.calls = l.cmds, l.calls
		l.cmds, l.calls = l.spareCmds[:0], l.spareCalls[:0]
		l.mu.Unlock()
		r.begun, r.call, r.cmd = true, 0, 0
	}
	for r.call < len(r.calls) {
		f := r.calls[r.call]
		r.call++ // before, so that it is done at most once
		f()
	}
	for r.cmd < len(r.cmds) {
		cmd := &r.cmds[r.cmd]
		r.cmd++
		l.at.slot = cmd.Conn.Slot()
		l.carryOut(cmd)
	}
	l.at.slot = 0
	l.stats.Commands += uint64(len(r.cmds))
	clear(r.cmds) // let go of the frames
	clear(r.calls)
	if cap(r.cmds) > 1<<16 {
		r.cmds = nil
	}
	l.spareCmds, l.spareCalls = r.cmds, r.calls
	*r = reading{}
}

// carryOut does what the hub says. A command for a connection that is no more is
// ignored.
func (l *loop) carryOut(cmd *edge.Cmd) {
	switch cmd.Kind {
	case edge.CmdBroadcast:
		l.broadcast(cmd)
	case edge.CmdUnicast:
		l.unicast(cmd)
	case edge.CmdAttach:
		if slot, c := l.connOf(cmd.Conn); c != nil {
			l.attach(slot, c, cmd.Room)
		}
	case edge.CmdDetach:
		if slot, c := l.connOf(cmd.Conn); c != nil {
			l.detach(slot, c, cmd.Room)
		}
	case edge.CmdDropRoom:
		l.dropRoom(cmd.Room)
	case edge.CmdMark:
		if slot, c := l.connOf(cmd.Conn); c != nil {
			l.mark(slot, c)
		}
	case edge.CmdClose:
		if slot, c := l.connOf(cmd.Conn); c != nil {
			l.closeForHub(slot, c, cmd.Code)
		}
	default:
		panic(fmt.Sprintf("BUG: command of kind %d", cmd.Kind))
	}
}

// mark answers when everything that was queued before is written. Of a poll nothing
// is: what it takes is bounded by its answer.
func (l *loop) mark(slot uint32, c *conn) {
	l.settle(c)
	if c.form == collected {
		l.report(edge.Event{Kind: edge.EvDrained, Conn: l.id(slot, c)})
		return
	}
	l.enqueue(slot, c, itemMark)
}

// closeForHub writes what is queued, then closes with the hub's code.
func (l *loop) closeForHub(slot uint32, c *conn, code protocol.CloseCode) {
	l.beginCloseCode(slot, c, ClosedByHub, code, "")
}
