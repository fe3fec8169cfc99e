package live_test

import (
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
)

func TestFocusReadsTheRoom(t *testing.T) {
	b := newBench(t)
	b.room("r", "alice", 10)
	b.open(1, "alice")
	b.forget()
	b.says(1, edge.EvFocus, "r", 0)
	b.want("read alice r 10")
	b.answerMarks(chat.MarkerMoved, nil)
	for range 20 { // a busy second
		b.message("r")
		b.pass(40)
	}
	b.want()
	b.pass(300)
	b.want("read alice r 30")
	b.answerMarks(chat.MarkerMoved, nil)
	b.says(1, edge.EvFocus, "", 0)
	b.pass(3_000)
	b.message("r")
	b.pass(3_000)
	for _, s := range b.said {
		if s == "read alice r 31" {
			t.Fatal("read by somebody who does not look")
		}
	}
}

func TestAMessageThatIsLookedAtIsReadAtOnce(t *testing.T) {
	b := inRoom(t)
	b.message("r")
	b.want("read alice r 11", "read bob r 11")
}

func TestReadAndDeliveredAreCoalesced(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvDelivered, "r", 8)
	b.says(3, edge.EvRead, "r", 8)
	b.want("delivered carol r 8", "read carol r 8")
	b.answerMarks(chat.MarkerMoved, nil)
	b.says(3, edge.EvDelivered, "r", 9)
	b.says(3, edge.EvRead, "r", 9)
	b.says(3, edge.EvDelivered, "r", 10)
	b.says(3, edge.EvRead, "r", 10)
	b.pass(1_000)
	b.want("read carol r 10")
	b.pass(4_000)
	b.want("delivered carol r 10")
}

func TestAMarkerThatGoesBackIsRefused(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvRead, "r", 9)
	b.forget()
	b.says(3, edge.EvRead, "r", 8)
	b.want("refuse 3 invalid")
	b.says(3, edge.EvRead, "r", 0)
	b.want("refuse 3 invalid")
	b.says(3, edge.EvRead, "r", 9) // said twice
	b.want()
	// Another device of the same user is not to blame for being behind.
	b.open(4, "carol")
	b.answerMarks(chat.MarkerMoved, nil)
	b.pass(5_000)
	b.forget()
	b.says(4, edge.EvRead, "r", 8)
	b.want("read carol r 8") // Redis knows better
	b.answerMarks(chat.MarkerBehind, nil)
	b.want()
}

// Two devices of one user, of which one is behind.
func TestTheFurthestOfTwoDevicesCounts(t *testing.T) {
	b := inRoom(t)
	b.open(4, "carol")
	b.says(3, edge.EvRead, "r", 8)
	b.answerMarks(chat.MarkerMoved, nil)
	b.pass(100)
	b.forget()
	b.says(3, edge.EvRead, "r", 10)
	b.says(4, edge.EvRead, "r", 9)
	b.pass(1_000)
	b.want("read carol r 10")
}

func TestAnIDThatIsNotInMemoryIsLookedUp(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvRead, "r", 5)
	b.want("find r 5-0")
	b.c.MessageFound(b.now, chat.ReadMarker, b.finds[0], 5, true, nil)
	b.want("read carol r 5")
}

func TestAnIDThatDoesNotExistIsRefused(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvRead, "r", 999)
	b.want("find r 999-0")
	b.c.MessageFound(b.now, chat.ReadMarker, b.finds[0], 0, false, nil)
	b.want("refuse 3 invalid")
	b.pass(1_100)
	b.says(3, edge.EvRead, "r", 9) // what is true still counts
	b.want("read carol r 9")
}

// A claim of a message that is none takes nothing with it: neither what was claimed before it and
// still being looked up, nor what was read by looking at the room meanwhile.
func TestAnIDThatDoesNotExistTakesNothingWithIt(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvRead, "r", 5)
	b.want("find r 5-0")
	b.says(3, edge.EvRead, "r", 999)
	b.c.MessageFound(b.now, chat.ReadMarker, b.finds[0], 5, true, nil)
	b.want("find r 999-0")
	b.c.MessageFound(b.now, chat.ReadMarker, b.finds[1], 0, false, nil)
	b.want("refuse 3 invalid", "read carol r 5")

	b = inRoom(t)
	b.forget()
	b.says(1, edge.EvRead, "r", 999) // alice looks at the room
	b.want("find r 999-0")
	b.message("r")
	b.answerMarks(chat.MarkerMoved, nil) // bob's
	b.forget()
	b.c.MessageFound(b.now, chat.ReadMarker, b.finds[0], 0, false, nil)
	b.want("refuse 1 invalid", "read alice r 11")
}

