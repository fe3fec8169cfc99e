package redisstore

import (
	"os"
	"strings"
	"testing"
)

// Who is woken by MadangRedisFails looks the reason up.
func TestReasonsOfFailuresAreDocumented(t *testing.T) {
	for file, about := range map[string]string{
		"../../docs/metrics.md":  "| `madang_redis_command_failures_total` |",
		"../../docs/runbooks.md": "1. The reason: ",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), about)
		if !found {
			t.Fatalf("%s has no %q", file, about)
		}
		line, _, _ := strings.Cut(rest, "\n")
		for _, reason := range append(outcomeNames[:], "overflow") {
			if !strings.Contains(line, "`"+reason+"`") {
				t.Errorf("%s does not tell what %s is", file, reason)
			}
		}
	}
}
