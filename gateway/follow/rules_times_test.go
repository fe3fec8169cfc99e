package follow_test

import (
	"fmt"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
)

// Who resumes from a time has a position that need not be in any log (DELIVERY R4).
// The margin is a minute; here all times are small, so that it is set to 10 ms.

func margin(c *follow.Config) { c.SinceMarginMs = 10 }

func since(ms uint64) follow.Opening { return follow.Opening{Via: edge.SSE, Since: ms} }

// atTen is a scene in which room r's head is 20-0 and its tail begins at 12-0.
func atTen(t *testing.T) *scene {
	t.Helper()
	s := play(t, margin)
	s.opens("bob")
	s.confirmed("bob")
	s.answers("user bob").index(7, "r")
	s.confirmed("r")
	s.answers("room r bob").room("12-0", 100, "bob")
	s.published("r", "15-0<12-0", "20-0<15-0")
	return s
}

func TestR4WhatIsNewerThanATimeIsRepeated(t *testing.T) {
	s := atTen(t)
	alice := s.opensAs("alice", since(26)) // 16-0
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.answers("room r alice").room("20-0", 100, "alice")
	alice.gets("hello 7", "20-0", "resumed 7")
	s.reads() // from memory: 15-0, which is not newer, is before it
	s.published("r", "21-0<20-0")
	alice.gets("21-0")
}

func TestR4ATimeIsProvenByWhatItLiesBetween(t *testing.T) {
	for at, want := range map[uint64]struct {
		log  []string // from the time on
		gets []string
	}{
		15: {[]string{"7-0<4-0", "12-0<7-0", "15-0<12-0", "20-0<15-0"}, []string{"7-0", "12-0", "15-0", "20-0"}}, // 5-0, and 4-0 is older
		17: {[]string{"7-0<4-0", "12-0<7-0", "15-0<12-0", "20-0<15-0"}, []string{"12-0", "15-0", "20-0"}},        // 7-0 itself
		16: {[]string{"12-0<7-0", "15-0<12-0", "20-0<15-0"}, []string{"gap r after 6-0 head 20-0"}},              // 7-0 was trimmed
		11: {nil, []string{"gap r after 1-0 head 20-0"}},                                                         // all of it was
	} {
		s := atTen(t)
		alice := s.opensAs("alice", since(at))
		s.confirmed("alice")
		s.answers("user alice").index(7, "r")
		s.answers("room r alice").room("20-0", 100, "alice")
		s.answers(fmt.Sprintf("log r %d-0", at-10)).log("20-0", want.log...)
		alice.gets(append(append([]string{"hello 7"}, want.gets...), "resumed 7")...)
		s.published("r", "21-0<20-0")
		alice.gets("21-0")
	}
}

func TestR4ATimeThatNothingIsNewerThanRepeatsNothing(t *testing.T) {
	s := atTen(t)
	alice := s.opensAs("alice", since(10_000))
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.answers("room r alice").room("20-0", 100, "alice")
	alice.gets("hello 7", "resumed 7")
	s.reads()
	s.published("r", "21-0<20-0")
	alice.gets("21-0")
}

// The clock was set back since it told the time, by more than the margin.
func TestR4ATimeThatIsStillToComeIsAGap(t *testing.T) {
	for at, want := range map[uint64][]string{
		40: {"hello 7", "resumed 7"},
		41: {"hello 7", "gap r after 31-0 head 20-0", "resumed 7"},
	} {
		s := atTen(t)
		s.clocks(30)
		alice := s.opensAs("alice", since(at))
		s.confirmed("alice")
		s.answers("user alice").index(7, "r")
		s.answers("room r alice").room("20-0", 100, "alice")
		alice.gets(want...)
		s.published("r", "21-0<20-0")
		alice.gets("21-0")
	}
}

func TestR4ATimeBeforeEverythingRepeatsAll(t *testing.T) {
	s := play(t, margin)
	alice := s.opensAs("alice", since(3))
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.confirmed("r")
	s.answers("room r alice").room("2-0", 100, "alice")
	s.answers("log r 0-0").log("2-0", "1-0", "2-0")
	alice.gets("hello 7", "1-0", "2-0", "resumed 7")
}