// Neither does it take what nobody has looked up yet, whichever of two devices claimed it.
func TestAnIDThatDoesNotExistTakesNothingWithItThatWaits(t *testing.T) {
	for _, first := range []uint64{5, 999} {
		b := inRoom(t)
		b.open(4, "carol")
		b.says(3, edge.EvRead, "r", 3)
		b.c.MessageFound(b.now, chat.ReadMarker, b.finds[0], 3, true, nil)
		b.answerMarks(chat.MarkerMoved, nil) // it cools
		b.pass(500)
		b.forget()
		b.says(3, edge.EvRead, "r", first)
		b.says(4, edge.EvRead, "r", 5+999-first)
		b.pass(500)
		b.want("find r 999-0")
		b.c.MessageFound(b.now, chat.ReadMarker, b.finds[1], 0, false, nil)
		refused := map[uint64]string{5: "refuse 4 invalid", 999: "refuse 3 invalid"}[first]
		b.want(refused, "find r 5-0")
		b.c.MessageFound(b.now, chat.ReadMarker, b.finds[2], 5, true, nil)
		b.want("read carol r 5")
	}
}

// Redis did not answer; the marker moves when it does.
func TestAMarkerThatFailedIsWrittenLater(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvRead, "r", 9)
	b.answerMarks(0, errAway)
	b.forget()
	b.pass(1_000)
	b.want("read carol r 9")
	b.answerMarks(chat.MarkerMoved, nil)
	b.says(3, edge.EvDelivered, "r", 3)
	b.c.MessageFound(b.now, chat.DeliveredMarker, b.finds[0], 0, false, errAway)
	b.forget()
	b.pass(5_000)
	b.want("find r 3-0")
}

func TestLargeRoomsAreNotTold(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvDelivered, "r", 9)
	b.answerMarks(chat.MarkerTooLarge, nil)
	b.forget()
	b.says(3, edge.EvDelivered, "r", 10)
	b.pass(6_000)
	b.want("refuse 3 invalid")
	b.says(3, edge.EvRead, "r", 10)
	b.want("read carol r 10 quiet")
	b.answerMarks(chat.MarkerMoved, nil)
	b.room("r", "alice bob carol", 11)
	b.says(3, edge.EvRead, "r", 11)
	b.pass(9_000)
	b.want() // less often than in small rooms
	b.pass(1_000)
	b.want("read carol r 11 quiet")
}

// What a room is too large for is not allowed, rather than done by nobody.
func TestDeliveredIsRefusedInALargeRoom(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvDelivered, "r", 9)
	b.forget()
	b.answerMarks(chat.MarkerTooLarge, nil)
	b.want("refuse 3 invalid") // found out
	b.says(1, edge.EvDelivered, "r", 9)
	b.want("refuse 1 invalid") // known
	b.says(3, edge.EvRead, "r", 9)
	b.forget()
	b.answerMarks(chat.MarkerTooLarge, nil)
	b.want() // that is only not told
}

func TestMarkersOfAllAreBoundedPerSecond(t *testing.T) {
	b := inRoom(t)
	members := "alice"
	const users = 1500
	for i := range users {
		user := string(rune('A'+i/100)) + string(rune('a'+i%100/10)) + string(rune('a'+i%10))
		members += " " + user
		b.users[edge.ConnID(1000+i)] = user
	}
	b.room("big", members, 5)
	for i := range users {
		b.says(edge.ConnID(1000+i), edge.EvFocus, "big", 0)
	}
	if n := len(b.marks); n > 1000 {
		t.Fatalf("%d at once", n)
	}
	for range 20 {
		b.answerMarks(chat.MarkerTooLarge, nil)
		b.pass(100)
	}
	if s := b.c.Stats(); s.MarkersCoalesced != 0 {
		t.Fatalf("%+v", s)
	}
	if n := len(b.said); n < users || n > users+100 {
		t.Fatalf("%d were written", n)
	}
}

func TestMarkersAreForgottenWhenTheyRest(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvRead, "r", 9)
	b.answerMarks(chat.MarkerMoved, nil)
	b.pass(1_100)
	b.forget()
	b.says(3, edge.EvRead, "r", 10)
	b.want("read carol r 10") // at once: it was at rest
}

// A marker goes with the membership, and so does what waits to be written of it: the
// room would be told that somebody reads it who may not.
func TestAMarkerOfSomebodyWhoHasLeftIsNotWritten(t *testing.T) {
	b := inRoom(t)
	b.says(3, edge.EvRead, "r", 8)
	b.want("read carol r 8")
	b.answerMarks(chat.MarkerMoved, nil)
	b.says(3, edge.EvRead, "r", 10)
	b.message("r")
	b.want("read alice r 11", "read bob r 11")
	b.answerMarks(chat.MarkerMoved, nil)
	b.message("r") // alice and bob look at it
	b.room("r", "bob dave", 12)
	b.c.Detached(b.now, 3, b.nums["r"])
	b.c.Detached(b.now, 1, b.nums["r"])
	b.pass(1_000)
	b.want("read bob r 12")
	b.answerMarks(chat.MarkerMoved, nil)
	// Of somebody who is back, or is between two polls, it is.
	b.room("r", "carol dave", 12)
	b.says(3, edge.EvRead, "r", 11)
	b.want("read carol r 11")
	b.answerMarks(chat.MarkerMoved, nil)
	b.says(3, edge.EvRead, "r", 12)
	b.answered(3)
	b.pass(1_000)
	b.want("read carol r 12")
}
