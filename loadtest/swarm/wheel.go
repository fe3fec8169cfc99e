package swarm

// wheel is a hashed timing wheel over the clients: each has at most one deadline,
// linked through two slices, 12 bytes a client. Deadlines beyond one turn of the
// wheel are looked at once per turn and stay.
type wheel struct {
	heads      []int32 // per slot: first client, or none
	next, prev []int32 // prev < 0: not linked, or the slot's first as -2-slot
	due        []uint32
	now        uint32
	started    bool
}

const (
	wheelSlots = 4096
	none       = -1
)

func (w *wheel) init(clients int) {
	w.heads = make([]int32, wheelSlots)
	for i := range w.heads {
		w.heads[i] = none
	}
	w.next = make([]int32, clients)
	w.prev = make([]int32, clients)
	w.due = make([]uint32, clients)
	for i := range w.prev {
		w.prev[i] = none
	}
}

// set gives a client its deadline in place of the one it had.
func (w *wheel) set(i, due uint32) {
	w.clear(i)
	slot := int32(due % wheelSlots)
	w.due[i] = due
	w.next[i] = w.heads[slot]
	w.prev[i] = -2 - slot
	if w.next[i] != none {
		w.prev[w.next[i]] = int32(i)
	}
	w.heads[slot] = int32(i)
}

func (w *wheel) clear(i uint32) {
	prev := w.prev[i]
	switch {
	case prev == none:
		return
	case prev <= -2:
		w.heads[-2-prev] = w.next[i]
	default:
		w.next[prev] = w.next[i]
	}
	if w.next[i] != none {
		w.prev[w.next[i]] = prev
	}
	w.prev[i] = none
}

// advance calls fire for every client whose deadline is at or before now.
func (w *wheel) advance(now uint32, fire func(i uint32)) {
	if !w.started {
		w.now, w.started = now-1, true
	}
	for steps := min(now-w.now, wheelSlots); steps > 0; steps-- {
		slot := (now - steps + 1) % wheelSlots
		for i := w.heads[slot]; i != none; {
			following := w.next[i]
			if int32(now-w.due[i]) >= 0 {
				w.clear(uint32(i))
				fire(uint32(i))
				// fire may have changed the list; what it added is due later.
				if following != none && w.prev[following] == none {
					following = w.heads[slot]
				}
			}
			i = following
		}
	}
	w.now = now
}
