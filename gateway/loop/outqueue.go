package loop

import (
	"runtime"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/protocol"
)

// An item is bytes to be written, shared by all connections whose queues refer
// to it: a frame, several frames joined, a reply.
type item struct {
	buf      []byte
	refs     int32
	sent     int32 // connections that got it, for OnDelivered
	next     uint32
	pooled   bool  // buf goes back to the loop's pool
	sentAtMs int64 // when the (first) message in it entered the log; 0: not a message
}

// node is a place in a connection's queue.
type node struct {
	item uint32
	next uint32
}

// Items that are always there.
const (
	itemNone uint32 = iota
	itemMark        // no bytes: when it comes up, EvDrained is posted
	itemPing
	itemPong    // protocol.Pong
	itemComment // SSE's heartbeat
	fixedItems
)

const (
	// maxIov is how many items one writev takes. Beyond some dozens the call's
	// fixed cost no longer shows.
	maxIov = 64
	// maxWriteBytes bounds one call, so that one long queue does not hold up the
	// others for longer than it takes to copy this much.
	maxWriteBytes = 256 << 10
)

// out is the part of a loop that holds what is to be written.
type out struct {
	items    []item
	freeItem uint32
	nodes    []node
	freeNode uint32
	dirty    []uint32 // slots with something to write
	at       int      // the next of them
	doomed   []uint32 // slots whose socket failed in the middle of something
	lastOne  *edge.Frame
	lastItem [forms]uint32 // the items of lastOne, so that a frame for several connections is one item

	traced map[uint32][]edge.Trace // by item: of the messages in it, those that are traced
}

func (o *out) init() {
	pong := edge.FrameOf([]byte(protocol.Pong)).WS()
	ping := wsframe.AppendControl(nil, wsframe.Ping, nil)
	o.items = []item{itemNone: {}, itemMark: {refs: 1}, itemPing: {refs: 1, buf: ping}, itemPong: {refs: 1, buf: pong}, itemComment: {refs: 1, buf: []byte(":\n\n")}}
	o.nodes = make([]node, 1, 64)
}

// newItem makes an item without references.
func (o *out) newItem(buf []byte, pooled bool, sentAtMs int64) uint32 {
	i := o.freeItem
	if i != 0 {
		o.freeItem = o.items[i].next
	} else {
		o.items = append(o.items, item{})
		i = uint32(len(o.items) - 1)
	}
	o.items[i] = item{buf: buf, pooled: pooled, sentAtMs: sentAtMs}
	return i
}

func (l *loop) unref(i uint32) {
	it := &l.out.items[i]
	if it.refs--; it.refs == 0 {
		l.freeItem(i)
	}
}

func (l *loop) freeItem(i uint32) {
	it := &l.out.items[i]
	if it.sentAtMs != 0 && it.sent > 0 && l.g.opts.OnDelivered != nil {
		l.g.opts.OnDelivered(time.Now().UnixMilli()-it.sentAtMs, int(it.sent))
	}
	if len(l.out.traced) > 0 {
		l.delivered(i, int(it.sent))
	}
	if it.pooled {
		l.pool.Put(it.buf)
	}
	for form := range l.out.lastItem {
		if l.out.lastItem[form] == i {
			l.out.lastItem[form] = itemNone
		}
	}
	*it = item{next: l.out.freeItem}
	l.out.freeItem = i
}

// trace has the traces told when the item is freed. There are none as a rule, so
// items have no place for them.
func (o *out) trace(i uint32, traces []edge.Trace) {
	if o.traced == nil {
		o.traced = map[uint32][]edge.Trace{}
	}
	o.traced[i] = traces
}

func (l *loop) delivered(i uint32, connections int) {
	traces, ok := l.out.traced[i]
	if !ok {
		return
	}
	delete(l.out.traced, i)
	if connections == 0 {
		return
	}
	for _, t := range traces {
		t.Delivered(connections)
	}
}

