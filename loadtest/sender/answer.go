package sender

import (
	"bytes"
	"errors"
	"strconv"
)

// answer is an HTTP answer, as far as a sender reads it. Slices point into the
// buffer it was read to.
type answer struct {
	status     int
	body       []byte
	code       string // of a problem+json
	retryAfter int    // seconds; -1 when not given
	close      bool
}

var errNotHTTP = errors.New("not an HTTP/1.1 answer")

// cutAnswer takes a whole answer off data. size is 0 while it is not complete.
func cutAnswer(data []byte) (a answer, size int, err error) {
	const start = "HTTP/1.1 200"
	if len(data) < len(start) {
		return a, 0, nil
	}
	if !bytes.HasPrefix(data, []byte("HTTP/1.")) {
		return a, 0, errNotHTTP
	}
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return a, 0, nil
	}
	if a.status, err = strconv.Atoi(string(data[9:12])); err != nil {
		return a, 0, errNotHTTP
	}
	head, rest := data[:end], data[end+4:]
	a.retryAfter = -1
	length, chunked := 0, false
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return a, 0, errNotHTTP
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Retry-After")):
			if seconds, err := strconv.Atoi(string(value)); err == nil && seconds >= 0 {
				a.retryAfter = seconds
			}
		case bytes.EqualFold(name, []byte("Connection")):
			a.close = bytes.EqualFold(value, []byte("close"))
		}
	}
	used := end + 4
	if chunked {
		body, n, err := unchunk(rest)
		if err != nil || n == 0 {
			return a, 0, err
		}
		a.body = body
		used += n
	} else {
		if len(rest) < length {
			return a, 0, nil
		}
		a.body = rest[:length]
		used += length
	}
	if a.status/100 != 2 {
		a.code = codeOf(a.body)
	}
	return a, used, nil
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

// codeOf finds the stable code of a problem.
func codeOf(body []byte) string {
	at := bytes.Index(body, []byte(`"code":`))
	if at < 0 {
		return ""
	}
	value := bytes.TrimLeft(body[at+len(`"code":`):], ` "`)
	return string(value[:max(0, bytes.IndexByte(value, '"'))])
}
