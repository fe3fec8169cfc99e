package follow_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
)

func TestL2AReMadeLinkIsSubscribedFirstThenAudited(t *testing.T) {
	s, alice := playing(t)
	s.asks("subscribe alice", "subscribe r")
	s.linkDown(0)
	s.linkUp(0)
	s.asks("subscribe alice", "subscribe r")
	s.reads()
	s.confirmed("r", "alice")
	s.published("r", "4-0<3-0") // what was between is found by the audit or by this
	s.answers("user alice").index(7, "r")
	s.answers("room r").room("4-0", 100)
	s.answers("log r 1-0").log("4-0", "1-0", "2-0", "3-0", "4-0")
	alice.gets("2-0", "3-0", "4-0")
}

func TestL2AQuietRoomIsCaughtUpByTheAudit(t *testing.T) {
	s, alice := playing(t)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("2-0", 100)
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	alice.gets("2-0")
}

// The members of a large room who are here are asked about bit by bit, so that Redis
// does not stand still for them; until all have been nobody gets anything (F2).
func TestL2ManyMembersAreAskedAboutBitByBit(t *testing.T) {
	s := play(t)
	phones := make([]*phone, 2500)
	members := make([]string, len(phones))
	for i := range phones {
		members[i] = "u" + strconv.Itoa(i)
		phones[i] = s.opens(members[i])
		s.confirmed(members[i])
		s.answers("user "+members[i]).index(7, "r")
	}
	answer := func(head string, version uint64, members ...string) {
		for len(s.asked) > 0 && s.asked[0].name == "r" && strings.HasPrefix(s.asked[0].what, "room") {
			for _, p := range phones {
				if slices.Contains(p.got, head) {
					t.Fatalf("%s was delivered before all had been asked about", head)
				}
			}
			q := s.answers(s.asked[0].what)
			if users := len(strings.Fields(q.what)) - 2; users > 1000 {
				t.Fatalf("one question is about %d users", users)
			}
			q.room(head, version, members...)
		}
	}
	s.confirmed("r")
	answer("1-0", 100, members...)
	for _, p := range phones {
		p.gets("hello 7")
	}
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	answer("2-0", 101, members[:len(members)-1]...)
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	last := len(phones) - 1
	for _, p := range phones[:last] {
		p.gets("2-0")
	}
	phones[last].gets("left r " + members[last])
}

// A room for which a client waits to resume is audited before the others.
func TestL2WhoResumesDoesNotWaitForTheAuditsBudget(t *testing.T) {
	s, alice := playing(t, func(c *follow.Config) { c.AuditsPerSecond = 1; c.LingerMs = 10_000 })
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice", "r")
	s.answers("user alice").index(7, "r") // that was the second's budget
	s.reads()
	alice.closes()
	back := s.resumes("alice")
	back.has("r 0-5") // which takes a read, and that the audit
	s.answers("room r").room("1-0", 100)
	s.answers("log r 0-5").log("1-0", "0-5", "1-0")
	back.gets("hello 7", "1-0", "resumed 7")
}

// When everything is to be compared at once, nobody who waits for an answer
// stands behind it.
func TestL2AuditsArePaced(t *testing.T) {
	s := play(t, func(c *follow.Config) { c.AuditsPerSecond = 20 })
	names := []string{"alice", "bob", "carol"}
	for i, name := range names {
		s.opens(name)
		s.confirmed(name)
		room := "r" + strconv.Itoa(3+i)
		s.answers("user "+name).index(7, room)
		s.confirmed(room)
		s.answers("room "+room+" "+name).room("1-0", 100, name)
	}
	s.reads()
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice", "bob", "carol", "r3", "r4", "r5")
	s.answers("user alice").index(7, "r3")
	s.reads()
	dave := s.opens("dave") // he waits: at once, and room r5 with him
	s.confirmed("dave")
	s.answers("user dave").index(9, "r5")
	s.answers("room r5 dave").room("2-0", 100, "dave")
	s.answers("log r5 1-0").log("2-0", "1-0", "2-0")
	dave.gets("hello 9", "2-0")
	s.after(49)
	s.reads()
	s.after(1)
	s.answers("user bob").index(7, "r4")
	s.after(500) // what was not used is not saved up
	s.answers("user carol").index(7, "r5")
	s.reads()
	s.after(50)
	s.answers("room r3")
	s.linkDown(0) // what waits is asked after the next confirmation only
	s.after(50)
	s.linkUp(0)
	s.after(50)
	s.reads()
	s.confirmed("r4")
	s.answers("room r4").room("1-0", 100)
	s.after(1000)
	s.reads()
}

