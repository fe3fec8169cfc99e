package live_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/live"
)

const (
	bobOn  = `{"type":"presence","user":"bob","status":"online"}`
	bobOff = `{"type":"presence","user":"bob","status":"offline","last_seen":"2023-11-14T22:13:20.000Z"}`
)

// watched opens a connection that watches bob, who is online.
func watched(t *testing.T) *bench {
	b := newBench(t)
	b.c.Canary(b.now, 1, 1, 3, "epoch1")
	b.open(1, "alice")
	b.answerSeats(nil)
	b.forget()
	b.watches(1, "bob")
	b.want("sub 1.1 bob")
	b.c.Confirmed(b.now, 1, 1, "bob")
	b.want("read bob")
	b.answerPresence(true, nil)
	b.want("to 1 " + bobOn)
	return b
}

func TestAWatcherIsToldTheStateAndEachChange(t *testing.T) {
	b := watched(t)
	b.change("bob", "1") // nothing new
	b.want()
	b.change("bob", "0 1700000000000")
	b.want("to 1 " + bobOff)
	b.change("bob", "1")
	b.want("to 1 " + bobOn)

	b.open(2, "carol")
	b.forget()
	b.watches(2, "bob")
	b.want("to 2 " + bobOn) // known: no subscription, no read
	b.change("bob", "0 1700000000000")
	b.want("to 1 "+bobOff, "to 2 "+bobOff)
}

func TestNobodyElseHears(t *testing.T) {
	b := watched(t)
	b.open(2, "carol")
	b.forget()
	b.change("bob", "0 1700000000000")
	b.change("dave", "1")
	b.want("to 1 " + bobOff)
}

func TestTheLastWatcherEndsTheSubscriptionAfterAWhile(t *testing.T) {
	b := watched(t)
	b.pass(1_000)
	b.watches(1)
	b.pass(9_000)
	b.watches(1, "bob") // back on that screen
	b.want("to 1 " + bobOn)
	b.pass(30_000)
	b.want()
	b.close(1)
	b.pass(9_000)
	b.forget() // alice's seat
	b.pass(2_000)
	b.want("unsub 1.1 bob")
	b.open(2, "carol")
	b.forget()
	b.watches(2, "bob")
	b.want("sub 1.1 bob")
}

