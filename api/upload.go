package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gabriel-vasile/mimetype"

	"github.com/madang-chat/madang/protocol"
)

// Bounds of an upload besides the file's.
const (
	// maxUploadHead is what may stand before the file's first byte: a boundary and
	// the part's head, with a name of 1 KiB and what browsers add.
	maxUploadHead = 16 << 10
	// maxUploadEnd is what may stand behind its last: the final boundary.
	maxUploadEnd = 4 << 10
	// maxBoundary is RFC 2046's.
	maxBoundary = 70
	// uploadChunk is read before it is written, hashed and looked at. It holds what
	// mimetype looks at (3,072 bytes).
	uploadChunk = 32 << 10
)

var (
	errNotMultipart = &problem{status: http.StatusUnsupportedMediaType, code: protocol.ErrMediaType, detail: "the body must be multipart/form-data with a boundary"}
	errNoFile       = malformed("the form must have one field, which is a file with its name")
	errSecondField  = malformed("the form may have nothing but the file")
	errUploadHead   = malformed("what stands before the file is too long")
	errUploadEnd    = malformed("something stands behind the file")
	errTransfer     = malformed("a Content-Transfer-Encoding is not accepted: send the file as it is")
	errBadForm      = malformed("the body is not a form as its boundary says")
	errFormCut      = malformed("the form ends before its last boundary")
	errEmptyFile    = invalid("the file is empty")
	errFileType     = &problem{status: http.StatusUnsupportedMediaType, code: protocol.ErrFileType, detail: "files of this type are not taken; what counts is what is in it"}
)

// received is what an upload turned out to be.
type received struct {
	name, contentType, sha256 string
	size                      int64
}

// bounded is a request's body of which only so much may be read.
type bounded struct {
	from     io.Reader
	left     int64
	over     error  // what more is answered with
	progress func() // something came
	err      error  // the first error, as the form's parser hides it
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.err == nil && b.left <= 0 {
		b.err = b.over
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.err = err
	if n > 0 && err == nil { // at its end nothing more is awaited
		b.progress()
	}
	return n, err
}

// whole says whether all of the body has come.
func (b *bounded) whole() bool { return b.err == io.EOF } //nolint:errorlint // bodies return EOF itself

// why is what an error of the form's parser comes from.
func (b *bounded) why() error {
	var p *problem
	switch {
	case errors.As(b.err, &p):
		return p
	case errors.Is(b.err, os.ErrDeadlineExceeded):
		return errBodyLate
	case b.err == io.EOF: //nolint:errorlint // bodies return EOF itself
		return errFormCut
	case b.err != nil:
		return errBodyCut
	}
	return errBadForm // the parser's own words repeat what the client sent
}

// plainHead is a form without the control characters that stand before its first
// blank line, which ends the head of its file. Browsers send those of a file's name
// as they are (but for line ends), and the form's parser takes none.
type plainHead struct {
	from  io.Reader
	begun bool // the line has something in it
	ended bool // the blank line has come
}

func (h *plainHead) Read(p []byte) (int, error) {
	for {
		n, err := h.from.Read(p)
		if kept := h.keep(p[:n]); kept > 0 || err != nil || n == 0 {
			return kept, err
		}
	}
}

// keep moves what stays to the front of b. It must see the blank line no later than
// the parser does, which sees what is kept: behind it is the file.
func (h *plainHead) keep(b []byte) (kept int) {
	for i, c := range b {
		switch {
		case h.ended:
			return kept + copy(b[kept:], b[i:])
		case c == '\n':
			h.ended, h.begun = !h.begun, false
		case c == '\r':
		case c < ' ' && c != '\t' || c == 0x7f:
			continue
		default:
			h.begun = true
		}
		b[kept] = c
		kept++
	}
	return kept
}

// multipartBoundary takes the boundary out of the Content-Type.
func multipartBoundary(values []string) (string, error) {
	if len(values) != 1 {
		return "", errNotMultipart
	}
	kind, params, err := mime.ParseMediaType(values[0])
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" || len(params["boundary"]) > maxBoundary {
		return "", errNotMultipart
	}
	return params["boundary"], nil
}

var chunks = sync.Pool{New: func() any { b := make([]byte, uploadChunk); return &b }}

// readUpload copies the form's one file to dst, piece by piece, and finds out what
// it is. Nothing is believed that the client says of it but its name. takes is
// asked when its type is known and before most of it has come.
func readUpload(body *bounded, boundary string, dst io.Writer, most int64, takes func(contentType string) bool) (got received, err error) {
	body.left, body.over = maxUploadHead, errUploadHead
	form := multipart.NewReader(&plainHead{from: body}, boundary)
	part, err := form.NextRawPart()
	switch {
	case err == io.EOF: //nolint:errorlint // a form that is complete ends with EOF itself
		return got, errNoFile
	case err != nil:
		return got, body.why()
	}
	if got.name, err = partName(part); err != nil {
		return got, err
	}

	body.left, body.over = most+maxUploadHead, fileTooLarge(most)
	hash := sha256.New()
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	for end := false; !end; {
		n, err := fill(part, *chunk)
		if end = err == io.EOF; err != nil && !end { //nolint:errorlint // a part ends with EOF itself
			return got, body.why()
		}
		if n == 0 && got.size == 0 {
			return got, errEmptyFile
		}
		if got.size == 0 {
			if got.contentType = mimetype.Detect((*chunk)[:n]).String(); !takes(got.contentType) {
				return got, errFileType
			}
		}
		if got.size += int64(n); got.size > most {
			return got, fileTooLarge(most)
		}
		hash.Write((*chunk)[:n])
		if _, err := dst.Write((*chunk)[:n]); err != nil {
			return got, err
		}
	}
	got.sha256 = hex.EncodeToString(hash.Sum(nil))

	body.left, body.over = min(body.left, maxUploadEnd), errUploadEnd
	switch _, err := form.NextRawPart(); {
	case err == nil:
		return got, errSecondField
	case err != io.EOF: //nolint:errorlint // a form that is complete ends with EOF itself
		return got, body.why()
	}
	if _, err := io.Copy(io.Discard, body); err != nil { // the form's parser stops at its last boundary
		return got, body.why()
	}
	return got, nil
}

// fill reads until b is full. Unlike io.ReadFull it returns the end as it is told,
// and a form that breaks off as what it is.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var more int
		more, err = r.Read(b[n:])
		n += more
	}
	return n, err
}

// partName checks that a part is a file, whatever its field is called, and returns
// its name, made safe.
func partName(part *multipart.Part) (string, error) {
	kind, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil || kind != "form-data" {
		return "", errNoFile
	}
	name, given := params["filename"]
	if !given {
		return "", errNoFile
	}
	switch strings.ToLower(part.Header.Get("Content-Transfer-Encoding")) {
	case "", "binary", "8bit", "7bit":
		return safeName(name), nil
	}
	return "", errTransfer
}

// patienceFor lets a body take its time as long as something comes: the server's
// own time-outs are for requests that fit into one packet. What it returns is
// called when something came.
func patienceFor(w http.ResponseWriter, idle, all, answer time.Duration) (progress func()) {
	control := http.NewResponseController(w)
	began := time.Now()
	_ = control.SetWriteDeadline(began.Add(2*all + 3*answer)) // tests' recorders have no deadlines
	var last time.Time
	progress = func() {
		if now := time.Now(); now.Sub(last) > idle/16 { // not for each packet
			last = now
			deadline := now.Add(idle)
			if end := began.Add(all); end.Before(deadline) {
				deadline = end
			}
			_ = control.SetReadDeadline(deadline)
		}
	}
	progress()
	return progress
}
