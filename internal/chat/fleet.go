package chat

// Fleet judges which gateways are alive by their leases, as one observer sees
// them: a gateway is dead when its counter has stood still, or its lease has been
// missing, for DeadMs of the observer's own clock, counted only while Redis
// answered. A Redis that pauses, a clock that is stepped and an observer that
// sleeps therefore kill nobody. The zero Fleet has seen nobody; it is not safe
// for concurrent use.
type Fleet struct {
	// TrustAge takes a lease's age, by Redis's clock, for the silence before it
	// was seen first. For observers that only tell, and don't declare.
	TrustAge bool

	seen   map[string]*sighting
	lookMs int64 // when it looked last
	blind  bool  // Redis did not answer since
}

const (
	// DeadMs is how long a gateway may give no sign of life.
	DeadMs = 10_000
	// mostMs is the most that one look adds: of a longer time since the last look
	// nobody knows whether Redis answered all through it.
	mostMs = 2_000
)

type sighting struct {
	Lease
	silentMs int64 // for how long the counter has stood still
	looked   bool  // in the look that is under way
	had      bool  // a lease, once
}

// Look takes in the leases as they were read. now is a clock of the observer that
// is never stepped, in milliseconds.
func (f *Fleet) Look(now int64, leases []Lease) {
	passed := min(now-f.lookMs, mostMs)
	if f.blind || f.seen == nil {
		passed = 0
	}
	f.lookMs, f.blind = now, false
	if f.seen == nil {
		f.seen = map[string]*sighting{}
	}
	for _, l := range leases {
		s := f.seen[l.Gateway]
		switch {
		case s == nil:
			s = &sighting{Lease: l}
			if f.TrustAge {
				s.silentMs = l.AgeMs
			}
			f.seen[l.Gateway] = s
		case l.Counter != 0 && l.Counter != s.Counter:
			s.Lease, s.silentMs = l, 0
		default:
			s.silentMs += passed
			s.Counter = l.Counter
		}
		s.had = s.had || l.Counter != 0
		s.looked = true
	}
	for id, s := range f.seen {
		if !s.looked {
			delete(f.seen, id) // declared dead, and swept
		}
		s.looked = false
	}
}

// Missed takes in that Redis did not answer.
func (f *Fleet) Missed() { f.blind = true }

// Spare takes in that a gateway could not have given a sign of life: its silence
// counts from now on.
func (f *Fleet) Spare(gateway string) {
	if s := f.seen[gateway]; s != nil {
		s.silentMs = 0
	}
}

// Dead returns the leases of gateways that are dead, as they were seen.
func (f *Fleet) Dead() (dead []Lease) {
	for _, s := range f.seen {
		if s.silentMs >= DeadMs {
			dead = append(dead, s.Lease)
		}
	}
	return dead
}

// Knows says whether a gateway was there at the last look.
func (f *Fleet) Knows(gateway string) bool { return f.seen[gateway] != nil }

// Lives says whether a gateway is alive, as far as is known. One that was never
// seen with a lease is not.
func (f *Fleet) Lives(gateway string) bool {
	s := f.seen[gateway]
	return s != nil && s.had && s.silentMs < DeadMs
}

// Alive returns the leases of those that live.
func (f *Fleet) Alive() (alive []Lease) {
	for id, s := range f.seen {
		if f.Lives(id) {
			alive = append(alive, s.Lease)
		}
	}
	return alive
}