func TestR4TheLimitsOfAResumeHoldForATime(t *testing.T) {
	s := play(t, margin, func(c *follow.Config) { c.ResumeRoom = 1 })
	alice := s.opensAs("alice", since(3))
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.confirmed("r")
	s.answers("room r alice").room("2-0", 100, "alice")
	s.answers("log r 0-0").log("2-0", "1-0", "2-0")
	alice.gets("hello 7", "gap r after 0-0 head 2-0", "resumed 7")
}

func TestR4ARoomThatIsFoundLateIsRepeatedFromTheTime(t *testing.T) {
	s := atTen(t)
	alice := s.opensAs("alice", since(26))
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "r2")
	s.answers("room r alice").room("20-0", 100, "alice")
	s.after(10_000)
	alice.gets("hello 7", "20-0") // r2's partition does not answer
	s.confirmed("r2")
	s.answers("room r2 alice").room("18-0", 100, "alice")
	s.answers("log r2 16-0").log("18-0", "17-0<3-0", "18-0")
	alice.gets("17-0", "18-0", "resumed 7")
}

// Also one that nobody knew of when hello was due.
func TestR4ARoomOfAnIndexThatIsReadLateIsRepeatedFromTheTime(t *testing.T) {
	s := atTen(t)
	alice := s.opensAs("alice", since(26))
	s.confirmed("alice")
	s.after(10_000)
	alice.gets("hello 0") // the index's partition does not answer
	s.answers("user alice").index(7, "r2")
	s.confirmed("r2")
	s.answers("room r2 alice").room("18-0", 100, "alice")
	s.answers("log r2 16-0").log("18-0", "17-0<3-0", "18-0")
	alice.gets("17-0", "18-0", "resumed 7")
}

// One who left and came back while it waited is told a gap: what its loop had left
// out is forgotten, and may be older than the time.
func TestR4OneWhoLeftAndCameBackIsNotRepeatedTheTimeButToldAGap(t *testing.T) {
	s := atTen(t)
	alice := s.opensAs("alice", since(26))
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "r2")
	s.answers("room r alice").room("20-0", 100, "alice")
	s.after(10_000)
	alice.gets("hello 7", "20-0")
	s.published("r", left("r", "alice", 0))
	s.answers("room r alice").room("20-0", 102, "alice")
	alice.gets("gap r after 20-0 head 20-0")
}

// A room that was left and joined before the client came back, and that can't be
// followed in time, is repeated from the time and not from where it was joined.
func TestR4ARoomThatIsFoundLateIsRepeatedFromTheTimeAlsoWhenItWasJoinedMeanwhile(t *testing.T) {
	s := atTen(t)
	s.published("bob", left("r", "bob", 8), joined("r", "bob", "20-0", 9))
	bob := s.opensAs("bob", since(26))
	s.after(10_000)
	bob.gets("hello 9")
	s.confirmed("r") // of the subscription that was given up
	s.confirmed("r")
	s.answers("room r bob").room("20-0", 102, "bob")
	s.answers("log r 16-0").log("20-0", "20-0<15-0")
	bob.gets("20-0", "resumed 9")
}

// toldJoined is a scene in which alice resumes from a time, which the log is read for, and
// was told meanwhile that she is in room r at 20-0.
func toldJoined(t *testing.T) (*scene, *phone) {
	t.Helper()
	s := atTen(t)
	alice := s.opensAs("alice", since(15))
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.answers("room r alice").room("20-0", 100, "alice")
	alice.gets("hello 7")
	s.published("alice", joined("r", "alice", "12-0", 8))
	alice.gets("joined r alice at 20-0 8")
	return s, alice
}

