package redisstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// smallRoom is up to how many members a room's are read whole and paged by name.
// Above it a page costs Redis only what it holds, and its order is Redis's own.
const smallRoom = 2000

// Members implements chat.Store. Pages of rooms above smallRoom may hold a few
// more members than limit, and one twice when the set changes in between: as
// HSCAN gives them.
func (s *Store) Members(ctx context.Context, by chat.Actor, room, cursor string, limit int) (members []chat.Member, next string, err error) {
	r, _, err := s.Room(ctx, by, room)
	if err != nil {
		return nil, "", err
	}
	part := s.keys.partition(room)
	key := s.keys.room(part, room).members
	scan, after, err := parseMembersCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	if scan != 0 || cursor == "" && r.Members > smallRoom {
		reply, err := s.do(ctx, reads, newCommand(part, "hscan", key, scan, "count", limit))
		if err != nil {
			return nil, "", err
		}
		v, err := list("hscan", reply, 2)
		if err != nil {
			return nil, "", err
		}
		if next = text(v[0]); next == "0" {
			next = ""
		} else {
			next = "scan:" + next
		}
		members = parseMembers(v[1])
		return members, next, s.readMarkers(ctx, r, members)
	}
	if r.Members > 2*smallRoom { // with after: it was smaller when it was first asked for, or nobody gave that
		return nil, "", chat.ErrBadPosition
	}
	reply, err := s.do(ctx, reads, newCommand(part, "hgetall", key))
	if err != nil {
		return nil, "", err
	}
	members = parseMembers(reply)
	slices.SortFunc(members, func(a, b chat.Member) int { return cmp.Compare(a.User, b.User) })
	if cursor != "" {
		first, found := slices.BinarySearchFunc(members, after, func(m chat.Member, u string) int { return cmp.Compare(m.User, u) })
		if found {
			first++
		}
		members = members[first:]
	}
	if len(members) > limit {
		members = members[:limit]
		next = "after:" + members[limit-1].User
	}
	return members, next, s.readMarkers(ctx, r, members)
}

// readMarkers fills in how far the members of a page have come, so that who opens
// a room sees what its receipts would have told: one more round trip, as the
// markers are with the users, and their own last messages with the room.
func (s *Store) readMarkers(ctx context.Context, r chat.Room, members []chat.Member) error {
	if r.Members > s.opt.ReceiptMembers || len(members) == 0 {
		return nil
	}
	part := s.keys.partition(r.ID)
	calls := make([]*call, 0, 1+len(members))
	own := append(make([]any, 0, 2+len(members)), "hmget", s.keys.room(part, r.ID).sent())
	for i := range members {
		own = append(own, &members[i].User)
	}
	calls = append(calls, newCommand(part, own...))
	for i := range members {
		part := s.keys.partition(members[i].User)
		calls = append(calls, newCommand(part, "hmget", s.keys.user(part, members[i].User).rooms, "m:"+r.ID, "d:"+r.ID))
	}
	s.doAll(ctx, reads, calls)
	reply, err := calls[0].result()
	if err != nil {
		return err
	}
	sent, err := list("hmget", reply, len(members))
	if err != nil {
		return err
	}
	for i := range members {
		if reply, err = calls[1+i].result(); err != nil {
			return err
		}
		marked, err := list("hmget", reply, 2)
		if err != nil {
			return err
		}
		own, err1 := parseMarker(text(sent[i]))
		read, err2 := parseMarker(text(marked[0]))
		delivered, err3 := parseMarker(text(marked[1]))
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		read = further(read, own)
		members[i].Marked, members[i].Read, members[i].Delivered = true, read.id, further(delivered, read).id
	}
	return nil
}

// parseMembersCursor reads what Members gave as next: "scan:" and where Redis's
// own scan goes on, or "after:" and the last user of the page. Clients may send
// anything as a cursor; Redis would answer a scan from nonsense with an error
// that looks like a failure of ours.
func parseMembersCursor(cursor string) (scan uint64, after string, err error) {
	if cursor == "" {
		return 0, "", nil
	}
	if at, ok := strings.CutPrefix(cursor, "scan:"); ok {
		if scan, err = parseUint(at); err != nil || scan == 0 { // 0 would begin again, for ever
			return 0, "", chat.ErrBadPosition
		}
		return scan, "", nil
	}
	after, ok := strings.CutPrefix(cursor, "after:")
	if !ok || !protocol.ValidUser(after) {
		return 0, "", chat.ErrBadPosition
	}
	return 0, after, nil
}

