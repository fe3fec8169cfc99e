package follow_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// scene plays an interleaving: what links, reads and loops say to a Core, one
// thing after another, and what its connections get. Rooms are named r…, users
// are not; what is named …2 is on a second link. Messages are told by their IDs.
type scene struct {
	t      *testing.T
	core   *follow.Core
	now    int64
	gens   [2]uint64
	asked  []*ask
	subs   []string // what links were asked, and not yet checked
	wrong  []string // indexes that lack a room, and not yet checked
	phones []*phone
	rooms  map[edge.RoomNum][]*phone

	versions map[string]uint64 // of rooms' members, as they were read last
}

// ask is a read that waits for its answer.
type ask struct {
	s    *scene
	what string // "user alice", "room r alice bob", "log r 3-0"
	tok  follow.Token
	name string
}

// phone is a connection: what it got, and not yet checked.
type phone struct {
	s    *scene
	id   edge.ConnID
	got  []string
	nums map[string]edge.RoomNum // of rooms that it was attached to

	times []uint64 // that the events so far said
}

// play begins a scene: both links are up.
func play(t *testing.T, change ...func(*follow.Config)) *scene {
	s := &scene{t: t, rooms: map[edge.RoomNum][]*phone{}, versions: map[string]uint64{}}
	link := func(ch chat.Channel) int {
		if strings.HasSuffix(ch.Name, "2") {
			return 1
		}
		return 0
	}
	cfg := follow.Config{Links: 2, LinkOf: link, PartitionOf: link}
	for _, f := range change {
		f(&cfg)
	}
	s.core = follow.New(cfg, (*recorder)(s))
	s.linkUp(0)
	s.linkUp(1)
	return s
}

// entering is a scene in which a user's phone waits for its room r to be read.
func entering(t *testing.T, change ...func(*follow.Config)) (*scene, *phone) {
	t.Helper()
	s := play(t, change...)
	alice := s.opens("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.confirmed("r")
	return s, alice
}

// playing is a scene in which it is in the room, whose head is 1-0.
func playing(t *testing.T, change ...func(*follow.Config)) (*scene, *phone) {
	t.Helper()
	s, alice := entering(t, change...)
	s.answers("room r alice").room("1-0", 100, "alice")
	alice.gets("hello 7")
	return s, alice
}

func (s *scene) turn() {
	s.core.Tick(s.now)
	s.core.Flush()
}

func (s *scene) after(ms int64) { s.now += ms; s.turn() }

// Links.

func (s *scene) linkUp(n int) {
	s.gens[n]++
	s.core.LinkUp(n, s.gens[n])
	s.turn()
}

func (s *scene) linkDown(n int) {
	s.core.LinkDown(n, s.gens[n])
	s.turn()
}

func channel(name string) (ch chat.Channel, link int) {
	ch = chat.Channel{Kind: chat.UserChannel, Name: name}
	if name[0] == 'r' {
		ch.Kind = chat.RoomChannel
	}
	if strings.HasSuffix(name, "2") {
		link = 1
	}
	return ch, link
}

func (s *scene) confirmed(names ...string) {
	for _, name := range names {
		ch, link := channel(name)
		s.core.Confirmed(link, s.gens[link], ch)
	}
	s.turn()
}

// published lets the core hear something on a channel: "2-0" is a message that
// follows 1-0, "5-0<3-0" one that follows 3-0, all else is an event.
func (s *scene) published(name string, events ...string) {
	ch, link := channel(name)
	for _, ev := range events {
		payload := []byte(ev)
		if ev[0] != '{' {
			e := entry(ev)
			payload = protocol.AppendMessage(nil, name, e.ID, e.Prev, e.N, e.Tail)
		}
		s.core.Event(link, s.gens[link], ch, payload)
	}
	s.turn()
}

func left(room, user string, rev uint64) string {
	return string(protocol.AppendLeft(nil, room, user, rev))
}

func joined(room, user, head string, rev uint64) string {
	return string(protocol.AppendJoined(nil, room, user, id(head), rev))
}

func (s *scene) canary(link int, epoch string) {
	s.core.Canary(link, s.gens[link], link, epoch)
	s.turn()
}

// clocks lets both links tell a time.
func (s *scene) clocks(ms uint64) {
	for n := range s.gens {
		s.core.Clock(n, s.gens[n], ms)
	}
	s.turn()
}

// asks checks what links were asked, since the last time.
func (s *scene) asks(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.subs, want) {
		s.t.Fatalf("links were asked %q, want %q", s.subs, want)
	}
	s.subs = nil
}

// Reads.

// answers takes the read that must be waiting.
func (s *scene) answers(what string) *ask {
	s.t.Helper()
	for i, a := range s.asked {
		if a.what == what {
			s.asked = slices.Delete(s.asked, i, i+1)
			return a
		}
	}
	s.t.Fatalf("no read %q is under way, only %q", what, s.reading())
	return nil
}

