package swarm

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

var streams = []string{
	":\n\n", "data: x\n\n", "id: 5\ndata: {\"type\":\"message\"}\n\n", "data: a\ndata: b\n\ndata:c\r\n\r\n", "data\n\n", "data: x\r\rdata: y\r\r",
	"data: x\n\r\ndata: y\r\n\n", "retry: 50\n\n", "event: e\ndata:  two blanks\n\n", "data: never ends\n", "\n\n\n", "\r\n\r", "datax: 1\n\n", "data: a\rdata: b\n\r",
}

// FuzzStream: however a stream is cut into reads, its events are those that the
// standard's rules, read literally, make of the whole.
func FuzzStream(f *testing.F) {
	for _, text := range streams {
		f.Add([]byte(text), uint64(1))
		f.Add([]byte(text), ^uint64(0))
	}
	f.Fuzz(func(t *testing.T, text []byte, cuts uint64) {
		want := literally(string(text))
		s := &Swarm{}
		var got []string
		var have []byte
		for i, c := range text {
			have = append(have, c)
			if cuts>>(i%64)&1 == 0 && i < len(text)-1 {
				continue
			}
			for {
				data, size := s.cutEvent(have)
				if size == 0 {
					break
				}
				if size > len(have) {
					t.Fatalf("%d of %d bytes", size, len(have))
				}
				if len(data) > 0 {
					got = append(got, string(data))
				}
				have = have[size:]
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// literally reads a stream as WHATWG HTML §9.2.6 says it, line by line.
func literally(text string) (events []string) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	end := strings.LastIndexByte(text, '\n')
	if end < 0 {
		return nil
	}
	data := ""
	for _, line := range strings.Split(text[:end], "\n") {
		if line == "" {
			if data = strings.TrimSuffix(data, "\n"); data != "" {
				events = append(events, data)
			}
			data = ""
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if name == "data" {
			data += strings.TrimPrefix(value, " ") + "\n"
		}
	}
	return events
}

var heads = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
	"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Type: application/problem+json\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 204\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "SSH-2.0-x\r\n",
	"HTTP/1.1 200 0\n\r\nContent-Length: 0\r\n\r\n00", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n",
}

// FuzzHead: an answer that is taken for whole is what the standard library reads,
// and is not there before its last byte.
func FuzzHead(f *testing.F) {
	for _, text := range heads {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, size, err := cutHead(text)
		if err != nil || size == 0 {
			return
		}
		if _, early, err := cutHead(text[:size-1]); err != nil || early != 0 {
			t.Fatalf("a head of %d bytes was there a byte earlier (%d, %v)", size, early, err)
		}
		if h.status < 100 || h.status > 999 || h.length < -1 || h.retryAfter < -1 || len(h.fields) > size {
			t.Fatalf("%+v", h)
		}
		body, whole, err := h.body(text, size)
		if err != nil || whole == 0 {
			return
		}
		if len(body) != h.length || whole > readBufBytes || whole > len(text) {
			t.Fatalf("a body of %d bytes of %+v", len(body), h)
		}
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
		if err != nil || h.status < 200 || h.status == 204 || h.status == 304 || len(res.TransferEncoding) > 0 {
			return // it is stricter with what is not ours to judge
		}
		defer res.Body.Close()
		theirs, err := io.ReadAll(res.Body)
		if res.StatusCode != h.status || err != nil || !bytes.Equal(theirs, body) {
			t.Fatalf("status %d, body %q (%v); got %d, %q", res.StatusCode, theirs, err, h.status, body)
		}
	})
}

func TestHeads(t *testing.T) {
	for i, want := range []struct {
		head
		err error
	}{
		{head{status: 200, length: 5, retryAfter: -1}, nil},
		{head{status: 101, length: -1, retryAfter: -1}, nil},
		{head{status: 503, length: 2, retryAfter: 7, close: true}, nil},
		{head{status: 200, length: -1, retryAfter: -1, chunked: true}, nil},
		{head{}, errNotHTTP}, {head{}, errNotHTTP},
		{head{status: 204, length: -1, retryAfter: -1}, nil},
		{head{}, errLength}, {head{}, errLength}, {head{}, errNotHTTP}, {head{}, errNotHTTP}, {head{}, errLength},
		{head{status: 200, length: 2_000_000, retryAfter: -1}, nil},
	} {
		h, size, err := cutHead([]byte(heads[i]))
		h.fields = nil
		if err != want.err || err == nil && (h.status != want.status || h.length != want.length || h.retryAfter != want.retryAfter || h.chunked != want.chunked || h.close != want.close || size == 0) {
			t.Errorf("%q: %+v, %d, %v", heads[i], h, size, err)
		}
	}
	if _, _, err := cutHead([]byte("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeadBytes))); err != errLongHead {
		t.Errorf("a head without end: %v", err)
	}
	h, size, _ := cutHead([]byte(heads[12]))
	if _, _, err := h.body([]byte(heads[12]), size); err != errLong {
		t.Errorf("a body of 2 MB: %v", err)
	}
}
