package hub

import (
	"context"

	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
)

// answer is a batch of reads, answered: one of the kinds is filled in.
type answer struct {
	users  []userAsk
	states []chat.UserState
	rooms  []roomAsk
	heads  []chat.RoomState
	logs   []logAsk
	pages  []chat.LogPage
	wrong  []chat.Membership // not read but repaired, when nothing is to be read
	errs   []error
	apart  bool // it asks partitions that failed to answer
}

// dispatch starts as many batches of reads as may be in flight. What does not
// fit waits, and grows into larger batches meanwhile.
func (h *Hub) dispatch() {
	const n = readBatch
	o := &h.out
	for h.inflight < readBatches {
		var a answer
		if a.users, a.apart = batch(h, &o.users, n, h.ofUser); a.users == nil {
			if a.rooms, a.apart = batch(h, &o.rooms, n, h.ofRoom); a.rooms == nil {
				a.logs, a.apart = batch(h, &o.logs, n/8+1, h.ofLog)
			}
		}
		switch {
		case a.users != nil || a.rooms != nil || a.logs != nil:
		case len(o.wrong) > 0:
			a.wrong = take(&o.wrong, n/8+1)
		default:
			return
		}
		h.inflight++
		h.apart = h.apart || a.apart
		h.readers.Go(func() { h.read(a) })
	}
}

// A batch is answered when all of it is. So a partition that does not answer would
// keep the answers of all who ask together with it, for as long as a read may take, and
// soon there would be no batch without it (F4). What is asked of one that has failed
// goes apart, one batch at a time, until it answers.

// failedMs is how long a partition is remembered that nobody has asked again: longer
// than an attempt and the pause before it take.
const failedMs = 10_000

// asks are questions of one kind that wait, in their order.
type asks[T any] struct {
	next  []T
	aside []T // those to partitions that have failed
}

// batch cuts off what may go together, n at the most; nil: nothing may.
func batch[T any](h *Hub, as *asks[T], n int, of func(T) int) (qs []T, apart bool) {
	if len(h.failed) == 0 {
		return take(&as.next, n), false
	}
	at := 0
	for ; at < len(as.next) && len(qs) < n; at++ {
		if q := as.next[at]; h.hasFailed(of(q)) {
			as.aside = append(as.aside, q)
		} else {
			qs = append(qs, q)
		}
	}
	if as.next = as.next[at:]; len(as.next) == 0 {
		as.next = nil
	}
	if qs == nil && !h.apart && len(as.aside) > 0 {
		return take(&as.aside, n), true
	}
	return qs, false
}

// again takes back what was put aside.
func (as *asks[T]) again() {
	if len(as.aside) > 0 {
		as.next, as.aside = append(as.aside, as.next...), nil
	}
}

func (h *Hub) hasFailed(partition int) bool {
	_, failed := h.failed[partition]
	return failed
}

func (h *Hub) ofUser(q userAsk) int { return h.partition(chat.UserChannel, q.name) }
func (h *Hub) ofRoom(q roomAsk) int { return h.partition(chat.RoomChannel, q.q.Room) }
func (h *Hub) ofLog(q logAsk) int   { return h.partition(chat.RoomChannel, q.q.Room) }

func (h *Hub) partition(kind chat.ChannelKind, name string) int {
	return h.feed.PartitionOf(chat.Channel{Kind: kind, Name: name})
}

// noteAnswer remembers which partitions have failed to answer.
func (h *Hub) noteAnswer(now int64, partition func() int, err error) {
	switch {
	case err != nil:
		h.failed[partition()] = now
	case len(h.failed) > 0:
		h.forget(partition())
	}
}

// forgetFailed forgets partitions that have not failed for a while.
func (h *Hub) forgetFailed(now int64) {
	for p, at := range h.failed {
		if now-at > failedMs {
			h.forget(p)
		}
	}
}

// forget has a partition asked like any other.
func (h *Hub) forget(partition int) {
	if !h.hasFailed(partition) {
		return
	}
	delete(h.failed, partition)
	h.out.users.again()
	h.out.rooms.again()
	h.out.logs.again()
}

// take cuts off the first n.
func take[T any](from *[]T, n int) []T {
	s := *from
	if len(s) <= n {
		*from = nil
		return s
	}
	*from = s[n:]
	return s[:n:n]
}

func (h *Hub) read(a answer) {
	ctx, cancel := context.WithTimeout(h.ctx, h.opts.ReadTimeout)
	defer cancel()
	switch {
	case a.users != nil:
		names := make([]string, len(a.users))
		for i := range names {
			names[i] = a.users[i].name
		}
		a.states, a.errs = h.feed.ReadUsers(ctx, names)
	case a.rooms != nil:
		qs := make([]chat.RoomQuery, len(a.rooms))
		for i := range qs {
			qs[i] = a.rooms[i].q
		}
		a.heads, a.errs = h.feed.ReadRooms(ctx, qs)
	case a.logs != nil:
		qs := make([]chat.LogQuery, len(a.logs))
		for i := range qs {
			qs[i] = a.logs[i].q
		}
		a.pages, a.errs = h.feed.ReadLogs(ctx, qs)
	case a.wrong != nil:
		if err := h.feed.Repair(ctx, a.wrong); err != nil {
			h.log.Warn("rooms are missing in users' indexes", "memberships", len(a.wrong), "err", err)
			a.errs = []error{err}
		}
	}
	h.mu.Lock()
	h.arrived()
	h.in.answers = append(h.in.answers, a)
	h.mu.Unlock()
	h.poke()
}

func (h *Hub) handleAnswer(now int64, a *answer) {
	h.inflight--
	h.apart = h.apart && !a.apart
	errOf := func(i int) error {
		if a.errs == nil {
			return nil
		}
		return a.errs[i]
	}
	if a.errs != nil {
		for _, m := range a.wrong { // what is right by now changes nothing
			h.core.RepairFailed(now, m)
		}
	}
	for i, q := range a.users {
		h.noteAnswer(now, func() int { return h.ofUser(q) }, errOf(i))
		h.core.UserRead(now, q.tok, q.name, at(a.states, i), errOf(i))
	}
	for i, q := range a.rooms {
		h.noteAnswer(now, func() int { return h.ofRoom(q) }, errOf(i))
		h.core.RoomRead(now, q.tok, q.q.Room, at(a.heads, i), errOf(i))
	}
	for i, q := range a.logs {
		h.noteAnswer(now, func() int { return h.ofLog(q) }, errOf(i))
		h.core.LogRead(now, q.tok, q.q.Room, at(a.pages, i), errOf(i))
	}
}

// at is s[i], or nothing when a failed read left s short.
func at[T any](s []T, i int) (v T) {
	if i < len(s) {
		v = s[i]
	}
	return v
}

var _ follow.Out = (*outbox)(nil)
