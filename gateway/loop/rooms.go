package loop

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/wsframe"
)

// room is what a loop knows of a followed room: who of its own gets the
// broadcasts.
type room struct {
	members []uint32 // slots
	pending uint32   // place in rooms.pending plus one; 0: nothing is waiting
	// How many events were handed out since heatTick: a room that gets hot is
	// probed (late.go).
	heatTick, heat uint32
}

// attachment is one connection's place in one room; a connection's attachments
// form a list.
type attachment struct {
	room edge.RoomNum
	pos  uint32 // in the room's members
	next uint32
}

// broadcasts of one room that came in this turn. They are handed out together,
// so that a busy room costs a connection one write per turn.
type pendingRoom struct {
	room   edge.RoomNum
	frames []*edge.Frame
	shed   []bool // which of them are ephemeral
	bytes  uint32
}

const (
	attPageBits  = 10
	attPageSize  = 1 << attPageBits
	roomPageBits = 8
	roomPageSize = 1 << roomPageBits
	// manyRooms is how many attachments of a connection are looked through one by
	// one; connections with more are indexed in a map.
	manyRooms = 64
	// maxJoined bounds a text frame that joins several events. Clients have read
	// limits (32 KiB is a common default), and one event may be larger by itself.
	maxJoined = 16 << 10
	// maxPendingBytes is when a room's events are handed out before the turn ends:
	// a connection's queue must be able to take them.
	maxPendingBytes = 64 << 10
)

// rooms is the part of a loop that knows who gets what. Room numbers are given
// out by the hub densely, so pages of them are an index.
type rooms struct {
	pages     []*[roomPageSize]room
	atts      []*[attPageSize]attachment // pages, too, so that growing copies nothing; 0 is none
	usedAtts  uint32
	freeAtt   uint32
	manyRooms map[uint64]uint32 // slot<<32|room → attachment
	pending   []pendingRoom
}

func (r *rooms) init() {
	r.manyRooms = make(map[uint64]uint32)
}

// get returns a room, nil when nothing is known of it.
func (r *rooms) get(num edge.RoomNum) *room {
	page := num >> roomPageBits
	if int(page) >= len(r.pages) || r.pages[page] == nil {
		return nil
	}
	return &r.pages[page][num%roomPageSize]
}

func (r *rooms) getOrMake(num edge.RoomNum) *room {
	page := int(num >> roomPageBits)
	for page >= len(r.pages) {
		r.pages = append(r.pages, nil)
	}
	if r.pages[page] == nil {
		r.pages[page] = new([roomPageSize]room)
	}
	return &r.pages[page][num%roomPageSize]
}

func (r *rooms) att(a uint32) *attachment {
	return &r.atts[a>>attPageBits][a&(attPageSize-1)]
}

func (r *rooms) takeAttachment() uint32 {
	if a := r.freeAtt; a != 0 {
		r.freeAtt = r.att(a).next
		return a
	}
	r.usedAtts++
	if int(r.usedAtts>>attPageBits) == len(r.atts) {
		r.atts = append(r.atts, new([attPageSize]attachment))
	}
	return r.usedAtts
}

func manyKey(slot uint32, num edge.RoomNum) uint64 { return uint64(slot)<<32 | uint64(num) }

// find returns a connection's attachment to a room, 0 for none.
func (r *rooms) find(slot uint32, c *conn, num edge.RoomNum) uint32 {
	if c.has(flagManyRooms) {
		return r.manyRooms[manyKey(slot, num)]
	}
	for a := c.atts; a != 0; a = r.att(a).next {
		if r.att(a).room == num {
			return a
		}
	}
	return 0
}

func (l *loop) attach(slot uint32, c *conn, num edge.RoomNum) {
	if num == edge.NoRoom {
		return
	}
	r := &l.rooms
	rm := r.getOrMake(num)
	l.fanOut(rm) // what was broadcast before is not for it
	l.noLongerLeftOut(slot, c, num)
	if r.find(slot, c, num) != 0 {
		return
	}
	a := r.takeAttachment()
	*r.att(a) = attachment{room: num, pos: uint32(len(rm.members)), next: c.atts}
	rm.members = append(rm.members, slot)
	c.atts = a
	c.natts++
	l.stats.Attachments++
	switch {
	case c.has(flagManyRooms):
		r.manyRooms[manyKey(slot, num)] = a
	case c.natts > manyRooms:
		c.set(flagManyRooms)
		for a := c.atts; a != 0; a = r.att(a).next {
			r.manyRooms[manyKey(slot, r.att(a).room)] = a
		}
	}
}

