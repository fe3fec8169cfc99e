package app

import (
	"slices"
	"sync"
)

// readiness is why a process should not get traffic. A reason is set under its
// owner's name and taken back with "".
type readiness struct {
	mu      sync.Mutex
	reasons map[string]string // guarded by mu
}

func (r *readiness) set(owner, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason == "" {
		delete(r.reasons, owner)
		return
	}
	if r.reasons == nil {
		r.reasons = map[string]string{}
	}
	r.reasons[owner] = reason
}

// list returns all reasons, sorted; none means ready.
func (r *readiness) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for owner, reason := range r.reasons {
		all = append(all, owner+": "+reason)
	}
	slices.Sort(all)
	return all
}
