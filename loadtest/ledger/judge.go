package ledger

import (
	"fmt"
	"slices"
)

// Ack is an acknowledged send: the server said that this message is in the log
// under this ID.
type Ack struct {
	Room uint32
	Send Send
	Pos  Pos
}

// Judgement is the verdict on a run, or on one process's part of it.
type Judgement struct {
	Owed    uint64 // acknowledged sends × the readers that should have them
	Kept    uint64 // of these, delivered (by socket or, after a gap, from history)
	Lost    uint64 // not delivered, and the client was not told
	Noticed uint64 // not delivered, but a gap told the client that something is gone
	Unacked uint64 // deliveries of messages whose send was never acknowledged (a timed-out send that did reach the log)
	Doubled uint64 // sends that are in the log under two IDs
	Wrong   uint64 // an ID that was acknowledged for one message and delivered with another

	Twice      []Send   // those that Doubled counts, ascending
	Violations []string // the first few, readable
}

// Names turns numbers into what an operator knows. ReaderName may be nil.
type Names struct {
	Room   func(room uint32) string
	Reader func(id ReaderID) string
}

// maxViolations is how many are told in words: enough to see a pattern.
const maxViolations = 20

// Merge adds another process's part.
func (j *Judgement) Merge(o Judgement) {
	j.Owed += o.Owed
	j.Kept += o.Kept
	j.Lost += o.Lost
	j.Noticed += o.Noticed
	j.Unacked += o.Unacked
	// Processes that have clients in the same room see the same log.
	j.Twice = append(j.Twice, o.Twice...)
	j.countTwice()
	j.Wrong += o.Wrong
	for _, v := range o.Violations {
		if len(j.Violations) < maxViolations {
			j.Violations = append(j.Violations, v)
		}
	}
}

// countTwice counts each doubled send once.
func (j *Judgement) countTwice() {
	slices.Sort(j.Twice)
	j.Twice = slices.Compact(j.Twice)
	j.Doubled = uint64(len(j.Twice))
}

// Judge compares what readers got with what was acknowledged. Acks of rooms that
// nobody here reads are ignored.
func (b *Book) Judge(acks []Ack, names Names) Judgement {
	var j Judgement
	byLog := make([][]Ack, len(b.logs))
	for _, a := range acks {
		if log, ok := b.rooms[a.Room]; ok {
			byLog[log] = append(byLog[log], a)
		}
	}
	cases := make([]*roomCase, len(b.logs))
	for i := range b.logs {
		cases[i] = b.open(&b.logs[i], byLog[i], &j, names)
	}
	for i := range b.readers {
		b.judgeReader(ReaderID(i), cases[b.readers[i].log], &j, names)
	}
	j.countTwice()
	return j
}

// roomCase is what a room's readers are measured against.
type roomCase struct {
	log *roomLog
	// ackedBefore[i] is how many acknowledged entries have an index below i.
	ackedBefore []uint32
	acked       []bool
	unknown     []Ack             // acknowledged, and no reader here ever saw it
	underOther  []uint32          // acknowledged under an ID nobody saw, but seen under another: its index (S2)
	twin        map[uint32]uint32 // index of an acknowledged entry → another one with the same send
}

func (b *Book) open(log *roomLog, acks []Ack, j *Judgement, names Names) *roomCase {
	c := &roomCase{log: log, acked: make([]bool, len(log.entries))}
	for _, a := range acks {
		at, found := slices.BinarySearch(log.entries, a.Pos)
		if !found {
			c.unknown = append(c.unknown, a)
			continue
		}
		if got := log.sends[at]; got != a.Send && got != 0 {
			j.Wrong++
			j.violate("room %s: %s was acknowledged for send %d and delivered as send %d", names.Room(log.room), a.Pos.ID(), a.Send, got)
		}
		c.acked[at] = true
	}
	c.findTwins(j, names)
	c.ackedBefore = make([]uint32, len(log.entries)+1)
	for i, acked := range c.acked {
		c.ackedBefore[i+1] = c.ackedBefore[i]
		if acked {
			c.ackedBefore[i+1]++
		}
	}
	return c
}

