package live_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// bench is a Core with everything around it played: follow, Redis and the
// sockets. What the core decided is compared as text, in order.
type bench struct {
	t    *testing.T
	c    *live.Core
	now  int64
	said []string

	users   map[edge.ConnID]string
	silent  map[edge.ConnID]bool // without hello
	away    map[edge.ConnID]bool // between two polls
	nums    map[string]edge.RoomNum
	members map[string]string // room -> its members, separated by blanks
	asking  map[string]bool   // rooms of which membership is being decided
	heads   map[edge.RoomNum]uint64

	taken, left []chat.Seat
	incarnation uint64
	counted     map[int]int
	asked       []string
	finds       []chat.Marker
	marks       []chat.Marker
	kinds       []chat.MarkerKind
}

var errAway = errors.New("redis is away")

func newBench(t *testing.T, with ...func(*live.Config)) *bench {
	b := &bench{
		t: t, users: map[edge.ConnID]string{}, silent: map[edge.ConnID]bool{}, away: map[edge.ConnID]bool{},
		nums: map[string]edge.RoomNum{}, members: map[string]string{}, asking: map[string]bool{},
		heads: map[edge.RoomNum]uint64{}, counted: map[int]int{}, now: 1_000_000,
	}
	cfg := live.Config{
		Links: 2, Partitions: 4, ConnPrefix: "gw-",
		LinkOf:      func(ch chat.Channel) int { return len(ch.Name) % 2 },
		PartitionOf: func(ch chat.Channel) int { return len(ch.Name) % 4 },
	}
	for _, f := range with {
		f(&cfg)
	}
	b.c = live.New(cfg, b, b)
	b.c.LinkUp(0, 1)
	b.c.LinkUp(1, 1)
	b.c.Flush(b.now)
	return b
}

func (b *bench) say(format string, args ...any) {
	b.said = append(b.said, fmt.Sprintf(format, args...))
}

// The sockets and Redis.

func (b *bench) Subscribe(link int, gen uint64, ch chat.Channel) {
	b.say("sub %d.%d %s", link, gen, ch.Name)
}

func (b *bench) Unsubscribe(link int, gen uint64, ch chat.Channel) {
	b.say("unsub %d.%d %s", link, gen, ch.Name)
}

func (b *bench) TakeSeat(inc uint64, s chat.Seat) {
	b.incarnation = inc
	b.taken = append(b.taken, s)
	b.say("take %s %d%s", s.User, s.Conns, strings.Join(append([]string{""}, s.Focus...), " "))
}

func (b *bench) LeaveSeat(inc uint64, s chat.Seat) {
	b.incarnation = inc
	b.left = append(b.left, s)
	b.say("leave %s", s.User)
}

func (b *bench) CountSeats(inc uint64, part, expected int) { b.counted[part] = expected }

func (b *bench) ReadPresence(user string) {
	b.asked = append(b.asked, user)
	b.say("read %s", user)
}

func (b *bench) FindMessage(kind chat.MarkerKind, m chat.Marker) {
	b.finds = append(b.finds, m)
	b.say("find %s %v", m.Room, m.ID)
}

func (b *bench) AdvanceMarker(kind chat.MarkerKind, m chat.Marker) {
	b.marks, b.kinds = append(b.marks, m), append(b.kinds, kind)
	quiet := ""
	if m.Quiet {
		quiet = " quiet"
	}
	b.say("%s %s %s %d%s", [...]string{"read", "delivered"}[kind], m.User, m.Room, m.N, quiet)
}

func (b *bench) Publish(room string, event []byte) { b.say("publish %s %s", room, event) }

func (b *bench) Whisper(id edge.ConnID, f *edge.Frame) { b.say("to %d %s", id, f.JSON()) }

func (b *bench) Refuse(id edge.ConnID, code protocol.ErrorCode, detail string) {
	b.say("refuse %d %s", id, code)
}

// Follow.

func (b *bench) Connection(id edge.ConnID) (string, bool) { return b.users[id], !b.silent[id] }

