package balance

import (
	"testing"
	"time"
)

var conf = Config{Percent: 20}.WithDefaults()

// fleet plays rounds: everybody decides, and those who are asked go to whoever
// has the fewest.
type fleet struct {
	counts    []int
	deciders  []Balance
	now       time.Duration
	mostAsked int
	sticky    bool // they come back to where they were
}

func newFleet(counts ...int) *fleet {
	return &fleet{counts: counts, deciders: make([]Balance, len(counts))}
}

func (f *fleet) joins(n int) {
	f.counts = append(f.counts, n)
	f.deciders = append(f.deciders, Balance{})
}

func (f *fleet) round() (asked int) {
	f.now += conf.Every
	seen := append([]int(nil), f.counts...) // what the leases say
	for i := range f.counts {
		others := append(append([]int(nil), seen[:i]...), seen[i+1:]...)
		n := f.deciders[i].Next(f.now, f.counts[i], others, conf)
		asked += n
		f.mostAsked = max(f.mostAsked, n)
		if f.sticky {
			continue
		}
		for range n {
			least := 0
			for j, c := range f.counts {
				if c < f.counts[least] {
					least = j
				}
			}
			f.counts[i]--
			f.counts[least]++
		}
	}
	return asked
}

func TestNewcomerGetsItsShare(t *testing.T) {
	f := newFleet(9000, 9000)
	for range 5 {
		if n := f.round(); n != 0 {
			t.Fatalf("%d asked in a fleet that is even", n)
		}
	}
	f.joins(0)
	rounds := 0
	for f.counts[2] < 5300 {
		if rounds++; rounds > 100 {
			t.Fatalf("after %d rounds: %v", rounds, f.counts)
		}
		f.round()
	}
	if f.mostAsked > 180 { // 2 %
		t.Errorf("%d asked at once", f.mostAsked)
	}
	for range 50 {
		f.round()
	}
	if n := f.round(); n != 0 {
		t.Errorf("still asking: %v", f.counts)
	}
	for _, n := range f.counts {
		if n < 5300 || n > 6400 {
			t.Errorf("uneven in the end: %v", f.counts)
		}
	}
}

func TestWhatIsNormalMovesNobody(t *testing.T) {
	for name, counts := range map[string][]int{
		"alone":        {50_000},
		"even":         {1000, 1010, 990},
		"a bit uneven": {1150, 1000, 900},
		"small":        {90, 0, 0},
		"empty":        {0, 0},
	} {
		f := newFleet(counts...)
		for range 20 {
			if n := f.round(); n != 0 {
				t.Errorf("%s: %d asked", name, n)
			}
		}
	}
}

func TestOneRoundIsNoReason(t *testing.T) {
	f := newFleet(1000, 1000)
	f.joins(0)
	if n := f.round(); n != 0 {
		t.Errorf("%d asked at the first sight", n)
	}
	if n := f.round(); n == 0 {
		t.Error("nobody asked at the second")
	}
	f.counts[2] = 1000
	f.round()
	f.counts[2] = 0
	if n := f.round(); n != 0 {
		t.Errorf("%d asked at the first sight again", n)
	}
}

func TestThoseWhoComeBackAreLeftAlone(t *testing.T) {
	f := newFleet(1000, 0)
	f.sticky = true
	asked, rounds := 0, 0
	for ; f.now < restFor; rounds++ {
		asked += f.round()
	}
	if want := judgeAfter * 20; asked > want {
		t.Errorf("%d asked in %d rounds though all came back, want at most %d", asked, rounds, want)
	}
	if !f.deciders[0].Resting(f.now) {
		t.Error("it does not rest")
	}
	for range 4 {
		f.round()
	}
	f.sticky = false
	for f.now < 3*restFor {
		f.round()
	}
	if f.counts[1] < 400 {
		t.Errorf("never tried again: %v", f.counts)
	}
}

func TestOffIsOff(t *testing.T) {
	var b Balance
	for i := range 10 {
		if n := b.Next(time.Duration(i)*time.Second, 1000, []int{0}, Config{}.WithDefaults()); n != 0 {
			t.Fatalf("%d asked", n)
		}
	}
}
