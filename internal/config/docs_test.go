package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestSettingsAreDocumented compares docs/settings.md with the settings. With
// UPDATE_DOCS=1 it writes the file.
func TestSettingsAreDocumented(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "settings.md")
	want := settingsPage(t)
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/settings.md is not what the settings say: UPDATE_DOCS=1 go test ./internal/config")
	}
}

func settingsPage(t *testing.T) []byte {
	t.Helper()
	var l line
	k, err := kong.New(&l, Options()...)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString(`# Settings

<!-- Written by UPDATE_DOCS=1 go test ./internal/config: change the tags there. -->

Each is a flag (` + "`--api-addr`" + `), an environment variable (` + "`MADANG_API_ADDR`" + `: the flag's name in capitals) and a key of the YAML file named by ` + "`--config`" + ` (` + "`api-addr`" + `; nested keys are joined with dashes, a list gives several values). A flag goes before the environment, that before the file, that before the default. A setting that nobody knows is an error. One file may serve all subcommands.

Sizes are bytes, or have a unit: ` + "`64KiB`, `1MiB`" + `. Times have a unit: ` + "`500ms`, `25s`, `10m`" + `.
`)
	type row struct{ flag, defaults, help string }
	var groups []string
	rows := map[string][]*row{}
	seen := map[string]*row{}
	for _, command := range k.Model.Children {
		for _, f := range command.Flags {
			if f.Name == "help" {
				continue
			}
			group := "General"
			if f.Group != nil {
				group = f.Group.Title
			}
			value := "–"
			if f.HasDefault && f.Default != "" {
				value = "`" + f.Default + "`"
			}
			if r, ok := seen[f.Name]; ok {
				if !strings.Contains(r.defaults, value) {
					r.defaults += fmt.Sprintf("<br>%s: %s", command.Name, value)
				}
				continue
			}
			if rows[group] == nil {
				groups = append(groups, group)
			}
			seen[f.Name] = &row{f.Name, value, strings.ReplaceAll(f.Help, "|", `\|`)}
			rows[group] = append(rows[group], seen[f.Name])
		}
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| setting | default | what it means |\n|---|---|---|\n", g)
		for _, r := range rows[g] {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.flag, r.defaults, r.help)
		}
	}
	return b.Bytes()
}
