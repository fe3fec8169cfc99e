package meter

import "fmt"

// Reasons counts what happened by why: failures, refusals, ends.
type Reasons map[string]uint64

// maxReasons bounds what a hostile or broken server can make us remember.
const maxReasons = 64

// Count counts one more.
func (r *Reasons) Count(reason string) {
	if *r == nil {
		*r = Reasons{}
	}
	if _, known := (*r)[reason]; !known && len(*r) >= maxReasons {
		reason = "other"
	}
	(*r)[reason]++
}

// Add adds what others counted.
func (r *Reasons) Add(o Reasons) {
	if *r == nil {
		*r = Reasons{}
	}
	for reason, n := range o {
		(*r)[reason] += n
	}
}

// Total is how many there are for all reasons.
func (r Reasons) Total() (total uint64) {
	for _, n := range r {
		total += n
	}
	return total
}

// Most is the most frequent one, in words; empty when there is none.
func (r Reasons) Most() string {
	most := ""
	for reason, n := range r {
		if n > r[most] || n == r[most] && reason < most {
			most = reason
		}
	}
	if r[most] == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%d times)", most, r[most])
}