func TestL2ALinkThatBreaksAgainRestartsTheAudit(t *testing.T) {
	s, alice := playing(t)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice", "r")
	room, user := s.answers("room r"), s.answers("user alice")
	s.linkDown(0)
	s.linkUp(0)
	room.room("1-0", 100) // nothing had been missed then
	user.index(7, "r")
	s.confirmed("alice", "r")
	s.answers("user alice").index(7, "r")
	s.answers("room r").room("2-0", 100)
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	alice.gets("2-0")
}

// A log that was read from a primary that is none any more must not raise the
// head: the audit would then not see that the tail was lost.
func TestL2ALogReadFromBeforeTheBreakDoesNotCount(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "4-0<3-0")
	log := s.answers("log r 1-0")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	room := s.answers("room r")
	log.log("4-0", "1-0", "2-0", "3-0", "4-0")
	alice.gets()
	room.room("1-0", 100)
	s.answers("log r 1-0").log("1-0", "1-0")
	s.published("r", "6-0<1-0")
	alice.gets("6-0")
}

// What waited behind a first read when the link broke may have been lost since.
func TestL2WhatWaitedWhenTheLinkBrokeIsForgotten(t *testing.T) {
	s, alice := entering(t)
	old := s.answers("room r alice")
	s.published("r", "2-0")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	old.room("1-0", 100, "alice")
	alice.gets()
	s.answers("room r alice").room("1-0", 100, "alice") // and 2-0 is no more
	alice.gets("hello 7")
}

func TestL2MembersAreRecheckedWhenTheVersionMoved(t *testing.T) {
	s, alice := playing(t)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("1-0", 101)
	s.answers("room r alice").room("1-0", 101)
	alice.gets("left r alice")
	s.published("r", "2-0")
	alice.gets()
}

// inRoom lets Bob follow r, too.
func (s *scene) inRoom(name string) *phone {
	p := s.opens(name)
	s.confirmed(name)
	s.answers("user "+name).index(8, "r")
	s.answers("room r "+name).room("1-0", 100, "alice", name)
	p.gets("hello 8")
	return p
}

// Alice is removed while the link is down. What was sent since is not for her, and is
// in the log that is read to catch up.
func TestL2WhatWasMissedIsNotForOneWhoWasRemovedMeanwhile(t *testing.T) {
	s, alice := playing(t)
	bob := s.inRoom("bob")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("3-0", 101)
	s.reads("room r alice bob") // the log is read when that is known
	s.published("r", "4-0")
	s.answers("room r alice bob").room("4-0", 101, "bob")
	s.answers("log r 1-0").log("4-0", "1-0", "2-0", "3-0", "4-0")
	bob.gets("2-0", "3-0", "4-0")
	alice.gets("left r alice")
}

// Alice's index tells of the removal while the members are being asked: that asks
// about her again, and until it is answered the room waits.
func TestL2WhoIsAskedAboutAgainGetsNothingBeforeTheAnswer(t *testing.T) {
	s, alice := playing(t)
	bob := s.inRoom("bob")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r", "alice")
	s.answers("room r").room("2-0", 101)
	members := s.answers("room r alice bob")
	s.answers("user alice").index(9)
	members.room("2-0", 101, "bob")
	s.reads("room r alice")
	s.answers("room r alice").room("2-0", 101)
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	bob.gets("2-0")
	alice.gets("resumed 9", "left r alice")
}

// Nor is what comes over the new link before it is known who was removed.
func TestL2WhatComesBeforeTheAuditIsNotForOneWhoWasRemovedMeanwhile(t *testing.T) {
	s, alice := playing(t)
	bob := s.inRoom("bob")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	audit := s.answers("room r")
	s.published("r", "2-0")
	audit.room("1-0", 101)
	members := s.answers("room r alice bob")
	s.published("r", "3-0")
	alice.gets()
	bob.gets()
	members.room("3-0", 101, "bob")
	s.reads()
	bob.gets("2-0", "3-0")
	alice.gets("left r alice")
}

// A room in which something is sent is audited before the others.
func TestL2AMessageDoesNotWaitForTheAuditsBudget(t *testing.T) {
	s, alice := playing(t, func(c *follow.Config) { c.AuditsPerSecond = 1 })
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice", "r")
	s.answers("user alice").index(7, "r") // that was the second's budget
	s.reads()
	s.published("r", "2-0")
	s.answers("room r").room("2-0", 100)
	s.answers("log r 1-0").log("2-0", "1-0", "2-0")
	alice.gets("2-0")
}

