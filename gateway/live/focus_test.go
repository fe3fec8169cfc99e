package live_test

import (
	"strings"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/internal/chat"
)

// inRoom has alice (1) and bob (2) look at r, and carol (3), a member, at nothing.
func inRoom(t *testing.T) *bench {
	b := newBench(t)
	b.room("r", "alice bob carol", 10)
	b.room("other", "dave", 10)
	b.open(1, "alice")
	b.open(2, "bob")
	b.open(3, "carol")
	b.says(1, edge.EvFocus, "r", 0)
	b.says(2, edge.EvFocus, "r", 0)
	b.pass(5_000)
	b.answerSeats(nil)
	b.pass(5_000)
	b.answerSeats(nil)
	b.answerMarks(chat.MarkerMoved, nil)
	b.pass(5_000)
	b.forget()
	return b
}

func TestFocusIsKeptWithTheSeat(t *testing.T) {
	b := newBench(t)
	b.room("r", "alice", 0)
	b.room("q", "alice", 0)
	b.open(1, "alice")
	b.open(2, "alice")
	b.answerSeats(nil)
	b.forget()
	b.says(1, edge.EvFocus, "r", 0)
	b.says(2, edge.EvFocus, "q", 0)
	b.says(1, edge.EvFocus, "q", 0)
	b.says(1, edge.EvFocus, "r", 0)
	b.want()
	b.pass(2_000)
	b.want("take alice 2 r q") // once, as it then was
	b.answerSeats(nil)
	b.says(1, edge.EvFocus, "", 0)
	b.close(2)
	b.pass(2_000)
	b.want("take alice 1")
}

func TestTypingReachesOnlyWhoLooksAtTheRoom(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvTyping, "r", 0)
	const typing = `{"type":"typing","room":"r","user":"carol","until_ms":5000}`
	b.want("publish r " + typing)
	b.c.RoomEvent(b.now, "r", []byte(typing))
	b.want("to 1 "+typing, "to 2 "+typing)

	// Not to who types.
	const alices = `{"type":"typing","room":"r","user":"alice","until_ms":5000}`
	b.c.RoomEvent(b.now, "r", []byte(alices))
	b.want("to 2 " + alices)

	b.says(2, edge.EvFocus, "", 0)
	b.c.RoomEvent(b.now, "r", []byte(alices))
	b.c.RoomEvent(b.now, "nobody looks at it", []byte(alices))
	b.want()
}

func TestTypingIsLimited(t *testing.T) {
	b := inRoom(t)
	for range 20 {
		b.says(1, edge.EvTyping, "r", 0)
	}
	if n := len(b.said); n != 1 {
		t.Fatalf("%d were sent", n)
	}
	b.pass(2_000)
	b.says(1, edge.EvTyping, "r", 0)
	if n := len(b.said); n != 2 {
		t.Fatalf("%d were sent", n)
	}
	b.forget()
	// What others let through is limited here again.
	for range 50 {
		b.c.RoomEvent(b.now, "r", []byte(`{"type":"typing","room":"r","user":"carol","until_ms":5000}`))
	}
	if n := len(b.said); n != 2*10 {
		t.Fatalf("%d were told", n)
	}
	if s := b.c.Stats(); s.TypingLimited != 19+40 || s.TypingSent != 2 {
		t.Fatalf("%+v", s)
	}
}

func TestOutsidersAreRefused(t *testing.T) {
	b := inRoom(t)
	for _, kind := range []edge.EventKind{edge.EvFocus, edge.EvTyping, edge.EvRead, edge.EvDelivered} {
		for _, room := range []string{"other", "no-such-room"} {
			b.says(1, kind, room, 5)
			b.pass(300)
			b.want("refuse 1 forbidden")
		}
	}
	b.message("other")
	b.pass(3_000)
	b.want()
}