// enqueue puts an item at the end of a connection's queue, whatever its length,
// to be written at the end of the turn.
func (l *loop) enqueue(slot uint32, c *conn, i uint32) {
	l.append(c, i)
	l.dirty(slot, c)
}

// append is enqueue for what may wait for something else to be written.
func (l *loop) append(c *conn, i uint32) {
	o := &l.out
	n := o.freeNode
	if n != 0 {
		o.freeNode = o.nodes[n].next
		o.nodes[n] = node{item: i}
	} else {
		o.nodes = append(o.nodes, node{item: i})
		n = uint32(len(o.nodes) - 1)
	}
	if c.qhead == 0 {
		c.qhead = n
	} else {
		o.nodes[c.qtail].next = n
	}
	c.qtail = n
	it := &o.items[i]
	it.refs++
	it.sent++
	size := uint32(len(it.buf))
	c.qbytes += size
	l.stats.QueuedBytes += int64(size)
}

// dirty has a connection flushed at the end of the turn.
func (l *loop) dirty(slot uint32, c *conn) {
	if !c.has(flagDirty) {
		c.set(flagDirty)
		l.out.dirty = append(l.out.dirty, slot)
	}
}

// enqueueOwn queues bytes for one connection; they come from l.pool.
func (l *loop) enqueueOwn(slot uint32, c *conn, buf []byte) {
	l.enqueue(slot, c, l.out.newItem(buf, true, 0))
}

// enqueueEvent queues an event that build appends, for one connection.
func (l *loop) enqueueEvent(slot uint32, c *conn, build func(dst []byte) []byte) {
	if c.form.transport() != edge.WebSocket {
		l.unicastFrame(slot, c, edge.NewFrame(256, build))
		return
	}
	l.scratch = build(l.scratch[:0])
	buf := wsframe.AppendHeader(l.pool.Get(len(l.scratch)+10), wsframe.Text, false, len(l.scratch))
	l.enqueueOwn(slot, c, append(buf, l.scratch...))
}

// popNode removes the head of a queue.
func (l *loop) popNode(c *conn) {
	n := c.qhead
	i := l.out.nodes[n].item
	c.qhead = l.out.nodes[n].next
	if c.qhead == 0 {
		c.qtail = 0
	}
	c.qoff = 0
	l.out.nodes[n] = node{next: l.out.freeNode}
	l.out.freeNode = n
	l.unref(i)
}

// dropQueue forgets what is queued; keepStarted leaves an item that is partly
// written, because the peer would take anything else for the rest of it.
func (l *loop) dropQueue(c *conn, keepStarted bool) {
	var kept uint32
	if keepStarted && c.qhead != 0 && c.qoff > 0 {
		kept = c.qhead
		c.qhead = l.out.nodes[kept].next
	}
	off := c.qoff
	for c.qhead != 0 {
		l.popNode(c)
	}
	left := uint32(0)
	c.qtail, c.qoff = 0, 0
	if kept != 0 {
		l.out.nodes[kept].next = 0
		c.qhead, c.qtail, c.qoff = kept, kept, off
		left = uint32(len(l.out.items[l.out.nodes[kept].item].buf)) - off
	}
	l.stats.QueuedBytes -= int64(c.qbytes - left)
	c.qbytes = left
}

// flush writes what was produced, one call per connection, whatever it has to write.
// A room of thousands takes several turns, so that it does not keep pings and new
// clients waiting; the mailbox stays shut meanwhile, so that what piles up there goes
// out in one write later.
func (l *loop) flush() {
	const chunk = 1024
	// Writing does not pass through the scheduler, so whoever else needs the
	// processor (the hub, above all) is let in every millisecond or two.
	const yield = 256
	o := &l.out
	if o.at == 0 {
		l.crowd(len(o.dirty))
	}
	for end := o.at + chunk; o.at < min(end, len(o.dirty)); {
		slot := o.dirty[o.at]
		o.at++
		l.at.slot = slot
		c := l.conns.at(slot)
		if !c.has(flagDirty) {
			continue
		}
		c.clear(flagDirty)
		if !c.has(flagArmed) && !c.has(flagDoomed) {
			l.flushConn(slot, c)
		}
		if o.at%yield == 0 {
			runtime.Gosched()
		}
	}
	if o.at == len(o.dirty) {
		o.dirty, o.at = o.dirty[:0], 0
	}
	for len(o.doomed) > 0 {
		slot := o.doomed[len(o.doomed)-1]
		o.doomed = o.doomed[:len(o.doomed)-1]
		l.at.slot = slot
		if c := l.conns.at(slot); c.has(flagDoomed) {
			l.destroy(slot, c, ClosedPeerGone)
		}
	}
	l.at.slot = 0
}

