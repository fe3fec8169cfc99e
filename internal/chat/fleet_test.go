package chat

import "testing"

// look is a look a second from second from to second to.
func look(f *Fleet, from, to int64, leases ...Lease) {
	for s := from; s <= to; s++ {
		f.Look(s*1000, leases)
	}
}

func wantDead(t *testing.T, f *Fleet, want int) {
	t.Helper()
	if got := len(f.Dead()); got != want {
		t.Fatalf("%d dead, want %d", got, want)
	}
}

func TestSilenceForTenSecondsIsDeath(t *testing.T) {
	var f Fleet
	look(&f, 1, 10, Lease{Gateway: "g", Counter: 1})
	wantDead(t, &f, 0)
	look(&f, 11, 11, Lease{Gateway: "g", Counter: 1})
	wantDead(t, &f, 1)
	if f.Lives("g") || len(f.Alive()) != 0 {
		t.Fatal("alive and dead")
	}
	look(&f, 12, 12, Lease{Gateway: "g", Counter: 2})
	wantDead(t, &f, 0)
	look(&f, 13, 13)
	if f.Lives("g") || f.Knows("g") {
		t.Fatal("out of the fleet, and known")
	}
}

func TestAMissingLeaseIsSilence(t *testing.T) {
	var f Fleet
	look(&f, 1, 5, Lease{Gateway: "g", Counter: 1})
	look(&f, 6, 10, Lease{Gateway: "g"})
	wantDead(t, &f, 0)
	if !f.Lives("g") {
		t.Fatal("a lease that expired while Redis was away kills")
	}
	look(&f, 11, 11, Lease{Gateway: "g"})
	wantDead(t, &f, 1)
}

func TestARedisThatDoesNotAnswerKillsNobody(t *testing.T) {
	var f Fleet
	look(&f, 1, 9, Lease{Gateway: "g", Counter: 1})
	f.Missed()
	look(&f, 60, 61, Lease{Gateway: "g", Counter: 1}) // the first looks before anybody renews
	wantDead(t, &f, 0)
}

func TestAnObserverThatSleptKillsNobody(t *testing.T) {
	var f Fleet
	look(&f, 1, 2, Lease{Gateway: "g", Counter: 1})
	look(&f, 3600, 3601, Lease{Gateway: "g", Counter: 1})
	wantDead(t, &f, 0)
}

func TestAnObserverThatOnlyTellsMayGoByTheAge(t *testing.T) {
	f := Fleet{TrustAge: true}
	f.Look(0, []Lease{{Gateway: "old", Counter: 1, AgeMs: 11_000}, {Gateway: "young", Counter: 1, AgeMs: 3000}, {Gateway: "none"}})
	if f.Lives("old") || !f.Lives("young") || f.Lives("none") {
		t.Fatal(f.Alive())
	}
}