// What waits for an audit is in the head that it finds, or was lost.
func TestL2WhatWaitsForAnAuditMayBeLost(t *testing.T) {
	s, alice := playing(t, func(c *follow.Config) { c.AuditsPerSecond = 1 })
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice", "r")
	s.published("r", "2-0")
	s.answers("room r").room("1-0", 100)
	s.reads("user alice")
	alice.gets()
	s.published("r", "3-0<1-0")
	alice.gets("3-0")
}

// Bob joins at version 101, which a failover loses: Redis is back at the version
// that Alice was checked at, but it is not the one that Bob was.
func TestL2MembersAreRecheckedWhenAVersionWasLost(t *testing.T) {
	s, alice := playing(t)
	bob := s.opens("bob")
	s.confirmed("bob")
	s.answers("user bob").index(8, "r")
	s.answers("room r bob").room("1-0", 101, "alice", "bob")
	bob.gets("hello 8")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("1-0", 100)
	s.answers("room r alice bob").room("1-0", 100, "alice")
	bob.gets("left r bob")
	s.published("r", "2-0")
	alice.gets("2-0")
	bob.gets()
}

// Alice is removed at version 101, and the link breaks before it brings that; Bob
// was checked at 102, which is what the audit finds, too.
func TestL2AVersionIsNotTrustedBeforeItsEventsWereHeard(t *testing.T) {
	s, alice := playing(t)
	bob := s.opens("bob")
	s.confirmed("bob")
	s.answers("user bob").index(8, "r")
	s.answers("room r bob").room("1-0", 102, "bob")
	bob.gets("hello 8")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("1-0", 102, "bob")
	s.answers("room r alice bob").room("1-0", 102, "bob")
	alice.gets("left r alice")
	bob.gets()
}

// Alice joins rlost at revision 9, which a failover loses while her index is being
// read.
func TestL2WhatWaitedForAnIndexWhenTheLinkBrokeIsForgotten(t *testing.T) {
	s := play(t)
	alice := s.opens("alice")
	s.confirmed("alice")
	old := s.answers("user alice")
	s.published("alice", joined("rlost", "alice", "0-0", 9))
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice")
	old.index(9, "rlost")
	s.answers("user alice").index(7)
	alice.gets("hello 7")
}

// A `joined` moves the revision past a `left` that the link had not brought: that
// the index has the same revision does not mean that nothing is missing.
func TestL2AnIndexIsComparedWholeWhenEventsHaveMovedItsRevision(t *testing.T) {
	s, alice := playing(t)
	s.published("alice", joined("rnew", "alice", "0-0", 9))
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice")
	s.answers("user alice").index(9, "rnew")
	s.confirmed("r", "rnew")
	s.answers("room rnew alice").room("0-0", 100, "alice")
	s.answers("room r alice").room("1-0", 101)
	alice.gets("joined rnew alice at 0-0 9", "resumed 9", "left r alice")
}

func TestL3BehindMeansBehindTheHeadWhenTheReadWasSent(t *testing.T) {
	s, alice := playing(t)
	bob := s.opens("bob")
	s.confirmed("bob")
	s.answers("user bob").index(8, "r")
	room := s.answers("room r bob")
	s.published("r", "2-0") // newer than the answer, which is not behind for that
	room.room("1-0", 100, "alice", "bob")
	s.published("r", "3-0")
	alice.gets("2-0", "3-0")
	bob.gets("hello 8", "3-0")
}

func TestL3ALostTailIsToldAndTheHotTailDropped(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "2-0", "3-0")
	alice.gets("2-0", "3-0")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	s.answers("room r").room("1-0", 100)
	alice.gets("gap r after 3-0 head 1-0")
	s.answers("log r 1-0").log("1-0", "1-0")
	// A client that has the lost message is not served from memory.
	late := s.resumes("alice")
	late.has("r 2-0")
	s.answers("log r 1-0").log("1-0", "1-0")
	late.gets("hello 7", "gap r after 2-0 head 1-0", "resumed 7")
	s.published("r", "5-0<1-0")
	alice.gets("5-0")
	late.gets("5-0")
}

// The new primary's clock is behind: what it publishes is older than the head that
// was lost, and looks known until the audit's answer comes.
func TestL3WhatWasTakenForKnownIsReadAfterALostTail(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "9-0<1-0")
	alice.gets("9-0")
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("r")
	room := s.answers("room r")
	s.published("r", "5-0<1-0")
	room.room("1-0", 100)
	s.answers("log r 1-0").log("5-0", "1-0", "5-0<1-0")
	alice.gets("gap r after 9-0 head 1-0", "5-0")
}

