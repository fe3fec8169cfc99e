// Package ledger keeps account of every message: senders record what was
// acknowledged, readers what reached them and in which order, and a judge
// compares the two. It is pure: no clock, no I/O, one goroutine.
//
// A Book has one Log per room: the room's messages in the order of their IDs, as
// all of this book's readers together saw them. A Reader is one client's view of
// one room: where it is in the log, and which entries before that it has not
// got. As long as everything arrives in order, a reader is two numbers and an
// arrival costs one comparison; what goes wrong is written down beside it.
//
// What a client's filter does (DELIVERY R2) is followed here: what is not newer
// than the position is dropped. So an entry that comes after a newer one is
// reordered on the wire and lost to the client, unless a `gap` had set the filter
// back or the client paged it from history.
package ledger

import (
	"slices"
)

// Send numbers a send of the run, from 1; 0 is a message that none of the
// tester's senders wrote.
type Send uint32

// Verdict says what an arrival was.
type Verdict uint8

// Verdicts.
const (
	New       Verdict = iota // newer than everything before: delivered
	Duplicate                // had it already: the client's filter drops it
	Reordered                // never had it, but a newer one came before: the filter drops it
	Filled                   // was missing, came from history
)

// Book is what one process knows. The zero value is ready.
type Book struct {
	logs    []roomLog
	rooms   map[uint32]uint32 // room → index in logs
	readers []Reader
	holes   map[ReaderID][]hole
	told    map[ReaderID][]hole // holes that the server admitted by a gap and history had not
	paging  map[ReaderID]paging // readers that a gap was told to, until they have paged it

	Counts Counts
}

// Counts is what went over the wire.
type Counts struct {
	Delivered  uint64 // entries that passed the client's filter
	Duplicates uint64 // on the wire; dropped by the filter
	Reordered  uint64
	Filled     uint64 // from history, after a gap
	Skipped    uint64 // entries passed over without a gap being told; a later resume may bring them
	Gaps       uint64 // gaps told
	Broken     uint64 // prev named an entry that no reader here had seen
	Wrong      uint64 // one ID, two messages
}

// ReaderID numbers the readers of a book.
type ReaderID uint32

// Reader is one client's view of one room.
type Reader struct {
	last     Pos    // the filter: newest position
	next     uint32 // first index of the log that it has not reached
	log      uint32
	troubled bool // has an entry in holes or told
}

// paging is a gap that history has not filled yet. A server that tells another one
// meanwhile widens it: it ends with the head that was told last.
type paging struct {
	from Pos // what the client resumes with
	head Pos
}

// hole is a range [from, to) of a log that a reader has not got.
type hole struct{ from, to uint32 }

type roomLog struct {
	room    uint32
	base    Pos // the head before the run: nothing up to it is expected
	entries []Pos
	sends   []Send
}

// Open adds a reader of a room, expecting everything after base. All readers of a
// room have the same base.
func (b *Book) Open(room uint32, base Pos) ReaderID {
	if b.rooms == nil {
		b.rooms = make(map[uint32]uint32)
		b.holes = make(map[ReaderID][]hole)
		b.told = make(map[ReaderID][]hole)
		b.paging = make(map[ReaderID]paging)
	}
	log, ok := b.rooms[room]
	if !ok {
		log = uint32(len(b.logs))
		b.rooms[room] = log
		b.logs = append(b.logs, roomLog{room: room, base: base})
	}
	b.readers = append(b.readers, Reader{log: log, last: base})
	return ReaderID(len(b.readers) - 1)
}

// Room returns the room a reader reads.
func (b *Book) Room(id ReaderID) uint32 { return b.logs[b.readers[id].log].room }

