package sim

import (
	"slices"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// The most that a world has: names are made once.
const (
	maxRooms = 3
	maxUsers = 4
)

var (
	roomNames = [maxRooms]string{"r0", "r1", "r2"}
	userNames = [maxUsers]string{"u0", "u1", "u2", "u3"}
)

func indexOf(name string) int { return int(name[1] - '0') }

// entry is a message of a log.
type entry struct {
	id, prev protocol.ID
	n        uint64
}

// roomData is a room in Redis.
type roomData struct {
	exists  bool
	head    protocol.ID
	n       uint64
	version uint64
	members [maxUsers]bool
	// all is every message of this lineage; the log is what follows trimmed.
	all     []entry
	trimmed int
}

func (r *roomData) log() []entry { return r.all[r.trimmed:] }

func (r *roomData) has(id protocol.ID) bool {
	return slices.ContainsFunc(r.all, func(e entry) bool { return e.id == id })
}

// indexed is a room in a user's index, or the memory of one that was removed.
type indexed struct {
	present bool
	version uint64
	head    protocol.ID
}

type userData struct {
	rev          uint64
	revs         []uint64 // all of this lineage
	rooms        [maxRooms]indexed
	disconnected uint64
}

// change is a membership change whose user's side is still to be written.
type change struct {
	seq        int
	room, user int
	version    uint64
	joined     bool
	head       protocol.ID
}

// dataset is what one Redis node holds. It is copied, never changed in place, so
// that a replica's is simply an earlier one.
type dataset struct {
	rooms  [maxRooms]roomData
	users  [maxUsers]userData
	outbox []change
	epoch  int // 0: none
}

// shard is a primary, its replica, and after a failover the primary that was.
type shard struct {
	id      int
	node    int // of the primary; grows with every failover
	skew    int64
	history []dataset // the primary's, newest last; the first is the replica's
	old     *dataset  // of the demoted primary, while it believes it is none
	flushes int
}

func (s *shard) data() *dataset { return &s.history[len(s.history)-1] }

// on returns the dataset that a process sees that believes node is the primary.
func (s *shard) on(node int) *dataset {
	if node != s.node && s.old != nil {
		return s.old
	}
	return s.data()
}

// write applies a write on a node and returns what it became.
func (s *shard) write(node int, f func(d *dataset)) {
	if node != s.node && s.old != nil {
		d := *s.old
		f(&d)
		s.old = &d
		return
	}
	d := *s.data()
	f(&d)
	s.history = append(s.history, d)
}

// reached is the node that a write believed to be on node really reaches.
func (s *shard) reached(node int) int {
	if node != s.node && s.old != nil {
		return node
	}
	return s.node
}

// failover makes the replica the primary; what it had not received is lost
// there. The old primary goes on until it learns of it.
func (s *shard) failover() (lost int) {
	lost = len(s.history) - 1
	old := *s.data()
	s.old = &old
	s.history = s.history[:1:1]
	s.node++
	return lost
}

// resync makes the demoted primary a replica.
func (s *shard) resync() {
	s.old = nil
	s.history = s.history[len(s.history)-1:]
}

func (w *world) roomShard(room int) *shard { return w.shards[room%len(w.shards)] }
func (w *world) userShard(user int) *shard { return w.shards[(user+1)%len(w.shards)] }

func (w *world) shardOf(ch chat.Channel) int {
	if ch.Kind == chat.RoomChannel {
		return w.roomShard(indexOf(ch.Name)).id
	}
	return w.userShard(indexOf(ch.Name)).id
}

// timeMs is a node's clock.
func (w *world) timeMs(s *shard, node int) uint64 {
	t := w.now + 1000
	if node%2 == 1 {
		t += s.skew
	}
	return uint64(max(t, 1))
}

// send appends a message, as the send script does.
func (w *world) send(room, from, node int) bool {
	s := w.roomShard(room)
	node = s.reached(node)
	r := &s.on(node).rooms[room]
	if !r.exists || from >= 0 && !r.members[from] {
		return false
	}
	id := protocol.ID{Ms: w.timeMs(s, node)}
	if !r.head.Less(id) {
		id = protocol.ID{Ms: r.head.Ms, Seq: r.head.Seq + 1}
	}
	for w.used[room][id] { // two messages with one ID are outside what can be noticed
		id.Seq++
	}
	w.used[room][id] = true
	w.parent[room][id] = r.head
	e := entry{id: id, prev: r.head, n: r.n + 1}
	s.write(node, func(d *dataset) {
		r := &d.rooms[room]
		r.all = append(r.all[:len(r.all):len(r.all)], e)
		r.head, r.n = e.id, e.n
	})
	w.count.Sends++
	if w.trace != nil {
		w.logf("send %s %v (prev %v) on node %d", roomNames[room], id, e.prev, node)
	}
	payload := protocol.AppendMessage(nil, roomNames[room], e.id, e.prev, e.n, messageTail)
	w.publish(s, node, chat.Channel{Kind: chat.RoomChannel, Name: roomNames[room]}, item{payload: payload})
	return true
}

var messageTail = []byte(`"from":"x","sent_at":"2026-11-22T19:00:00Z","body":{"type":"text","text":"hi"}}`)

// create makes a room that does not exist, as the create script does.
func (w *world) create(room int, members [maxUsers]bool, node int) {
	s := w.roomShard(room)
	node = s.reached(node)
	if s.on(node).rooms[room].exists {
		return
	}
	version := w.fresh(w.timeMs(s, node))
	s.write(node, func(d *dataset) {
		r := &d.rooms[room]
		*r = roomData{exists: true, version: version, members: members}
		for u, is := range members {
			if is {
				d.outbox = append(slices.Clone(d.outbox), change{w.nextSeq(), room, u, version, true, protocol.ID{}})
			}
		}
	})
	if w.trace != nil {
		w.logf("create %s with %v on node %d", roomNames[room], members, node)
	}
	for u, is := range members {
		if is {
			w.publishMember(s, node, room, u, true, protocol.ID{})
		}
	}
}

func (w *world) nextSeq() int { w.seq++; return w.seq }

// fresh is a version that was never used: what M2 promises as long as clocks do
// not differ by more than a failover takes.
func (w *world) fresh(v uint64) uint64 {
	for w.versions[v] {
		v++
	}
	w.versions[v] = true
	return v
}

// setMember adds or removes a member, as the members scripts do (M1).
func (w *world) setMember(room, user int, member bool, node int) bool {
	s := w.roomShard(room)
	node = s.reached(node)
	r := &s.on(node).rooms[room]
	if !r.exists || r.members[user] == member {
		return false
	}
	version := w.fresh(max(r.version+1, w.timeMs(s, node)))
	head := r.head
	w.left[room][user] = w.left[room][user] || !member
	s.write(node, func(d *dataset) {
		r := &d.rooms[room]
		r.members[user] = member
		r.version = version
		d.outbox = append(slices.Clone(d.outbox), change{w.nextSeq(), room, user, version, member, head})
	})
	if w.trace != nil {
		w.logf("member %s of %s: %v (version %d, head %v) on node %d", userNames[user], roomNames[room], member, version, head, node)
	}
	w.publishMember(s, node, room, user, member, head)
	return true
}

func (w *world) publishMember(s *shard, node, room, user int, member bool, head protocol.ID) {
	it := item{}
	if member {
		it.payload = protocol.AppendJoined(nil, roomNames[room], userNames[user], head, 0)
	} else {
		it.payload = protocol.AppendLeft(nil, roomNames[room], userNames[user], 0)
		it.left, it.user = true, user
	}
	w.publish(s, node, chat.Channel{Kind: chat.RoomChannel, Name: roomNames[room]}, it)
}

// sweep writes the user's side of one outbox entry, and takes it out unless the
// sweeper crashes in between.
func (w *world) sweep(s *shard, i int, crash bool) {
	c := s.data().outbox[i]
	us := w.userShard(c.user)
	w.index(us, c, false)
	if crash {
		return
	}
	s.write(s.node, func(d *dataset) {
		d.outbox = slices.DeleteFunc(slices.Clone(d.outbox), func(o change) bool { return o.seq == c.seq })
	})
}

// index is the index script: older versions are ignored; the index, rooms_rev and
// the user's channel move together (M3).
func (w *world) index(s *shard, c change, repair bool) {
	is := s.data().users[c.user].rooms[c.room]
	if !repair && c.version <= is.version {
		return
	}
	rev := w.fresh(max(s.data().users[c.user].rev+1, w.timeMs(s, s.node)))
	s.write(s.node, func(d *dataset) {
		u := &d.users[c.user]
		u.rev, u.revs = rev, append(u.revs[:len(u.revs):len(u.revs)], rev)
		d.users[c.user].rooms[c.room] = indexed{present: c.joined, version: c.version, head: c.head}
	})
	var payload []byte
	if c.joined {
		payload = protocol.AppendJoined(nil, roomNames[c.room], userNames[c.user], c.head, rev)
	} else {
		payload = protocol.AppendLeft(nil, roomNames[c.room], userNames[c.user], rev)
	}
	if w.trace != nil {
		w.logf("index of %s: %s", userNames[c.user], payload)
	}
	w.publish(s, s.node, chat.Channel{Kind: chat.UserChannel, Name: userNames[c.user]}, item{payload: payload})
}

// trim cuts a log's oldest entries.
func (w *world) trim(room, n int) bool {
	s := w.roomShard(room)
	r := &s.data().rooms[room]
	n = min(n, len(r.log()))
	if n == 0 {
		return false
	}
	for _, e := range r.log()[:n] {
		w.aged[room][e.id] = true
	}
	s.write(s.node, func(d *dataset) { d.rooms[room].trimmed += n })
	if w.trace != nil {
		w.logf("trim %s by %d", roomNames[room], n)
	}
	return true
}

// flush empties a node (FLUSHALL, or a restart without persistence).
func (w *world) flush(s *shard) {
	s.flushes++
	s.write(s.node, func(d *dataset) { *d = dataset{} })
	if w.trace != nil {
		w.logf("flush shard %d", s.id)
	}
}

// repair makes an index and the members agree, as whoever finds them different does
// (F3). What is under way in an outbox knows the head at the moment of joining. What is
// older than a removal that the index remembers is not: the room's side has lost that.
func (w *world) repair(room, user int) {
	rs, us := w.roomShard(room), w.userShard(user)
	r, is := &rs.data().rooms[room], us.data().users[user].rooms[room]
	member := r.exists && r.members[user]
	if is.present == member {
		return
	}
	ch := change{room: room, user: user, version: r.version, joined: member, head: r.head}
	for _, c := range rs.data().outbox {
		if member && c.joined && c.room == room && c.user == user && c.version > is.version {
			ch = c
		}
	}
	w.index(us, ch, true)
}

// repairAll does it for all of them.
func (w *world) repairAll() {
	for room := range w.rooms {
		for user := range w.users {
			w.repair(room, user)
		}
	}
}

// Reads, as the Feed answers them.

func (d *dataset) readUser(user int) (st chat.UserState) {
	u := &d.users[user]
	st.Rev, st.Disconnected = u.rev, u.disconnected
	for room, x := range u.rooms {
		if x.present {
			st.Rooms = append(st.Rooms, chat.IndexedRoom{Room: roomNames[room], Version: x.version, Head: x.head})
		}
	}
	return st
}

func (d *dataset) readRoom(q chat.RoomQuery) (st chat.RoomState) {
	r := &d.rooms[indexOf(q.Room)]
	st.Member = make([]bool, len(q.Users))
	if !r.exists {
		return st
	}
	st.Exists, st.Head, st.N, st.Version = true, r.head, r.n, r.version
	for i, u := range q.Users {
		st.Member[i] = r.members[indexOf(u)]
	}
	return st
}

// readLog answers with at most as many entries as are to fit by their bytes.
func (d *dataset) readLog(q chat.LogQuery, fit int) (pg chat.LogPage) {
	r := &d.rooms[indexOf(q.Room)]
	if !r.exists {
		return pg
	}
	pg.Exists, pg.Head, pg.N, pg.Version = true, r.head, r.n, r.version
	for _, e := range r.log() {
		if e.id.Less(q.From) {
			continue
		}
		if len(pg.Entries) == min(q.Limit, fit) {
			pg.More = true
			break
		}
		pg.Entries = append(pg.Entries, chat.Message{ID: e.id, Prev: e.prev, N: e.n, Tail: messageTail})
	}
	return pg
}
