package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// problem is an error for the client: RFC 9457 with our stable code. Only its
// detail reaches the client; anything else that goes wrong becomes "internal".
type problem struct {
	status     int
	code       protocol.ErrorCode
	detail     string
	retryAfter int    // seconds; 0: no Retry-After
	challenge  string // WWW-Authenticate of a 401
}

func (p *problem) Error() string { return string(p.code) + ": " + p.detail }

func malformed(detail string) *problem {
	return &problem{status: http.StatusBadRequest, code: protocol.ErrMalformed, detail: detail}
}

func invalid(detail string) *problem {
	return &problem{status: http.StatusBadRequest, code: protocol.ErrInvalid, detail: detail}
}

func forbidden(detail string) *problem {
	return &problem{status: http.StatusForbidden, code: protocol.ErrForbidden, detail: detail}
}

var (
	errNoRoute  = &problem{status: http.StatusNotFound, code: protocol.ErrNotFound, detail: "there is nothing at this path; /openapi.json lists what there is"}
	errNoMethod = &problem{status: http.StatusMethodNotAllowed, code: protocol.ErrMethod, detail: "the path does not have this method; see Allow"}
	errInternal = &problem{status: http.StatusInternalServerError, code: protocol.ErrInternal, detail: "something went wrong on our side; the log has the request ID"}
	errUnavail  = &problem{status: http.StatusServiceUnavailable, code: protocol.ErrUnavailable, detail: "the store does not answer; retry, a send with the same Idempotency-Key", retryAfter: 1}
)

// outcomes is what becomes of the Store's answers.
var outcomes = []struct {
	err     error
	problem *problem
}{
	{chat.ErrNoRoom, &problem{status: http.StatusNotFound, code: protocol.ErrRoomNotFound, detail: "there is no such room"}},
	{chat.ErrNotMember, forbidden("not a member of the room")},
	{chat.ErrNotAllowed, forbidden("the role in the room does not allow it")},
	{chat.ErrNoMember, &problem{status: http.StatusNotFound, code: protocol.ErrNotFound, detail: "the user is not a member of the room"}},
	{chat.ErrRoomExists, &problem{status: http.StatusConflict, code: protocol.ErrRoomExists, detail: "there is a room with this ID"}},
	{chat.ErrKeyReused, &problem{status: http.StatusConflict, code: protocol.ErrKeyReused, detail: "this Idempotency-Key was used for another message in this room"}},
	{chat.ErrRoomFull, &problem{status: http.StatusConflict, code: protocol.ErrRoomFull, detail: "the room has as many members as it may"}},
	{chat.ErrTooMany, &problem{status: http.StatusConflict, code: protocol.ErrTooManyRooms, detail: "the user is in as many rooms as one may be"}},
	{chat.ErrRoomBusy, &problem{status: http.StatusTooManyRequests, code: protocol.ErrRoomBusy, detail: "the room's readers have fallen behind; retry later with the same Idempotency-Key", retryAfter: 1}},
	{chat.ErrNoAttachment, &problem{status: http.StatusNotFound, code: protocol.ErrNoAttachment, detail: "there is no such attachment; one that no message names is kept for a while only"}},
	{chat.ErrAttachmentHidden, forbidden("the attachment is another's, and in no room of the user")},
	{chat.ErrAttachmentRooms, &problem{status: http.StatusConflict, code: protocol.ErrAttachmentRooms, detail: "the attachment was sent to as many rooms as one may be; upload it again"}},
	{chat.ErrBadPosition, invalid("the position is not in the room's log")},
	{chat.ErrNotReplicated, &problem{status: http.StatusServiceUnavailable, code: protocol.ErrNotReplicated, detail: "stored, but not on enough replicas in time; retry, a send with the same Idempotency-Key", retryAfter: 1}},
	{chat.ErrStorageFull, &problem{status: http.StatusInsufficientStorage, code: protocol.ErrStorageFull, detail: "the store takes no more writes", retryAfter: 5}},
	{blob.ErrFull, &problem{status: http.StatusInsufficientStorage, code: protocol.ErrStorageFull, detail: "there is no room for more files", retryAfter: 60}},
	{blob.ErrUnavailable, &problem{status: http.StatusServiceUnavailable, code: protocol.ErrUnavailable, detail: "the store of files does not answer; retry", retryAfter: 1}},
	{chat.ErrUnavailable, errUnavail},
	{context.DeadlineExceeded, errUnavail},
	{context.Canceled, errUnavail}, // the client went away: nobody reads it
}

// problemFor says what the client is told of err; ours is true when that is less
// than there is to say.
func problemFor(err error) (p *problem, ours bool) {
	if errors.As(err, &p) {
		return p, false
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return o.problem, o.problem.status >= http.StatusInternalServerError
		}
	}
	return errInternal, true
}

// fail answers with a problem, and logs what the client isn't told.
func (a *API) fail(c *gin.Context, err error) {
	p, ours := problemFor(err)
	id := requestID(c)
	if ours && c.Request.Context().Err() == nil {
		level := slog.LevelWarn // Redis is away: thousands of these say the same
		if p == errInternal {
			level = slog.LevelError
		}
		a.log.LogAttrs(c.Request.Context(), level, "request failed", slog.String("request_id", id),
			slog.String("method", c.Request.Method), slog.String("route", c.FullPath()), slog.String("code", string(p.code)), slog.Any("err", err))
	}
	h := c.Writer.Header()
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.challenge != "" {
		h.Set("Www-Authenticate", p.challenge)
	}
	a.passBody(c)
	c.Abort()
	write(c, p.status, contentProblem, p.appendTo(make([]byte, 0, 384), id))
}

// problemTypes prefixes the code in a problem's type. A URN, because where the
// documentation is served differs from one deployment to the next.
const problemTypes = "urn:madang:problem:"

func (p *problem) appendTo(dst []byte, requestID string) []byte {
	dst = append(dst, `{"type":`...)
	dst = protocol.AppendString(dst, problemTypes+string(p.code))
	dst = append(dst, `,"title":`...)
	dst = protocol.AppendString(dst, http.StatusText(p.status))
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(p.status), 10)
	dst = append(dst, `,"detail":`...)
	dst = protocol.AppendString(dst, p.detail)
	dst = append(dst, `,"code":`...)
	dst = protocol.AppendString(dst, string(p.code))
	dst = append(dst, `,"request_id":`...)
	dst = protocol.AppendString(dst, requestID)
	return append(dst, '}')
}
