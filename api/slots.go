package api

import (
	"net/http"
	"sync"

	"github.com/madang-chat/madang/protocol"
)

// slots are the uploads that may be under way in this process, in all and of one
// user.
type slots struct {
	all, each int

	mu    sync.Mutex
	taken int            // guarded by mu
	users map[string]int // guarded by mu; of users who have one
}

func newSlots(all, each int) *slots {
	return &slots{all: all, each: each, users: make(map[string]int)}
}

var (
	errUploadsFull = &problem{status: http.StatusServiceUnavailable, code: protocol.ErrUnavailable, detail: "too many uploads are under way here; retry", retryAfter: 1}
	errUserUploads = &problem{status: http.StatusTooManyRequests, code: protocol.ErrRateLimited, detail: "too many uploads of this user are under way", retryAfter: 1}
)

// take takes a place for a user's upload, or says why there is none.
func (s *slots) take(user string) *problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.users[user] >= s.each:
		return errUserUploads
	case s.taken >= s.all:
		return errUploadsFull
	}
	s.taken++
	s.users[user]++
	return nil
}

func (s *slots) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.users[user]--; s.users[user] == 0 {
		delete(s.users, user)
	}
}