func (l *loop) detach(slot uint32, c *conn, num edge.RoomNum) {
	r := &l.rooms
	l.fanOut(r.get(num)) // what was broadcast before is still for it
	l.noLongerLeftOut(slot, c, num)
	a := r.find(slot, c, num)
	if a == 0 {
		return
	}
	l.removeMember(a)
	// Out of the connection's list, whose order says nothing: the first one takes its
	// place. One in ten thousand rooms may be detached from all of them, one by one.
	first := c.atts
	moved := r.att(first)
	if c.has(flagManyRooms) {
		r.manyRooms[manyKey(slot, moved.room)] = a
		delete(r.manyRooms, manyKey(slot, num))
	}
	is := r.att(a)
	is.room, is.pos = moved.room, moved.pos
	c.atts = moved.next
	c.natts--
	l.freeAttachment(first)
}

// detachAll takes a connection out of all its rooms.
func (l *loop) detachAll(slot uint32, c *conn) {
	r := &l.rooms
	for a := c.atts; a != 0; {
		next := r.att(a).next
		l.removeMember(a)
		if c.has(flagManyRooms) {
			delete(r.manyRooms, manyKey(slot, r.att(a).room))
		}
		l.freeAttachment(a)
		a = next
	}
	c.atts, c.natts = 0, 0
	c.clear(flagManyRooms)
}

func (l *loop) freeAttachment(a uint32) {
	*l.rooms.att(a) = attachment{next: l.rooms.freeAtt}
	l.rooms.freeAtt = a
	l.stats.Attachments--
}

// removeMember takes an attachment's place in its room; the last member moves
// there.
func (l *loop) removeMember(a uint32) {
	r := &l.rooms
	num, pos := r.att(a).room, r.att(a).pos
	rm := r.get(num)
	if len(rm.members) == 0 {
		return // the room was given up after a panic
	}
	last := len(rm.members) - 1
	if moved := rm.members[last]; uint32(last) != pos {
		rm.members[pos] = moved
		r.att(r.find(moved, l.conns.at(moved), num)).pos = pos
	}
	rm.members = rm.members[:last]
	if last == 0 {
		rm.members = nil
	} else if cap(rm.members) > 64 && last < cap(rm.members)/4 {
		rm.members = append(make([]uint32, 0, cap(rm.members)/2), rm.members...)
	}
}

func (l *loop) dropRoom(num edge.RoomNum) {
	rm := l.rooms.get(num)
	if rm == nil {
		return
	}
	l.fanOut(rm)
	for len(rm.members) > 0 {
		slot := rm.members[len(rm.members)-1]
		l.detach(slot, l.conns.at(slot), num)
	}
	l.forgetLeftOut(num)
	*rm = room{}
}

// broadcast notes a frame for a room's members. It is handed out at the end of
// the turn, or before anything that must come after it.
func (l *loop) broadcast(cmd *edge.Cmd) {
	r := &l.rooms
	rm := r.get(cmd.Room)
	if rm == nil || len(rm.members) == 0 {
		return
	}
	if rm.pending == 0 {
		if len(r.pending) < cap(r.pending) { // reuse the slices of earlier turns
			r.pending = r.pending[:len(r.pending)+1]
		} else {
			r.pending = append(r.pending, pendingRoom{})
		}
		r.pending[len(r.pending)-1].room = cmd.Room
		rm.pending = uint32(len(r.pending))
	}
	p := &r.pending[rm.pending-1]
	p.frames = append(p.frames, cmd.Frame)
	p.shed = append(p.shed, cmd.Shed)
	p.bytes += uint32(len(cmd.Frame.WS()))
	if p.bytes >= min(maxPendingBytes, l.queueBytes/2) {
		l.fanOut(rm)
	}
}

// fanOut hands out what is pending of a room.
func (l *loop) fanOut(rm *room) {
	if rm == nil || rm.pending == 0 {
		return
	}
	p := &l.rooms.pending[rm.pending-1]
	rm.pending = 0
	if len(rm.members) > 0 {
		set := makeSet(p.frames, p.shed)
		l.deliverAll(rm, p.room, &set)
		l.heat(rm, p.room, uint32(set.lasting))
	}
	clear(p.frames)
	p.frames, p.shed, p.bytes = p.frames[:0], p.shed[:0], 0
}

// fanOutAll hands out everything that is pending.
func (l *loop) fanOutAll() {
	for i := range l.rooms.pending {
		l.fanOut(l.rooms.get(l.rooms.pending[i].room))
	}
	l.rooms.pending = l.rooms.pending[:0]
}

// settle hands out what is pending for one connection, because something for it
// alone comes next.
func (l *loop) settle(c *conn) {
	r := &l.rooms
	if len(r.pending) == 0 {
		return
	}
	if c.natts > manyRooms {
		l.fanOutAll()
		return
	}
	for a := c.atts; a != 0; a = r.att(a).next {
		l.fanOut(r.get(r.att(a).room))
	}
}

// frameSet is one room's events of a turn, and their bytes in the forms that
// connections may need. Items are made when the first connection needs them.
type frameSet struct {
	frames  []*edge.Frame
	shed    []bool
	events  int
	longest int           // bytes of the longest event
	whole   [forms]uint32 // items: everything
	durable [forms]uint32 // items: without the ephemeral events
	hasShed bool
	lasting int // events that are not ephemeral
	// first is the first frame that is in the log: what a slow reader has to be
	// told is its Prev.
	first *edge.Frame
}