// flushing says whether there is more to write than a turn takes.
func (l *loop) flushing() bool { return l.out.at > 0 }

// flushConn writes a connection's queue until it is empty or the socket is full.
// It does not free the connection, so that it may be called in the middle of a
// walk over a room.
func (l *loop) flushConn(slot uint32, c *conn) {
	if c.has(flagTLS) {
		l.flushTLS(slot, c)
		return
	}
	o := &l.out
	for c.qhead != 0 {
		count, bytes := 0, 0
		for n := c.qhead; n != 0 && count < maxIov && bytes < maxWriteBytes; n = o.nodes[n].next {
			buf := o.items[o.nodes[n].item].buf
			if n == c.qhead {
				buf = buf[c.qoff:]
			}
			if len(buf) > 0 {
				l.iov.set(count, buf)
				count++
				bytes += len(buf)
			}
		}
		wrote := 0
		if count > 0 {
			var err sysErr
			l.stats.Writes++
			wrote, err = l.iov.writeTo(int(c.fd), count)
			switch {
			case err == sysAgain:
				l.stats.WouldBlock++
				l.arm(slot, c)
				return
			case err == sysIntr:
				continue
			case err != 0:
				l.doom(slot, c)
				return
			}
		}
		l.written(slot, c, wrote)
		if wrote < bytes {
			l.stats.WouldBlock++
			l.arm(slot, c)
			return
		}
	}
	l.drainedConn(slot, c)
}

// written takes n bytes, and the marks behind them, off the queue.
func (l *loop) written(slot uint32, c *conn, n int) {
	c.qbytes -= uint32(n)
	l.stats.QueuedBytes -= int64(n)
	l.stats.BytesOut += uint64(n)
	for c.qhead != 0 {
		i := l.out.nodes[c.qhead].item
		rest := len(l.out.items[i].buf) - int(c.qoff)
		if n < rest {
			c.qoff += uint32(n)
			return
		}
		n -= rest
		if i == itemMark && c.phase == phaseOpen {
			l.report(edge.Event{Kind: edge.EvDrained, Conn: l.id(slot, c)})
		}
		l.popNode(c)
	}
}

// drainedConn: nothing is left to write.
func (l *loop) drainedConn(slot uint32, c *conn) {
	l.disarm(slot, c)
	switch c.phase {
	case phaseOpen:
		if c.has(flagSlow) {
			l.caughtBreath(slot, c)
		}
		if c.form >= events {
			c.lastRead = l.tick // of who says nothing, writing is what counts
		}
	case phaseClosing:
		l.finishClose(slot, c)
	}
}

// arm watches a full socket for room.
func (l *loop) arm(slot uint32, c *conn) {
	if !c.has(flagArmed) {
		c.set(flagArmed)
		l.watch(slot, c)
	}
}

func (l *loop) disarm(slot uint32, c *conn) {
	if c.has(flagArmed) {
		c.clear(flagArmed)
		l.watch(slot, c)
	}
}

// doom marks a connection whose socket failed; it is freed at the end of the
// turn.
func (l *loop) doom(slot uint32, c *conn) {
	if !c.has(flagDoomed) {
		c.set(flagDoomed)
		l.out.doomed = append(l.out.doomed, slot)
	}
}
