// Package answer cuts HTTP/1.1 answers off the bytes of a socket, as they come: what
// is returned points into the buffer they were read to, and an answer that has not
// come whole is no error. Senders read their answers by it, and receivers whatever a
// gateway says over HTTP.
package answer

import (
	"bytes"
	"errors"
	"strconv"
)

// Head is the head of an answer, as far as the tester looks into it.
type Head struct {
	Status     int
	Length     int // of the body; -1: not told
	RetryAfter int // seconds; -1: not told
	Chunked    bool
	Close      bool // the connection ends with this answer
	fields     []byte
}

const maxHeadBytes = 16 << 10

// Errors of an answer that no server may give.
var (
	errNotHTTP    = errors.New("the answer is not HTTP/1.1")
	errLongHead   = errors.New("an answer whose head has more than 16 KiB")
	errLength     = errors.New("an answer whose Content-Length is none")
	errUnmeasured = errors.New("an answer without Content-Length")
	errLong       = errors.New("an answer that is too long")
)

var statusLine = []byte("HTTP/1.1 ")

// Cut takes a whole answer, of at most so many bytes, off b. size is 0 while it is
// not complete.
func Cut(b []byte, most int) (h Head, body []byte, size int, err error) {
	if h, size, err = CutHead(b); err != nil || size == 0 {
		return h, nil, 0, err
	}
	switch {
	case h.Chunked:
		var n int
		if body, n, err = unchunk(b[size:]); err != nil || n == 0 && len(b) < most {
			return h, nil, 0, err
		}
		size += n
		if n == 0 || size > most {
			return h, nil, 0, errLong
		}
		return h, body, size, nil
	case h.Length < 0:
		return h, nil, 0, errUnmeasured
	case size+h.Length > most:
		return h, nil, 0, errLong
	case len(b) < size+h.Length:
		return h, nil, 0, nil
	}
	return h, b[size : size+h.Length], size + h.Length, nil
}

// CutHead takes the head of an answer off b. size is 0 while it is not complete.
func CutHead(b []byte) (h Head, size int, err error) {
	if n := min(len(b), len(statusLine)); !bytes.Equal(b[:n], statusLine[:n]) {
		return h, 0, errNotHTTP
	}
	end := bytes.Index(b[:min(len(b), maxHeadBytes)], []byte("\r\n\r\n"))
	switch {
	case end < 0 && len(b) >= maxHeadBytes:
		return h, 0, errLongHead
	case end < 0:
		return h, 0, nil
	}
	if bytes.Count(b[:end+2], []byte("\n")) != bytes.Count(b[:end+2], []byte("\r\n")) {
		return h, 0, errNotHTTP // a line that others would end elsewhere
	}
	line, fields, _ := bytes.Cut(b[len(statusLine):end+2], []byte("\r\n"))
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' {
		return h, 0, errNotHTTP
	}
	if h.Status, err = digits(line[:3]); err != nil || h.Status < 100 {
		return h, 0, errNotHTTP
	}
	h.Length, h.RetryAfter, h.fields = -1, -1, fields
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			length, err := digits(value)
			if err != nil || h.Length >= 0 && h.Length != length {
				return h, 0, errLength
			}
			h.Length = length
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			h.Chunked = true
		case bytes.EqualFold(name, []byte("connection")):
			h.Close = h.Close || bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("retry-after")):
			if seconds, err := digits(value); err == nil {
				h.RetryAfter = seconds
			}
		}
	}
	if h.Status == 204 {
		h.Length = 0 // it has no body, and need not say so
	}
	return h, end + 4, nil
}

// digits reads a number of digits and nothing else.
func digits(b []byte) (n int, err error) {
	if len(b) == 0 || len(b) > 9 {
		return 0, errLength
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, errLength
		}
		n = n*10 + int(c-'0')
	}
	return n, nil
}

// unchunk joins the chunks of a body; n is 0 while it is not complete.
func unchunk(b []byte) (body []byte, n int, err error) {
	for {
		end := bytes.Index(b[n:], []byte("\r\n"))
		if end < 0 {
			return nil, 0, nil
		}
		digits, _, _ := bytes.Cut(b[n:n+end], []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 20)
		if err != nil {
			return nil, 0, errNotHTTP
		}
		n += end + 2
		if len(b) < n+int(size)+2 {
			return nil, 0, nil
		}
		if size == 0 {
			return body, n + 2, nil
		}
		body = append(body, b[n:n+int(size)]...)
		n += int(size) + 2
	}
}

// Value finds a header by its lower-case name.
func (h *Head) Value(name string) []byte {
	for fields := h.fields; len(fields) > 0; {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.TrimSpace(line[len(name)+1:])
		}
	}
	return nil
}
