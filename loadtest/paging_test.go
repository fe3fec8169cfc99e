package loadtest_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/internal/fakechat"
)

// through is an API before the server's: it answers itself what refuse says.
func through(t *testing.T, server *fakechat.Server, refuse func(r *http.Request) (status int)) (hostport string) {
	t.Helper()
	to, err := url.Parse(server.HTTP.URL)
	if err != nil {
		t.Fatal(err)
	}
	next := httputil.NewSingleHostReverseProxy(to)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := refuse(r); status != 0 {
			w.WriteHeader(status)
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(api.Close)
	return strings.TrimPrefix(api.URL, "http://")
}

// checkWithGaps runs a check whose clients are all dropped once, and told of a gap
// in each room in which they missed anything.
func checkWithGaps(t *testing.T, server *fakechat.Server, change func(*loadtest.Spec)) {
	t.Helper()
	server.Trim(1 << 40)
	s := spec(server, "check")
	s.Rate, s.Times, s.StormSpread, s.Drain = 100, 1, 300*time.Millisecond, 4*time.Second
	s.Tolerate.Failures = true
	change(&s)
	res := run(t, s)
	wantPassed(t, res)
	if d := res.Deliveries; d.Gaps == 0 || d.Paged == 0 || d.Kept != d.Owed {
		t.Errorf("%+v", d)
	}
}

func isHistory(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/messages")
}

func TestHistoryIsReadFromWhicheverAPIAnswers(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	broken := through(t, server, func(r *http.Request) int {
		if isHistory(r) {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	checkWithGaps(t, server, func(s *loadtest.Spec) { s.APIs = []string{broken, s.APIs[0]} })
}

func TestHistoryIsReadUnderTheHostThatIsGiven(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	named := through(t, server, func(r *http.Request) int {
		if r.Host != "chat.example" {
			return http.StatusMisdirectedRequest
		}
		return 0
	})
	checkWithGaps(t, server, func(s *loadtest.Spec) { s.APIs, s.Host = []string{named}, "chat.example" })
}
