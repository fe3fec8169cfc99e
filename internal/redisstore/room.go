package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// CreateRoom implements chat.Store.
func (s *Store) CreateRoom(ctx context.Context, by chat.Actor, id, name string, members []string) (chat.Room, error) {
	if !protocol.ValidRoom(id) {
		return chat.Room{}, chat.ErrNoRoom
	}
	owner := by.User
	all := make([]string, 0, 1+len(members))
	if owner != "" {
		all = append(all, owner)
	}
	all = append(all, members...)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > s.opt.MaxMembers {
		return chat.Room{}, chat.ErrRoomFull
	}
	if err := s.checkRooms(ctx, all); err != nil {
		return chat.Room{}, err
	}

	part := s.keys.partition(id)
	k := s.keys.room(part, id)
	args := []any{id, name, owner, s.publish, s.keys.database}
	for _, user := range all {
		args = append(args, user, joinedUpToHead(id, user))
	}
	c := newCall(part, createScript, []string{k.room, k.members, s.keys.outbox(part)}, args...)
	// Run again after an answer was lost, it would say that the room exists.
	c.ack, c.once = true, true
	reply, err := s.do(ctx, writes, c)
	if err != nil {
		return chat.Room{}, err
	}
	v, err := list("create", reply, 2+len(all))
	if err != nil {
		return chat.Room{}, err
	}
	version, err1 := parseUint(text(v[0]))
	created, err2 := strconv.ParseInt(text(v[1]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return chat.Room{}, err
	}
	changes := make([]change, len(all))
	for i, user := range all {
		changes[i] = change{room: id, user: user, version: version, joined: true, part: part, entry: text(v[2+i])}
	}
	_ = s.writeIndex(ctx, changes)
	return chat.Room{ID: id, Name: name, Version: version, Created: time.UnixMilli(created), Members: len(all)}, nil
}

// Room implements chat.Store.
func (s *Store) Room(ctx context.Context, by chat.Actor, room string) (chat.Room, chat.Role, error) {
	if !protocol.ValidRoom(room) {
		return chat.Room{}, "", chat.ErrNoRoom
	}
	q := s.newRoomLine(room, by.User)
	s.doAll(ctx, reads, q.calls[:])
	r, role, err := q.line()
	if err == nil && role == "" && !by.Server {
		return chat.Room{}, "", chat.ErrNotMember
	}
	return r, role, err
}

// roomLine reads a room's head line, one user's role and last message. The
// answers are of different moments; nothing that is decided on them needs one.
type roomLine struct {
	room  string
	calls [4]*call
	own   marker // the user's own last message in it; filled in by line
}

func (s *Store) newRoomLine(room, user string) *roomLine {
	part := s.keys.partition(room)
	k := s.keys.room(part, room)
	return &roomLine{room: room, calls: [4]*call{
		newCommand(part, "hmget", k.room, "name", "head", "n", "ver", "created"),
		newCommand(part, "hget", k.members, user),
		newCommand(part, "hlen", k.members),
		newCommand(part, "hget", k.sent(), user),
	}}
}

func (q *roomLine) line() (r chat.Room, role chat.Role, err error) {
	var replies [4]any
	for i, c := range q.calls {
		if replies[i], err = c.result(); err != nil {
			return r, "", err
		}
	}
	v, err := list("hmget", replies[0], 5)
	if err != nil {
		return r, "", err
	}
	if v[1] == nil {
		return r, "", chat.ErrNoRoom
	}
	head, err1 := protocol.ParseID(text(v[1]))
	n, err2 := parseUint(text(v[2]))
	version, err3 := parseUint(text(v[3]))
	created, err4 := strconv.ParseInt(text(v[4]), 10, 64)
	var err5 error
	q.own, err5 = parseMarker(text(replies[3]))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return r, "", err
	}
	count, _ := replies[2].(int64)
	return chat.Room{
		ID: q.room, Name: text(v[0]), Head: head, N: n, Version: version,
		Created: time.UnixMilli(created), Members: int(count),
	}, chat.Role(text(replies[1])), nil
}

