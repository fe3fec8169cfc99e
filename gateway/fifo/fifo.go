// Package fifo is queues of one owner: what is pushed comes out in the same order, and
// the memory that a storm took is given back when it is over. It knows no clock and no
// bound; gateway/follow, gateway/live and gateway/hub keep their deadlines in it, and what
// waits for its turn.
package fifo

import "iter"

// restingItems is how much room an empty queue keeps, and how many taken items stay
// before the others at least.
const restingItems = 1024

// Queue is a queue; its zero value is an empty one.
type Queue[T any] struct {
	items []T
	first int
}

func (q *Queue[T]) Push(v T) { q.items = append(q.items, v) }

func (q *Queue[T]) Len() int { return len(q.items) - q.first }

// Pop takes the oldest value; not ok: there is none.
func (q *Queue[T]) Pop() (v T, ok bool) {
	if q.Len() == 0 {
		return v, false
	}
	var none T
	v, q.items[q.first] = q.items[q.first], none
	q.first++
	switch {
	case q.Len() == 0 && cap(q.items) > restingItems:
		*q = Queue[T]{}
	case q.Len() == 0:
		q.items, q.first = q.items[:0], 0
	case q.first > restingItems && q.first*2 > len(q.items):
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	return v, true
}

// Timed is a queue of what is to happen at a time, in whatever unit; times never
// decrease. Its zero value is an empty one.
type Timed[T any] struct{ queue Queue[timed[T]] }

type timed[T any] struct {
	at int64
	v  T
}

func (t *Timed[T]) Push(at int64, v T) { t.queue.Push(timed[T]{at, v}) }

// Due takes what is due, the oldest first; what is pushed meanwhile is not left out.
func (t *Timed[T]) Due(now int64) iter.Seq[T] {
	return func(yield func(T) bool) {
		q := &t.queue
		for q.Len() > 0 && q.items[q.first].at <= now {
			if next, _ := q.Pop(); !yield(next.v) {
				return
			}
		}
	}
}
