package observability

import (
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/madang-chat/madang/grafana"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// inCode are the metrics that internal/metrics names.
func inCode(t testing.TB) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../../internal/metrics/*.go")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	names := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`"(madang_[a-z_]+)"`).FindAllStringSubmatch(readFile(t, f), -1) {
			names[m[1]] = true
		}
	}
	return names
}

// documented is a row of docs/metrics.md.
type documented struct{ kind, labels, meaning, move string }

func inDocument(t testing.TB) map[string]documented {
	t.Helper()
	rows := map[string]documented{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(madang_[a-z_]+)` \\| (.*?) \\| (.*?) \\| (.*) \\| (.*) \\|$").FindAllStringSubmatch(readFile(t, "../../docs/metrics.md"), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("docs/metrics.md has %s twice", m[1])
		}
		rows[m[1]] = documented{m[2], strings.TrimSpace(m[3]), m[4], m[5]}
	}
	return rows
}

func TestEveryMetricIsDocumented(t *testing.T) {
	code, doc := inCode(t), inDocument(t)
	for name := range code {
		if _, ok := doc[name]; !ok {
			t.Errorf("docs/metrics.md does not have %s", name)
		}
	}
	for name, d := range doc {
		if !code[name] {
			t.Errorf("docs/metrics.md has %s, the code does not", name)
		}
		if d.meaning == "" || d.move == "" {
			t.Errorf("docs/metrics.md says nothing about %s", name)
		}
	}
}

// late are told from the first time on that there is something to tell.
var late = []string{"madang_redis_command_failures_total", "madang_log_trimmed_total"}

// What the document says of types and labels is what processes tell.
func TestProcessesTellWhatIsDocumented(t *testing.T) {
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 1)
	alice := f.User("alice")
	alice.CreatesRoom("yard")
	alice.Connects()
	_, _ = alice.Requests(http.MethodPost, "/v1/rooms/yard/messages", map[string]any{"type": "text", "text": "hi"})
	doc := inDocument(t)
	told := map[string]bool{}
	for _, n := range append(f.APIs, f.Gateways...) {
		_, page := n.Admin("/metrics")
		kind := ""
		for line := range strings.Lines(page) {
			if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
				name, k, _ := strings.Cut(strings.TrimSpace(rest), " ")
				kind = k
				if strings.HasPrefix(name, "madang_") {
					told[name] = true
					if doc[name].kind != kind {
						t.Errorf("%s is a %s, docs/metrics.md says %q", name, kind, doc[name].kind)
					}
				}
				continue
			}
			m := regexp.MustCompile(`^(madang_[a-z_]+)(?:\{(.*)\})? `).FindStringSubmatch(line)
			if m == nil {
				continue
			}
			name := m[1]
			if kind == "histogram" {
				name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
			}
			var labels []string
			for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(m[2], -1) {
				if l[1] != "le" {
					labels = append(labels, l[1])
				}
			}
			want := regexp.MustCompile(`[a-z_]+`).FindAllString(doc[name].labels, -1)
			slices.Sort(labels)
			slices.Sort(want)
			if !slices.Equal(labels, want) {
				t.Errorf("%s has labels %v, docs/metrics.md says %v", name, labels, want)
			}
		}
	}
	for name := range doc {
		if !told[name] && !slices.Contains(late, name) {
			t.Errorf("no process tells %s", name)
		}
	}
}

// Dashboards and rules ask for nothing that there is not.
func TestQueriesNameMetricsThatThereAre(t *testing.T) {
	code := inCode(t)
	recorded := map[string]bool{}
	for _, r := range rules(t) {
		if r.Record != "" {
			recorded[r.Record] = true
		}
	}
	asked := map[string]bool{}
	look := func(where, expr string) {
		for _, name := range regexp.MustCompile(`\b(?:madang_[a-z_]+|madang:[a-z_]+:[a-z_0-9]+)`).FindAllString(expr, -1) {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if trimmed := strings.TrimSuffix(name, suffix); trimmed != name && code[trimmed] {
					base = trimmed
				}
			}
			asked[base] = true
			if !code[base] && !recorded[name] {
				t.Errorf("%s asks for %s, which nobody tells", where, name)
			}
		}
	}
	for name, d := range grafana.Dashboards() {
		for _, row := range d.Rows {
			for _, p := range row.Panels {
				for _, q := range p.Queries {
					look(name+" / "+p.Title, q.Expr)
				}
			}
		}
	}
	for _, r := range rules(t) {
		look(r.Record+r.Alert, r.Expr)
	}
	// What nobody looks at is not worth telling; these are of use in a query by hand.
	rare := []string{"madang_accepted_total", "madang_loop_turns_total", "madang_hub_turns_total"}
	for name := range code {
		if !asked[name] && !slices.Contains(rare, name) {
			t.Errorf("%s is on no dashboard and in no rule", name)
		}
	}
	document := readFile(t, "../../docs/metrics.md")
	for name := range recorded {
		if family, _, _ := strings.Cut(name, "_rate"); !strings.Contains(document, family) {
			t.Errorf("docs/metrics.md does not have the recorded %s", name)
		}
	}
}

func TestEveryAlertHasItsRunbook(t *testing.T) {
	runbook := map[string]string{}
	parts := strings.Split(readFile(t, "../../docs/runbooks.md"), "\n## ")
	for _, part := range parts[1:] {
		name, text, _ := strings.Cut(part, "\n")
		runbook[name] = text
	}
	alerts := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		alerts[r.Alert] = true
		text, ok := runbook[r.Alert]
		if !ok {
			t.Errorf("docs/runbooks.md has no %s", r.Alert)
			continue
		}
		for _, want := range []string{"**Meaning.** ", "**Impact.** ", "**Look at**", "\n1. ", "\n2. ", "\n3. ", "**Remedy.** "} {
			if !strings.Contains(text, want) {
				t.Errorf("the entry of %s has no %q", r.Alert, want)
			}
		}
		if url := r.Annotations["runbook_url"]; !strings.HasSuffix(url, "/docs/runbooks.md#"+strings.ToLower(r.Alert)) {
			t.Errorf("%s links to %s", r.Alert, url)
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s has severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s does not say what is the matter", r.Alert)
		}
	}
	for name := range runbook {
		if !alerts[name] {
			t.Errorf("docs/runbooks.md has %s, which is no alert", name)
		}
	}
}

// promtool's own tests: each alert fires, and none while all is well.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	cmd := exec.Command("promtool", "test", "rules", "alerts_test.yml")
	cmd.Dir = "../../grafana/rules"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("promtool (is prometheus installed? make deps): %v\n%s", err, out)
	}
	tests := readFile(t, "../../grafana/rules/alerts_test.yml")
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if !strings.Contains(tests, "alertname: "+r.Alert+", exp_alerts: []") || !strings.Contains(tests, "alertname: "+r.Alert+"\n        exp_alerts:\n          - ") {
			t.Errorf("%s has no test of firing, or none of being quiet", r.Alert)
		}
	}
}

// notOurs are flags of other programs that documents mention.
var notOurs = regexp.MustCompile(`^--(?:cluster|enable-feature|system|from-literal|build|rm|config\.file|web\.|storage|dport|intrinsic-latency|allowed-unsafe-sysctls|version|build-arg|read-only|cap-drop|now|no-cache|help|nofile|appendonly|appendfsync|maxmemory|client-output-buffer-limit|tags|always|askpass)`)

// A flag that a document or a file to deploy with mentions is one that some
// command has.
func TestDocumentsNameFlagsThatThereAre(t *testing.T) {
	binary := fleet.Binary(t)
	flags := map[string]bool{}
	help := func(args ...string) string {
		out, err := exec.Command(binary, append(args, "--help")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		for _, m := range regexp.MustCompile(`--(\[no-\])?([a-z][a-z0-9-]*)`).FindAllStringSubmatch(string(out), -1) {
			flags[m[2]] = true
			if m[1] != "" {
				flags["no-"+m[2]] = true
			}
		}
		return string(out)
	}
	commands := regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)?)(?: \[flags\]|\s{2,}|$)`)
	seen := map[string]bool{}
	var walk func(path []string)
	walk = func(path []string) {
		for _, m := range commands.FindAllStringSubmatch(help(path...), -1) {
			sub := strings.Fields(m[1])
			key := strings.Join(append(slices.Clone(path), sub[len(sub)-1]), " ")
			if !seen[key] && len(path) < 2 {
				seen[key] = true
				walk(strings.Fields(key))
			}
		}
	}
	walk(nil)
	if len(flags) < 40 {
		t.Fatalf("only %d flags: %v", len(flags), slices.Sorted(maps.Keys(flags)))
	}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel("../..", path)
		top, _, _ := strings.Cut(rel, string(filepath.Separator))
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." || rel == "clients" || d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		document := strings.HasSuffix(rel, ".md") && (top == "docs" || top == rel)
		if !document && top != "deploy" || strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, ".sum") {
			return nil
		}
		for _, m := range regexp.MustCompile("(?:^|[\\s`(/\\[\"'])(--([a-z][a-z0-9-]*[a-z0-9]))").FindAllStringSubmatch(readFile(t, path), -1) {
			if !flags[m[2]] && !notOurs.MatchString(m[1]) {
				t.Errorf("%s mentions %s, which no command has", rel, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
