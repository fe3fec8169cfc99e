package grafana

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write dashboards/*.json anew")

// The files that Grafana reads are what the code says.
func TestDashboardsAreWrittenFromTheCode(t *testing.T) {
	files, err := filepath.Glob("dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := Dashboards()[strings.TrimSuffix(filepath.Base(f), ".json")]; !ok {
			t.Errorf("%s is of no dashboard", f)
		}
	}
	for name, d := range Dashboards() {
		got, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		file := "dashboards/" + name + ".json"
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says (go test ./grafana -update): %v", file, err)
		}
	}
}

// What Grafana would only show as an empty or overlapping panel.
func TestDashboardsAreWhole(t *testing.T) {
	uids := map[string]bool{}
	for name, d := range Dashboards() {
		if d.UID == "" || uids[d.UID] || d.About == "" {
			t.Errorf("%s: no UID of its own, or no description", name)
		}
		uids[d.UID] = true
		for _, row := range d.Rows {
			for _, p := range row.Panels {
				if p.Title == "" || p.About == "" || p.Unit == "" || p.Kind == "" || len(p.Queries) == 0 {
					t.Errorf("%s / %s / %q: something is missing", name, row.Title, p.Title)
				}
				for _, q := range p.Queries {
					if open, shut := strings.Count(q.Expr, "("), strings.Count(q.Expr, ")"); open != shut {
						t.Errorf("%s / %q: %d and %d parentheses", name, p.Title, open, shut)
					}
					if p.Kind == Graph && strings.Contains(q.Expr, " by (") && q.Legend == "" {
						t.Errorf("%s / %q: lines without names", name, p.Title)
					}
					for _, m := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(q.Legend, -1) {
						if by := regexp.MustCompile(`by \(([^)]*)\)`).FindStringSubmatch(q.Expr); by != nil && !strings.Contains(by[1], m[1]) && !strings.Contains(q.Expr, "on (instance)") {
							t.Errorf("%s / %q: the legend wants %s, the query keeps %s", name, p.Title, m[1], by[1])
						}
					}
				}
			}
		}
		text, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Panels []struct {
				ID      int
				Title   string
				GridPos struct{ X, Y, W, H int }
			}
		}
		if err := json.Unmarshal(text, &page); err != nil {
			t.Fatal(err)
		}
		taken := map[[2]int]string{}
		ids := map[int]bool{}
		for _, p := range page.Panels {
			if ids[p.ID] {
				t.Errorf("%s: two panels have ID %d", name, p.ID)
			}
			ids[p.ID] = true
			g := p.GridPos
			if g.X+g.W > 24 {
				t.Errorf("%s: %q leaves the page", name, p.Title)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other, ok := taken[[2]int{x, y}]; ok {
						t.Fatalf("%s: %q lies over %q", name, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}
