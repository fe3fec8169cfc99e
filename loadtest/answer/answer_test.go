package answer

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

const most = 32 << 10

var answers = []struct {
	text string
	head Head
	body string
	err  error
}{
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Head{Status: 200, Length: 5, RetryAfter: -1}, "hello", nil},
	{"HTTP/1.1 204\r\n\r\n", Head{Status: 204, RetryAfter: -1}, "", nil},
	{"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Type: application/problem+json\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}", Head{Status: 503, Length: 2, RetryAfter: 7, Close: true}, "{}", nil},
	{"HTTP/1.1 503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n", Head{Status: 503, RetryAfter: -1}, "", nil},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Head{Status: 200, Length: -1, RetryAfter: -1, Chunked: true}, "", nil},
	{"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", Head{Status: 200, Length: -1, RetryAfter: -1, Chunked: true}, "abcde", nil},
	{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", Head{Status: 101, Length: -1, RetryAfter: -1}, "", errUnmeasured},
	{"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", Head{Status: 200, Length: 200_000, RetryAfter: -1}, "", errLong},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n" + strings.Repeat("x", most), Head{Status: 200, Length: -1, RetryAfter: -1, Chunked: true}, "", errLong},
	{"HTTP/1.0 200 OK\r\n\r\n", Head{}, "", errNotHTTP},
	{"HTTP/1.1 20 OK\r\n\r\n", Head{}, "", errNotHTTP},
	{"SSH-2.0-x\r\n", Head{}, "", errNotHTTP},
	{"HTTP/1.1 200 0\n\r\nContent-Length: 0\r\n\r\n00", Head{}, "", errNotHTTP},
	{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Head{}, "", errLength},
	{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", Head{}, "", errLength},
	{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Head{}, "", errLength},
	{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeadBytes), Head{}, "", errLongHead},
}

func TestCut(t *testing.T) {
	for _, want := range answers {
		h, body, size, err := Cut([]byte(want.text+"HTTP/1.1 next"), most)
		h.fields = nil
		if err != want.err || string(body) != want.body || err == nil && size != len(want.text) || want.head.Status > 0 && h.Status != want.head.Status {
			t.Errorf("%.99q: %q, %d, %v", want.text, body, size, err)
		}
		if _, headSize, headErr := CutHead([]byte(want.text)); want.head.Status > 0 && (headErr != nil || headSize == 0 || h.Length != want.head.Length || h.RetryAfter != want.head.RetryAfter || h.Chunked != want.head.Chunked || h.Close != want.head.Close) {
			t.Errorf("%.99q: %+v, %d, %v", want.text, h, headSize, headErr)
		}
		if want.err != nil {
			continue
		}
		for cut := range want.text { // no beginning of it is a whole answer
			if _, _, size, err := Cut([]byte(want.text[:cut]), most); size != 0 || err != nil {
				t.Fatalf("%q was taken for whole: %d, %v", want.text[:cut], size, err)
			}
		}
	}
}

// FuzzCut: an answer that is taken for whole is what the standard library reads, and
// its head is not there before its last byte.
func FuzzCut(f *testing.F) {
	for _, a := range answers {
		f.Add([]byte(a.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, size, err := CutHead(text)
		if err != nil || size == 0 {
			return
		}
		if _, early, err := CutHead(text[:size-1]); err != nil || early != 0 {
			t.Fatalf("a head of %d bytes was there a byte earlier (%d, %v)", size, early, err)
		}
		if h.Status < 100 || h.Status > 999 || h.Length < -1 || h.RetryAfter < -1 || len(h.fields) > size {
			t.Fatalf("%+v", h)
		}
		_, body, whole, err := Cut(text, most)
		if err != nil || whole == 0 {
			return
		}
		if whole < size+len(body) || !h.Chunked && len(body) != h.Length || whole > most || whole > len(text) {
			t.Fatalf("a body of %d bytes, %d in all, of %+v", len(body), whole, h)
		}
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
		if err != nil || h.Status < 200 || h.Status == 204 || h.Status == 304 || h.Chunked {
			return // it is stricter with what is not ours to judge
		}
		defer res.Body.Close()
		theirs, err := io.ReadAll(res.Body)
		if res.StatusCode != h.Status || err != nil || !bytes.Equal(theirs, body) {
			t.Fatalf("status %d, body %q (%v); got %d, %q", res.StatusCode, theirs, err, h.Status, body)
		}
	})
}
