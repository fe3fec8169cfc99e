package testkit

import (
	"testing"
	"time"
)

// Soon polls until ok, and fails the test when it never is. detail tells what it is
// instead.
func Soon(tb testing.TB, within time.Duration, what string, ok func() bool, detail ...func() string) {
	tb.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			for _, d := range detail {
				what += ": " + d()
			}
			tb.Fatalf("not within %v: %s", within, what)
		}
	}
}
