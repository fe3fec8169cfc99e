package redisstore

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A name's addresses may be those of hosts that are gone: the others are reached in time.
func TestOneOfANamesAddressesAnswers(t *testing.T) {
	refused := errors.New("refused")
	for name, tt := range map[string]struct {
		after map[string]time.Duration // an address answers, or refuses (-) at once
		want  string
		err   error
	}{
		"the first":          {map[string]time.Duration{"a": 1, "b": 1, "c": 1}, "a", nil},
		"a slow one":         {map[string]time.Duration{"a": 300 * time.Millisecond}, "a", nil},
		"nobody at two":      {map[string]time.Duration{"c": 1}, "c", nil},
		"two refuse":         {map[string]time.Duration{"a": -1, "b": -1, "c": 900 * time.Millisecond}, "c", nil},
		"the first is late":  {map[string]time.Duration{"a": 500 * time.Millisecond, "b": 100 * time.Millisecond}, "b", nil},
		"all refuse":         {map[string]time.Duration{"a": -1, "b": -1, "c": -1}, "", refused},
		"nobody at any":      {nil, "", context.DeadlineExceeded},
		"one refuses, alone": {map[string]time.Duration{"b": -1}, "", context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				reached := ""
				conn, err := dialAny(ctx, []string{"a", "b", "c"}, func(ctx context.Context, addr string) (net.Conn, error) {
					after, answers := tt.after[addr]
					switch {
					case !answers:
						after = time.Hour
					case after < 0:
						return nil, refused
					}
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(after):
					}
					reached = addr
					return &net.TCPConn{}, nil
				})
				if !errors.Is(err, tt.err) || reached != tt.want || (conn == nil) != (tt.want == "") {
					t.Errorf("reached %q: %v, %v", reached, conn, err)
				}
			})
		})
	}
}
