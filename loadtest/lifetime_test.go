package loadtest_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/internal/fakechat"
)

// A client whose token ends before the run does is closed, and does not come back.
func TestTokensOutliveTheLongestRun(t *testing.T) {
	t.Parallel()
	server := fakechat.New(t)
	const week = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		change func(*loadtest.Spec)
		takes  time.Duration
	}{
		"three rounds of a chat":      {func(s *loadtest.Spec) { s.Scenario, s.Duration = "chat", week }, 3 * week},
		"a storm a day, for ten days": {func(s *loadtest.Spec) { s.Scenario, s.Duration, s.Times = "storm", 24*time.Hour, 10 }, 11 * 24 * time.Hour},
		"steps of a day": {func(s *loadtest.Spec) {
			s.Scenario, s.StepFrom, s.StepTo, s.StepTime = "capacity", 1, 1000, 24*time.Hour
		}, 20 * 24 * time.Hour},
		"four transports, a week each": {func(s *loadtest.Spec) { s.Scenario, s.Duration = "compare", week }, 4 * week},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var claims jwt.RegisteredClaims
			api := through(t, server, func(r *http.Request) int {
				if ctx.Err() == nil { // the first request says it
					defer cancel()
					if _, _, err := jwt.NewParser().ParseUnverified(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), &claims); err != nil {
						t.Error(err)
					}
				}
				return http.StatusForbidden
			})
			s := spec(server, "")
			c.change(&s)
			s.APIs, s.Rooms, s.Receivers = []string{api}, 1, 1
			if _, err := loadtest.Run(ctx, s, loadtest.Progress{}); err == nil || claims.ExpiresAt == nil {
				t.Fatalf("no token was seen: %v", err)
			}
			if left := time.Until(claims.ExpiresAt.Time); left < c.takes {
				t.Errorf("tokens last for %v, the run for %v", left, c.takes)
			}
		})
	}
}