// Joined says a position that there is: a time is none.
func TestR4JoinedDoesNotSayTheTime(t *testing.T) {
	s, alice := toldJoined(t)
	s.answers("log r 5-0").log("20-0", "7-0<4-0", "12-0<7-0", "15-0<12-0", "20-0<15-0")
	alice.gets("7-0", "12-0", "15-0", "20-0", "resumed 8")
}

// What joined tells is followed by what follows it, be the time newer.
func TestR4WhatFollowsTheHeadThatJoinedHasToldIsNotTooOld(t *testing.T) {
	s := atTen(t)
	s.published("r", "25-0<22-0") // something is missing
	alice := s.opensAs("alice", since(40))
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.answers("room r alice").room("25-0", 100, "alice")
	alice.gets("hello 7")
	s.published("alice", joined("r", "alice", "12-0", 8))
	alice.gets("joined r alice at 20-0 8")
	s.answers("log r 20-0").log("35-0", "22-0<20-0", "25-0<22-0", "35-0<25-0")
	alice.gets("22-0", "25-0", "35-0", "resumed 8")
}

// When the head that joined has told is lost before the time was looked up, a gap says so:
// what is repeated from the time does not follow it.
func TestR4AHeadThatJoinedHasToldAndThatIsLostIsToldAsAGap(t *testing.T) {
	s, alice := toldJoined(t)
	s.answers("log r 5-0").log("12-0", "7-0<4-0", "12-0<7-0")
	alice.gets("gap r after 20-0 head 12-0")
	s.answers("log r 12-0").log("12-0", "12-0<7-0")
	s.answers("log r 5-0").log("12-0", "7-0<4-0", "12-0<7-0")
	alice.gets("7-0", "12-0", "resumed 8")
}

// Also when it is lost while the members are being asked whether one who seems to have
// left is one again.
func TestR4AHeadThatJoinedHasToldIsToldAsLostAlsoToOneWhoSeemedToHaveLeft(t *testing.T) {
	s, alice := toldJoined(t)
	s.published("r", left("r", "alice", 0))
	s.answers("room r alice").room("12-0", 102, "alice")
	alice.gets("gap r after 20-0 head 12-0")
	s.answers("room r bob alice").room("12-0", 102, "bob", "alice")
	s.answers("log r 5-0").log("12-0", "7-0<4-0", "12-0<7-0")
	s.answers("log r 12-0").log("12-0", "12-0<7-0")
	s.answers("log r 5-0").log("12-0", "7-0<4-0", "12-0<7-0")
	alice.gets("7-0", "12-0", "resumed 8")
}

// Who takes times is told whenever nothing older is owed any more, also when it did
// not resume.
func TestR4AJoinThatIsCaughtUpEndsWithResumed(t *testing.T) {
	for via, want := range map[edge.Transport][]string{
		edge.SSE:       {"joined rnew alice at 2-0 8", "3-0", "resumed 8"},
		edge.WebSocket: {"joined rnew alice at 2-0 8", "3-0"},
	} {
		s := play(t)
		alice := s.opensAs("alice", follow.Opening{Via: via})
		s.confirmed("alice")
		s.answers("user alice").index(7)
		alice.gets("hello 7")
		s.published("alice", joined("rnew", "alice", "2-0", 8))
		s.confirmed("rnew")
		s.answers("room rnew alice").room("3-0", 100, "alice")
		s.answers("log rnew 2-0").log("3-0", "2-0", "3-0")
		alice.gets(want...)
	}
}