// Whom the API answered 201 knows of a new room sooner than the gateway, which hears of
// it on the user's channel.
func TestWhatIsSaidOfARoomThatIsNotToldOfYetWaits(t *testing.T) {
	b := inRoom(t)
	b.says(1, edge.EvFocus, "new", 0)
	b.says(1, edge.EvTyping, "new", 0)
	b.pass(200)
	b.room("new", "alice", 3)
	b.asking["new"] = true
	b.pass(1_000)
	b.want()
	delete(b.asking, "new")
	b.pass(100)
	b.want("publish new "+`{"type":"typing","room":"new","user":"alice","until_ms":5000}`, "read alice new 3")
}

// A client that was told `joined` may say so before follow has asked the members.
func TestWhatIsSaidWhileMembershipIsAskedWaits(t *testing.T) {
	b := inRoom(t)
	b.room("new", "alice", 3)
	b.asking["new"] = true
	b.says(1, edge.EvFocus, "new", 0)
	b.says(1, edge.EvTyping, "new", 0)
	b.pass(300)
	b.want()
	delete(b.asking, "new")
	b.pass(100)
	b.want("publish new "+`{"type":"typing","room":"new","user":"alice","until_ms":5000}`, "read alice new 3")
}

func TestOfTwoFocusesTheLastCounts(t *testing.T) {
	b := inRoom(t)
	b.room("new", "alice", 3)
	b.asking["new"] = true
	b.says(1, edge.EvFocus, "new", 0)
	b.says(1, edge.EvFocus, "", 0)
	delete(b.asking, "new")
	b.pass(1_000)
	b.forget()
	b.pass(2_000)
	b.want("take alice 1") // no focus
}

func TestWhatIsNeverDecidedIsRefused(t *testing.T) {
	b := inRoom(t)
	b.asking["new"] = true
	b.says(1, edge.EvFocus, "new", 0)
	b.pass(19_900)
	b.want()
	b.pass(1_000)
	b.want("refuse 1 unavailable")
}

// Over HTTP a client may say a lot; what waits to be decided is bounded.
func TestWhatWaitsToBeDecidedIsBounded(t *testing.T) {
	b := inRoom(t)
	b.room("new", "alice carol", 3)
	b.asking["new"] = true
	for n := range uint64(100) {
		b.says(1, edge.EvRead, "new", n+1)
	}
	b.pass(5_000)
	if refused := len(b.said); refused != 36 || b.said[0] != "refuse 1 unavailable" {
		t.Fatalf("%d of 100 were refused: %v", refused, b.said)
	}
	b.forget()
	b.says(3, edge.EvRead, "new", 2) // others wait as before
	delete(b.asking, "new")
	b.pass(100)
	b.want("find new 64-0", "read carol new 2")
	b.says(1, edge.EvRead, "new", 65) // and there is room again
	b.want()
}

func TestALeaverLooksAtNothing(t *testing.T) {
	b := inRoom(t)
	b.room("r", "bob carol", 10)
	b.c.Detached(b.now, 1, b.nums["r"])
	b.pass(100)
	b.message("r")
	b.c.RoomEvent(b.now, "r", []byte(`{"type":"typing","room":"r","user":"carol","until_ms":5000}`))
	b.want("read bob r 11", `to 2 {"type":"typing","room":"r","user":"carol","until_ms":5000}`)
}

// A `left` that a later `joined` had overtaken is asked about, and answered
// "member".
func TestWhoIsStillAMemberKeepsTheFocus(t *testing.T) {
	b := inRoom(t)
	b.asking["r"] = true
	b.c.Detached(b.now, 1, b.nums["r"])
	b.c.RoomEvent(b.now, "r", []byte(`{"type":"typing","room":"r","user":"bob","until_ms":5000}`))
	b.pass(500)
	b.want() // meanwhile it hears nothing
	delete(b.asking, "r")
	b.pass(200)
	b.message("r")
	b.want("read alice r 11", "read bob r 11")
}

