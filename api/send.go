package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// POST /v1/rooms/{room}/messages. The hottest route: its answer is assembled,
// not encoded, and its input is read into a buffer that is used again.
func (a *API) send(ctx context.Context, c *gin.Context, by chat.Actor) error {
	start := time.Now()
	sent, err := a.sendMessage(ctx, c, by, start)
	a.observer.Send(outcomeOf(sent, err), time.Since(start))
	return err
}

func (a *API) sendMessage(ctx context.Context, c *gin.Context, by chat.Actor, now time.Time) (sent chat.Sent, err error) {
	room, err := pathRoom(c)
	if err != nil {
		return sent, err
	}
	key, err := idempotencyKey(c, now)
	if err != nil {
		return sent, err
	}
	keyed := len(c.Request.Header["Idempotency-Key"]) > 0
	// Over the limit, only a retry of what was accepted is answered, by the same
	// round trip (DELIVERY S1). Without a key of the client's it can't be one.
	limited := a.overRate(by, now)
	if limited != nil && !keyed {
		return sent, limited
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readBody(c, by, buf); err != nil {
		return sent, err
	}
	m, err := parseMessage(buf.b, a.limits.TextChars)
	if err != nil {
		return sent, err
	}
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	// The tail is the Store's: it may still be writing it to Redis when our
	// deadline has passed, so it is not taken from a pool.
	tail, hash := m.appendTail(make([]byte, 0, len(buf.b)+len(by.User)+len(key)+96), by.User, now, key)
	send := chat.Send{Room: room, By: by, Key: key, Hash: hash, Tail: tail, ReplayOnly: limited != nil}
	if len(m.Attachments) > 0 && limited == nil {
		sent, err = a.sendAttached(ctx, c, send, m.Attachments, keyed)
	} else {
		sent, err = a.sendTold(ctx, c, send)
	}
	if limited != nil && errors.Is(err, chat.ErrLimited) {
		return sent, limited
	}
	if err != nil {
		return sent, err
	}
	if sent.Tail == nil { // the log has it no more; its body is the same, and its ID says when
		sent.Tail, _ = m.appendTail(nil, by.User, time.UnixMilli(int64(sent.ID.Ms)), key)
	}
	// Under a key of ours it was the Store that asked twice, as its connection broke.
	sent.Replayed = sent.Replayed && keyed
	status := http.StatusCreated
	if sent.Replayed {
		status = http.StatusOK
		c.Writer.Header()["Idempotent-Replayed"] = []string{"true"}
	}
	b := protocol.AppendMessage(buf.b[:0], room, sent.ID, sent.Prev, sent.N, sent.Tail)
	b = append(b[:len(b)-1], `,"durability":"`...) // over the closing brace
	b = append(b, sent.Durability...)
	b = append(b, `"}`...)
	buf.b = b
	write(c, status, contentJSON, b)
	return sent, nil
}

// sendAttached lets the room see the files before it gets the message. A key of the
// client's is looked up before: what was accepted with it is answered even when its
// files are gone, and what it is refused for shares none.
func (a *API) sendAttached(ctx context.Context, c *gin.Context, send chat.Send, files []string, keyed bool) (chat.Sent, error) {
	if keyed {
		send.ReplayOnly = true
		if sent, err := a.sendTold(ctx, c, send); !errors.Is(err, chat.ErrLimited) {
			return sent, err
		}
		send.ReplayOnly = false
	}
	if err := a.attach(ctx, send.By, send.Room, files); err != nil {
		return chat.Sent{}, err
	}
	return a.sendTold(ctx, c, send)
}

// overRate takes one of what a user may send, and says so when there is none left.
func (a *API) overRate(by chat.Actor, now time.Time) *problem {
	if a.sends == nil || by.Server {
		return nil
	}
	wait := a.sends.take(by.User, now)
	if wait <= 0 {
		return nil
	}
	return &problem{
		status: http.StatusTooManyRequests, code: protocol.ErrRateLimited, detail: "too many messages, or new rooms, from this user",
		retryAfter: int((wait + time.Second - 1) / time.Second),
	}
}

// idempotencyKey is the client's key, or one of ours: every message has one, so
// that receivers can recognize a message that was sent twice.
func idempotencyKey(c *gin.Context, now time.Time) (string, error) {
	values := c.Request.Header["Idempotency-Key"]
	if len(values) == 0 {
		return newULID(now), nil
	}
	if len(values) > 1 || !protocol.ValidKey(values[0]) {
		return "", invalid("Idempotency-Key must be 1-128 printable ASCII characters, once")
	}
	return values[0], nil
}

func outcomeOf(sent chat.Sent, err error) string {
	if err == nil {
		if sent.Replayed {
			return SendReplayed
		}
		return SendAccepted
	}
	switch p, _ := problemFor(err); {
	case errors.Is(err, context.Canceled):
		return SendRefused // the client went away
	case p.status == http.StatusTooManyRequests:
		return SendLimited
	case p.status < http.StatusInternalServerError:
		return SendRefused
	case p == errInternal:
		return SendFailed
	}
	return SendUnavailable
}