// The time that events say is one of Redis's, and of the link that is behind the
// others: what that has not brought yet is newer.
func TestR4TimesAreTheLeastOfAllLinks(t *testing.T) {
	s := play(t)
	s.core.Clock(0, s.gens[0], 5_000)
	alice := s.opens("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.confirmed("r")
	s.answers("room r alice").room("1-0", 100, "alice")
	alice.says(0) // the other link has told no time
	s.core.Clock(1, s.gens[1], 4_000)
	s.core.Clock(1, s.gens[1]-1, 9_000) // of an earlier making
	s.opens("alice").says(4_000)
	s.published("r", "14000-0<1-0", "14001-0<14000-0")
	alice.says(0, 14_000, 0) // the last is too far ahead of a link that is silent
	s.core.Clock(1, s.gens[1], 14_000)
	s.core.Clock(0, s.gens[0], 14_002)
	s.published("r", "14002-0<14001-0")
	alice.says(0, 14_000, 0, 14_002)
	back := s.resumes("alice")
	back.has("r 14002-0")
	back.says(14_000, 14_000) // hello and resumed
}

// A loop that has left something out says no times until it is told that it is over,
// also when there is nothing to catch up any more.
func TestR4ASlowReaderIsToldInAnyCase(t *testing.T) {
	s, other := playing(t)
	alice := s.opensAs("alice", follow.Opening{Via: edge.SSE})
	s.published("r", "2-0")
	alice.gets("hello 7", "2-0")
	alice.lags("r", "1-0")
	alice.gets("2-0", "resumed 7")
	s.core.Lagged(alice.id, nil) // the room is gone
	alice.gets("resumed 7")

	s.published("r", left("r", "alice", 0))
	s.answers("room r alice").room("2-0", 102, "alice")
	alice.gets("gap r after 2-0 head 2-0")
	alice.lags("r", "1-0") // across a Detach
	alice.gets("gap r after 1-0 head 2-0", "resumed 7")

	s.published("alice", left("r", "alice", 8))
	alice.gets("left r alice 8")
	alice.lags("r", "2-0")
	alice.gets("resumed 8")
	other.lags("r", "2-0")
	other.gets("2-0", "gap r after 2-0 head 2-0", "left r alice 8") // who takes no times is not told
}

// What a link had missed when it broke is older than the canaries of its next
// making: its time stands still until all of that has been read.
func TestR4TimesStandStillUntilAReMadeLinkIsCaughtUp(t *testing.T) {
	s := play(t)
	alice := s.opens("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "r2")
	s.confirmed("r", "r2")
	s.answers("room r alice").room("1-0", 100, "alice")
	s.answers("room r2 alice").room("1-0", 100, "alice")
	s.clocks(5_000)
	s.linkDown(0)
	s.core.LinkUp(0, s.gens[0]+1) // the first canary may come in the same turn
	s.gens[0]++
	ms := uint64(100_000)
	stands := func(want uint64) {
		t.Helper()
		ms++
		s.clocks(ms)
		phone := s.opens("alice")
		phone.says(want)
		phone.closes()
	}
	stands(5_000)
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "r2")
	s.confirmed("r")
	stands(5_000)
	s.published("r2", "100001-0<1-0")
	alice.says(0, 0) // hello, and what is far ahead of the time
	s.answers("room r").room("3-0", 100)
	stands(5_000)
	s.answers("log r 1-0").fails()
	stands(5_000)
	s.after(250)
	s.answers("log r 1-0").log("3-0", "1-0", "2-0", "3-0")
	stands(100_005)

	s.published("r", "100005-0<100004-0") // something is missing
	stands(100_005)
	s.answers("log r 3-0").log("100005-0", "3-0", "100004-0<3-0", "100005-0<100004-0")
	stands(100_007)

	s.linkDown(0)
	stands(100_007)
	s.core.Clock(0, s.gens[0], 200_000) // a canary that was on its way
	stands(100_007)
	s.linkUp(0)
	stands(100_007)
	alice.closes() // nobody follows what was owed
	bob := s.opens("bob")
	s.clocks(200_000)
	s.confirmed("bob")
	s.answers("user bob").index(7)
	bob.says(200_000)
}

// Whoever comes new waits for hello: times do not wait for those.
func TestR4TimesDoNotWaitForWhatIsFollowedNewly(t *testing.T) {
	s, _ := playing(t)
	s.clocks(5_000)
	s.opens("bob") // not confirmed
	s.clocks(6_000)
	s.opens("alice").says(6_000)
}

func TestR4TimesStandStillAfterANewEpoch(t *testing.T) {
	s, _ := playing(t)
	s.canary(0, "a")
	s.answers("user alice").index(7, "r")
	s.answers("room r").room("1-0", 100)
	s.clocks(5_000)
	s.canary(0, "b")
	s.clocks(6_000)
	s.opens("alice").says(5_000)
	s.answers("user alice").index(7, "r")
	s.clocks(6_500)
	s.opens("alice").says(5_000)
	s.answers("room r").room("1-0", 100)
	s.clocks(7_000)
	s.opens("alice").says(7_000)
}

func TestR4APollIsToldWhereItStarts(t *testing.T) {
	s, _ := playing(t)
	poll := s.opensAs("alice", follow.Opening{Via: edge.LongPoll, Resume: true})
	poll.has("r 0-0", "rother 5-0")
	s.answers("log r 0-0").log("1-0", "1-0")
	poll.gets(`polled 7 {"r":"0-0"}`, "1-0", "resumed 7")
	head := s.opensAs("alice", follow.Opening{Via: edge.LongPoll, Resume: true})
	head.has()
	head.gets(`polled 7 {"r":"1-0"}`, "resumed 7")
}

// In a room that can't be followed yet it starts at its position or, without one, at
// the beginning: the next poll finds what there is.
func TestR4APollWaitsForNoPartition(t *testing.T) {
	s := play(t)
	poll := s.opensAs("alice", follow.Opening{Via: edge.LongPoll, Resume: true})
	poll.has("r 1-0", "r2 3-0")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "r2", "rx2")
	s.confirmed("r")
	s.answers("room r alice").room("1-0", 100, "alice")
	s.after(10_000)
	poll.gets(`polled 7 {"r":"1-0","r2":"3-0","rx2":"0-0"}`)
	s.confirmed("r2")
	s.answers("room r2 alice").room("4-0", 100, "alice")
	s.answers("log r2 3-0").log("4-0", "3-0", "4-0")
	poll.gets("4-0")
}

