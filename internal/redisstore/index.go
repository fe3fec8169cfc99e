package redisstore

import (
	"bytes"
	"context"
	"errors"
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

	// repair is the version that was found wrong in the index, of the room or of its
	// removal, "0" for a room that it lacks, "" for a change.
	repair string
}

// writeIndex brings changes to the users' side, and takes those that are there,
// and replicated where so configured, out of the outbox. Its failures are the business
// of repairs alone: a change is made, and what stays in the outbox is swept.
func (s *Store) writeIndex(ctx context.Context, changes []change) (failed error) {
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
			failed = err
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
	return failed
}

// finding is a room as it was found in a user's index; no version: it was not there.
type finding struct {
	user string
	chat.IndexedRoom
	removed uint64 // the version of its removal, where the index remembers one
}

// wrong is the version that a repair replaces.
func (f finding) wrong() string { return formatUint(max(f.Version, f.removed)) }

// Repair implements chat.Feed.
func (s *Store) Repair(ctx context.Context, ms []chat.Membership) error {
	calls := make([]*call, 0, 2*len(ms))
	for _, m := range ms {
		part := s.keys.partition(m.User)
		k := s.keys.user(part, m.User)
		calls = append(calls, newCommand(part, "hget", k.rooms, "r:"+m.Room), newCommand(part, "get", k.left(m.Room)))
	}
	s.doAll(ctx, reads, calls)
	var all []finding
	var errs []error
	for i, m := range ms {
		f, err := parseFinding(m, calls[2*i], calls[2*i+1])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, f)
	}
	return errors.Join(append(errs, s.repair(ctx, all))...)
}

func parseFinding(m chat.Membership, room, removal *call) (f finding, err error) {
	f = finding{user: m.User, IndexedRoom: chat.IndexedRoom{Room: m.Room}}
	reply, err := room.result()
	if err == nil && reply != nil {
		f.IndexedRoom, err = parseIndexed(m.Room, text(reply))
	}
	if err != nil || reply != nil {
		return f, err
	}
	if reply, err = removal.result(); err == nil && reply != nil {
		f.removed, err = parseUint(text(reply))
	}
	return f, err
}

// repair asks the members of rooms again, in one read with their version, and
// puts users' indexes right where they were found to differ. The members are asked last:
// a removal that was remembered before, and is newer than a room that has the member, is
// one that a failover took back.
func (s *Store) repair(ctx context.Context, all []finding) error {
	qs := make([]chat.RoomQuery, len(all))
	for i, f := range all {
		qs[i] = chat.RoomQuery{Room: f.Room, Users: []string{f.user}}
	}
	states, errs := s.ReadRooms(ctx, qs)
	failed := errors.Join(errs...)
	var changes []change
	for i, f := range all {
		if errs != nil && errs[i] != nil {
			continue
		}
		is, indexed := states[i].Exists && states[i].Member[0], f.Version != 0
		if is == indexed {
			continue
		}
		changes = append(changes, change{
			room: f.Room, user: f.user, joined: is, head: states[i].Head, n: states[i].N,
			version: states[i].Version, repair: f.wrong(),
		})
	}
	if len(changes) == 0 {
		return failed
	}
	changes, err := s.preferUnderWay(ctx, changes)
	return errors.Join(failed, err, s.writeIndex(ctx, changes))
}

// preferUnderWay puts additions that are still in an outbox in the place of repairs
// that stand in for them. They know the head at the moment of joining, of which the
// room's side knows no more. Where an outbox can't be read, nothing is repaired.
func (s *Store) preferUnderWay(ctx context.Context, repairs []change) (changes []change, err error) {
	outboxes := map[int]*call{}
	var calls []*call
	for _, ch := range repairs {
		if part := s.keys.partition(ch.room); ch.joined && outboxes[part] == nil {
			outboxes[part] = s.newNewestCall(part)
			calls = append(calls, outboxes[part])
		}
	}
	s.doAll(ctx, reads, calls)
	for _, ch := range repairs {
		if ch.joined {
			c := outboxes[s.keys.partition(ch.room)]
			reply, callErr := c.result()
			if callErr != nil {
				err = callErr
				continue
			}
			wrong, _ := parseUint(ch.repair)
			if underWay := newest(c.part, reply, ch.room, ch.user); underWay.joined && underWay.version > wrong {
				ch = underWay
			}
		}
		changes = append(changes, ch)
	}
	return changes, err
}

// newNewestCall reads the newest entries of a partition's outbox.
func (s *Store) newNewestCall(part int) *call {
	return newCommand(part, "xrevrange", s.keys.outbox(part), "+", "-", "count", sweepPage)
}

// newest is the newest change of a membership among such entries, if there is one.
func newest(part int, reply any, room, user string) change {
	entries, _ := reply.([]any)
	for _, e := range entries {
		if ch, err := parseOutbox(part, e); err == nil && ch.room == room && ch.user == user {
			return ch
		}
	}
	return change{}
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