func parseMembers(reply any) []chat.Member {
	v, _ := reply.([]any)
	members := make([]chat.Member, 0, len(v)/2)
	for i := 0; i+1 < len(v); i += 2 {
		members = append(members, chat.Member{User: text(v[i]), Role: chat.Role(text(v[i+1]))})
	}
	return members
}

// PutMember implements chat.Store. An empty role means the one the user has, or
// RoleMember.
func (s *Store) PutMember(ctx context.Context, by chat.Actor, room, user string, role chat.Role) (is chat.Role, err error) {
	if !protocol.ValidRoom(room) {
		return "", chat.ErrNoRoom
	}
	most := "0"
	switch err := s.checkRooms(ctx, []string{user}); {
	case errors.Is(err, chat.ErrTooMany):
		most = "1" // of one who is in the room already nobody asks
	case err != nil:
		return "", err
	}
	part := s.keys.partition(room)
	k := s.keys.room(part, room)
	c := newCall(part, putScript, []string{k.room, k.members, s.keys.outbox(part)},
		room, actor(by), user, string(role), s.arg.maxMembers, s.publish, joinedUpToHead(room, user), s.keys.database, most)
	c.ack = true
	reply, err := s.do(ctx, writes, c)
	if err != nil {
		return "", err
	}
	v, err := list("put", reply, 5)
	if err != nil {
		return "", err
	}
	is = chat.Role(text(v[4]))
	if text(v[0]) != "added" {
		// A member that the index does not know is put there, if nothing else is about to (F3).
		return is, s.Repair(ctx, []chat.Membership{{Room: room, User: user}})
	}
	ch := change{room: room, user: user, joined: true, part: part}
	if len(v) < 6 {
		return "", errReply("put", reply)
	}
	ch.entry = text(v[5])
	if ch.version, err = parseUint(text(v[1])); err != nil {
		return "", err
	}
	if ch.head, err = protocol.ParseID(text(v[2])); err != nil {
		return "", err
	}
	if ch.n, err = parseUint(text(v[3])); err != nil {
		return "", err
	}
	_ = s.writeIndex(ctx, []change{ch})
	return is, nil
}

// RemoveMember implements chat.Store.
func (s *Store) RemoveMember(ctx context.Context, by chat.Actor, room, user string) error {
	if !protocol.ValidRoom(room) {
		return chat.ErrNoRoom
	}
	part := s.keys.partition(room)
	k := s.keys.room(part, room)
	c := newCall(part, removeScript, []string{k.room, k.members, s.keys.outbox(part), k.sent()},
		room, actor(by), user, s.publish, protocol.AppendLeft(nil, room, user, 0), s.keys.database)
	// Run again after an answer was lost, it would say that there is no such member.
	c.ack, c.once = true, true
	reply, err := s.do(ctx, writes, c)
	if err != nil {
		return err
	}
	v, err := list("remove", reply, 3)
	if err != nil {
		return err
	}
	ch := change{room: room, user: user, part: part, entry: text(v[2])}
	if ch.version, err = parseUint(text(v[0])); err != nil {
		return err
	}
	_ = s.writeIndex(ctx, []change{ch})
	return nil
}

// checkRooms refuses when one of the users has the most rooms already. It is a
// look before, not a lock: a user may end up a few above.
func (s *Store) checkRooms(ctx context.Context, users []string) error {
	calls := make([]*call, len(users))
	for i, user := range users {
		part := s.keys.partition(user)
		calls[i] = newCommand(part, "hget", s.keys.user(part, user).rooms, "c")
	}
	s.doAll(ctx, reads, calls)
	for _, c := range calls {
		reply, err := c.result()
		if err != nil {
			return err
		}
		if n, _ := parseUint(text(reply)); n >= uint64(s.opt.MaxRooms) {
			return chat.ErrTooMany
		}
	}
	return nil
}

// joinedUpToHead is a `joined` event up to where scripts put the head.
func joinedUpToHead(room, user string) []byte {
	return bytes.TrimSuffix(protocol.AppendJoined(nil, room, user, protocol.ID{}, 0), []byte(`0-0"}`))
}
