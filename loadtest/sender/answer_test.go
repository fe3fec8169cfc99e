package sender

import (
	"strings"
	"testing"
)

func TestCutAnswer(t *testing.T) {
	cases := map[string]struct {
		in     string
		status int
		body   string
		code   string
		retry  int
		close  bool
	}{
		"created":    {"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nhi", 201, "hi", "", -1, false},
		"no body":    {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", "", -1, false},
		"chunked":    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", 200, "abcde", "", -1, false},
		"held back":  {"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 20\r\nConnection: close\r\n\r\n{\"code\":\"room_busy\"}", 429, `{"code":"room_busy"}`, "room_busy", 7, true},
		"date retry": {"HTTP/1.1 503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n", 503, "", "", -1, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for cut := range len(c.in) { // no beginning of it is a whole answer
				if _, size, err := cutAnswer([]byte(c.in[:cut])); size != 0 || err != nil {
					t.Fatalf("%q was taken for whole: %d, %v", c.in[:cut], size, err)
				}
			}
			a, size, err := cutAnswer([]byte(c.in + "HTTP/1.1 next"))
			if err != nil || size != len(c.in) || a.status != c.status || string(a.body) != c.body || a.code != c.code || a.retryAfter != c.retry || a.close != c.close {
				t.Errorf("%+v, %d, %v", a, size, err)
			}
		})
	}
}

func FuzzCutAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nhi"))
	f.Add([]byte(strings.Repeat("x", 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, size, _ := cutAnswer(b); size < 0 || size > len(b) {
			t.Fatalf("%d of %d bytes", size, len(b))
		}
	})
}