// What came while that was asked is in front of who still looks, and may be the last
// for long.
func TestWhatComesWhileMembershipIsAskedIsReadByWhoKeepsTheFocus(t *testing.T) {
	b := inRoom(t)
	b.c.Detached(b.now, 1, b.nums["r"])
	b.message("r")
	b.want("read bob r 11")
	b.pass(100)
	b.want("read alice r 11")
}

func TestADroppedRoomIsLookedAtByNobody(t *testing.T) {
	b := inRoom(t)
	b.c.Dropped(b.now, b.nums["r"])
	if s := b.c.Stats(); s.Focused != 0 {
		t.Fatalf("%+v", s)
	}
	b.message("r") // its number is another room's by now
	b.want()
}

func TestACommandOverHTTPIsAsIfSaid(t *testing.T) {
	b := inRoom(t)
	conn := "gw-" + edge.ConnID(3).String()
	say := func(user, payload string) {
		b.c.UserEvent(b.now, user, []byte(payload))
		b.c.Flush(b.now)
	}
	say("carol", `{"type":"do","do":"typing","conn":"`+conn+`","room":"r"}`)
	b.want("publish r " + `{"type":"typing","room":"r","user":"carol","until_ms":5000}`)
	say("carol", `{"type":"do","do":"focus","conn":"`+conn+`","room":"r"}`)
	b.want("read carol r 10")
	say("carol", `{"type":"do","do":"focus","conn":"`+conn+`"}`)
	if s := b.c.Stats(); s.Focused != 2 {
		t.Fatalf("%+v", s)
	}
	say("carol", `{"type":"do","do":"delivered","conn":"`+conn+`","room":"r","id":"9-0"}`)
	b.want("delivered carol r 9")
	say("carol", `{"type":"do","do":"watch","conn":"`+conn+`","users":["zoe"]}`)
	if s := b.c.Stats(); s.Watched != 1 {
		t.Fatalf("%+v", s)
	}
	b.said = nil
	// Another's connection, another gateway's, nonsense.
	for _, conn := range []string{"gw-" + edge.ConnID(1).String(), "xx-" + edge.ConnID(3).String(), "gw-", "gw-zzzzzzzzzzzzzzzz"} {
		say("carol", `{"type":"do","do":"typing","conn":"`+conn+`","room":"r"}`)
	}
	b.pass(10)
	b.want()
}

