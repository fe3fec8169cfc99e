package api

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/oklog/ulid/v2"
)

// requestIDHeader is in canonical form, so that header maps can be indexed.
const requestIDHeader = "X-Request-Id"

// enter is around everything: it gives the request its ID, sets the headers that
// every answer has, keeps a panic from ending the process, counts and logs.
func (a *API) enter(c *gin.Context) {
	start := time.Now()
	id := c.Request.Header.Get(requestIDHeader)
	if !validRequestID(id) {
		id = newULID(start)
	}
	h := c.Writer.Header()
	h[requestIDHeader] = []string{id}
	h["X-Content-Type-Options"] = nosniff
	h["Cache-Control"] = noStore

	defer func() {
		p := recover()
		if p != nil {
			a.panicked(c, p)
		}
		took := time.Since(start)
		a.observer.Request(c.Request.Method, c.FullPath(), c.Writer.Status(), took)
		if a.answered != nil {
			a.tellAnswered(c, start, took)
		}
		if a.log.Enabled(c.Request.Context(), slog.LevelDebug) {
			a.logAccess(c, id, took)
		}
		if p != nil && c.Writer.Written() && c.Writer.Header().Get("Content-Type") != contentProblem {
			panic(http.ErrAbortHandler) // half an answer is out: the client must not take it for whole
		}
	}()
	c.Next()
}

// Header values that all answers share; never written to.
var (
	nosniff = []string{"nosniff"}
	noStore = []string{"no-store"}
)

// panicked answers a request whose handler panicked. http.ErrAbortHandler is no
// accident: it says that the connection is to be closed.
func (a *API) panicked(c *gin.Context, p any) {
	if p == http.ErrAbortHandler { //nolint:errorlint // it is panicked with as it is
		panic(p)
	}
	a.log.Error("BUG: panic in a handler", "request_id", requestID(c), "method", c.Request.Method, "route", c.FullPath(),
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if !c.Writer.Written() {
		a.fail(c, errInternal)
	}
}

// logAccess leaves out the query and the headers: they may hold what is not for
// a log.
func (a *API) logAccess(c *gin.Context, id string, took time.Duration) {
	a.log.LogAttrs(c.Request.Context(), slog.LevelDebug, "request",
		slog.String("request_id", id), slog.String("method", c.Request.Method), slog.String("path", c.Request.URL.Path),
		slog.Int("status", c.Writer.Status()), slog.Int("bytes", c.Writer.Size()), slog.Duration("took", took), slog.String("client", c.ClientIP()))
}

// requestID is the ID that enter gave the request.
func requestID(c *gin.Context) string { return c.Writer.Header()[requestIDHeader][0] }

// validRequestID says whether a client's own ID is taken over: what can go into
// any log, header and shell unescaped.
func validRequestID(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// newULID makes an ID for a request, a room or a message's key. math/rand/v2 is
// ChaCha8, seeded by the system and without a lock; none of these is a secret.
func newULID(now time.Time) string {
	var id ulid.ULID
	_ = id.SetTime(uint64(now.UnixMilli())) // fails after the year 10889
	hi, lo := rand.Uint64(), rand.Uint32()
	for i := range 6 {
		id[6+i] = byte(hi >> (8 * i))
	}
	for i := range 4 {
		id[12+i] = byte(lo >> (8 * i))
	}
	return id.String()
}
