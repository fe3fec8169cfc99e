package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// buffer is reused between requests, for a body that comes in and an answer that
// goes out. Nothing may keep a slice of it.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, smallBody)} }}

// maxPooledBytes keeps one large answer from staying in memory for good.
const maxPooledBytes = 128 << 10

func getBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) free() {
	if cap(b.b) <= maxPooledBytes {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// What this process holds of bodies that have not come whole is bounded, in all and for
// each user: else whoever has a token could fill the memory with halves. What was only
// announced does not count, as it costs nothing.
const (
	maxBodies = 64 << 20
	// userBodies is a user's part. It may be a bridge that sends for many: a thousand
	// requests at once of which the first packets have come.
	userBodies = maxBodies / 4
	// smallBody is up to where a body costs no more than its connection: it fits into
	// a buffer that was not made for it.
	smallBody = 2 << 10
)

var errBodies = &problem{status: http.StatusServiceUnavailable, code: protocol.ErrUnavailable, detail: "too many requests are under way that have not come whole; retry", retryAfter: 1}

var (
	errEmptyBody = malformed("a JSON object is needed as the body")
	errNotObject = malformed("the body must be a JSON object")
	errMediaType = &problem{status: http.StatusUnsupportedMediaType, code: protocol.ErrMediaType, detail: "the body must be application/json in UTF-8"}
	errEncoding  = &problem{status: http.StatusUnsupportedMediaType, code: protocol.ErrMediaType, detail: "a Content-Encoding is not accepted: send the body as it is"}
	errBodyLate  = &problem{status: http.StatusRequestTimeout, code: protocol.ErrMalformed, detail: "the body did not arrive in time"}
	errBodyCut   = malformed("the body ended before its length, or is badly chunked")
)

// readJSON reads the request's body into buf and decodes it into v, a pointer to
// a struct, strictly: unknown and repeated fields, invalid UTF-8, lone surrogates
// and anything behind the object are errors. Values in v don't refer to buf.
func (a *API) readJSON(c *gin.Context, by chat.Actor, buf *buffer, v any) error {
	if err := a.readBody(c, by, buf); err != nil {
		return err
	}
	return decodeObject(buf.b, v)
}

// readOptionalJSON is readJSON where no body at all is also good.
func (a *API) readOptionalJSON(c *gin.Context, by chat.Actor, buf *buffer, v any) error {
	if err := a.readJSON(c, by, buf, v); err != errEmptyBody { //nolint:errorlint // a value of ours, never wrapped
		return err
	}
	return nil
}

func (a *API) readBody(c *gin.Context, by chat.Actor, buf *buffer) error {
	r := c.Request
	limit := int64(a.limits.BodyBytes)
	switch {
	case r.ContentLength == 0:
		return errEmptyBody
	case !jsonMediaType(r.Header["Content-Type"]):
		return errMediaType
	case r.Header.Get("Content-Encoding") != "" && !strings.EqualFold(r.Header.Get("Content-Encoding"), "identity"):
		return errEncoding // a small body may become a huge one
	case r.ContentLength > limit:
		return a.tooLarge(c)
	}
	body := io.LimitReader(r.Body, limit+1)
	buf.b = buf.b[:0]
	counted := 0
	defer func() {
		if counted > 0 {
			a.bodies.add(by, -int64(counted))
		}
	}()
	for {
		if len(buf.b) == cap(buf.b) {
			buf.b = append(buf.b, 0)[:len(buf.b)]
		}
		n, err := body.Read(buf.b[len(buf.b):cap(buf.b)])
		buf.b = buf.b[:len(buf.b)+n]
		if err == nil {
			if len(buf.b) < smallBody {
				continue
			}
			if all, user := a.bodies.take(by, int64(len(buf.b)-counted)); all || user {
				a.abandonBody(c)
				return errBodies
			}
			counted = len(buf.b)
			continue
		}
		switch {
		case int64(len(buf.b)) > limit:
			return a.tooLarge(c)
		case err == io.EOF && len(buf.b) == 0: //nolint:errorlint // Readers return EOF itself
			return errEmptyBody
		case err == io.EOF: //nolint:errorlint // likewise
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errBodyLate
		}
		return errBodyCut
	}
}

// abandonBody ends the connection with the answer: net/http would otherwise wait
// for the rest of the body, to read and discard it, before it answers. It does so
// behind the answer, of what is not much. Over HTTP/2 it ends the stream by itself, and
// the connection has other requests on it.
func (a *API) abandonBody(c *gin.Context) {
	if c.Request.ProtoMajor > 1 {
		return
	}
	c.Writer.Header().Set("Connection", "close")
	waitBehind(c)
}

// passBody reads what is left of the body of a request that is refused, but not more than
// mostPassed, where that is the connection's last one: net/http does so with all others,
// and would close the socket of this with the rest unread.
func (a *API) passBody(c *gin.Context) {
	r := c.Request
	if r.ProtoMajor > 1 || !r.Close || r.Header.Get("Expect") != "" || c.Writer.Header().Get("Connection") != "" {
		return
	}
	if _, err := io.CopyN(io.Discard, r.Body, mostPassed); err == nil {
		waitBehind(c)
	}
}

// mostPassed is as much as net/http reads.
const mostPassed = 256 << 10

// waitBehind has the client half a second, behind the answer, to read it before the
// socket is closed: where bytes are unread that resets it, and takes the answer with it.
func waitBehind(c *gin.Context) {
	var w http.ResponseWriter = c.Writer
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = u.Unwrap()
	}
	// There is no other way to ask net/http for it.
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}

func (a *API) tooLarge(c *gin.Context) *problem {
	a.abandonBody(c)
	return &problem{status: http.StatusRequestEntityTooLarge, code: protocol.ErrTooLarge, detail: "the body may have " + strconv.Itoa(a.limits.BodyBytes) + " bytes"}
}

func jsonMediaType(values []string) bool {
	if len(values) != 1 {
		return false
	}
	if values[0] == contentJSON {
		return true
	}
	kind, params, err := mime.ParseMediaType(values[0])
	if err != nil || kind != contentJSON {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}

// strict is the only way bodies are decoded. The package refuses repeated names,
// invalid UTF-8 and names that differ in case by itself.
var strict = json.JoinOptions(json.RejectUnknownMembers(true))

func decodeObject(body []byte, v any) error {
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) > 0 && first[0] != '{' {
		return errNotObject // null would pass as an object without fields
	}
	if err := json.Unmarshal(body, v, strict); err != nil {
		return explain(err)
	}
	return nil
}

// explain says what is wrong with a body without repeating its values.
func explain(err error) *problem {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		if errors.Is(syntax.Err, jsontext.ErrDuplicateName) {
			return malformed("repeated field " + fieldName(syntax.JSONPointer))
		}
		return malformed("not valid JSON in UTF-8, at byte " + strconv.FormatInt(syntax.ByteOffset, 10))
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		if errors.Is(semantic.Err, json.ErrUnknownName) {
			return malformed("unknown field " + fieldName(semantic.JSONPointer))
		}
		return malformed("wrong type of " + fieldName(semantic.JSONPointer))
	}
	return malformed("not valid JSON in UTF-8")
}

