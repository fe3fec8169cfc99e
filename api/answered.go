package api

import (
	"context"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// Answered is what a trace wants to know of a request: nothing of who sent it or
// what was in it.
type Answered struct {
	Method, Route string // Route is the pattern of the table, empty when none matched
	Status        int
	Began         time.Time
	Took          time.Duration
	Traceparent   string   // the caller's header, unchecked; empty for none
	Sending       *Sending // nil unless it got as far as the Store with a message
}

// Sending is what became of a message in the Store.
type Sending struct {
	Began, Ended time.Time
	Stored       bool // what follows is known
	Replayed     bool
	Room         string
	ID           protocol.ID
	// The round trip to Redis that brought the answer.
	WentOut, CameBack time.Time
}

const (
	traceparentHeader = "Traceparent" // in canonical form, as the server keeps it
	sendingKey        = "sending"     // of Gin's context
)

// sendTold is Store.Send, and leaves for OnAnswered what became of it.
func (a *API) sendTold(ctx context.Context, c *gin.Context, m chat.Send) (chat.Sent, error) {
	if a.answered == nil {
		return a.store.Send(ctx, m)
	}
	s := &Sending{Began: time.Now(), Room: m.Room}
	sent, err := a.store.Send(ctx, m)
	s.Ended = time.Now()
	if err == nil {
		s.Stored, s.Replayed, s.ID, s.WentOut, s.CameBack = true, sent.Replayed, sent.ID, sent.WentOut, sent.CameBack
	}
	c.Set(sendingKey, s)
	return sent, err
}

func (a *API) tellAnswered(c *gin.Context, began time.Time, took time.Duration) {
	told := Answered{Method: c.Request.Method, Route: c.FullPath(), Status: c.Writer.Status(), Began: began, Took: took}
	if values := c.Request.Header[traceparentHeader]; len(values) == 1 { // two contradict each other
		told.Traceparent = values[0]
	}
	if s, ok := c.Get(sendingKey); ok {
		told.Sending = s.(*Sending)
	}
	a.answered(told)
}