// Its answer would have no rooms that it did not name, and the poll after it, which sends
// that back, would start in those at the head: what came between the two would be lost.
func TestR4APollWhoseRoomsAreNotKnownIsNotTold(t *testing.T) {
	for _, has := range [][]string{nil, {"r 1-0"}} {
		s := play(t)
		poll := s.opensAs("alice", follow.Opening{Via: edge.LongPoll, Resume: true})
		poll.has(has...)
		s.after(10_000)
		poll.gets()
		s.confirmed("alice")
		s.answers("user alice").index(7, "r", "rnew")
		poll.gets() // its loop refuses it: it asks again with what it has
	}
}

// A user's channel was silent, and the index is to be read again: whoever says to be
// somewhere else may have been added there meanwhile. What such a poll is not told it
// would not say again, and the next would start at the head.
func TestR4APollKeepsItsPositionsUntilTheIndexHasBeenReadAgain(t *testing.T) {
	s, _ := playing(t)
	s.linkDown(0)
	polls := func(want ...string) {
		t.Helper()
		poll := s.opensAs("alice", follow.Opening{Via: edge.LongPoll, Resume: true})
		poll.has("r 1-0", "rnew2 5-0")
		poll.gets(want...)
		poll.closes()
	}
	polls(`polled 7 {"r":"1-0","rnew2":"5-0"}`, "resumed 7")
	s.linkUp(0)
	s.confirmed("alice")
	polls(`polled 7 {"r":"1-0","rnew2":"5-0"}`, "resumed 7")
	s.answers("user alice").index(8, "r", "rnew2@4-0")
	s.confirmed("r", "rnew2")
	s.answers("room rnew2 alice").room("6-0", 100, "alice")
	poll := s.opensAs("alice", follow.Opening{Via: edge.LongPoll, Resume: true})
	poll.has("r 1-0", "rnew2 5-0", "rother 9-0")
	s.answers("log rnew2 4-0").log("6-0", "4-0", "5-0", "6-0")
	poll.gets(`polled 8 {"r":"1-0","rnew2":"5-0"}`, "6-0", "resumed 8")
}