func TestL3ANewEpochIsALostTailOfTheWholePartition(t *testing.T) {
	s, alice := playing(t)
	s.canary(0, "one")
	s.answers("room r").room("1-0", 100)
	s.answers("user alice").index(7, "r")
	s.canary(0, "one")
	s.reads()
	s.canary(1, "other")
	s.reads()
	s.canary(0, "two")
	s.answers("user alice").index(0)
	s.answers("room r").noRoom()
	s.answers("room r alice").noRoom()
	alice.gets("resumed 0", "gap r after 1-0 head 0-0", "left r alice")
}

// Users and rooms are on different links: a user's may hear of the new epoch first.
func TestL3AHeadThatIsBehindIsALostTailWhateverItWasReadFor(t *testing.T) {
	s := play(t)
	s.canary(0, "one")
	alice := s.opens("alice")
	s.confirmed("alice")
	s.answers("user alice").index(7, "r2")
	s.confirmed("r2")
	s.answers("room r2 alice").room("1-0", 100, "alice")
	alice.gets("hello 7")
	s.canary(0, "two") // r2 is on the other link
	s.answers("user alice").index(0)
	s.answers("room r2 alice").noRoom()
	alice.gets("resumed 0", "gap r2 after 1-0 head 0-0", "left r2 alice")
}

// The first epoch that is heard may be a new one already.
func TestL3TheFirstEpochHasWhatWasReadBeforeItCompared(t *testing.T) {
	s, alice := playing(t)
	s.canary(0, "two")
	s.answers("user alice").index(7, "r")
	s.answers("room r").room("0-0", 200)
	alice.gets("gap r after 1-0 head 0-0")
}

func TestL4APrevThatDoesNotMatchStartsOneCatchUp(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "3-0", "4-0", "6-0")
	s.reads("log r 1-0")
	alice.gets()
	s.answers("log r 1-0").log("5-0", "1-0", "2-0", "3-0", "4-0", "5-0")
	alice.gets("2-0", "3-0", "4-0", "5-0", "6-0")
	s.reads()
}

func TestL4OverTheBoundTheQueueIsDroppedAndTheCatchUpGoesOn(t *testing.T) {
	s, alice := playing(t, func(c *follow.Config) { c.PendBytes = 150 })
	s.published("r", "3-0", "4-0", "5-0")
	s.answers("log r 1-0").log("3-0", "1-0", "2-0", "3-0")
	s.answers("log r 3-0").log("5-0", "3-0", "4-0", "5-0")
	alice.gets("2-0", "3-0", "4-0", "5-0")
	s.published("r", "6-0")
	alice.gets("6-0")
}

func TestL4ACatchUpWhoseAnchorIsNotProvenIsAGap(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "5-0")
	s.answers("log r 1-0").log("5-0", "4-0", "5-0") // 1-0 to 3-0 are trimmed
	alice.gets("gap r after 1-0 head 5-0")
	s.answers("log r 5-0").log("5-0", "5-0")
	s.published("r", "6-0")
	alice.gets("6-0")
}

// Redis has lost a room, and others have made it anew, or a tail, and members have
// changed since: all before a canary or an audit tells of that.
func TestL4WhatFollowsALostTailIsNotForOneWhoIsNoMemberAnyMore(t *testing.T) {
	s, alice := playing(t)
	bob := s.inRoom("bob")
	s.published("r", "5-0<0-0")
	s.versions["r"] = 900
	s.answers("log r 1-0").log("5-0", "5-0<0-0")
	s.published("r", "6-0")
	s.reads("room r alice bob") // the log is read when that is known
	s.answers("room r alice bob").room("6-0", 900, "bob")
	s.answers("log r 1-0").log("6-0", "5-0<0-0", "6-0")
	s.answers("log r 6-0").log("6-0", "6-0")
	alice.gets("left r alice")
	bob.gets("gap r after 1-0 head 6-0")
	s.published("r", "7-0")
	bob.gets("7-0")

	s.published("r", "9-0<8-0")
	s.versions["r"] = 901
	s.answers("log r 7-0").log("6-0", "6-0")
	s.published("r", "10-0<6-0")
	s.reads("room r alice bob")
	s.answers("room r alice bob").room("10-0", 901)
	bob.gets("gap r after 7-0 head 6-0", "left r bob")
}