// findTwins finds sends that are in the log under two IDs: after a failover a
// retried send may be (S2), otherwise idempotency failed.
func (c *roomCase) findTwins(j *Judgement, names Names) {
	first := make(map[Send]uint32, len(c.log.sends))
	for i, send := range c.log.sends {
		if send == 0 {
			continue
		}
		other, seen := first[send]
		if !seen {
			first[send] = uint32(i)
			continue
		}
		if c.twin == nil {
			c.twin = make(map[uint32]uint32)
		}
		c.twin[uint32(i)], c.twin[other] = other, uint32(i)
		j.Twice = append(j.Twice, send)
		j.violate("room %s: send %d is in the log twice, as %s and %s", names.Room(c.log.room), send,
			c.log.entries[other].ID(), c.log.entries[i].ID())
	}
	c.unknown = slices.DeleteFunc(c.unknown, func(a Ack) bool {
		i, seen := first[a.Send]
		if !seen || c.acked[i] { // an entry is one message's: that is another's
			return false
		}
		c.underOther = append(c.underOther, i)
		return true
	})
}

func (b *Book) judgeReader(id ReaderID, c *roomCase, j *Judgement, names Names) {
	r := &b.readers[id]
	total := c.ackedBefore[len(c.acked)]
	reached := c.ackedBefore[r.next]
	j.Owed += uint64(total) + uint64(len(c.unknown)) + uint64(len(c.underOther))
	kept := uint64(reached)
	j.Unacked += uint64(r.next) - uint64(reached)

	lose := func(from, to uint32, told bool) {
		for i := from; i < to; i++ {
			if !c.acked[i] {
				if i < r.next {
					j.Unacked--
				}
				continue
			}
			if i < r.next {
				kept--
			}
			if other, ok := c.twin[i]; ok && other < r.next && !b.missing(id, other) {
				kept++ // the same message under another ID (S2)
				continue
			}
			if told {
				j.Noticed++
				continue
			}
			j.Lost++
			if len(j.Violations) < maxViolations {
				j.violate("room %s: %s never got %s (send %d)%s", names.Room(c.log.room), names.reader(id), c.log.entries[i].ID(), c.log.sends[i], b.context(r, i))
			}
		}
	}
	if r.troubled {
		for _, h := range b.holes[id] {
			lose(h.from, h.to, false)
		}
		for _, h := range b.told[id] {
			lose(h.from, h.to, true)
		}
	}
	lose(r.next, uint32(len(c.acked)), false)
	for _, i := range c.underOther {
		if i < r.next && !b.missing(id, i) {
			kept++
			j.Unacked--
		} else {
			j.Lost++
			j.violate("room %s: %s never got send %d under any ID", names.Room(c.log.room), names.reader(id), c.log.sends[i])
		}
	}
	for _, a := range c.unknown {
		j.Lost++
		j.violate("room %s: %s never got %s (send %d), nor did any reader beside it", names.Room(c.log.room), names.reader(id), a.Pos.ID(), a.Send)
	}
	j.Kept += kept
}

func (b *Book) context(r *Reader, at uint32) string {
	if at >= r.next {
		return fmt.Sprintf("; the last it got was %s", r.last.ID())
	}
	return fmt.Sprintf(", though it got %s after it", r.last.ID())
}

func (j *Judgement) violate(format string, args ...any) {
	if len(j.Violations) < maxViolations {
		j.Violations = append(j.Violations, fmt.Sprintf(format, args...))
	}
}

func (n Names) reader(id ReaderID) string {
	if n.Reader == nil {
		return fmt.Sprintf("reader %d", id)
	}
	return n.Reader(id)
}
