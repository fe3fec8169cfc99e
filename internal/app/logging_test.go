package app

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/madang-chat/madang/internal/config"
)

func TestTheLogLevelIsChangedOverTheAdminServer(t *testing.T) {
	var out strings.Builder
	log := NewLogger(config.Process{LogLevel: "info", LogFormat: "json"}, &out)
	a := newAdmin("", log, prometheus.NewRegistry(), func(context.Context) []string { return nil })
	ask := func(method, body string, status int, want string) {
		t.Helper()
		r := httptest.NewRecorder()
		a.server.Handler.ServeHTTP(r, httptest.NewRequest(method, "/loglevel", strings.NewReader(body)))
		b, _ := io.ReadAll(r.Body)
		if r.Code != status || !strings.Contains(string(b), want) {
			t.Errorf("%s %q: %d %q, want %d %q", method, body, r.Code, b, status, want)
		}
	}
	ask(http.MethodGet, "", http.StatusOK, "info")
	log.Debug("hidden")
	ask(http.MethodPut, "debug\n", http.StatusOK, "debug")
	log.Debug("seen")
	ask(http.MethodPut, "loud", http.StatusBadRequest, "none of")
	ask(http.MethodPut, strings.Repeat("x", 1000), http.StatusBadRequest, "too large")
	ask(http.MethodGet, "", http.StatusOK, "debug")
	CloseLog(log)
	if text := out.String(); strings.Contains(text, "hidden") || !strings.Contains(text, "seen") || !strings.Contains(text, "the log level was changed") {
		t.Errorf("the log is %s", text)
	}
}