// Rooms implements chat.Store.
func (s *Store) Rooms(ctx context.Context, user, cursor string, limit int) (rooms []chat.UserRoom, rev uint64, next string, err error) {
	list, markers, read, err := s.roomList(ctx, user)
	if err != nil {
		return nil, 0, "", err
	}
	ids := list.rooms
	first, found := slices.BinarySearch(ids, cursor)
	if found {
		first++
	}
	ids = ids[first:]
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}

	lines := make([]*roomLine, len(ids))
	calls := make([]*call, 0, len(roomLine{}.calls)*len(ids)+1)
	for i, id := range ids {
		lines[i] = s.newRoomLine(id, user)
		calls = append(calls, lines[i].calls[:]...)
	}
	if !read && len(ids) > 0 {
		calls = append(calls, s.newMarkersCall(user, ids))
	}
	s.doAll(ctx, reads, calls)
	if !read && len(ids) > 0 {
		if markers, err = parseMarkers(ids, calls[len(calls)-1]); err != nil {
			return nil, 0, "", err
		}
	}
	rooms = make([]chat.UserRoom, 0, len(ids))
	var stale []chat.Membership
	for i, q := range lines {
		r, role, err := q.line()
		if errors.Is(err, chat.ErrNoRoom) || err == nil && role == "" {
			stale = append(stale, chat.Membership{Room: ids[i], User: user}) // the members are the truth
			continue
		}
		if err != nil {
			return nil, 0, "", err
		}
		marker := further(markers[r.ID], q.own)
		rooms = append(rooms, chat.UserRoom{
			Room: r, Role: role, Read: marker.id, ReadN: marker.n, Unread: r.N - min(marker.n, r.N),
		})
	}
	if err := s.recount(ctx, rooms); err != nil {
		return nil, 0, "", err
	}
	if len(stale) > 0 {
		_ = s.Repair(ctx, stale) // who lists again finds them again
	}
	return rooms, list.rev, next, nil
}

// recount puts right what is unread in rooms whose marker is at a message that a
// failover has lost, so that its ordinal is another one's by now. It is known by an
// ordinal that the head has not passed, while its ID has; beyond that what was lost
// is missing from the count, until the marker moves.
func (s *Store) recount(ctx context.Context, rooms []chat.UserRoom) error {
	var qs []chat.LogQuery
	var at []*chat.UserRoom
	for i := range rooms {
		if r := &rooms[i]; r.ReadN >= r.Room.N && r.Read.Less(r.Room.Head) {
			qs = append(qs, chat.LogQuery{Room: r.Room.ID, From: r.Read, Limit: 1})
			at = append(at, r)
		}
	}
	if len(qs) == 0 {
		return nil
	}
	pages, errs := s.ReadLogs(ctx, qs)
	for i, r := range at {
		if errs != nil && errs[i] != nil {
			return errs[i]
		}
		if first := pages[i].Entries; len(first) > 0 {
			r.ReadN = first[0].N - 1
			r.Unread = r.Room.N - min(r.ReadN, r.Room.N)
		}
	}
	return nil
}

// MarkRead implements chat.Store.
func (s *Store) MarkRead(ctx context.Context, user, room string, id protocol.ID) error {
	if !protocol.ValidRoom(room) {
		return chat.ErrNoRoom
	}
	at := id.String()
	reply, err := s.do(ctx, reads, s.newLogCall(room, user, "XRANGE", at, at, 1))
	if err != nil {
		return err
	}
	page, err := parseLog(reply, 1)
	if err != nil {
		return err
	}
	n := page.N
	switch {
	case id.IsZero():
		return nil // nothing read is where everyone starts
	case len(page.Entries) == 1:
		n = page.Entries[0].N
	case id != page.Head: // which may have aged out
		return chat.ErrBadPosition
	}
	part := s.keys.partition(user)
	k := s.keys.user(part, user)
	c := newCall(part, markerScript, []string{k.rooms, k.channel, k.left(room)},
		"m:", at, n, s.publish, protocol.AppendRead(nil, room, user, id), s.keys.database, room)
	c.ack = true
	if reply, err = s.do(ctx, writes, c); err != nil {
		return err
	}
	if reply == int64(1) {
		s.tellRead(ctx, chat.Marker{User: user, Room: room, ID: id, N: n})
	}
	return nil
}
