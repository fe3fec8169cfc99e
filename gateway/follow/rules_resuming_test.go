package follow_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/protocol"
)

func TestL5APositionNewerThanTheHeadIsLookedUp(t *testing.T) {
	s, _ := playing(t)
	ahead := s.resumes("alice")
	ahead.has("r 3-0") // another gateway was faster
	s.answers("log r 1-0").log("4-0", "1-0", "2-0", "3-0", "4-0")
	s.published("r", "2-0", "3-0", "4-0", "5-0")
	ahead.gets("hello 7", "4-0", "resumed 7", "5-0")
}

func TestL5APositionThatWasLostIsAGap(t *testing.T) {
	s, _ := playing(t)
	ahead := s.resumes("alice")
	ahead.has("r 3-0")
	s.answers("log r 1-0").log("1-0", "1-0")
	ahead.gets("hello 7", "gap r after 3-0 head 1-0", "resumed 7")
}

func TestL5APositionThatCameAfterTheReadIsReadForAgain(t *testing.T) {
	s, _ := playing(t)
	first, ahead := s.resumes("alice"), s.resumes("alice")
	first.has("r 0-0")
	log := s.answers("log r 0-0")
	ahead.has("r 2-0") // sent after that read was executed
	log.log("1-0", "1-0")
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	first.gets("hello 7", "1-0", "resumed 7", "2-0")
	ahead.gets("hello 7", "resumed 7")
}

// A position that the log has proven makes the room as new as it: should it be
// lost later, the room's head is what tells.
func TestL5WhatWasDeliveredIsTheRoomsHead(t *testing.T) {
	s, alice := playing(t)
	ahead := s.resumes("alice")
	ahead.has("r 2-0")
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	alice.gets("2-0")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("1-0", 100)
	ahead.gets("hello 7", "resumed 7", "gap r after 2-0 head 1-0")
}

func TestR1NothingIsDeliveredBeforeThePositionsHaveCome(t *testing.T) {
	s, _ := playing(t)
	late := s.resumes("alice")
	late.gets("hello 7")
	s.published("r", "2-0")
	late.gets()
	late.has("r 1-0", "more")
	late.gets()
	late.has("rother 5-0") // not hers: ignored
	late.gets("2-0", "resumed 7")
	s.published("r", "3-0")
	late.gets("3-0")
	late.has("r 1-0")
	late.gets("refused")
}

func TestR1ARoomThatIsNotNamedStartsAtHello(t *testing.T) {
	s, _ := playing(t)
	late := s.resumes("alice")
	s.published("r", "2-0")
	late.has()
	late.gets("hello 7", "2-0", "resumed 7")
}

func TestR1PositionsMayComeBeforeHello(t *testing.T) {
	s := play(t)
	late := s.resumes("alice")
	late.has("r 1-0")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.confirmed("r")
	s.answers("room r alice").room("3-0", 100, "alice")
	s.answers("log r 1-0").log("3-0", "1-0", "2-0", "3-0")
	late.gets("hello 7", "2-0", "3-0", "resumed 7")
}

func TestR1APositionThatCameBeforeHelloIsKeptForARoomThatIsFoundThen(t *testing.T) {
	s := play(t)
	late := s.resumes("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	late.has("r 1-0", "rnew 3-0")
	s.published("alice", joined("rnew", "alice", "2-0", 8))
	s.confirmed("r", "rnew")
	s.answers("room r alice").room("1-0", 100, "alice")
	s.answers("room rnew alice").room("4-0", 100, "alice")
	s.answers("log rnew 3-0").log("4-0", "3-0", "4-0")
	late.gets("hello 8", "4-0", "resumed 8")
}

func TestR1WhatIsNewFollowsWhatWasMissedWithoutASeam(t *testing.T) {
	s, _ := playing(t)
	late := s.resumes("alice")
	late.has("r 0-0")
	log := s.answers("log r 0-0")
	s.published("r", "2-0", "3-0")
	log.log("2-0", "1-0", "2-0")
	late.gets("hello 7", "1-0", "2-0", "3-0", "resumed 7")
	s.published("r", "4-0")
	late.gets("4-0")
}

func TestR1ResumedComesWhenEveryRoomIsCaughtUp(t *testing.T) {
	s := play(t)
	late := s.resumes("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "rother")
	s.confirmed("r", "rother")
	s.answers("room r alice").room("2-0", 100, "alice")
	s.answers("room rother alice").room("2-0", 100, "alice")
	late.has("r 1-0", "rother 1-0")
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	late.gets("hello 7", "2-0")
	s.answers("log rother 1-0").log("2-0", "1-0", "2-0")
	late.gets("2-0", "resumed 7")
}

func TestR1ASlowReaderIsCaughtUpAndTold(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "2-0", "3-0")
	alice.got = nil // its loop left them out
	alice.lags("r", "1-0")
	alice.gets("2-0", "3-0", "resumed 7")
	s.reads() // from memory
}

// The report of what was left out crosses a Detach and an Attach: it may be older
// than both.
func TestR1ASlowReadersReportAcrossADetachIsAnsweredByAGap(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "2-0", left("r", "alice", 0))
	s.answers("room r alice").room("2-0", 102, "alice")
	alice.gets("2-0", "gap r after 2-0 head 2-0")
	alice.lags("r", "1-0")
	alice.gets("gap r after 1-0 head 2-0")
	alice.drained()
	alice.drained()
	s.published("r", "3-0")
	alice.got = nil
	alice.lags("r", "2-0")
	alice.gets("3-0", "resumed 7")
}

