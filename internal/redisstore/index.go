package redisstore

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// removalMemory is how long an index remembers a removal, so that an older
// addition that comes late is known to be older.
const removalMemory = 24 * time.Hour

// change is a membership change on its way from the room's side, where it is
// true already, to the user's.
type change struct {
	room, user string
	version    uint64
	joined     bool
	head       protocol.ID // when joined
	n          uint64      // its ordinal: what came before is not unread

	// The outbox entry that goes when the index is written; "" for none.
	part  int
	entry string

	// repair is the version that was found wrong in the index, "0" for a room that
	// it lacks, "" for a change.
	repair string
}

// writeIndex brings changes to the users' side, and takes those that are there,
// and replicated where so configured, out of the outbox. Its failures are nobody's
// business: the change is made, and what stays in the outbox is swept.
func (s *Store) writeIndex(ctx context.Context, changes []change) {
	calls := make([]*call, len(changes))
	for i, ch := range changes {
		part := s.keys.partition(ch.user)
		k := s.keys.user(part, ch.user)
		op, event := "-", protocol.AppendLeft(nil, ch.room, ch.user, 0)
		if ch.joined {
			op, event = "+", protocol.AppendJoined(nil, ch.room, ch.user, ch.head, 0)
		}
		calls[i] = newCall(part, indexScript, []string{k.rooms, k.left(ch.room), k.channel},
			ch.room, ch.version, op, ch.head.String(), bytes.TrimSuffix(event, []byte("}")), s.publish,
			removalMemory.Milliseconds(), ch.repair, ch.n, s.keys.database)
		calls[i].ack = true
	}
	s.doAll(ctx, writes, calls)

	done := map[int][]any{} // outbox entries by partition
	for i, ch := range changes {
		if _, err := calls[i].result(); err != nil {
			s.log.Warn("membership change not in the user's index yet", "room", ch.room, "user", ch.user, "error", err)
			continue
		}
		if ch.entry != "" {
			done[ch.part] = append(done[ch.part], ch.entry)
		}
	}
	calls = calls[:0]
	for part, entries := range done {
		calls = append(calls, newCommand(part, append([]any{"xdel", s.keys.outbox(part)}, entries...)...))
	}
	s.doAll(ctx, writes, calls)
}

// Repair makes a user's index agree with the members of a room, whichever way it
// is wrong (DELIVERY F3).
func (s *Store) Repair(ctx context.Context, room, user string) error {
	part := s.keys.partition(user)
	reply, err := s.do(ctx, reads, newCommand(part, "hget", s.keys.user(part, user).rooms, "r:"+room))
	if err != nil {
		return err
	}
	found := chat.IndexedRoom{Room: room}
	if reply != nil {
		if found, err = parseIndexed(room, text(reply)); err != nil {
			return err
		}
	}
	s.repair(ctx, user, []chat.IndexedRoom{found})
	return nil
}

// repair asks the members of rooms again, in one read with their version, and
// puts the user's index right where it was found to differ.
func (s *Store) repair(ctx context.Context, user string, found []chat.IndexedRoom) {
	qs := make([]chat.RoomQuery, len(found))
	for i, r := range found {
		qs[i] = chat.RoomQuery{Room: r.Room, Users: []string{user}}
	}
	states, errs := s.ReadRooms(ctx, qs)
	var changes []change
	for i, r := range found {
		if errs != nil && errs[i] != nil {
			continue
		}
		is, indexed := states[i].Exists && states[i].Member[0], r.Version != 0
		if is == indexed {
			continue
		}
		ch := change{
			room: r.Room, user: user, joined: is, head: states[i].Head, n: states[i].N,
			version: states[i].Version, repair: formatUint(r.Version),
		}
		if is {
			underWay, err := s.underWay(ctx, r.Room, user)
			if err != nil {
				continue
			}
			if underWay.joined {
				ch = underWay
			}
		}
		changes = append(changes, ch)
	}
	if len(changes) > 0 {
		s.writeIndex(ctx, changes)
	}
}

// underWay is the newest change of a membership that is still in the outbox, if there
// is one among the newest of its partition. It knows the head at the moment of joining,
// of which the room's side knows no more.
func (s *Store) underWay(ctx context.Context, room, user string) (change, error) {
	part := s.keys.partition(room)
	reply, err := s.do(ctx, reads, newCommand(part, "xrevrange", s.keys.outbox(part), "+", "-", "count", sweepPage))
	if err != nil {
		return change{}, err
	}
	entries, _ := reply.([]any)
	for _, e := range entries {
		if ch, err := parseOutbox(part, e); err == nil && ch.room == room && ch.user == user {
			return ch, nil
		}
	}
	return change{}, nil
}

// index is a user's hash.
type index struct {
	rev, disconnected uint64
	rooms             []chat.IndexedRoom
	read              map[string]marker
}

type marker struct {
	id protocol.ID
	n  uint64
}

// parseMarker reads "id n"; nothing is the marker of who has read nothing.
func parseMarker(value string) (m marker, err error) {
	if value == "" {
		return m, nil
	}
	id, n, _ := strings.Cut(value, " ")
	if m.id, err = protocol.ParseID(id); err == nil {
		m.n, err = parseUint(n)
	}
	return m, err
}

// further is the one of two markers of a room that has come further: by the IDs, as
// ordinals begin again at what a failover has lost.
func further(a, b marker) marker {
	if a.id.Less(b.id) {
		return b
	}
	return a
}

// parseIndex reads the answer to an HGETALL of a user's hash.
func parseIndex(reply any) (x index, err error) {
	v, ok := reply.([]any)
	if !ok {
		return x, errReply("hgetall", reply)
	}
	for i := 0; i+1 < len(v) && err == nil; i += 2 {
		field, value := text(v[i]), text(v[i+1])
		kind, room, named := strings.Cut(field, ":")
		switch {
		case field == "rev":
			x.rev, err = parseUint(value)
		case field == "disc":
			x.disconnected, err = parseUint(value)
		case named && kind == "r":
			var r chat.IndexedRoom
			r, err = parseIndexed(room, value)
			x.rooms = append(x.rooms, r)
		case named && kind == "m":
			if x.read == nil {
				x.read = map[string]marker{}
			}
			x.read[room], err = parseMarker(value)
		}
	}
	return x, err
}

// parseIndexed reads an index entry, "version head".
func parseIndexed(room, value string) (r chat.IndexedRoom, err error) {
	r.Room = room
	version, head, _ := strings.Cut(value, " ")
	if r.Version, err = parseUint(version); err == nil {
		r.Head, err = protocol.ParseID(head)
	}
	return r, err
}
