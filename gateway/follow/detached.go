package follow

import "github.com/madang-chat/madang/gateway/fifo"

// detachFrom has a loop give a connection nothing more of a room. Until a mark
// comes back, what the loop says of it there may be older.
func (c *Core) detachFrom(ref *connRef, r *room) {
	c.out.Detach(ref.id, r.num)
	d := c.detached[ref.id]
	if d == nil {
		d = &detachments{marks: map[*room]uint32{}}
		c.detached[ref.id] = d
	}
	d.add(r, c.mark(ref))
}

// detachments are rooms that a connection was detached from. It may be from ten
// thousand at once, whose marks then come back one by one.
type detachments struct {
	marks map[*room]uint32  // by room, the one after its last Detach
	order fifo.Timed[*room] // by their marks
}

func (d *detachments) add(r *room, mark uint32) {
	d.marks[r] = mark
	d.order.Push(int64(mark), r)
}

func (d *detachments) has(r *room) bool {
	if d == nil {
		return false
	}
	_, has := d.marks[r]
	return has
}

// drained takes in that a mark has come back.
func (d *detachments) drained(mark uint32) {
	for r := range d.order.Due(int64(mark)) {
		if d.marks[r] <= mark { // else it was detached once more since
			delete(d.marks, r)
		}
	}
}