func (b *bench) Connections(user string, f func(edge.ConnID, bool)) {
	var ids []edge.ConnID
	for id, u := range b.users {
		if u == user {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		f(id, !b.silent[id])
	}
}

func (b *bench) Membership(id edge.ConnID, room string) (edge.RoomNum, bool, bool) {
	if b.away[id] {
		b.t.Fatalf("membership of %d is asked about between two polls", id)
	}
	if b.asking[room] {
		return edge.NoRoom, false, true
	}
	if num, ok := b.nums[room]; ok && slices.Contains(strings.Fields(b.members[room]), b.users[id]) {
		return num, true, false
	}
	return edge.NoRoom, false, false
}

func (b *bench) Away(id edge.ConnID) bool { return b.away[id] }

func (b *bench) Head(num edge.RoomNum) (protocol.ID, uint64) {
	n := b.heads[num]
	return protocol.ID{Ms: n}, n // the n-th message has the ID n-0
}

// The newest three messages are in memory.
func (b *bench) Ordinal(num edge.RoomNum, id protocol.ID) (uint64, bool) {
	head := b.heads[num]
	if id.Seq == 0 && id.Ms <= head && id.Ms+3 > head {
		return id.Ms, true
	}
	return 0, false
}

// The script.

func (b *bench) open(id edge.ConnID, user string) {
	b.users[id] = user
	b.c.Opened(b.now, user)
	b.c.Flush(b.now)
}

// answered lets a long poll end, polls the next one of the same client begin.
func (b *bench) answered(id edge.ConnID) {
	b.silent[id], b.away[id] = true, true
	b.c.Left(b.now, b.users[id])
	b.c.Away(id)
}

func (b *bench) polls(id edge.ConnID) {
	b.silent[id], b.away[id] = false, false
	b.c.Opened(b.now, b.users[id])
	b.c.Back(b.now, id)
}

func (b *bench) close(id edge.ConnID) {
	user := b.users[id]
	delete(b.users, id)
	b.c.Closed(b.now, id, user)
	b.c.Flush(b.now)
}

func (b *bench) room(name, members string, head uint64) {
	num, ok := b.nums[name]
	if !ok {
		num = edge.RoomNum(len(b.nums))
		b.nums[name] = num
	}
	b.members[name] = members
	b.heads[num] = head
}

// message is sent to a room and delivered from here.
func (b *bench) message(room string) {
	b.heads[b.nums[room]]++
	b.c.Moved(b.nums[room])
	b.c.Flush(b.now)
}

func (b *bench) says(id edge.ConnID, kind edge.EventKind, room string, at uint64) {
	b.c.Said(b.now, edge.Event{Kind: kind, Conn: id, Room: room, ID: protocol.ID{Ms: at}})
	b.c.Flush(b.now)
}

func (b *bench) watches(id edge.ConnID, users ...string) {
	b.c.Said(b.now, edge.Event{Kind: edge.EvWatch, Conn: id, Users: users})
	b.c.Flush(b.now)
}

func (b *bench) pass(ms int64) {
	for end := b.now + ms; b.now < end; {
		b.now += min(50, end-b.now)
		b.c.Tick(b.now)
		b.c.Flush(b.now)
	}
}

// answerSeats answers what was asked of seats so far.
func (b *bench) answerSeats(err error) {
	taken, left := b.taken, b.left
	b.taken, b.left = nil, nil
	for _, s := range taken {
		b.c.SeatDone(b.now, b.incarnation, s.User, false, err)
	}
	for _, s := range left {
		b.c.SeatDone(b.now, b.incarnation, s.User, true, err)
	}
	b.c.Flush(b.now)
}

func (b *bench) answerMarks(r chat.MarkerResult, err error) {
	marks, kinds := b.marks, b.kinds
	b.marks, b.kinds = nil, nil
	for i, m := range marks {
		b.c.MarkerDone(b.now, kinds[i], m, r, err)
	}
	b.c.Flush(b.now)
}

// answerPresence answers the reads of presence so far.
func (b *bench) answerPresence(online bool, err error) {
	asked := b.asked
	b.asked = nil
	p := chat.UserPresence{LastSeen: 1700000000000}
	if online {
		p.Seats = map[string]chat.Seat{"g": {}}
	}
	for _, u := range asked {
		b.c.PresenceRead(b.now, u, p, err)
	}
	b.c.Flush(b.now)
}

func (b *bench) change(user, payload string) {
	b.c.Changed(len(user)%2, b.gen(user), user, []byte(payload))
	b.c.Flush(b.now)
}

func (b *bench) gen(string) uint64 { return 1 }

// want compares what was decided since the last time.
func (b *bench) want(want ...string) {
	b.t.Helper()
	if !slices.Equal(b.said, want) {
		b.t.Fatalf("\n got  %s\n want %s", strings.Join(b.said, "\n      "), strings.Join(want, "\n      "))
	}
	b.said = nil
}

func (b *bench) forget() { b.said = nil }