func TestASetReplacesTheOneBefore(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.forget()
	b.watches(1, "u1", "u2", "u1", "u3")
	b.want("sub 0.1 u1", "sub 0.1 u2", "sub 0.1 u3")
	b.pass(1_000)
	b.watches(1, "u3", "u4")
	b.want("sub 0.1 u4")
	if s := b.c.Stats(); s.Watches != 2 {
		t.Fatalf("%+v", s)
	}
	b.pass(11_000)
	b.answerSeats(nil)
	b.want("unsub 0.1 u2", "unsub 0.1 u1")
	b.close(1)
	if s := b.c.Stats(); s.Watches != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestOfAFloodOfSetsTheLastCounts(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.forget()
	for i := range 100 {
		b.watches(1, fmt.Sprintf("u%02d", i))
	}
	b.want("sub 1.1 u00")
	b.pass(500)
	b.want("sub 1.1 u99")
	b.pass(500)
	if s := b.c.Stats(); s.WatchLimited != 99 || s.Watches != 1 {
		t.Fatalf("%+v", s)
	}
}

// Who opens a connection for every set is held back as who has one.
func TestAFloodOfConnectionsThatWatchIsHeldBack(t *testing.T) {
	b := newBench(t, func(c *live.Config) { c.WatchNewPerSecond = 10 })
	flood := func(from int) (subscribed int) {
		for i := from; i < from+100; i++ {
			id := edge.ConnID(i)
			b.open(id, "mallory")
			b.watches(id, fmt.Sprintf("x%d", i), fmt.Sprintf("y%d", i))
			b.pass(10)
			b.close(id)
		}
		for _, s := range b.said {
			if strings.HasPrefix(s, "sub ") {
				subscribed++
			}
		}
		b.forget()
		return subscribed
	}
	if n := flood(100); n < 50 || n > 64 { // 5 s' worth at once, a second's, and the last set
		t.Errorf("%d users were subscribed at once", n)
	}
	if n := flood(200); n < 8 || n > 14 {
		t.Errorf("%d users were subscribed in a second", n)
	}
	b.pass(20_000)
	b.forget()
	if n := flood(300); n < 50 || n > 64 {
		t.Errorf("after a rest %d users were subscribed at once", n)
	}
}

func TestASetWaitsUntilItsUserMayWatchMore(t *testing.T) {
	b := newBench(t, func(c *live.Config) { c.WatchNewPerSecond = 10 })
	b.open(1, "alice")
	b.open(2, "alice")
	b.open(3, "carol")
	for range 2 { // how many connections alice has is told later
		b.answerSeats(nil)
		b.pass(3_000)
	}
	screen := make([]string, 65) // 6.5 s' worth
	for i := range screen {
		screen[i] = fmt.Sprintf("u%02d", i)
	}
	b.watches(1, screen...)
	b.forget()
	b.watches(2, "bob")
	b.want()
	b.watches(3, "u00", "bob") // nobody else waits
	b.want("sub 1.1 bob")
	b.watches(2, "dave")
	b.pass(1_400)
	b.want()
	b.pass(600)
	b.want("sub 0.1 dave") // the last one counts
	if s := b.c.Stats(); s.WatchLimited != 2 || s.Watches != 65+2+1 {
		t.Fatalf("%+v", s)
	}
}

func TestAWatchSetIsBounded(t *testing.T) {
	b := newBench(t, func(c *live.Config) { c.WatchMax = 2 })
	b.open(1, "alice")
	b.forget()
	b.watches(1, "u1", "u2", "u3")
	b.want("refuse 1 invalid")
}

// The answer to a read is older than an event that came while it was under way.
func TestAnOvertakenAnswerIsThrownAway(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.forget()
	b.watches(1, "bob")
	b.c.Confirmed(b.now, 1, 1, "bob")
	b.forget()
	b.change("bob", "0 1700000000000")
	b.want("to 1 " + bobOff)
	b.answerPresence(true, nil)
	b.want()
}

func TestAFailedReadIsRepeated(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.watches(1, "bob")
	b.c.Confirmed(b.now, 1, 1, "bob")
	b.forget()
	b.answerPresence(false, errAway)
	b.pass(500)
	b.want("read bob")
	b.answerPresence(false, nil)
	b.want("to 1 " + bobOff)
}

// L2: a link that is made again audits the watched presence.
func TestALinkThatWasDownIsAudited(t *testing.T) {
	b := watched(t)
	b.c.LinkDown(1, 1)
	b.c.Changed(1, 1, "bob", []byte("0 5")) // late, from the dead link
	b.c.LinkUp(1, 2)
	b.c.Flush(b.now)
	b.want("sub 1.2 bob")
	b.c.Confirmed(b.now, 1, 2, "bob")
	b.c.Flush(b.now)
	b.want() // until Redis has shown that it still has its data
	b.c.Canary(b.now, 1, 2, 3, "epoch1")
	b.c.Flush(b.now)
	b.want("read bob")
	b.answerPresence(false, nil)
	b.want("to 1 " + bobOff)
}

// A link that breaks again makes the answer of the earlier audit void.
func TestAnAuditIsRestartedByAnotherBreak(t *testing.T) {
	b := watched(t)
	for gen := uint64(2); gen <= 3; gen++ {
		b.c.LinkDown(1, gen-1)
		b.c.LinkUp(1, gen)
		b.c.Flush(b.now)
		b.c.Confirmed(b.now, 1, gen, "bob")
		b.c.Canary(b.now, 1, gen, 3, "epoch1")
		b.c.Flush(b.now)
	}
	b.want("sub 1.2 bob", "read bob", "sub 1.3 bob")
	b.answerPresence(false, nil)
	b.want("read bob")
	b.answerPresence(true, nil)
	b.want()
}

// Redis came back empty: nobody is told that everybody left.
func TestLostDataDoesNotFlapWhoIsWatched(t *testing.T) {
	b := watched(t)
	b.c.LinkDown(1, 1)
	b.c.LinkUp(1, 2)
	b.c.Flush(b.now)
	b.c.Confirmed(b.now, 1, 2, "bob")
	b.c.Canary(b.now, 1, 2, 3, "epoch2")
	b.c.Flush(b.now)
	b.want("sub 1.2 bob")
	b.pass(30_000)
	b.c.Changed(1, 2, "bob", []byte("1")) // his gateway has written him again
	b.forget()
	b.pass(31_000)
	b.want("read bob")
	b.answerPresence(true, nil)
	b.want()
}

// What a client says before hello is done after it.
func TestNothingIsToldBeforeHello(t *testing.T) {
	b := watched(t)
	b.open(2, "carol")
	b.silent[2] = true
	b.forget()
	b.watches(2, "dave")
	b.watches(2, "bob")
	b.pass(1_000)
	b.want()
	b.silent[2] = false
	b.pass(100)
	b.want("to 2 " + bobOn)
}

// A read is under way when somebody who is watched no more would be let go. Whoever
// watches next would take its answer for that to a read of theirs, and what happened in
// between was heard by nobody.
func TestAnAnswerToAnEarlierWatchIsNotTaken(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.watches(1, "dave")
	b.c.Confirmed(b.now, 0, 1, "dave")
	b.answerPresence(false, nil)
	b.watches(1)
	b.pass(10_450)
	b.c.LinkUp(0, 2) // shortly before dave is let go
	b.c.Flush(b.now)
	b.c.Canary(b.now, 0, 2, 0, "a")
	b.c.Confirmed(b.now, 0, 2, "dave")
	b.forget()
	b.pass(100)
	b.c.Changed(0, 2, "dave", []byte("1"))
	b.watches(1, "dave")
	b.want(`to 1 {"type":"presence","user":"dave","status":"online"}`)
	b.answerPresence(false, nil) // as it was before dave came
	b.want()
	b.watches(1)
	b.pass(20_500)
	b.want("unsub 0.2 dave")
}