// fieldName is a field's path for an error's detail, as short as a client needs.
func fieldName(p jsontext.Pointer) string {
	const longest = 64
	name := string(p)
	if name == "" {
		return "the body"
	}
	name = name[1:]
	if len(name) > longest {
		name = strings.ToValidUTF8(name[:longest], "") + "…"
	}
	return strconv.Quote(name)
}

// pathValue is a value of the path, percent-decoded.
func pathValue(c *gin.Context, name string) (string, error) {
	v := c.Param(name)
	if c.Request.URL.RawPath == "" {
		return v, nil // net/http has decoded the path
	}
	return url.PathUnescape(v)
}

const roomRule = "a room ID is 1-64 characters of A-Z a-z 0-9 . _ ~ -"

func pathRoom(c *gin.Context) (string, error) {
	room, err := pathValue(c, "room")
	if err != nil || !protocol.ValidRoom(room) {
		return "", invalid(roomRule)
	}
	return room, nil
}

func pathUser(c *gin.Context) (string, error) {
	name, err := pathValue(c, "user")
	if err != nil || !protocol.ValidUser(name) {
		return "", invalid(userRule)
	}
	return name, nil
}

// query reads the parameters that a route knows. Others, and repeated ones, are
// errors: a misspelt "befor" must not read the newest page again and again.
func query(c *gin.Context, known ...string) (url.Values, error) {
	if c.Request.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, malformed("the query is badly encoded")
	}
	seen := 0
	for _, name := range known {
		switch len(q[name]) {
		case 0:
		case 1:
			seen++
		default:
			return nil, invalid(name + " is given more than once")
		}
	}
	if seen != len(q) {
		return nil, invalid("unknown query parameter; known: " + strings.Join(known, ", "))
	}
	return q, nil
}

// limitOf reads ?limit=.
func limitOf(q url.Values, byDefault, most int) (int, error) {
	if !q.Has("limit") {
		return byDefault, nil
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > most {
		return 0, invalid("limit must be from 1 to " + strconv.Itoa(most))
	}
	return n, nil
}

// maxCursorBytes bounds a cursor: the longest is a user's name.
const maxCursorBytes = 512

// errCursor: cursors are opaque, and come from `next` only.
var errCursor = invalid("cursor: not one of ours")

func cursorOf(q url.Values) (string, error) {
	cursor := q.Get("cursor")
	if len(cursor) > maxCursorBytes {
		return "", errCursor
	}
	return cursor, nil
}
