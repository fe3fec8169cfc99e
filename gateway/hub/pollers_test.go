package hub

import (
	"slices"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/gateway/live"
)

// What a poll's answer did not take is for the next poll, and so is what comes between
// the two; the rest is told once.
func TestWhispersAreToldOnceWhateverPollTakesThem(t *testing.T) {
	ps := newPollers(follow.New(follow.Config{}, nil), live.Config{ConnPrefix: "gw."})
	whispers := make([]*edge.Frame, 6)
	for i := range whispers {
		whispers[i] = new(edge.Frame)
	}
	client := edge.MakeConnID(0, 1, 1)
	polls := func(conn edge.ConnID, known string) {
		ps.opened(&edge.Event{Conn: conn, User: "alice", Known: known})
	}
	whisper := func(f *edge.Frame, wantConn edge.ConnID) {
		t.Helper()
		if conn, now := ps.reach(client, f); conn != wantConn || now != (wantConn != 0) {
			t.Fatalf("reached at %v, %v; want %v", conn, now, wantConn)
		}
	}
	polls(client, "")
	whisper(whispers[0], client)
	whisper(whispers[1], client)
	whisper(whispers[2], client)
	p := ps.closed(0, &edge.Event{Conn: client, Whispers: 2})
	whisper(whispers[3], 0)
	if !slices.Equal(p.sent, whispers[2:4]) {
		t.Fatalf("%d are for the next poll", len(p.sent))
	}

	second, third := edge.MakeConnID(1, 5, 1), edge.MakeConnID(1, 6, 1)
	polls(second, "gw."+client.String())
	if ps.byPoll[second] != p {
		t.Fatal("the next poll is another client's")
	}
	polls(third, "gw."+client.String()) // before the answer: the client has given up the other
	whisper(whispers[4], third)
	if ps.closed(0, &edge.Event{Conn: second, Whispers: 2}) != p || p.poll != third {
		t.Fatal("a poll that was given up is still the client's")
	}
	ps.closed(0, &edge.Event{Conn: third, Whispers: 3})
	if p.sent != nil {
		t.Errorf("%d are left", len(p.sent))
	}
	for range mostWhispers + 10 {
		whisper(whispers[5], 0)
	}
	if len(p.sent) != mostWhispers {
		t.Errorf("%d are kept", len(p.sent))
	}
	a := &alive{pollers: ps}
	polls(second, "gw."+client.String())
	if id, none := a.knownAs(second), a.knownAs(third); id != client || none != 0 {
		t.Errorf("a poll is known as %v, what is none as %v", id, none)
	}
	ps.closed(0, &edge.Event{Conn: second})
	polls(client, "gw.nonsense")
	if ps.byPoll[client] == p || ps.closed(0, &edge.Event{Conn: edge.MakeConnID(9, 9, 9)}) != nil {
		t.Error("another client, or none, is this one")
	}
}

// Whoever is between two polls is connected still, though nothing can be told now.
func TestWhoIsBetweenTwoPollsIsOneOfTheUsersConnections(t *testing.T) {
	ps := newPollers(follow.New(follow.Config{}, nil), live.Config{ConnPrefix: "gw.", GraceMs: 1000})
	a := &alive{pollers: ps, core: live.New(live.Config{}, ps, nil)}
	one, two := edge.MakeConnID(0, 1, 1), edge.MakeConnID(0, 2, 1)
	want := func(want ...edge.ConnID) {
		t.Helper()
		var got []edge.ConnID
		ps.Connections("alice", func(id edge.ConnID, greeted bool) {
			if greeted {
				t.Errorf("%v can be told", id)
			}
			got = append(got, id)
		})
		if !slices.Equal(got, want) {
			t.Fatalf("alice's are %v, want %v", got, want)
		}
	}
	for _, conn := range []edge.ConnID{one, two} {
		ps.opened(&edge.Event{Conn: conn, User: "alice"})
		ps.closed(0, &edge.Event{Conn: conn})
	}
	want(one, two)
	next := edge.MakeConnID(0, 3, 1)
	ps.opened(&edge.Event{Conn: next, User: "alice", Known: "gw." + two.String()})
	want(one) // the other one is follow's to tell of
	a.endPollers(1000)
	want()
	ps.closed(1000, &edge.Event{Conn: next})
	want(two)
	a.endPollers(2000)
	want()
}
