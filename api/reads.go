package api

import (
	"context"
	"net/http"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

const (
	// readTurns is how many reads are asked of Redis at once. Each may have it make
	// a mebibyte, and this process hold some four while it reads that and encodes it
	// (for one who is in 10,000 rooms twice that). More piles up there; with fewer,
	// reads wait for each other's round trips.
	readTurns = 64
	// userReads is the part of all turns, and of all answers, that one user's may be: an
	// eighth. What else one asks for waits, and nobody else behind it.
	userReads = 8
)

// reads bounds what reads take, whoever asks: of Redis, which makes what is read,
// and of this process, which holds an answer until its client has taken it.
type reads struct {
	turns   chan struct{} // one is in it for each who reads now
	answers *held         // those that are being written

	mu  sync.Mutex
	own map[string]*ownTurns // guarded by mu; of users who read now, or wait for it
}

// ownTurns are one user's.
type ownTurns struct {
	turns chan struct{} // as reads.turns
	asked int           // guarded by reads.mu: reads that know of it
}

func newReads(answerBytes int64) *reads {
	return &reads{
		turns: make(chan struct{}, readTurns), answers: newHeld(answerBytes, answerBytes/userReads),
		own: make(map[string]*ownTurns),
	}
}

var (
	errReadsFull = &problem{status: http.StatusServiceUnavailable, code: protocol.ErrUnavailable, detail: "too much is being read here; retry", retryAfter: 1}
	errUserReads = &problem{status: http.StatusTooManyRequests, code: protocol.ErrRateLimited, detail: "the user has to take the answers that are under way", retryAfter: 1}
)

// read makes a handler of one that answers with what it has read, which may be
// much.
func read(what func(a *API, ctx context.Context, c *gin.Context, by chat.Actor) (body []byte, err error)) handler {
	return func(a *API, ctx context.Context, c *gin.Context, by chat.Actor) error {
		body, err := a.reads.take(ctx, by, func() ([]byte, error) { return what(a, ctx, c, by) })
		if err != nil {
			return err
		}
		defer a.reads.answers.add(by, -int64(len(body)))
		write(c, http.StatusOK, contentJSON, body)
		return nil
	}
}

// take reads when its turn comes, and says why not if it doesn't. What it returns
// counts until it is taken.
func (r *reads) take(ctx context.Context, by chat.Actor, what func() ([]byte, error)) ([]byte, error) {
	if err := r.full(by); err != nil {
		return nil, err
	}
	if !by.Server { // whose reads are those of many users
		own := r.enter(by.User)
		defer r.leave(by.User, own)
		if !turn(ctx, own.turns) {
			return nil, errReadsFull
		}
		defer func() { <-own.turns }()
	}
	if !turn(ctx, r.turns) {
		return nil, errReadsFull
	}
	defer func() { <-r.turns }()
	if err := r.full(by); err != nil { // it may have become so meanwhile
		return nil, err
	}
	body, err := what()
	if err == nil {
		r.answers.add(by, int64(len(body)))
	}
	return body, err
}

// turn waits for one of turns, unless there is none in time.
func turn(ctx context.Context, turns chan struct{}) bool {
	select {
	case turns <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// enter is a user's turns, until leave.
func (r *reads) enter(user string) *ownTurns {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.own[user]
	if own == nil {
		own = &ownTurns{turns: make(chan struct{}, readTurns/userReads)}
		r.own[user] = own
	}
	own.asked++
	return own
}

func (r *reads) leave(user string, own *ownTurns) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own.asked--; own.asked == 0 {
		delete(r.own, user)
	}
}

// full says whether there is too much already.
func (r *reads) full(by chat.Actor) error {
	switch all, user := r.answers.full(by); {
	case user:
		return errUserReads
	case all:
		return errReadsFull
	}
	return nil
}