func (s *scene) reading() (what []string) {
	for _, a := range s.asked {
		what = append(what, a.what)
	}
	return what
}

// reads checks what is being read.
func (s *scene) reads(want ...string) {
	s.t.Helper()
	if got := s.reading(); !slices.Equal(got, want) {
		s.t.Fatalf("being read: %q, want %q", got, want)
	}
}

func (a *ask) index(rev uint64, rooms ...string) {
	st := chat.UserState{Rev: rev}
	for _, r := range rooms {
		name, head, _ := strings.Cut(r, "@")
		st.Rooms = append(st.Rooms, chat.IndexedRoom{Room: name, Head: id(head)})
	}
	a.state(st)
}

func (a *ask) state(st chat.UserState) {
	a.s.core.UserRead(a.s.now, a.tok, a.name, st, nil)
	a.s.turn()
}

func (a *ask) room(head string, version uint64, members ...string) {
	st := chat.RoomState{Exists: true, Head: id(head), Version: version}
	a.s.versions[a.name] = version
	for _, user := range strings.Fields(a.what)[2:] {
		st.Member = append(st.Member, slices.Contains(members, user))
	}
	a.s.core.RoomRead(a.s.now, a.tok, a.name, st, nil)
	a.s.turn()
}

func (a *ask) noRoom() {
	st := chat.RoomState{Member: make([]bool, len(strings.Fields(a.what))-2)}
	a.s.core.RoomRead(a.s.now, a.tok, a.name, st, nil)
	a.s.turn()
}

// log answers with entries, as published writes them; a last "…" says that there
// are more.
func (a *ask) log(head string, entries ...string) {
	pg := chat.LogPage{Exists: true, Head: id(head), N: id(head).Ms, Version: a.s.versions[a.name]}
	for _, e := range entries {
		if e == "…" {
			pg.More = true
			break
		}
		pg.Entries = append(pg.Entries, entry(e))
	}
	a.s.core.LogRead(a.s.now, a.tok, a.name, pg, nil)
	a.s.turn()
}

func (a *ask) fails() {
	err := errors.New("no answer")
	switch strings.Fields(a.what)[0] {
	case "user":
		a.s.core.UserRead(a.s.now, a.tok, a.name, chat.UserState{}, err)
	case "room":
		a.s.core.RoomRead(a.s.now, a.tok, a.name, chat.RoomState{}, err)
	case "log":
		a.s.core.LogRead(a.s.now, a.tok, a.name, chat.LogPage{}, err)
	}
	a.s.turn()
}

func id(s string) protocol.ID {
	if s == "" {
		return protocol.ID{}
	}
	id, err := protocol.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// entry is the message "2-0", whose prev is 1-0, or "5-0<3-0". Its ordinal is its
// time.
func entry(s string) chat.Message {
	at, prev, told := strings.Cut(s, "<")
	e := chat.Message{ID: id(at), N: id(at).Ms, Tail: []byte(`"from":"bob"}`)}
	if told {
		e.Prev = id(prev)
	} else {
		e.Prev = protocol.ID{Ms: e.ID.Ms - 1}
	}
	return e
}

// Connections.

func (s *scene) opens(user string) *phone   { return s.open(user, false, 0) }
func (s *scene) resumes(user string) *phone { return s.open(user, true, 0) }

func (s *scene) open(user string, resume bool, issuedAt int64) *phone {
	return s.opensAs(user, follow.Opening{Resume: resume, IssuedAt: issuedAt})
}

// opensAs opens a connection of another kind, or one that resumes from a time.
func (s *scene) opensAs(user string, how follow.Opening) *phone {
	p := &phone{s: s, id: edge.MakeConnID(0, uint32(len(s.phones)), 1), nums: map[string]edge.RoomNum{}}
	s.phones = append(s.phones, p)
	s.core.Open(s.now, p.id, user, how)
	s.turn()
	return p
}

// has sends positions, "r 3-0" each; a last "more" says that others follow.
func (p *phone) has(positions ...string) {
	pos, more := map[string]protocol.ID{}, false
	for _, s := range positions {
		room, at, ok := strings.Cut(s, " ")
		if !ok {
			more = true
			break
		}
		pos[room] = id(at)
	}
	if !p.s.core.Positions(p.id, pos, more) {
		p.got = append(p.got, "refused")
	}
	p.s.turn()
}

// lags reports that a room was left out since a position.
func (p *phone) lags(room, since string) {
	p.s.core.Lagged(p.id, map[edge.RoomNum]protocol.ID{p.nums[room]: id(since)})
	p.s.turn()
}

func (p *phone) drained() {
	p.s.core.Drained(p.id)
	p.s.turn()
}

// renews takes a token that was issued at a time.
func (p *phone) renews(issuedAt int64) {
	p.s.core.Renew(p.id, issuedAt)
	p.s.turn()
}

func (p *phone) closes() {
	p.s.core.Close(p.s.now, p.id)
	p.s.turn()
}

// repairs checks which indexes were found to lack a room since the last time.
func (s *scene) repairs(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.wrong, want) {
		s.t.Fatalf("indexes to repair: %q, want %q", s.wrong, want)
	}
	s.wrong = nil
}

