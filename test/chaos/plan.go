package main

import (
	"math/rand/v2"
	"strings"
)

// step is what goes wrong at one time.
type step struct {
	faults []fault
	seed   uint64 // of what the faults decide
}

func (s step) name() string {
	names := make([]string, len(s.faults))
	for i, f := range s.faults {
		names[i] = f.name
	}
	return strings.Join(names, " + ")
}

// plan deals out steps without end: every kind once in a random order, then every
// kind again and so on. After the first round, every third step is several faults
// at once, of different sorts: two failures of Redis at the same time are more
// than one replica's acknowledgement promises to survive.
type plan struct {
	rng   *rand.Rand
	kinds []fault
	deck  []fault
	dealt int
}

func newPlan(seed uint64, kinds []fault) *plan {
	return &plan{rng: rand.New(rand.NewPCG(seed, 2)), kinds: kinds}
}

func (p *plan) next() step {
	s := step{seed: p.rng.Uint64(), faults: []fault{p.deal()}}
	p.dealt++
	if p.dealt > len(p.kinds) && p.dealt%3 == 0 {
		for range 1 + p.rng.IntN(2) {
			if f := p.deal(); s.allows(f) {
				s.faults = append(s.faults, f)
			}
		}
	}
	return s
}

func (s step) allows(f fault) bool {
	for _, g := range s.faults {
		if f.strikes == g.strikes || f.strikes == everything || g.strikes == everything {
			return false
		}
	}
	return true
}

func (p *plan) deal() fault {
	if len(p.deck) == 0 {
		for _, i := range p.rng.Perm(len(p.kinds)) {
			p.deck = append(p.deck, p.kinds[i])
		}
	}
	f := p.deck[0]
	p.deck = p.deck[1:]
	return f
}