// A log is read ahead of what waits in the channel: what was sent after a removal that
// was not heard of is not for who was removed.
func TestF2WhatALogHasIsNotForOneWhoWasRemovedUnheard(t *testing.T) {
	s, alice := playing(t)
	bob := s.inRoom("bob")
	late := s.resumes("bob")
	late.has("r 0-0")
	s.versions["r"] = 101 // alice was removed, then 2-0 was sent
	s.answers("log r 0-0").log("2-0", "1-0", "2-0")
	members := s.answers("room r alice bob")
	s.published("r", "2-0")
	bob.gets()
	members.room("2-0", 101, "bob")
	alice.gets("left r alice")
	bob.gets("2-0")
	s.answers("log r 0-0").log("2-0", "1-0", "2-0")
	late.gets("hello 8", "1-0", "2-0", "resumed 8")
	alice.gets()
}

// Where somebody joins or leaves all the time, it is asked once.
func TestF2ALogIsReadThoughMembersGoOnChanging(t *testing.T) {
	s, alice := playing(t)
	late := s.resumes("alice")
	late.has("r 0-0")
	s.versions["r"] = 101
	s.answers("log r 0-0").log("2-0", "1-0", "2-0")
	s.answers("room r alice").room("2-0", 102, "alice")
	s.versions["r"] = 103
	s.answers("log r 0-0").log("2-0", "1-0", "2-0")
	late.gets("hello 7", "1-0", "2-0", "resumed 7")
	alice.gets("2-0")
}

// Alice leaves and joins while her catch-up is under way: it waits, and goes on.
func TestR1ACatchUpWaitsWhileTheMembersAreAsked(t *testing.T) {
	s, _ := playing(t)
	late := s.resumes("alice")
	late.has("r 0-0")
	log := s.answers("log r 0-0")
	s.published("r", left("r", "alice", 0))
	log.log("1-0", "1-0")
	late.gets("hello 7")
	s.answers("room r alice").room("1-0", 102, "alice")
	s.answers("log r 0-0").log("1-0", "1-0")
	late.gets("1-0", "resumed 7")
	s.published("r", "2-0")
	late.gets("2-0")
}

func TestR1AStormIsAnsweredByOneRead(t *testing.T) {
	s, _ := playing(t)
	var back []*phone
	for range 20 {
		back = append(back, s.resumes("alice"))
	}
	for _, p := range back {
		p.has("r 0-0")
	}
	s.answers("log r 0-0").log("1-0", "1-0")
	s.reads()
	for _, p := range back {
		p.gets("hello 7", "1-0", "resumed 7")
	}
	if got := s.core.Stats().LogReads; got != 1 {
		t.Fatalf("%d log reads, want 1", got)
	}
}

func TestR1AJoinThatComesBeforeThePositionsIsToldAfterThem(t *testing.T) {
	s, _ := playing(t)
	late := s.resumes("alice")
	s.published("alice", joined("rnew", "alice", "3-0", 8))
	s.confirmed("rnew")
	s.answers("room rnew alice").room("4-0", 100, "alice")
	late.gets("hello 7")
	late.has("r 1-0")
	s.answers("log rnew 3-0").log("4-0", "3-0", "4-0")
	late.gets("joined rnew alice at 3-0 1", "4-0", "resumed 8")
}