func TestL4AnAnchorIsProvenByThePrevOfWhatFollowsIt(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "3-0")
	s.answers("log r 1-0").log("3-0", "2-0", "3-0") // 1-0 itself has aged out
	alice.gets("2-0", "3-0")
}

func TestL4ALongCatchUpTakesSeveralPages(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "5-0")
	s.answers("log r 1-0").log("5-0", "1-0", "2-0", "3-0", "…")
	s.answers("log r 3-0").log("5-0", "3-0", "4-0", "5-0")
	alice.gets("2-0", "3-0", "4-0", "5-0")
}

// A message that was published, and then lost with its log, must not have the log
// read again and again.
func TestL4AMessageThatNoLogHasIsLetGo(t *testing.T) {
	s, alice := playing(t)
	s.published("r", "9-0<8-0")
	s.answers("log r 1-0").log("1-0", "1-0")
	s.reads()
	s.published("r", "2-0")
	alice.gets("2-0")
}

func TestIDsCompareAsNumbers(t *testing.T) {
	s, alice := entering(t)
	s.answers("room r alice").room("5-9", 100, "alice")
	s.published("r", "5-10<5-9", "5-9<5-8", "10-0<5-10")
	alice.gets("hello 7", "5-10", "10-0")
}

func TestM3OlderRevisionsAreIgnored(t *testing.T) {
	s, alice := playing(t)
	s.published("alice", left("r", "alice", 7), left("r", "alice", 6))
	s.published("r", "2-0")
	alice.gets("2-0")
	s.published("alice", left("r", "alice", 8))
	alice.gets("left r alice 8")
	s.published("r", "3-0")
	alice.gets()
}

func TestM3WhatIsHeardWhileTheIndexIsReadIsTakenInAfterIt(t *testing.T) {
	s := play(t)
	alice := s.opens("alice")
	s.confirmed("alice")
	s.published("alice", joined("r", "alice", "3-0", 6), joined("rnew", "alice", "4-0", 8))
	s.answers("user alice").index(7) // she left r at 7
	s.asks("subscribe alice", "subscribe rnew")
	s.confirmed("rnew")
	s.answers("room rnew alice").room("4-0", 100, "alice")
	alice.gets("hello 8")
}

func TestM3WhatIsHeardDuringAnAuditIsNotUndoneByIt(t *testing.T) {
	s, alice := playing(t)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice")
	user := s.answers("user alice")
	s.published("alice", left("r", "alice", 9))
	user.index(8, "r") // executed before
	alice.gets("left r alice 1", "resumed 9")
	s.asks("subscribe alice", "subscribe r", "subscribe alice", "subscribe r")
	s.confirmed("r")
	s.answers("room r alice").room("1-0", 101)
	s.asks("unsubscribe r")
}

// A client that was greeted before its index was read may have listed its rooms
// over HTTP meanwhile, and the index have changed again until it was read. The
// revision of a later change would hide that.
func TestM3ARevisionIsToldOnlyToWhoWasToldTheOneBefore(t *testing.T) {
	s := play(t, func(c *follow.Config) { c.HelloMs = 1000 })
	alice := s.opens("alice")
	s.confirmed("alice")
	s.after(1000)
	alice.gets("hello 0")
	s.answers("user alice").index(8, "r") // she left another room at 8
	s.published("alice", joined("rnew", "alice", "4-0", 9), left("r", "alice", 10))
	alice.gets("joined rnew alice at 4-0 1", "left r alice 1")
	s.confirmed("rnew")
	s.answers("room rnew alice").room("4-0", 100, "alice")
	alice.gets("resumed 10")
	s.published("alice", left("rnew", "alice", 11))
	alice.gets("left rnew alice 11")
}

func TestM4ADisconnectionClosesAtOnce(t *testing.T) {
	s, alice := playing(t)
	s.published("alice", `{"type":"disconnect"}`)
	alice.gets("close 4001")
}

func TestM4ADisconnectionThatWasMissedIsFoundByTheAudit(t *testing.T) {
	s, untold := playing(t)
	old, fresh := s.open("alice", false, 1000), s.open("alice", false, 1001)
	s.linkDown(0)
	s.linkUp(0)
	s.confirmed("alice")
	s.answers("user alice").state(chat.UserState{Rev: 8, Rooms: []chat.IndexedRoom{{Room: "r"}}, Disconnected: 1000_500})
	old.gets("hello 7", "close 4001", "resumed 8")
	fresh.gets("hello 7", "resumed 8")
	untold.gets("close 4001", "resumed 8")
	late := s.open("alice", false, 999)
	late.gets("close 4001", "hello 8")
}
