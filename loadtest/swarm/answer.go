package swarm

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

// head is the head of an HTTP answer, as far as a client looks into it. Slices
// point into the buffer it was read to.
type head struct {
	status     int
	length     int // of the body; -1: not told
	retryAfter int // seconds; -1: not told
	chunked    bool
	close      bool // the connection ends with this answer
	fields     []byte
}

const maxHeadBytes = 16 << 10

// Errors of an answer that no server may give.
var (
	errNotHTTP    = errors.New("the answer is not HTTP/1.1")
	errLongHead   = errors.New("an answer of more than 16 KiB")
	errLength     = errors.New("an answer whose Content-Length is none")
	errUnmeasured = errors.New("an answer without Content-Length")
	errLong       = errors.New("an answer larger than 1 MiB")
)

var statusLine = []byte("HTTP/1.1 ")

// cutHead takes the head of an answer off b. size is 0 while it is not complete.
func cutHead(b []byte) (h head, size int, err error) {
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
	if h.status, err = digits(line[:3]); err != nil || h.status < 100 {
		return h, 0, errNotHTTP
	}
	h.length, h.retryAfter, h.fields = -1, -1, fields
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			length, err := digits(value)
			if err != nil || h.length >= 0 && h.length != length {
				return h, 0, errLength
			}
			h.length = length
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			h.chunked = true
		case bytes.EqualFold(name, []byte("connection")):
			h.close = h.close || bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("retry-after")):
			if seconds, err := digits(value); err == nil {
				h.retryAfter = seconds
			}
		}
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

// body takes the body of an answer, whose head is size bytes long, off b. whole
// is the length of both; 0 while the body is not complete.
func (h *head) body(b []byte, size int) (body []byte, whole int, err error) {
	switch {
	case h.chunked || h.length < 0:
		return nil, 0, errUnmeasured
	case size+h.length > readBufBytes:
		return nil, 0, errLong
	case len(b) < size+h.length:
		return nil, 0, nil
	}
	return b[size : size+h.length], size + h.length, nil
}

// value finds a header by its lower-case name.
func (h *head) value(name string) []byte {
	for fields := h.fields; len(fields) > 0; {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.TrimSpace(line[len(name)+1:])
		}
	}
	return nil
}

// refused is called for an answer that opens nothing, or brings nothing.
func (s *Swarm) refused(i uint32, h *head) {
	c := &s.clients[i]
	reason := s.wire.opens() + ": refused with " + strconv.Itoa(h.status)
	var wait time.Duration
	if h.retryAfter >= 0 {
		wait = seconds32(h.retryAfter)
	}
	if c.state == live { // a poll
		c.lazilyMs = uint32((wait + s.backoff(1)) / time.Millisecond)
		s.drop(i, reason)
		return
	}
	s.stats.failed(reason)
	s.leave(i)
	c.tried()
	hopeless := h.status == 401 || h.status == 403 || h.status == 404 // trying again would not help
	if hopeless || s.exhausted(c) {
		s.giveUp(i)
		return
	}
	s.waitFor(i, wait+s.backoff(int(c.attempts)))
}