// The joined waits, and the connection may end before it is told: the revision of
// what comes after must not have the client believe that it knows of it.
func TestM3ALeftDoesNotHideAJoinThatIsToldLater(t *testing.T) {
	s, alice := playing(t)
	late := s.resumes("alice")
	s.published("alice", joined("rnew", "alice", "3-0", 8), left("r", "alice", 9))
	late.gets("hello 7", "left r alice 1")
	alice.gets("joined rnew alice at 3-0 8", "left r alice 9")
}

func TestR2AGapTellsThePositionAndTheHeadAndWhatFollowsIsDelivered(t *testing.T) {
	s, _ := playing(t)
	s.published("r", "9-0<1-0")
	late := s.resumes("alice")
	late.has("r 5-0") // never was in this log
	s.answers("log r 5-0").log("9-0", "9-0<1-0")
	s.published("r", "10-0")
	late.gets("hello 7", "gap r after 5-0 head 9-0", "resumed 7", "10-0")
}

// A slow socket was left out of 2-0 and 3-0, which are lost: it goes on from the
// gap like everybody, not from where its loop says it was.
func TestR2WhatALoopLeftOutIsForgottenWithALostTail(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "2-0", "3-0")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("0-0", 100)
	alice.got = nil
	s.answers("log r 0-0").log("0-0")
	alice.lags("r", "1-0") // said before the Detach
	alice.gets("gap r after 1-0 head 0-0")
	s.reads()
}

func TestR2TheZeroPositionIsProvenByTheFirstMessage(t *testing.T) {
	s, _ := playing(t)
	late := s.resumes("alice")
	late.has("r 0-0")
	s.answers("log r 0-0").log("1-0", "1-0")
	late.gets("hello 7", "1-0", "resumed 7")
}

func TestR2ThePositionOfAnIdleRoomIsProvenByItsHead(t *testing.T) {
	s, _ := playing(t)
	s.published("r", "2-0")
	ahead, late := s.resumes("alice"), s.resumes("alice")
	ahead.has("r 2-0")
	late.has("r 0-0")
	s.answers("log r 0-0").log("2-0") // all of it has aged out
	ahead.gets("hello 7", "resumed 7")
	late.gets("hello 7", "gap r after 0-0 head 2-0", "resumed 7")
}

func TestR3TooMuchInARoomIsAGap(t *testing.T) {
	s, _ := playing(t, func(c *follow.Config) { c.ResumeRoom = 2 })
	s.published("r", "2-0", "3-0")
	enough, tooMuch := s.resumes("alice"), s.resumes("alice")
	enough.has("r 1-0")
	enough.gets("hello 7", "2-0", "3-0", "resumed 7")
	tooMuch.has("r 0-0")
	s.answers("log r 0-0").log("3-0", "1-0", "2-0", "3-0")
	tooMuch.gets("hello 7", "gap r after 0-0 head 3-0", "resumed 7")
	if n := s.core.Stats().GapsTold; n != 0 {
		t.Errorf("%d holes are counted that the log could not fill: that is an alert", n)
	}
	lost := s.resumes("alice")
	lost.has("r 0-1")
	s.answers("log r 0-1").log("3-0", "1-0", "2-0", "3-0")
	lost.gets("hello 7", "gap r after 0-1 head 3-0", "resumed 7")
	if n := s.core.Stats().GapsTold; n != 1 {
		t.Errorf("%d holes are counted, want 1", n)
	}
}

