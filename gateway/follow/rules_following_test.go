package follow_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
)

func TestF1NothingIsReadBeforeTheConfirmation(t *testing.T) {
	s := play(t)
	alice := s.opens("alice")
	s.asks("subscribe alice")
	s.reads()
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.asks("subscribe r")
	s.reads()
	alice.gets()
	s.confirmed("r")
	s.published("r", "2-0") // before the answer: it waits behind it
	s.answers("room r alice").room("1-0", 100, "alice")
	s.published("r", "3-0")
	alice.gets("hello 7", "2-0", "3-0")
}

func TestF1MessagesOlderThanTheFirstReadAreNotRepeated(t *testing.T) {
	s, alice := entering(t)
	s.published("r", "2-0")
	s.answers("room r alice").room("2-0", 100, "alice")
	alice.gets("hello 7")
	s.published("r", "3-0")
	alice.gets("3-0")
}

func TestF1ASecondConnectionWaitsForTheSameConfirmation(t *testing.T) {
	s := play(t)
	first, second := s.opens("alice"), s.opens("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.confirmed("r")
	first.gets()
	second.gets()
	s.answers("room r alice").room("1-0", 100, "alice")
	first.gets("hello 7")
	second.gets("hello 7")
	s.asks("subscribe alice", "subscribe r")
}

// A room is left and followed again before its subscription was confirmed: the
// confirmation that comes first belongs to a subscription that is no more.
func TestF1TheConfirmationOfAnEarlierSubscriptionIsNotTaken(t *testing.T) {
	s := play(t)
	alice := s.opens("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	alice.closes()
	alice = s.opens("alice")
	s.asks("subscribe alice", "subscribe r", "unsubscribe r", "unsubscribe alice", "subscribe alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r")
	s.confirmed("r")
	s.reads() // a message sent now would be missed by what is read now
	s.confirmed("r")
	s.answers("room r alice").room("2-0", 100, "alice")
	alice.gets("hello 7")
}

func TestF2AnAnswerThatALeftHasOvertakenIsAskedAgain(t *testing.T) {
	s, alice := entering(t)
	old := s.answers("room r alice")
	s.published("r", left("r", "alice", 0))
	old.room("1-0", 100, "alice")
	alice.gets() // executed before she was removed
	s.answers("room r alice").room("1-0", 101)
	alice.gets("hello 7")
	s.published("r", "2-0")
	alice.gets()
}

func TestF2AnAnswerThatAJoinedHasOvertakenIsAskedAgain(t *testing.T) {
	s, alice := entering(t)
	old := s.answers("room r alice")
	s.published("r", joined("r", "alice", "1-0", 0))
	old.room("1-0", 100)
	s.answers("room r alice").room("1-0", 101, "alice")
	s.published("r", "2-0")
	alice.gets("hello 7", "2-0")
}

func TestF2ALeftIsObeyedAtOnceAndAnswersFromBeforeAreNotBelieved(t *testing.T) {
	s, alice := playing(t)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("1-0", 101, "alice") // the version moved: she is asked about
	old := s.answers("room r alice")
	s.published("r", left("r", "alice", 0), "2-0")
	old.room("1-0", 101, "alice")
	alice.gets()
	s.answers("room r alice").room("2-0", 102)
	s.published("r", "3-0")
	alice.gets()
	s.after(5_000)
	alice.gets("left r alice")
}

func TestF2OneWhoLeftAndJoinedIsToldAGap(t *testing.T) {
	s, alice := playing(t)
	s.published("r", left("r", "alice", 0), "2-0")
	s.answers("room r alice").room("2-0", 102, "alice")
	alice.gets("gap r after 1-0 head 2-0")
	s.published("r", "3-0")
	alice.gets("3-0")
}

func TestF2WhatWasReadFromALogIsNotForOneWhoLeftMeanwhile(t *testing.T) {
	s, _ := playing(t)
	late := s.resumes("alice")
	late.gets("hello 7")
	late.has("r 0-0")
	log := s.answers("log r 0-0")
	s.published("r", left("r", "alice", 0))
	log.log("1-0", "1-0")
	late.gets()
	s.answers("room r alice").room("1-0", 101)
	late.gets("resumed 7")
	s.published("alice", left("r", "alice", 8))
	late.gets("left r alice 8")
}

// The members are asked where the link hears; but the first answer came from a
// primary that had been left behind. The index knows better.
func TestF2ARefusalIsAskedAgainWhenTheVersionMoves(t *testing.T) {
	s, alice := entering(t)
	s.answers("room r alice").room("1-0", 100)
	alice.gets("hello 7")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("2-0", 101)
	s.answers("room r alice").room("2-0", 101, "alice")
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	s.published("r", "3-0")
	alice.gets("joined r alice at 1-0 7", "2-0", "3-0")
}

func TestF3JoinedIsFollowedFromItsHead(t *testing.T) {
	s, alice := playing(t)
	s.published("alice", joined("rnew", "alice", "4-0", 8))
	alice.gets("joined rnew alice at 4-0 8")
	s.confirmed("rnew")
	s.answers("room rnew alice").room("6-0", 100, "alice")
	s.answers("log rnew 4-0").log("6-0", "4-0", "5-0", "6-0")
	alice.gets("5-0", "6-0")
	s.published("rnew", "7-0")
	alice.gets("7-0")
}

func TestF3ARoomThatAnAuditFindsIsFollowedFromTheHeadInTheIndex(t *testing.T) {
	s, alice := playing(t)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice")
	s.answers("user alice").index(8, "r", "rnew@4-0")
	alice.gets("joined rnew alice at 4-0 1")
	s.confirmed("rnew", "r")
	s.answers("room r").room("1-0", 100)
	s.answers("room rnew alice").room("6-0", 100, "alice")
	s.answers("log rnew 4-0").log("6-0", "4-0", "5-0", "6-0")
	alice.gets("5-0", "6-0", "resumed 8")
}

func TestF3AnIndexThatWasLostDoesNotEndAMembership(t *testing.T) {
	s, alice := playing(t)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice", "r")
	s.answers("user alice").index(0)
	s.answers("room r").room("1-0", 100)
	s.answers("room r alice").room("1-0", 100, "alice")
	s.published("r", "2-0")
	alice.gets("resumed 0", "2-0")
	// It is repaired, however often that fails, or who would know of the room after the
	// next connect?
	s.repairs("alice r")
	s.core.RepairFailed(s.now, chat.Membership{Room: "r", User: "alice"})
	s.repairs()
	s.after(10_000)
	s.repairs("alice r")
	// And then it goes on from where it is.
	s.published("alice", joined("r", "alice", "1-0", 9))
	s.published("r", "3-0")
	alice.gets("joined r alice at 2-0 9", "3-0")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice", "r")
	s.answers("user alice").index(9, "r")
	s.answers("room r").room("3-0", 100)
	s.repairs()
}

// A primary that was stopped, and replaced, writes and tells what waited in its
// sockets when it wakes. Alice is back since then.
func TestF2ALeftOfAReplacedPrimaryDoesNotEndAMembership(t *testing.T) {
	s, alice := playing(t)
	s.published("alice", left("r", "alice", 9))
	alice.gets("left r alice 9")
	s.published("r", "2-0")
	alice.gets()
	s.answers("room r alice").room("2-0", 102, "alice")
	s.published("r", "3-0")
	s.repairs()
	s.answers("user alice").index(8, "r")
	alice.gets("joined r alice at 1-0 9", "2-0", "3-0", "resumed 8")
}

// One of a room that is not there any more tells of another index than was read.
func TestF2ALeftOfARoomThatIsNotThereHasTheIndexReadAgain(t *testing.T) {
	s, alice := playing(t)
	s.published("alice", left("rold", "alice", 9))
	s.answers("user alice").index(7, "r")
	alice.gets("left rold alice 9", "resumed 7")
}

// A removal is heard of twice, on the room's channel and on the user's. It is obeyed
// with the first and told with the second, which has the revision.
func TestF2ARemovalIsToldOnceWithItsRevision(t *testing.T) {
	s, alice := playing(t)
	s.published("r", left("r", "alice", 0), "2-0")
	s.answers("room r alice").room("2-0", 101)
	alice.gets()
	s.published("alice", left("r", "alice", 8))
	alice.gets("left r alice 8")
	s.after(10_000)
	alice.gets()
}

// The user's channel stays silent when the API died in between, and for good when it
// is the index that is wrong.
func TestF2ARemovalThatTheIndexDoesNotHaveIsToldAllTheSame(t *testing.T) {
	s, alice := playing(t)
	s.published("r", left("r", "alice", 0))
	s.answers("room r alice").room("1-0", 101)
	alice.gets()
	s.after(4_999)
	alice.gets()
	s.after(1)
	alice.gets("left r alice")
	s.published("alice", left("r", "alice", 8)) // swept by another
	alice.gets("left r alice 8")
}

// One who is back before that was told is told both: where it was, something may be
// missing.
func TestF2ARemovalIsToldBeforeTheReturn(t *testing.T) {
	s, alice := playing(t)
	s.published("r", left("r", "alice", 0))
	s.answers("room r alice").room("1-0", 101)
	s.published("r", "2-0", joined("r", "alice", "2-0", 0))
	s.answers("room r alice").room("2-0", 102, "alice")
	s.published("r", "3-0")
	alice.gets("left r alice", "joined r alice at 2-0 7", "3-0")
	s.after(10_000)
	alice.gets()
}

func TestF4HelloDoesNotWaitForAPartitionThatDoesNotAnswer(t *testing.T) {
	s := play(t, func(c *follow.Config) { c.HelloMs = 1000 })
	alice := s.opens("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "rslow2")
	s.confirmed("r")
	s.answers("room r alice").room("1-0", 100, "alice")
	s.after(999)
	alice.gets()
	s.after(1)
	s.published("r", "2-0")
	alice.gets("hello 7", "2-0")
	// What was sent since hello can't be told: it is for the client to page.
	s.confirmed("rslow2")
	s.answers("room rslow2 alice").room("5-0", 100, "alice")
	s.published("rslow2", "6-0")
	alice.gets("gap rslow2 after 0-0 head 5-0", "resumed 7", "6-0")
}

func TestF4APartitionThatAnswersLateIsCaughtUpFromThePosition(t *testing.T) {
	s := play(t, func(c *follow.Config) { c.HelloMs = 1000 })
	alice := s.resumes("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "rslow2")
	s.confirmed("r")
	s.answers("room r alice").room("1-0", 100, "alice")
	s.after(1000)
	alice.has("r 1-0", "rslow2 3-0")
	alice.gets("hello 7")
	s.confirmed("rslow2")
	s.answers("room rslow2 alice").fails()
	s.after(250)
	s.answers("room rslow2 alice").room("5-0", 100, "alice")
	s.answers("log rslow2 3-0").log("5-0", "3-0", "4-0", "5-0")
	alice.gets("4-0", "5-0", "resumed 7")
}

// Which rooms the client is in is not known when it says where it is: all that it
// says is kept.
func TestF4AnIndexThatIsReadLateIsCaughtUpFromThePositions(t *testing.T) {
	s := play(t, func(c *follow.Config) { c.HelloMs = 1000 })
	alice := s.resumes("alice")
	s.after(1000)
	alice.gets("hello 0")
	alice.has("r 1-0", "more")
	alice.has("rold 5-0", "rtrimmed 2-0")
	alice.gets()
	s.confirmed("alice")
	s.answers("user alice").index(7, "r", "rtrimmed")
	s.confirmed("r", "rtrimmed")
	s.answers("room r alice").room("3-0", 100, "alice")
	s.answers("log r 1-0").log("3-0", "1-0", "2-0", "3-0")
	s.answers("room rtrimmed alice").room("9-0", 100, "alice")
	s.answers("log rtrimmed 2-0").log("9-0", "9-0<8-0")
	alice.gets("2-0", "3-0", "gap rtrimmed after 2-0 head 9-0", "resumed 7")
}

// absent is a scene in which alice is in r, and in more rooms of the second link than
// a connection waits for at once; all have messages 2-0 and 3-0 that are only in the
// log. A phone of hers keeps them followed while her laptop is away.
func absent(t *testing.T) (s *scene, slow, positions []string) {
	s = play(t, func(c *follow.Config) { c.TailEntries = 1 })
	s.opens("alice")
	s.confirmed("alice")
	for i := range 20 {
		slow = append(slow, fmt.Sprintf("r%d-2", i))
	}
	rooms := append(slices.Clone(slow), "r")
	s.answers("user alice").index(7, rooms...)
	s.confirmed(rooms...)
	for _, r := range rooms {
		s.answers("room "+r+" alice").room("1-0", 100, "alice")
		s.published(r, "2-0", "3-0")
		positions = append(positions, r+" 1-0")
	}
	return s, slow, positions
}

func TestF4RoomsWhoseLinkIsDownDelayNoOthers(t *testing.T) {
	for _, when := range []string{"before", "while they are read"} {
		s, slow, positions := absent(t)
		laptop := s.resumes("alice")
		if when == "before" {
			s.linkDown(1)
		}
		laptop.has(positions...)
		if when != "before" {
			s.linkDown(1)
		}
		s.answers("log r 1-0").log("3-0", "1-0", "2-0", "3-0")
		s.published("r", "4-0")
		laptop.gets("hello 7", "2-0", "3-0", "4-0")
		// When it is back, they are read as any.
		s.asked = nil
		s.linkUp(1)
		s.confirmed(slow...)
		for _, r := range slow {
			s.answers("room "+r).room("3-0", 100)
			s.answers("log "+r+" 1-0").log("3-0", "1-0", "2-0", "3-0")
		}
		laptop.gets(append(slices.Repeat([]string{"2-0", "3-0"}, len(slow)), "resumed 7")...)
	}
}

func TestF4RoomsWhoseLogsCantBeReadDelayNoOthers(t *testing.T) {
	s, slow, positions := absent(t)
	laptop := s.resumes("alice")
	laptop.has(positions...)
	for _, r := range slow {
		s.answers("log " + r + " 1-0").fails()
	}
	s.answers("log r 1-0").log("3-0", "1-0", "2-0", "3-0")
	laptop.gets("hello 7", "2-0", "3-0")
	s.after(250)
	for _, r := range slow {
		s.answers("log "+r+" 1-0").log("3-0", "1-0", "2-0", "3-0")
	}
	laptop.gets(append(slices.Repeat([]string{"2-0", "3-0"}, len(slow)), "resumed 7")...)
}

func TestLingeringUsersComeBackWithoutARead(t *testing.T) {
	s, alice := playing(t, func(c *follow.Config) { c.LingerMs = 1000 })
	s.asks("subscribe alice", "subscribe r")
	alice.closes()
	s.after(999)
	back := s.opens("alice")
	back.gets("hello 7")
	back.closes()
	s.after(999)
	s.asks()
	s.after(1)
	s.asks("unsubscribe r", "unsubscribe alice")
	if st := s.core.Stats(); st.Users+st.Rooms+st.Conns != 0 {
		t.Fatalf("left: %+v", st)
	}
}
