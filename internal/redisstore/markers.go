package redisstore

import (
	"context"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

var (
	markerScript  = loadScript("marker")
	receiptScript = loadScript("receipt")
)

var _ chat.Markers = (*Store)(nil)

// AdvanceMarkers implements chat.Markers: one round trip for the markers and one
// for the receipts of those that moved; delivered markers ask for the rooms'
// sizes first.
func (s *Store) AdvanceMarkers(ctx context.Context, kind chat.MarkerKind, ms []chat.Marker, receiptMembers int) ([]chat.MarkerResult, []error) {
	a := &advance{s: s, kind: kind, ms: ms, members: receiptMembers,
		rs: make([]chat.MarkerResult, len(ms)), errs: make([]error, len(ms))}
	todo := make([]int, len(ms))
	for i := range todo {
		todo[i] = i
	}
	if kind == chat.DeliveredMarker {
		todo = a.small(ctx, todo)
	}
	a.tell(ctx, a.write(ctx, todo))
	for _, err := range a.errs {
		if err != nil {
			return a.rs, a.errs
		}
	}
	return a.rs, nil
}

// advance is markers on their way.
type advance struct {
	s       *Store
	kind    chat.MarkerKind
	ms      []chat.Marker
	members int
	rs      []chat.MarkerResult
	errs    []error
}

// small keeps those whose room is small enough for receipts.
func (a *advance) small(ctx context.Context, todo []int) (rest []int) {
	calls := make([]*call, len(todo))
	for j, i := range todo {
		part := a.s.keys.partition(a.ms[i].Room)
		calls[j] = newCommand(part, "hlen", a.s.keys.room(part, a.ms[i].Room).members)
	}
	a.s.doAll(ctx, reads, calls)
	for j, i := range todo {
		reply, err := calls[j].result()
		n, _ := reply.(int64)
		switch {
		case err != nil:
			a.errs[i] = err
		case int(n) > a.members:
			a.rs[i] = chat.MarkerTooLarge
		default:
			rest = append(rest, i)
		}
	}
	return rest
}

// write moves markers and returns those that moved.
func (a *advance) write(ctx context.Context, todo []int) (moved []int) {
	calls := make([]*call, len(todo))
	for j, i := range todo {
		m := &a.ms[i]
		part := a.s.keys.partition(m.User)
		k := a.s.keys.user(part, m.User)
		field, publish, event := "d:", any(""), []byte(nil)
		if a.kind == chat.ReadMarker {
			field, publish, event = "m:", a.s.publish, a.event(m)
		}
		calls[j] = newCall(part, markerScript, []string{k.rooms, k.channel, k.left(m.Room)},
			field, m.ID.String(), m.N, publish, event, a.s.keys.database, m.Room)
	}
	a.s.doAll(ctx, ephemeral, calls)
	for j, i := range todo {
		reply, err := calls[j].result()
		n, _ := reply.(int64)
		switch {
		case err != nil:
			a.errs[i] = err
		case n == 0:
			a.rs[i] = chat.MarkerBehind
		default:
			moved = append(moved, i)
		}
	}
	return moved
}

// tell publishes receipts. One that fails is no failure of the marker.
func (a *advance) tell(ctx context.Context, moved []int) {
	var calls []*call
	var at []int
	for _, i := range moved {
		m := &a.ms[i]
		if m.Quiet {
			continue
		}
		part := a.s.keys.partition(m.Room)
		k := a.s.keys.room(part, m.Room)
		calls = append(calls, newCall(part, receiptScript, []string{k.room, k.members}, a.members, a.s.publish, a.event(m), a.s.keys.database))
		at = append(at, i)
	}
	a.s.doAll(ctx, ephemeral, calls)
	for j, i := range at {
		if reply, err := calls[j].result(); err == nil && reply == int64(0) {
			a.rs[i] = chat.MarkerTooLarge
		}
	}
}

// tellRead publishes the receipt of a read marker that moved over HTTP.
func (s *Store) tellRead(ctx context.Context, m chat.Marker) {
	a := &advance{s: s, kind: chat.ReadMarker, ms: []chat.Marker{m}, members: s.opt.ReceiptMembers,
		rs: make([]chat.MarkerResult, 1), errs: make([]error, 1)}
	a.tell(ctx, []int{0})
}

func (a *advance) event(m *chat.Marker) []byte {
	if a.kind == chat.DeliveredMarker {
		return protocol.AppendDelivered(nil, m.Room, m.User, m.ID)
	}
	return protocol.AppendRead(nil, m.Room, m.User, m.ID)
}

// PublishLive implements chat.Markers.
func (s *Store) PublishLive(ctx context.Context, evs []chat.LiveEvent) (errs []error) {
	calls := make([]*call, len(evs))
	for i := range evs {
		part := s.keys.partition(evs[i].Room)
		calls[i] = newCommand(part, s.publish, s.keys.channel(chat.Channel{Kind: chat.RoomChannel, Name: evs[i].Room}), evs[i].Event)
	}
	s.doAll(ctx, ephemeral, calls)
	for i, c := range calls {
		if _, err := c.result(); err != nil {
			if errs == nil {
				errs = make([]error, len(evs))
			}
			errs[i] = err
		}
	}
	return errs
}
