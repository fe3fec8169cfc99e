package api

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// inlineTypes are what a browser may show where it stands. Anything else is
// saved, not opened: HTML, SVG and PDF can hold scripts.
var inlineTypes = map[string]bool{"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true}

// filePolicy makes a page of what is opened all the same unable to do anything.
const filePolicy = "default-src 'none'; frame-ancestors 'none'; sandbox"

// downloadStall is how long a client may take nothing of a file.
const downloadStall = 30 * time.Second

var errRange = &problem{status: http.StatusRequestedRangeNotSatisfiable, code: protocol.ErrRange, detail: "the file ends before the range begins"}

// serve answers with a file, or the part of it that was asked for, and returns
// how much went out. cut: that is not all, and it is too late for a problem.
func serve(c *gin.Context, known chat.Attachment, content io.ReadSeeker) (sent int64, cut bool, err error) {
	kind := "attachment"
	if inlineTypes[known.ContentType] {
		kind = "inline"
	}
	h := c.Writer.Header()
	h.Set("Content-Type", known.ContentType)
	h.Set("Content-Disposition", disposition(kind, known.Name))
	h.Set("Content-Security-Policy", filePolicy)
	h.Set("Etag", `"`+known.SHA256+`"`)
	// A browser asks each time whether it still may: that costs a 304.
	h.Set("Cache-Control", "private, no-cache")
	plainRange(c.Request.Header)

	w := &downloading{ResponseWriter: c.Writer, control: http.NewResponseController(c.Writer)}
	from := &watched{ReadSeeker: content}
	http.ServeContent(w, c.Request, "", time.Time{}, from)
	switch {
	case w.begun:
		return w.sent, from.err != nil, from.err
	case w.status == http.StatusRequestedRangeNotSatisfiable:
		err = errRange
	case from.err != nil:
		h.Del("Content-Range")
		err = from.err
	case w.status >= http.StatusBadRequest:
		h.Del("Content-Range")
		err = fmt.Errorf("BUG: serving a file ended with %d", w.status)
	default:
		w.begin()
	}
	if err != nil {
		for _, name := range []string{"Content-Disposition", "Content-Length", "Etag", "Accept-Ranges"} {
			h.Del(name)
		}
		h["Cache-Control"] = noStore
	}
	return w.sent, false, err
}

// plainRange leaves the conditions that ServeContent is to look at: one range at
// most, and only where it is well formed, as RFC 9110 allows.
func plainRange(h http.Header) {
	h.Del("If-Match")
	h.Del("If-Unmodified-Since")
	spec, ok := strings.CutPrefix(h.Get("Range"), "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash || from+to == "" || strings.Trim(from+to, "0123456789") != "" || len(from) > 18 || len(to) > 18 ||
		from != "" && to != "" && (len(from) > len(to) || len(from) == len(to) && from > to) {
		h.Del("Range")
	} else if from == "" && strings.Trim(to, "0") == "" {
		h.Set("Range", beyondAll) // the last 0 bytes: ServeContent would answer with a part of none
	}
}

// beyondAll is a range that no file satisfies.
const beyondAll = "bytes=999999999999999999-"

// downloading is the answer that ServeContent writes. It begins with the first
// byte, so that what fails before is still answered with a problem, and goes on
// as long as the client takes something.
type downloading struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	begun   bool
	sent    int64
	last    time.Time
}

func (w *downloading) WriteHeader(status int) { w.status = status }

func (w *downloading) begin() {
	w.begun = true
	w.ResponseWriter.WriteHeader(w.status)
}

func (w *downloading) Write(b []byte) (int, error) {
	if w.status >= http.StatusBadRequest {
		return len(b), nil // a problem is written instead
	}
	if !w.begun {
		w.begin()
	}
	if now := time.Now(); now.Sub(w.last) > time.Second {
		w.last = now
		_ = w.control.SetWriteDeadline(now.Add(downloadStall)) // tests' recorders have none
	}
	n, err := w.ResponseWriter.Write(b)
	w.sent += int64(n)
	return n, err
}

// watched remembers what ServeContent keeps to itself.
type watched struct {
	io.ReadSeeker
	err error
}

func (r *watched) Read(b []byte) (int, error) {
	n, err := r.ReadSeeker.Read(b)
	if err != nil && err != io.EOF { //nolint:errorlint // Readers return EOF itself
		r.err = err
	}
	return n, err
}
