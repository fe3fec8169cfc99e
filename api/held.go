package api

import (
	"sync"

	"github.com/madang-chat/madang/internal/chat"
)

// held counts what this process holds for clients, in all and for each user: bytes, or
// places. What is a server key's is that of many users.
type held struct {
	all, each int64

	mu    sync.Mutex
	total int64            // guarded by mu
	users map[string]int64 // guarded by mu; of users who have some
}

func newHeld(all, each int64) *held {
	return &held{all: all, each: each, users: make(map[string]int64)}
}

// full says whether there is too much already, in all or for one user.
func (h *held) full(by chat.Actor) (all, user bool) { return h.take(by, 0) }

// take counts n more, unless there is too much already.
func (h *held) take(by chat.Actor, n int64) (all, user bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all, user = h.total >= h.all, !by.Server && h.users[by.User] >= h.each
	if !all && !user {
		h.count(by, n)
	}
	return all, user
}

// add counts n more, or less.
func (h *held) add(by chat.Actor, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count(by, n)
}

func (h *held) count(by chat.Actor, n int64) {
	h.total += n
	if by.Server {
		return
	}
	if h.users[by.User] += n; h.users[by.User] == 0 {
		delete(h.users, by.User)
	}
}