// missesTwoInEachOfTwo resumes for alice in r and rother, and answers what is asked.
func missesTwoInEachOfTwo(s *scene) *phone {
	late := s.resumes("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "rother")
	s.confirmed("r", "rother")
	s.answers("room r alice").room("2-0", 100, "alice")
	s.answers("room rother alice").room("2-0", 100, "alice")
	late.has("r 0-0", "rother 0-0")
	s.answers("log r 0-0").log("2-0", "1-0", "2-0")
	s.answers("log rother 0-0").log("2-0", "1-0", "2-0")
	return late
}

func TestR3TooMuchOnAConnectionIsAGap(t *testing.T) {
	s := play(t, func(c *follow.Config) { c.ResumeConn = 3 })
	late := missesTwoInEachOfTwo(s)
	late.gets("hello 7", "1-0", "2-0", "gap rother after 0-0 head 2-0", "resumed 7")
}

// What was begun counts whole, also while it waits for the socket.
func TestR3CountsWhatIsStillToCome(t *testing.T) {
	s := play(t, func(c *follow.Config) { c.ResumeConn, c.CreditBytes = 3, 1 })
	late := missesTwoInEachOfTwo(s)
	late.gets("hello 7", "1-0", "gap rother after 0-0 head 2-0")
	late.drained()
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	late.gets("2-0", "resumed 7")
}

func TestACatchUpWaitsUntilTheSocketHasTakenIt(t *testing.T) {
	s, _ := playing(t, func(c *follow.Config) { c.CreditBytes = 1 })
	s.published("r", "2-0", "3-0")
	late := s.resumes("alice")
	late.has("r 1-0")
	late.gets("hello 7", "2-0")
	s.published("r", "4-0")
	late.gets()
	late.drained()
	late.gets("3-0")
	late.drained()
	late.gets("4-0", "resumed 7")
}

// A partition that does not answer (r2's) does not keep a room waiting whose member
// was suspended, and turned out to be one, while it caught up (F4).
func TestF4ADeafPartitionKeepsNoOtherRoomWaiting(t *testing.T) {
	s := play(t)
	alice := s.resumes("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "r2")
	s.confirmed("r") // r2 is never confirmed
	s.answers("room r alice").room("5-0", 100, "alice")
	s.after(6000) // hello is overdue: it does not wait for r2
	alice.gets("hello 7")
	alice.has("r 1-0")
	s.published("r", left("r", "alice", 0)) // overtaken by a joined: suspended, and asked
	alice.got = nil
	s.answers("log r 1-0").log("5-0", "1-0", "2-0", "3-0", "4-0", "5-0") // comes first: the pull stalls
	s.answers("room r alice").room("5-0", 102, "alice")                  // it is a member
	s.after(60_000)
	s.published("r", "6-0")
	if len(s.asked) == 0 && len(alice.got) == 0 {
		t.Fatal("nothing is read, nothing comes: it waits for r2's partition")
	}
}

// More positions than are kept: what a client has in the rooms of the others is not
// known, and it is told so; they do not start at the head as if it had not named them.
func TestR1APositionThatIsOneTooManyIsAGap(t *testing.T) {
	many := map[string]protocol.ID{}
	for i := range 10_000 {
		many[fmt.Sprint("rx", i)] = id("5-0")
	}
	opens := func(s *scene, via edge.Transport) *phone {
		late := s.opensAs("alice", follow.Opening{Via: via, Resume: true})
		s.core.Positions(late.id, many, true)
		late.has("r 1-0")
		return late
	}
	for via, begins := range map[edge.Transport]string{edge.WebSocket: "hello 7", edge.LongPoll: `polled 7 {"r":"0-0"}`} {
		s := play(t)
		late := opens(s, via) // before its index is read: every room may be the user's
		s.confirmed("alice")
		s.answers("user alice").index(7, "r")
		s.confirmed("r")
		s.answers("room r alice").room("3-0", 100, "alice")
		late.gets(begins, "gap r after 0-0 head 3-0", "resumed 7")
	}
	// A poll that can't be told all of them asks again with what it has.
	s := play(t)
	late := opens(s, edge.LongPoll)
	s.after(10_000)
	late.gets()
}

// Who resumes while a link is down waits at the room. Clients that come, wait and go,
// over and over, leave nothing behind.
func TestWhoIsGoneWaitsNoMore(t *testing.T) {
	s, _ := playing(t)
	s.linkDown(0)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const clients, leftBytes = 20_000, 1 << 20
	before := heap()
	gone := &phone{s: s, nums: map[string]edge.RoomNum{}}
	s.phones = append(s.phones, gone)
	for i := range uint32(clients) {
		gone.id = edge.MakeConnID(0, uint32(len(s.phones)-1), i)
		s.core.Open(s.now, gone.id, "alice", follow.Opening{Resume: true})
		gone.has("r 0-5")
		gone.closes()
		gone.got, gone.times = nil, nil
	}
	if after := heap(); after > before+leftBytes {
		t.Fatalf("%d KB are left of clients that are gone", (after-before)>>10)
	}
	late := s.resumes("alice") // who waits is served
	late.has("r 0-0")
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("1-0", 100)
	s.answers("log r 0-0").log("1-0", "1-0")
	late.gets("hello 7", "1-0", "resumed 7")
}
