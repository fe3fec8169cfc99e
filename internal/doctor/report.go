package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Report is everything that was found out.
type Report struct {
	Host     []Finding `json:"host,omitempty"`
	Redis    []Finding `json:"redis,omitempty"`
	Capacity []Bound   `json:"capacity,omitempty"`
}

// Worst is the worst level in the report.
func (r Report) Worst() Level { return max(Worst(r.Host), Worst(r.Redis)) }

// WriteJSON writes the report for programs.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// WriteText writes the report for people: what is wrong first, each with its
// remedy, then what is right.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	counts := map[Level]int{}
	section := func(title string, fs []Finding) {
		if len(fs) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s\n", title)
		for level := Error; ; level-- {
			for _, f := range fs {
				if f.Level == level {
					counts[level]++
					f.write(&b)
				}
			}
			if level == OK {
				break
			}
		}
		b.WriteString("\n")
	}
	section("This host", r.Host)
	section("Redis", r.Redis)
	if len(r.Capacity) > 0 {
		b.WriteString("Idle clients this host can hold, by what limits them\n")
		for i, c := range r.Capacity {
			mark := " "
			if i == 0 {
				mark = "→"
			}
			fmt.Fprintf(&b, "%s %12s  %s: %s\n", mark, thousands(c.Conns), c.By, c.How)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "errors: %d, warnings: %d, not looked at: %d, fine: %d\n", counts[Error], counts[Warning], counts[Unknown], counts[OK])
	_, err := io.WriteString(w, b.String())
	return err
}

var marks = [...]string{OK: "ok     ", Unknown: "?      ", Warning: "WARNING", Error: "ERROR  "}

func (f Finding) write(b *strings.Builder) {
	fmt.Fprintf(b, "  %s %s: %s\n", marks[f.Level], f.Check, f.Found)
	if f.Why != "" {
		fmt.Fprintf(b, "          because %s\n", f.Why)
	}
	for line := range strings.Lines(f.Fix) {
		fmt.Fprintf(b, "          fix: %s\n", strings.TrimRight(line, "\n"))
	}
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
