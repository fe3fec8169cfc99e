package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/madang-chat/madang/internal/plan"
)

const scaling = "../../docs/scaling.md"

// constantsTable is what was measured, for people.
func constantsTable() string {
	m := plan.MeasuredOn()
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s, %d cores, Linux %s, Redis %s, %s, revision %s.\n\n| constant | | what was counted |\n|---|---:|---|\n",
		m.Date, m.CPU, m.Cores, m.Kernel, m.Redis, m.Go, m.Revision)
	for _, c := range plan.Constants() {
		fmt.Fprintf(&b, "| `%s` | %.4g %s | %s |\n", c.Name, c.Value, c.Unit, c.What)
	}
	return b.String()
}

// docs/scaling.md shows what the commands in it print, and the constants that
// were measured last. UPDATE_DOCS=1 writes it anew.
func TestScalingDocumentShowsWhatPlanPrints(t *testing.T) {
	text, err := os.ReadFile(scaling)
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`(?s)<!-- constants -->.*?<!-- /constants -->`).ReplaceAllString(string(text), "<!-- constants -->\n"+constantsTable()+"<!-- /constants -->")
	n := 0
	got = regexp.MustCompile("(?ms)^```\n\\$ madang (.*?)\n(.*?)^```$").ReplaceAllStringFunc(got, func(block string) string {
		n++
		command, _, _ := strings.Cut(strings.TrimPrefix(block, "```\n$ madang "), "\n")
		var out, errs strings.Builder
		if code := run(context.Background(), strings.Fields(command), &out, &errs); code != 0 {
			t.Fatalf("%s: %d %s", command, code, errs.String())
		}
		// Where the constants are from is said once, above.
		printed, _, _ := strings.Cut(out.String(), "\nConstants measured on")
		return "```\n$ madang " + command + "\n" + strings.TrimRight(printed, "\n") + "\n```"
	})
	if n != 4 {
		t.Errorf("%d commands", n)
	}
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(scaling, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(text) {
		t.Errorf("docs/scaling.md is not what the commands print: UPDATE_DOCS=1 go test ./cmd/madang -run Scaling")
	}
}