func makeSet(frames []*edge.Frame, shed []bool) frameSet {
	s := frameSet{frames: frames, shed: shed, events: len(frames)}
	for i, f := range frames {
		s.longest = max(s.longest, len(f.JSON()))
		if shed[i] {
			s.hasShed = true
			continue
		}
		s.lasting++
		if s.first == nil && !f.ID.IsZero() {
			s.first = f
		}
	}
	return s
}

// wholeItem is the set in the form that the connection takes.
func (l *loop) wholeItem(s *frameSet, c *conn) uint32 {
	form := s.formOf(c)
	if s.whole[form] == itemNone {
		s.whole[form] = l.join(s.frames, form)
	}
	return s.whole[form]
}

// durableItem is the set without its ephemeral events, itemNone when nothing is
// left.
func (l *loop) durableItem(s *frameSet, c *conn) uint32 {
	if !s.hasShed {
		return l.wholeItem(s, c)
	}
	form := s.formOf(c)
	if s.durable[form] == itemNone && s.lasting > 0 {
		kept := make([]*edge.Frame, 0, s.lasting)
		for i, f := range s.frames {
			if !s.shed[i] {
				kept = append(kept, f)
			}
		}
		s.durable[form] = l.join(kept, form)
	}
	return s.durable[form]
}

// dropUnused frees the set's items that nobody took.
func (l *loop) dropUnused(s *frameSet) {
	for form := range forms {
		for _, i := range [...]uint32{s.whole[form], s.durable[form]} {
			if i >= fixedItems && l.out.items[i].refs == 0 {
				l.freeItem(i)
			}
		}
	}
}

// join makes one item of several frames: of events one after the other, or, for
// WebSocket, text frames. A single frame is referred to as it is.
func (l *loop) join(frames []*edge.Frame, form form) uint32 {
	total := 0
	var sentAtMs int64
	var traces []edge.Trace
	for _, f := range frames {
		total += len(f.WS())
		if sentAtMs == 0 {
			sentAtMs = f.SentAtMs
		}
		if f.Trace != nil {
			traces = append(traces, f.Trace)
		}
	}
	var buf []byte
	pooled := true
	switch {
	case form == events || form == eventsStill:
		buf = l.pool.Get(total + len(frames)*eventOverhead)
		for _, f := range frames {
			buf = appendEvent(buf, f, form == events)
		}
	case len(frames) == 1:
		buf, pooled = l.bytesOf(frames[0], form), false
	default:
		buf = l.appendTexts(l.pool.Get(total), frames, form) // headers are longer than separators: never too small
	}
	i := l.out.newItem(buf, pooled, sentAtMs)
	if traces != nil {
		l.out.trace(i, traces)
	}
	return i
}

// appendTexts appends text frames whose events are separated by '\n'. A client is
// woken once and parses one frame, and the bytes are no more. In the compressed form,
// events that are worth it keep the frame that was compressed for everybody, and those
// between them are joined.
func (l *loop) appendTexts(buf []byte, frames []*edge.Frame, form form) []byte {
	for len(frames) > 0 {
		// As many as fit into one text frame.
		size, n := -1, 0
		var alone []byte
		for _, f := range frames {
			if form == compressed {
				if alone = f.Deflated(l.compress); alone != nil {
					break
				}
			}
			more := size + 1 + len(f.JSON())
			if n > 0 && more > maxJoined {
				break
			}
			size = more
			n++
		}
		if n > 0 {
			buf = wsframe.AppendHeader(buf, wsframe.Text, false, size)
			for i, f := range frames[:n] {
				if i > 0 {
					buf = append(buf, '\n')
				}
				buf = append(buf, f.JSON()...)
			}
		}
		if alone != nil {
			buf = append(buf, alone...)
			n++
		}
		frames = frames[n:]
	}
	return buf
}

// deliverAll queues a set for every member of a room.
func (l *loop) deliverAll(rm *room, num edge.RoomNum, s *frameSet) {
	l.at.room = rm
	for _, slot := range rm.members {
		c := l.conns.at(slot)
		i := s.whole[plain]
		if c.form != plain || i == itemNone {
			if c.form == collected {
				for _, f := range s.frames {
					l.collect(slot, c, f)
				}
				continue
			}
			i = l.wholeItem(s, c)
		}
		if c.flags&(flagArmed|flagSlow) == 0 && c.qbytes+uint32(len(l.out.items[i].buf)) <= l.queueBytes {
			l.enqueue(slot, c, i)
			l.stats.Deliveries += uint64(s.events)
			continue
		}
		l.deliverBehind(slot, c, num, s)
	}
	l.dropUnused(s)
	l.at.room = nil
}
