package live_test

import (
	"fmt"
	"testing"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/live"
)

func TestAUserIsOnlineWhileAnyDeviceIs(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.want("take alice 1")
	b.answerSeats(nil)
	b.open(2, "alice")
	b.close(1)
	b.pass(10_000)
	b.want() // two connections and one again: nothing worth a write
	b.open(3, "alice")
	b.pass(10_000)
	b.want("take alice 2")
	b.answerSeats(nil)
	b.close(2)
	b.close(3)
	b.pass(4_950)
	b.want()
	b.pass(50)
	b.want("leave alice")
	b.answerSeats(nil)
	if s := b.c.Stats(); s.Online != 0 || s.InFlight != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAReconnectWithinTheGraceTimeIsNoEvent(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.answerSeats(nil)
	b.forget()
	for id := edge.ConnID(2); id < 10; id++ {
		b.close(id - 1)
		b.pass(4_000)
		b.open(id, "alice")
	}
	b.pass(20_000)
	b.want()
}

// The old socket's close comes after the new one was opened.
func TestALateCloseRemovesOnlyItsOwnConnection(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.answerSeats(nil)
	b.close(1)
	b.pass(1_000)
	b.open(2, "alice")
	b.open(3, "alice")
	b.close(2)
	b.forget()
	b.pass(60_000)
	b.want()
	if s := b.c.Stats(); s.Online != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestWhoComesBackWhileBeingAnnouncedIsSeatedAgain(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.answerSeats(nil)
	b.close(1)
	b.pass(5_000)
	b.forget()
	b.open(2, "alice")
	b.want() // one request at a time
	left := b.left[0].Seq
	b.answerSeats(nil)
	b.want("take alice 1")
	if b.taken[0].Seq <= left {
		t.Fatal("the seat is no newer than its leaving: a late leave would undo it")
	}
}

func TestAFailedWriteIsRepeatedWithWhatIsThenSo(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.want("take alice 1")
	b.answerSeats(errAway)
	b.open(2, "alice")
	b.want()
	b.pass(500)
	b.want("take alice 2")
	b.answerSeats(nil)
	b.close(1)
	b.close(2)
	b.pass(5_000)
	b.want("leave alice")
	b.answerSeats(errAway)
	b.pass(500)
	b.want("leave alice")
}

// A Redis that takes no writes (it is full) for longer than seats last: their users are there
// again as soon as it does, whatever they did meanwhile.
func TestWhatCouldNotBeRefreshedIsWrittenAgainAtOnce(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.answerSeats(nil)
	for range 1200 { // 10 minutes
		b.pass(500)
		b.answerSeats(errAway)
	}
	b.forget()
	b.pass(500)
	b.want("take alice 1")
	b.answerSeats(nil)
	b.forget()
	b.pass(500)
	b.want()
}

func TestSeatsAreRefreshedOncePerInterval(t *testing.T) {
	const users = 1000
	b := newBench(t, func(c *live.Config) { c.SeatsInFlight = 10 * users })
	for i := range users {
		b.open(edge.ConnID(i+1), fmt.Sprintf("user%d", i))
	}
	b.answerSeats(nil)
	b.pass(240_000) // the walk may be anywhere
	b.answerSeats(nil)
	b.forget()
	seen := map[string]int{}
	most := 0
	for range 960 { // 4 minutes
		b.pass(250)
		most = max(most, len(b.taken))
		for _, s := range b.taken {
			seen[s.User]++
		}
		b.answerSeats(nil)
	}
	if len(seen) != users || most > 4*users/960+10 {
		t.Fatalf("%d of %d were refreshed, %d at most in a step", len(seen), users, most)
	}
	for u, n := range seen {
		if n > 2 {
			t.Fatalf("%s %d times", u, n)
		}
	}
	for part := range 4 {
		if n, ok := b.counted[part]; !ok || n > users {
			t.Fatalf("partition %d was counted: %v, %d", part, ok, n)
		}
	}
}

// Leaving moves another seat into one's place in the list.
func TestRefreshPassesNobodyOver(t *testing.T) {
	const users = 400
	b := newBench(t, func(c *live.Config) { c.GraceMs = 1 })
	for i := range users {
		b.open(edge.ConnID(i+1), fmt.Sprintf("u%03d", i))
	}
	b.answerSeats(nil)
	last := map[string]int64{}
	for i := range users {
		last[fmt.Sprintf("u%03d", i)] = b.now
	}
	next := edge.ConnID(users)
	for step := range 4 * 960 {
		b.pass(250)
		for _, s := range b.taken {
			last[s.User] = b.now
		}
		b.answerSeats(nil)
		if step%3 == 0 { // somebody leaves, somebody comes
			gone := edge.ConnID(step/3%users + 1)
			if u := b.users[gone]; u != "" {
				b.close(gone)
				delete(last, u)
				next++
				u = fmt.Sprintf("v%03d", next)
				b.open(next, u)
				last[u] = b.now
			}
		}
		for u, at := range last {
			if b.now-at > 600_000 {
				t.Fatalf("%s was not refreshed for %d s: it expired", u, (b.now-at)/1000)
			}
		}
	}
}

func TestSeatsThatAreNobodysAreLeft(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.answerSeats(nil)
	b.forget()
	b.c.SeatsHeld(b.incarnation, len("alice")%4, []string{"alice", "ghost"}) // of one partition: 5 % 4
	b.c.Flush(b.now)
	b.want("leave ghost")
	b.answerSeats(nil)
	if s := b.c.Stats(); s.Online != 1 || s.Surplus != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestLostDataIsWrittenAgainPaced(t *testing.T) {
	const users = 1000
	b := newBench(t, func(c *live.Config) { c.RewritePerSecond = 500 })
	for i := range users {
		b.open(edge.ConnID(i+1), fmt.Sprintf("user%04d", i)) // all in one partition, of link 0
	}
	b.answerSeats(nil)
	part := len("user0000") % 4
	b.c.Canary(b.now, 0, 1, part, "epoch1")
	b.pass(1_000)
	b.answerSeats(nil)
	b.taken = nil
	b.c.Canary(b.now, 0, 1, part, "epoch2")
	b.pass(1_000)
	if n := len(b.taken); n < 400 || n > 600 {
		t.Fatalf("%d were written in the first second", n)
	}
	b.answerSeats(nil)
	b.pass(1_200)
	b.answerSeats(nil)
	if s := b.c.Stats(); s.Rewritten != users {
		t.Fatalf("%d were written again", s.Rewritten)
	}
}

// A primary that was promoted may lack what was written last.
func TestALinkMadeAgainWritesItsSeatsAgain(t *testing.T) {
	b := newBench(t)
	part := len("alice") % 4
	b.open(1, "alice")
	b.answerSeats(nil)
	b.c.Canary(b.now, 1, 1, part, "epoch1")
	b.c.Canary(b.now, 1, 1, part, "epoch1")
	b.pass(1_000)
	b.forget()
	b.c.LinkDown(1, 1)
	b.c.LinkUp(1, 2)
	b.c.Canary(b.now, 1, 2, part, "epoch1")
	b.c.Canary(b.now, 1, 2, part, "epoch1")
	b.pass(1_000)
	b.want("take alice 1")
}

func TestANewIDWritesEverythingAgain(t *testing.T) {
	b := newBench(t)
	b.open(1, "alice")
	b.open(2, "bob")
	b.answerSeats(nil)
	b.open(3, "carol") // her write is under way
	b.close(2)
	b.pass(5_000) // and so is bob's leaving
	b.forget()
	was := b.incarnation
	taken, left := b.taken, b.left
	b.taken, b.left = nil, nil
	b.c.Reborn(b.now)
	b.pass(100)
	b.want("take carol 1", "take alice 1")
	if b.incarnation == was {
		t.Fatal("the incarnation is the same")
	}
	// Answers to the earlier ID mean nothing.
	b.c.SeatDone(b.now, was, taken[0].User, false, errAway)
	b.c.SeatDone(b.now, was, left[0].User, true, nil)
	b.answerSeats(nil)
	b.pass(2_000)
	b.want()
	if s := b.c.Stats(); s.Online != 2 || s.InFlight != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAStormIsBoundedInFlight(t *testing.T) {
	b := newBench(t, func(c *live.Config) { c.SeatsInFlight = 10 })
	for i := range 100 {
		b.open(edge.ConnID(i+1), fmt.Sprintf("user%d", i))
	}
	if len(b.taken) != 10 {
		t.Fatalf("%d are under way", len(b.taken))
	}
	for range 10 {
		b.answerSeats(nil)
	}
	if s := b.c.Stats(); s.Taken != 100 || s.SeatQueue != 0 {
		t.Fatalf("%+v", s)
	}
}

// Whoever left before the first write is never mentioned.
func TestWhoWasNeverWrittenIsNotLeft(t *testing.T) {
	b := newBench(t, func(c *live.Config) { c.SeatsInFlight = 1 })
	b.open(1, "alice")
	b.open(2, "bob")
	b.close(2)
	b.pass(6_000)
	b.want("take alice 1")
	b.answerSeats(nil)
	b.want()
	if s := b.c.Stats(); s.Online != 1 {
		t.Fatalf("%+v", s)
	}
}
