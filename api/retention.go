package api

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
)

// Bounds of a room's retention: what fits into Redis's numbers and makes sense.
const (
	maxKeptMessages = 100_000_000
	maxKeptAgeS     = 100 * 366 * 24 * 3600
	maxKeptBytes    = 1 << 40
)

// PUT /v1/rooms/{room}/retention
func (a *API) setRetention(ctx context.Context, c *gin.Context, by chat.Actor) error {
	var in struct {
		Messages *int64 `json:"messages"`
		AgeS     *int64 `json:"age_s"`
		Bytes    *int64 `json:"bytes"`
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readJSON(c, by, buf, &in); err != nil {
		return err
	}
	r := chat.Retention{Messages: in.Messages, Bytes: in.Bytes}
	if in.AgeS != nil {
		if *in.AgeS < 0 || *in.AgeS > maxKeptAgeS {
			return invalid("age_s must be seconds, at most a hundred years; 0 for no limit")
		}
		ms := *in.AgeS * 1000
		r.AgeMs = &ms
	}
	if in.Messages != nil && (*in.Messages < 1 || *in.Messages > maxKeptMessages) {
		return invalid("messages must be 1 to 100,000,000")
	}
	if in.Bytes != nil && (*in.Bytes < 0 || *in.Bytes > maxKeptBytes) {
		return invalid("bytes must be at most 2^40; 0 for no limit")
	}
	return a.retain(ctx, c, by, r)
}

// DELETE /v1/rooms/{room}/retention
func (a *API) clearRetention(ctx context.Context, c *gin.Context, by chat.Actor) error {
	return a.retain(ctx, c, by, chat.Retention{})
}

// retain is for server keys: how long messages are kept is the team's to say, not
// a room's owner's.
func (a *API) retain(ctx context.Context, c *gin.Context, by chat.Actor, r chat.Retention) error {
	if !by.Server {
		return errServerOnly
	}
	room, err := pathRoom(c)
	if err != nil {
		return err
	}
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	if err := a.store.Retain(ctx, room, r); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}