// Arrive records that a message came over the wire. prev is the ID the message
// names as its predecessor.
func (b *Book) Arrive(id ReaderID, pos, prev Pos, send Send) Verdict {
	r := &b.readers[id]
	log := &b.logs[r.log]
	i := int(r.next)
	if i < len(log.entries) && log.entries[i] == pos {
		b.same(log, i, send)
	} else if i == len(log.entries) && pos > log.last() {
		if prev != log.last() && prev > log.base {
			b.noteBreak(log, prev)
		}
		if r = &b.readers[id]; int(r.next) != len(log.entries) { // the break put an entry in
			return b.arriveOff(id, pos, send)
		}
		log.entries = append(log.entries, pos)
		log.sends = append(log.sends, send)
	} else {
		return b.arriveOff(id, pos, send)
	}
	if pos <= r.last { // the filter was ahead of the log: a gap named a later head
		b.Counts.Duplicates++
		b.addHole(id, r.next, r.next+1)
		r.next++
		return Duplicate
	}
	r.next++
	r.last = pos
	b.Counts.Delivered++
	return New
}

// arriveOff records an arrival that is not the next entry of the log.
func (b *Book) arriveOff(id ReaderID, pos Pos, send Send) Verdict {
	r := &b.readers[id]
	log := &b.logs[r.log]
	if pos <= log.base {
		b.Counts.Duplicates++
		return Duplicate
	}
	at := b.place(log, pos, send)
	r = &b.readers[id]
	if at >= r.next {
		if at > r.next {
			b.addHole(id, r.next, at)
			if _, gapped := b.paging[id]; !gapped {
				b.Counts.Skipped += uint64(at - r.next)
			}
		}
		r.next = at + 1
		if pos <= r.last {
			b.addHole(id, at, at+1)
			b.Counts.Duplicates++
			return Duplicate
		}
		r.last = pos
		b.Counts.Delivered++
		return New
	}
	if !b.missing(id, at) {
		r.last = max(r.last, pos) // a repeat after a resume passes the filter, and sets it
		b.Counts.Duplicates++
		return Duplicate
	}
	if pos > r.last { // a gap had set the filter back
		b.fill(id, at)
		r.last = pos
		b.Counts.Delivered++
		return New
	}
	b.Counts.Reordered++
	return Reordered
}

// Page records that the client read a message from history over HTTP.
func (b *Book) Page(id ReaderID, pos Pos, send Send) Verdict {
	r := &b.readers[id]
	log := &b.logs[r.log]
	if pos <= log.base {
		return Duplicate
	}
	at := b.place(log, pos, send)
	r = &b.readers[id]
	if at >= r.next {
		// Newer than what the socket brought so far: the socket's copy will be
		// a repeat that the client drops.
		if at > r.next {
			b.addHole(id, r.next, at)
		}
		r.next = at + 1
	} else if !b.missing(id, at) {
		return Duplicate
	} else {
		b.fill(id, at)
	}
	r.last = max(r.last, pos)
	b.Counts.Filled++
	return Filled
}

// Gap records that the server told the client: what follows after may be gone, I
// go on from head. The filter is set to head, even back (R2). What is known to be
// between the client's position and after was passed over without a word.
func (b *Book) Gap(id ReaderID, after, head Pos) {
	b.Counts.Gaps++
	r := &b.readers[id]
	log := &b.logs[r.log]
	from := max(r.next, log.upTo(r.last))
	if to := log.upTo(after); from < to {
		b.Counts.Skipped += uint64(to - from)
	}
	gap, again := b.paging[id]
	if !again {
		gap.from = b.Position(id)
	}
	gap.head = head
	b.paging[id] = gap
	r.last, r.troubled = head, true
}

// Paged records that the client has read history up to head: what is still
// missing before it is lost, but the client knows. A gap that was told while it
// read is still to be paged.
func (b *Book) Paged(id ReaderID, head Pos) {
	if b.paging[id].head == head {
		delete(b.paging, id)
	}
	r := &b.readers[id]
	log := &b.logs[r.log]
	end := log.upTo(head)
	if r.next < end {
		b.addHole(id, r.next, end)
		r.next = end
	}
	var left, told []hole
	for _, h := range b.holes[id] {
		cut := min(max(h.from, end), h.to)
		if h.from < cut {
			told = append(told, hole{h.from, cut})
		}
		if cut < h.to {
			left = append(left, hole{cut, h.to})
		}
	}
	b.setHoles(id, left)
	if len(told) > 0 {
		b.told[id] = append(b.told[id], told...)
	}
}

