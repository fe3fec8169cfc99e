package follow

import "iter"

const (
	memberPageBits = 10
	memberPageSize = 1 << memberPageBits
)

// members holds the memberships there are, by number. It grows by pages, so that
// growing copies nothing and a *membership stays valid.
type members struct {
	pages []*[memberPageSize]membership
	used  uint32 // numbers that were ever given out
	free  []uint32
	// given is what was given back in this turn: whoever walks over memberships
	// may still come by it, and finds it dead.
	given []uint32
}

func (s *members) at(num uint32) *membership {
	return &s.pages[num>>memberPageBits][num&(memberPageSize-1)]
}

// each walks over the memberships of a list.
func (s *members) each(nums []uint32) iter.Seq[*membership] {
	return func(yield func(*membership) bool) {
		for _, num := range nums {
			if !yield(s.at(num)) {
				return
			}
		}
	}
}

func (s *members) take() (num uint32, m *membership) {
	if n := len(s.free); n > 0 {
		num, s.free = s.free[n-1], s.free[:n-1]
	} else {
		num = s.used
		s.used++
		if int(num>>memberPageBits) == len(s.pages) {
			s.pages = append(s.pages, new([memberPageSize]membership))
		}
	}
	return num, s.at(num)
}

func (s *members) len() int { return int(s.used) - len(s.free) - len(s.given) }

// give takes back a dead membership that no question has any more.
func (s *members) give(m *membership) {
	s.given = append(s.given, m.place)
}

// reuse ends a turn.
func (s *members) reuse() {
	s.free = append(s.free, s.given...)
	s.given = s.given[:0]
}
