package api_test

import (
	"context"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// memory is a Store without Redis, for what is HTTP's business alone. fail, when
// set, is what every method answers; gate, when set, holds every Send until it
// is closed or the deadline has passed.
//
// What it does not do itself is done by what a test gives it, if it is asked for.
type memory struct {
	chat.Live
	chat.Retainer
	chat.Revoker
	chat.Attachments

	mu   sync.Mutex
	fail error
	gate chan struct{}
	// reached is closed when a Send stands before the gate.
	reached chan struct{}
	now     uint64
	rooms   map[string]*memoryRoom
	reads   map[[2]string]uint64
	calls   int
	sends   []chat.Send
}

type memoryRoom struct {
	name    string
	members map[string]chat.Role
	log     []chat.Message
	keys    map[[2]string]struct {
		hash string
		at   int
	}
}

func newMemory() *memory {
	return &memory{now: 1_800_000_000_000, rooms: map[string]*memoryRoom{}, reads: map[[2]string]uint64{}}
}

// enter locks and counts; the caller unlocks.
func (m *memory) enter(ctx context.Context) error {
	m.mu.Lock()
	m.calls++
	if _, bounded := ctx.Deadline(); !bounded {
		panic("the Store was asked without a deadline")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.fail
}

func (m *memory) open(by chat.Actor, room string) (*memoryRoom, error) {
	r := m.rooms[room]
	if r == nil {
		return nil, chat.ErrNoRoom
	}
	if _, member := r.members[by.User]; !member && !by.Server {
		return nil, chat.ErrNotMember
	}
	return r, nil
}

func (m *memory) Send(ctx context.Context, s chat.Send) (chat.Sent, error) {
	if m.gate != nil {
		if m.reached != nil {
			close(m.reached)
		}
		select {
		case <-m.gate:
		case <-ctx.Done():
			return chat.Sent{}, ctx.Err()
		}
	}
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return chat.Sent{}, err
	}
	r := m.rooms[s.Room]
	if r != nil {
		if k, known := r.keys[[2]string{s.By.User, s.Key}]; known {
			if k.hash != s.Hash {
				return chat.Sent{}, chat.ErrKeyReused
			}
			e := r.log[k.at]
			return chat.Sent{ID: e.ID, Prev: e.Prev, N: e.N, Tail: e.Tail, Replayed: true, Durability: chat.Accepted}, nil
		}
	}
	if s.ReplayOnly {
		return chat.Sent{}, chat.ErrLimited
	}
	if r, err = m.open(s.By, s.Room); err != nil {
		return chat.Sent{}, err
	}
	m.now++
	e := chat.Message{ID: protocol.ID{Ms: m.now}, N: uint64(len(r.log) + 1), Tail: slices.Clone(s.Tail)}
	if len(r.log) > 0 {
		e.Prev = r.log[len(r.log)-1].ID
	}
	r.keys[[2]string{s.By.User, s.Key}] = struct {
		hash string
		at   int
	}{s.Hash, len(r.log)}
	r.log = append(r.log, e)
	if _, member := r.members[s.By.User]; member {
		m.reads[[2]string{s.By.User, s.Room}] = e.N
	}
	m.sends = append(m.sends, s)
	return chat.Sent{ID: e.ID, Prev: e.Prev, N: e.N, Tail: e.Tail, Durability: chat.Accepted}, nil
}

func (m *memory) History(ctx context.Context, by chat.Actor, room string, after, before *protocol.ID, limit int) ([]chat.Message, bool, error) {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	r, err := m.open(by, room)
	if err != nil {
		return nil, false, err
	}
	var out []chat.Message
	for _, e := range r.log {
		if after != nil && after.Less(e.ID) || before != nil && (before.IsZero() || e.ID.Less(*before)) {
			out = append(out, e)
		}
	}
	if before != nil {
		slices.Reverse(out)
	}
	return out[:min(len(out), limit)], len(out) > limit, nil
}

func (m *memory) CreateRoom(ctx context.Context, by chat.Actor, id, name string, members []string) (chat.Room, error) {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return chat.Room{}, err
	}
	if m.rooms[id] != nil {
		return chat.Room{}, chat.ErrRoomExists
	}
	r := &memoryRoom{name: name, members: map[string]chat.Role{}, keys: map[[2]string]struct {
		hash string
		at   int
	}{}}
	if by.User != "" {
		r.members[by.User] = chat.RoleOwner
	}
	for _, u := range members {
		r.members[u] = chat.RoleMember
	}
	m.rooms[id] = r
	return m.room(id), nil
}

