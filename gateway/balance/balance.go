// Package balance decides how many clients a gateway asks to move elsewhere,
// after others have joined the fleet: what a balancer that spreads connections
// can't do, because connections stay where they are. It is pure: counts and times
// go in, a number comes out. The gateway that asks reads the counts from the
// fleet's leases, which are a few seconds old, so it asks few at a time and looks
// again.
package balance

import (
	"cmp"
	"time"
)

// Config says when a gateway has too many connections and how fast it lets go of
// them.
type Config struct {
	// Percent above the fleet's mean is too many; 0: nobody is ever asked.
	Percent int
	// Excess is how many connections above the mean matter at all. Default 100.
	Excess int
	// Every is the time between two rounds. It should not be less than leases take
	// to tell what the last one did. Default 5 s.
	Every time.Duration
}

const (
	// calmPercent above the mean is where a gateway that has begun leaves off.
	calmPercent = 5
	// roundShare of the excess, and roundPercent of the connections, are asked in
	// one round at most.
	roundShare, roundPercent = 4, 2
	// patience is how many rounds in a row it must be too many: one that has just
	// started may not be ready, one that has just left may still be counted.
	patience = 2
	// judgeAfter rounds it must have helped, or those who are asked come back (a
	// balancer that goes by their address): then it rests.
	judgeAfter = 6
	restFor    = 10 * time.Minute
)

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	c.Excess = cmp.Or(c.Excess, 100)
	c.Every = cmp.Or(c.Every, 5*time.Second)
	return c
}

// Balance is one gateway's decisions. Zero to begin with.
type Balance struct {
	over   int // rounds in a row with too many
	rounds int // of the present episode; 0: none
	began  int // connections at its beginning
	asked  int // in it
	rested time.Duration
}

// Next is one round: own connections, and those of the others that stay. It
// returns how many to ask. now is any clock that does not go back.
func (b *Balance) Next(now time.Duration, own int, others []int, c Config) int {
	if c.Percent <= 0 || len(others) == 0 {
		*b = Balance{rested: b.rested}
		return 0
	}
	sum := own
	for _, n := range others {
		sum += n
	}
	mean := sum / (1 + len(others))
	excess := own - mean
	limit := max(mean*c.Percent/100, c.Excess)
	if b.rounds > 0 { // having begun, it goes on until it is good
		limit = min(limit, mean*min(calmPercent, c.Percent)/100)
	}
	switch {
	case now < b.rested:
		return 0
	case excess <= limit:
		*b = Balance{}
		return 0
	}
	if b.over++; b.over < patience {
		return 0
	}
	if b.rounds == 0 {
		b.began = own
	}
	if b.rounds >= judgeAfter && b.began-own < b.asked/4 {
		*b = Balance{rested: now + restFor}
		return 0
	}
	b.rounds++
	move := max(1, min(excess/roundShare, own*roundPercent/100))
	b.asked += move
	return move
}

// Resting says whether asking was given up for a while because it did not help.
func (b *Balance) Resting(now time.Duration) bool { return now < b.rested }