// Paging is how many readers have a gap that history has not filled yet.
func (b *Book) Paging() int { return len(b.paging) }

// Position is what the client resumes with: everything up to it it has, or was
// told that it is gone.
func (b *Book) Position(id ReaderID) Pos {
	r := &b.readers[id]
	if !r.troubled {
		return r.last
	}
	if gap, gapped := b.paging[id]; gapped {
		return gap.from
	}
	holes := b.holes[id]
	if len(holes) == 0 {
		return r.last
	}
	log := &b.logs[r.log]
	if first := holes[0].from; first > 0 {
		return min(r.last, log.entries[first-1])
	}
	return log.base
}

// Resume returns the position that the client resumes with and sets its filter
// to it: the server sends again what follows, and the client takes it.
func (b *Book) Resume(id ReaderID) Pos {
	pos := b.Position(id)
	b.readers[id].last = pos
	return pos
}

func (l *roomLog) last() Pos {
	if n := len(l.entries); n > 0 {
		return l.entries[n-1]
	}
	return l.base
}

// upTo is the number of entries up to pos.
func (l *roomLog) upTo(pos Pos) uint32 {
	at, found := slices.BinarySearch(l.entries, pos)
	if found {
		at++
	}
	return uint32(at)
}

// noteBreak is called with a prev that is not the last entry known.
func (b *Book) noteBreak(log *roomLog, prev Pos) {
	if _, known := slices.BinarySearch(log.entries, prev); known {
		return // an older predecessor: the log's tail was lost and it went on from there
	}
	b.Counts.Broken++
	b.place(log, prev, 0)
}

// place returns the index of pos in the log, putting it there if it is new.
func (b *Book) place(log *roomLog, pos Pos, send Send) uint32 {
	at, found := slices.BinarySearch(log.entries, pos)
	if found {
		b.same(log, at, send)
		return uint32(at)
	}
	log.entries = slices.Insert(log.entries, at, pos)
	log.sends = slices.Insert(log.sends, at, send)
	if at < len(log.entries)-1 {
		b.shift(log, uint32(at))
	}
	return uint32(at)
}

// same notes that the entry at index at was seen again.
func (b *Book) same(log *roomLog, at int, send Send) {
	switch {
	case log.sends[at] == send || send == 0:
	case log.sends[at] == 0:
		log.sends[at] = send // was known only as somebody's prev
	default:
		b.Counts.Wrong++
	}
}

// shift makes room for an entry at index at in what the log's readers know:
// those that are past it have missed it. It is rare (a message that all readers
// here but one have missed), so it may look at all readers.
func (b *Book) shift(log *roomLog, at uint32) {
	index := b.rooms[log.room]
	for i := range b.readers {
		r, id := &b.readers[i], ReaderID(i)
		if r.log != index {
			continue
		}
		shiftHoles(b.holes[id], at)
		shiftHoles(b.told[id], at)
		if r.next > at {
			r.next++
			if inHoles(b.told[id], at) {
				continue // amid what a gap told of
			}
			b.addHole(id, at, at+1)
			if _, gapped := b.paging[id]; !gapped {
				b.Counts.Skipped++
			}
		}
	}
}

func shiftHoles(holes []hole, at uint32) {
	for i := range holes {
		if holes[i].from >= at {
			holes[i].from++
		}
		if holes[i].to > at {
			holes[i].to++
		}
	}
}

// Add adds another book's counts.
func (c *Counts) Add(o Counts) {
	c.Delivered += o.Delivered
	c.Duplicates += o.Duplicates
	c.Reordered += o.Reordered
	c.Filled += o.Filled
	c.Skipped += o.Skipped
	c.Gaps += o.Gaps
	c.Broken += o.Broken
	c.Wrong += o.Wrong
}
