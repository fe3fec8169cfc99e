// Package test holds the tests of whole systems: real Redis, processes, sockets
// and browsers. What a package can test by itself is tested there.
package test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/madang-chat/madang/internal/testkit/fleet"
)

func TestMain(m *testing.M) {
	if !full {
		// Those that run beside others wait, nearly all of the time, for leases and
		// time-outs, and not for processors, by which go test counts how many run at
		// once. Its -parallel is read later, and goes before.
		_ = flag.Set("test.parallel", "6")
	}
	fleet.Main(m)
}

// full says whether the volumes of `make chaos` are asked for.
var full = os.Getenv("MADANG_TEST_FULL") != ""

// volume is the quick form of a number, or the full one.
func volume(quick, fully int) int {
	if full {
		return fully
	}
	return quick
}

// contains says whether s has all parts.
func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}
