package api

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// Page sizes of the history.
const (
	defaultHistory = 50
	maxHistory     = 200
)

// GET /v1/rooms/{room}/messages. The log's bytes go out as they are.
func (a *API) history(ctx context.Context, c *gin.Context, by chat.Actor) ([]byte, error) {
	room, err := pathRoom(c)
	if err != nil {
		return nil, err
	}
	q, err := query(c, "before", "after", "limit")
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(q, defaultHistory, maxHistory)
	if err != nil {
		return nil, err
	}
	var after, before *protocol.ID
	switch {
	case q.Has("before") && q.Has("after"):
		return nil, invalid("either before or after, not both")
	case q.Has("after"):
		id, err := protocol.ParseID(q.Get("after"))
		if err != nil {
			return nil, invalid("after must be the ID of a message, or 0-0 for the beginning")
		}
		after = &id
	case q.Has("before"):
		id, err := protocol.ParseID(q.Get("before"))
		if err != nil || id.IsZero() { // to the Store, zero means the newest
			return nil, invalid("before must be the ID of a message")
		}
		before = &id
	default:
		before = &protocol.ID{}
	}
	messages, more, err := a.store.History(ctx, by, room, after, before, limit)
	if err != nil {
		return nil, err
	}
	size := 64
	for i := range messages {
		size += len(messages[i].Tail) + len(room) + 128
	}
	b := append(make([]byte, 0, size), `{"messages":[`...)
	for i := range messages {
		if i > 0 {
			b = append(b, ',')
		}
		m := &messages[i]
		b = protocol.AppendMessage(b, room, m.ID, m.Prev, m.N, m.Tail)
	}
	b = append(b, `],"more":`...)
	if more {
		b = append(b, `true}`...)
	} else {
		b = append(b, `false}`...)
	}
	return b, nil
}

// POST /v1/rooms/{room}/read
func (a *API) markRead(ctx context.Context, c *gin.Context, by chat.Actor) error {
	room, err := pathRoom(c)
	if err != nil {
		return err
	}
	var in struct {
		ID string `json:"id"`
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readJSON(c, by, buf, &in); err != nil {
		return err
	}
	id, err := protocol.ParseID(in.ID)
	if err != nil || id.IsZero() {
		return invalid("id must be the ID of a message")
	}
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	if err := a.store.MarkRead(ctx, by.User, room, id); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}