func (m *memory) room(id string) chat.Room {
	r := m.rooms[id]
	out := chat.Room{ID: id, Name: r.name, N: uint64(len(r.log)), Created: time.UnixMilli(1_800_000_000_123), Members: len(r.members)}
	if len(r.log) > 0 {
		out.Head = r.log[len(r.log)-1].ID
	}
	return out
}

func (m *memory) Room(ctx context.Context, by chat.Actor, room string) (chat.Room, chat.Role, error) {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return chat.Room{}, "", err
	}
	r, err := m.open(by, room)
	if err != nil {
		return chat.Room{}, "", err
	}
	return m.room(room), r.members[by.User], nil
}

func (m *memory) Members(ctx context.Context, by chat.Actor, room, cursor string, limit int) ([]chat.Member, string, error) {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return nil, "", err
	}
	r, err := m.open(by, room)
	if err != nil {
		return nil, "", err
	}
	after, ok := strings.CutPrefix(cursor, "after:")
	if cursor != "" && (!ok || after == "") {
		return nil, "", chat.ErrBadPosition
	}
	var out []chat.Member
	for u, role := range r.members {
		if u > after {
			mb := chat.Member{User: u, Role: role, Marked: true}
			if n := m.reads[[2]string{u, room}]; n > 0 {
				mb.Read, mb.Delivered = r.log[n-1].ID, r.log[n-1].ID
			}
			out = append(out, mb)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].User < out[j].User })
	if len(out) > limit {
		return out[:limit], "after:" + out[limit-1].User, nil
	}
	return out, "", nil
}

func (m *memory) PutMember(ctx context.Context, by chat.Actor, room, user string, role chat.Role) (chat.Role, error) {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return "", err
	}
	r, err := m.open(by, room)
	if err != nil {
		return "", err
	}
	if r.members[by.User] == chat.RoleMember {
		return "", chat.ErrNotAllowed
	}
	is, there := r.members[user]
	if role == "" {
		if role = is; !there {
			role = chat.RoleMember
		}
	}
	r.members[user] = role
	if !there {
		m.reads[[2]string{user, room}] = uint64(len(r.log))
	}
	return role, nil
}

func (m *memory) RemoveMember(ctx context.Context, by chat.Actor, room, user string) error {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	r, err := m.open(by, room)
	if err != nil {
		return err
	}
	if _, there := r.members[user]; !there {
		return chat.ErrNoMember
	}
	delete(r.members, user)
	return nil
}

func (m *memory) Rooms(ctx context.Context, user, cursor string, limit int) ([]chat.UserRoom, uint64, string, error) {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return nil, 0, "", err
	}
	var out []chat.UserRoom
	for id, r := range m.rooms {
		if role, member := r.members[user]; member && id > cursor {
			room := m.room(id)
			n := m.reads[[2]string{user, id}]
			ur := chat.UserRoom{Room: room, Role: role, ReadN: n, Unread: room.N - n}
			if n > 0 {
				ur.Read = r.log[n-1].ID
			}
			out = append(out, ur)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Room.ID < out[j].Room.ID })
	if len(out) > limit {
		return out[:limit], 17, out[limit-1].Room.ID, nil
	}
	return out, 17, "", nil
}

func (m *memory) MarkRead(ctx context.Context, user, room string, id protocol.ID) error {
	err := m.enter(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	r, err := m.open(chat.Actor{User: user}, room)
	if err != nil {
		return err
	}
	for _, e := range r.log {
		if e.ID == id {
			m.reads[[2]string{user, room}] = max(m.reads[[2]string{user, room}], e.N)
			return nil
		}
	}
	return chat.ErrBadPosition
}
