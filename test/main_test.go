// Package test holds the tests of whole systems: real Redis, processes, sockets
// and browsers. What a package can test by itself is tested there.
package test

import (
	"os"
	"strings"
	"testing"

	"github.com/madang-chat/madang/internal/testkit/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

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
