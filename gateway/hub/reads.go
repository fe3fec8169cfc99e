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
}

// dispatch starts as many batches of reads as may be in flight. What does not
// fit waits, and grows into larger batches meanwhile.
func (h *Hub) dispatch() {
	o := &h.out
	for h.inflight < h.opts.Readers {
		var a answer
		switch {
		case len(o.users) > 0:
			a.users, o.users = take(o.users, h.opts.ReadBatch)
		case len(o.rooms) > 0:
			a.rooms, o.rooms = take(o.rooms, h.opts.ReadBatch)
		case len(o.logs) > 0:
			a.logs, o.logs = take(o.logs, h.opts.ReadBatch/8+1)
		case len(o.wrong) > 0:
			a.wrong, o.wrong = take(o.wrong, h.opts.ReadBatch/8+1)
		default:
			return
		}
		h.inflight++
		h.readers.Go(func() { h.read(a) })
	}
}

// take cuts the first n of s off.
func take[T any](s []T, n int) (head, rest []T) {
	if len(s) <= n {
		return s, nil
	}
	return s[:n:n], s[n:]
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
		h.core.UserRead(now, q.tok, q.name, at(a.states, i), errOf(i))
	}
	for i, q := range a.rooms {
		h.core.RoomRead(now, q.tok, q.q.Room, at(a.heads, i), errOf(i))
	}
	for i, q := range a.logs {
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
