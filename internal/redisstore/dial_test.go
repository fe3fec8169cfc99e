package redisstore

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A name's addresses may be those of hosts that are gone: the others are reached in time,
// and what comes late is closed.
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
		"one refuses, alone": {map[string]time.Duration{"b": -1}, "", refused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				open := map[string]net.Conn{} // guarded by mu
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				conn, err := dialAny(ctx, []string{"a", "b", "c"}, func(ctx context.Context, addr string) (net.Conn, error) {
					after, answers := tt.after[addr]
					switch {
					case ctx.Err() != nil, !answers:
						<-ctx.Done()
						return nil, ctx.Err()
					case after < 0:
						return nil, refused
					}
					time.Sleep(after) // whatever ctx says: it is on its way
					ours, theirs := net.Pipe()
					mu.Lock()
					defer mu.Unlock()
					open[addr] = theirs
					return ours, nil
				})
				if !errors.Is(err, tt.err) || (conn == nil) != (tt.want == "") {
					t.Fatalf("%v, %v", conn, err)
				}
				time.Sleep(time.Second) // all have come
				mu.Lock()
				defer mu.Unlock()
				for addr, theirs := range open {
					_ = theirs.SetReadDeadline(time.Now().Add(time.Second))
					if _, err := theirs.Read(make([]byte, 1)); errors.Is(err, io.EOF) == (addr == tt.want) {
						t.Errorf("the connection to %s: %v", addr, err)
					}
				}
			})
		})
	}
}
