package api

import (
	"context"
	"net/http"

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
	turns   chan struct{} // one is in it for each who reads now
	answers *held         // those that are being written
}

func newReads(answerBytes int64) *reads {
	return &reads{turns: make(chan struct{}, readTurns), answers: newHeld(answerBytes, answerBytes/userAnswers)}
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
	select {
	case r.turns <- struct{}{}:
		defer func() { <-r.turns }()
	case <-ctx.Done():
		return nil, errReadsFull
	}
	body, err := what()
	if err == nil {
		r.answers.add(by, int64(len(body)))
	}
	return body, err
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