// All gateways that have a user get each command, and a list of users may have 64 KiB:
// those that it is not for do not read it.
func TestACommandForAnotherGatewayIsNotRead(t *testing.T) {
	b := inRoom(t)
	users := strings.Repeat(`"somebody",`, 499) + `"somebody"`
	command := []byte(`{"type":"do","do":"watch","conn":"xx-` + edge.ConnID(3).String() + `","users":[` + users + `]}`)
	if n := testing.AllocsPerRun(10, func() { b.c.UserEvent(b.now, "carol", command) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOwnDevicesHearOfAMarker(t *testing.T) {
	b := inRoom(t)
	b.open(4, "alice")
	b.open(5, "alice")
	b.silent[5] = true
	b.pass(2_000)
	b.forget()
	const read = `{"type":"read","room":"r","user":"alice","id":"12-0"}`
	b.c.UserEvent(b.now, "alice", []byte(read))
	b.want("to 4 " + read) // 1 looks at the room, 5 has had no hello
}

func TestWhatIsLive(t *testing.T) {
	for payload, want := range map[string]bool{
		`{"type":"typing","room":"r"}`: true, `{"type":"read","room":"r"}`: true,
		`{"type":"delivered","room":"r"}`: true, `{"type":"do","do":"focus"}`: true,
		`{"type":"message","room":"r"}`: false, `{"type":"joined"}`: false, `{"type":"left"}`: false,
		`{"type":"disconnect"}`: false, `{"type":"reaction"}`: false, `{"type":"d`: false, `{"type":`: false, ``: false, `"`: false,
	} {
		if live.IsLive([]byte(payload)) != want {
			t.Errorf("%q", payload)
		}
	}
}

// alice polls: between two polls nothing reaches her, and nothing of the room counts
// as read; with the next one she looks at it still.
func TestFocusStandsBetweenPolls(t *testing.T) {
	b := inRoom(t)
	const typing = `{"type":"typing","room":"r","user":"carol","until_ms":5000}`
	b.answered(1)
	b.message("r")
	b.c.RoomEvent(b.now, "r", []byte(typing))
	b.want("read bob r 11", "to 2 "+typing)
	b.pass(300)
	b.says(1, edge.EvTyping, "r", 0) // over HTTP: it waits
	b.want()
	b.polls(1)
	b.c.Flush(b.now)
	b.want(`publish r {"type":"typing","room":"r","user":"alice","until_ms":5000}`, "read alice r 11")
	b.c.RoomEvent(b.now, "r", []byte(typing))
	b.want("to 1 "+typing, "to 2 "+typing)
}

// What somebody who polls looks at is told to Redis like anybody's, however short the
// polls are: between two of them there is no connection, and the focus stands.
func TestFocusIsKeptWithTheSeatBetweenPolls(t *testing.T) {
	b := newBench(t)
	b.room("r", "alice", 0)
	b.open(1, "alice")
	b.answerSeats(nil)
	b.forget()
	polls := func(ms int64) {
		for range ms / 500 {
			b.polls(1)
			b.c.Flush(b.now)
			b.answered(1)
			b.pass(500)
		}
	}
	b.says(1, edge.EvFocus, "r", 0)
	b.answered(1)
	polls(10_000)
	b.want("take alice 0 r")
	b.answerSeats(nil)
	b.says(1, edge.EvFocus, "", 0) // done with the next poll
	polls(10_000)
	b.want("take alice 0")
	b.answerSeats(nil)
	polls(10_000)
	b.want()
}

// Of what is looked at, and of who is watched, the last counts: what came before is not
// kept until the next poll, and leaves nothing else out.
func TestWhatIsSaidBetweenPollsIsKeptOnce(t *testing.T) {
	b := inRoom(t)
	b.answered(3)
	b.says(3, edge.EvRead, "r", 9)
	for range 50 {
		b.says(3, edge.EvFocus, "r", 0)
		b.watches(3, "dave")
		b.says(3, edge.EvFocus, "", 0)
		b.watches(3)
	}
	b.polls(3)
	b.c.Flush(b.now)
	b.want("read carol r 9")
}

func TestFocusEndsBetweenPollsWithTheMembership(t *testing.T) {
	b := inRoom(t)
	b.answered(1)
	b.room("r", "bob carol", 10)
	b.polls(1)
	b.c.RoomEvent(b.now, "r", []byte(`{"type":"typing","room":"r","user":"carol","until_ms":5000}`))
	b.want(`to 2 {"type":"typing","room":"r","user":"carol","until_ms":5000}`)
}

// The gateway follows the room no longer when nobody here is in it but who is about
// to poll again.
func TestFocusStandsBetweenPollsInARoomThatIsNotFollowedMeanwhile(t *testing.T) {
	b := inRoom(t)
	b.says(2, edge.EvFocus, "", 0)
	b.forget()
	b.answered(1)
	b.c.Dropped(b.now, b.nums["r"])
	b.nums["r"], b.heads[7] = 7, 10 // another number
	b.polls(1)
	b.forget()
	b.message("r")
	b.want("read alice r 11")
}

func TestWhoPollsNoMoreLooksAtNothing(t *testing.T) {
	b := inRoom(t)
	b.watches(1, "dave")
	b.answered(1)
	b.c.Forget(b.now, 1, "alice")
	if s := b.c.Stats(); s.Focused != 1 || s.Watches != 0 {
		t.Errorf("%+v", s)
	}
	b.pass(2_000)
	b.c.RoomEvent(b.now, "r", []byte(`{"type":"typing","room":"r","user":"carol","until_ms":5000}`))
	for _, s := range b.said {
		if strings.HasPrefix(s, "to 1") {
			t.Error(s)
		}
	}
}