// gets checks what a connection got since the last time.
func (p *phone) gets(want ...string) {
	p.s.t.Helper()
	if !slices.Equal(p.got, want) {
		p.s.t.Fatalf("got %q, want %q", p.got, want)
	}
	p.got = nil
}

// says checks what times all events so far said.
func (p *phone) says(want ...uint64) {
	p.s.t.Helper()
	if !slices.Equal(p.times, want) {
		p.s.t.Fatalf("times are %d, want %d; events %q", p.times, want, p.got)
	}
}

func (p *phone) take(f *edge.Frame) {
	p.times = append(p.times, f.Time)
	if !f.ID.IsZero() {
		p.got = append(p.got, f.ID.String())
		return
	}
	ev := string(f.JSON())
	value := func(name string) string {
		_, rest, _ := strings.Cut(ev, `"`+name+`":`)
		end := strings.IndexAny(rest, ",}")
		if end < 0 {
			return ""
		}
		return strings.Trim(rest[:end], `"`)
	}
	switch kind := value("type"); kind {
	case "hello", "resumed":
		p.got = append(p.got, kind+" "+value("rooms_rev"))
	case "gap":
		p.got = append(p.got, fmt.Sprintf("gap %s after %s head %s", value("room"), value("after"), value("head")))
	case "polled":
		_, rooms, _ := strings.Cut(ev, `"rooms":`)
		p.got = append(p.got, kind+" "+value("rooms_rev")+" "+strings.TrimSuffix(rooms, "}"))
	case "joined":
		p.got = append(p.got, strings.TrimSpace(fmt.Sprintf("joined %s %s at %s %s", value("room"), value("user"), value("head"), value("rooms_rev"))))
	case "left":
		p.got = append(p.got, strings.TrimSpace(fmt.Sprintf("left %s %s %s", value("room"), value("user"), value("rooms_rev"))))
	default:
		p.got = append(p.got, kind)
	}
}

// recorder is a scene as follow.Out: a loop without slow sockets.
type recorder scene

func (r *recorder) Subscribe(link int, gen uint64, ch chat.Channel) {
	r.subs = append(r.subs, "subscribe "+ch.Name)
}

func (r *recorder) Unsubscribe(link int, gen uint64, ch chat.Channel) {
	r.subs = append(r.subs, "unsubscribe "+ch.Name)
}

func (r *recorder) ReadUser(tok follow.Token, user string) {
	r.asked = append(r.asked, &ask{(*scene)(r), "user " + user, tok, user})
}

func (r *recorder) ReadRoom(tok follow.Token, q chat.RoomQuery) {
	what := strings.Join(append([]string{"room", q.Room}, q.Users...), " ")
	r.asked = append(r.asked, &ask{(*scene)(r), what, tok, q.Room})
}

func (r *recorder) ReadLog(tok follow.Token, q chat.LogQuery) {
	r.asked = append(r.asked, &ask{(*scene)(r), fmt.Sprintf("log %s %s", q.Room, q.From), tok, q.Room})
}

func (r *recorder) Repair(m chat.Membership) {
	r.wrong = append(r.wrong, m.User+" "+m.Room)
}

func (r *recorder) phone(id edge.ConnID) *phone { return r.phones[id.Slot()] }

func (r *recorder) Unicast(conn edge.ConnID, f *edge.Frame) { r.phone(conn).take(f) }

func (r *recorder) Attach(conn edge.ConnID, room edge.RoomNum) {
	p := r.phone(conn)
	if !slices.Contains(r.rooms[room], p) {
		r.rooms[room] = append(r.rooms[room], p)
	}
	p.nums["r"] = room // scenes in which sockets lag have one room
}

func (r *recorder) Detach(conn edge.ConnID, room edge.RoomNum) {
	p := r.phone(conn)
	r.rooms[room] = slices.DeleteFunc(r.rooms[room], func(o *phone) bool { return o == p })
}

func (r *recorder) Broadcast(room edge.RoomNum, loops uint64, f *edge.Frame) {
	for _, p := range r.rooms[room] {
		p.take(f)
	}
}

func (r *recorder) DropRoom(room edge.RoomNum, loops uint64) { delete(r.rooms, room) }
func (r *recorder) Mark(conn edge.ConnID)                    {}

func (r *recorder) Close(conn edge.ConnID, code protocol.CloseCode) {
	r.phone(conn).take(edge.FrameOf([]byte(fmt.Sprintf(`{"type":"close %d"}`, code))))
}
