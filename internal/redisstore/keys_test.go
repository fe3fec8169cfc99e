package redisstore

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every key of keys.go is in the table that operators look at, and no others.
func TestKeysAreDocumented(t *testing.T) {
	source, err := os.ReadFile("keys.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## 10. What is in Redis")
	known := map[string]bool{schemaKey: true, sweeperKey: true, attachmentSweeperKey: true}
	for _, m := range regexp.MustCompile(`(?m)^//\t((?:\{p\}|gateway)\S*)`).FindAllStringSubmatch(string(source), -1) {
		known[m[1]] = true
	}
	if len(known) < 20 {
		t.Fatalf("keys.go names only %d keys: %v", len(known), known)
	}
	told := map[string]bool{}
	for line := range strings.Lines(table) {
		if keys, found := strings.CutPrefix(line, "| `"); found {
			keys, _, _ = strings.Cut(keys, "` |")
			for key := range strings.SplitSeq(keys, "`, `") {
				told[key] = true
			}
		}
	}
	for key := range known {
		if !told[key] {
			t.Errorf("%s is not in docs/operating.md", key)
		}
	}
	for key := range told {
		if !known[key] {
			t.Errorf("docs/operating.md has %s, which keys.go has not", key)
		}
	}
}
