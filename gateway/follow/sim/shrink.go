package sim

import "slices"

// Shrink leaves steps out of a schedule that breaks a promise as long as it
// still breaks the same one, and returns what is left.
func Shrink(s Schedule, newCore NewCore, rule string) Schedule {
	fails := func(s Schedule) bool {
		v := Run(s, newCore, nil, nil)
		return v != nil && v.Rule == rule
	}
	for again := true; again; {
		again = false
		for size := len(s.Steps) / 2; size > 0; size /= 2 {
			for at := 0; at+size <= len(s.Steps); {
				less := s
				less.Steps = slices.Delete(slices.Clone(s.Steps), at, at+size)
				if fails(less) {
					s, again = less, true
				} else {
					at += size
				}
			}
		}
	}
	return s
}
