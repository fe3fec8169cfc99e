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
	// userAnswers is the part of all answers that one user's may be: an eighth.
	userAnswers = 8
)

// reads bounds what reads take, whoever asks: of Redis, which makes what is read,
// and of this process, which holds an answer until its client has taken it.
type reads struct {
	turns     chan struct{} // one is in it for each who reads now
	all, each int64

	mu    sync.Mutex
	held  int64            // guarded by mu: bytes of answers that are being written
	users map[string]int64 // guarded by mu: likewise, of users who have some
}

func newReads(answerBytes int64) *reads {
	return &reads{
		turns: make(chan struct{}, readTurns), all: answerBytes, each: answerBytes / userAnswers,
		users: make(map[string]int64),
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
		defer a.reads.taken(by, len(body))
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
	select {
	case r.turns <- struct{}{}:
		defer func() { <-r.turns }()
	case <-ctx.Done():
		return nil, errReadsFull
	}
	body, err := what()
	if err == nil {
		r.hold(by, int64(len(body)))
	}
	return body, err
}

func (r *reads) taken(by chat.Actor, n int) { r.hold(by, -int64(n)) }

// full says whether there is too much already. A server key's reads are those of
// many users.
func (r *reads) full(by chat.Actor) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !by.Server && r.users[by.User] >= r.each:
		return errUserReads
	case r.held >= r.all:
		return errReadsFull
	}
	return nil
}

func (r *reads) hold(by chat.Actor, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held += n
	if by.Server {
		return
	}
	if r.users[by.User] += n; r.users[by.User] == 0 {
		delete(r.users, by.User)
	}
}
