// Package openapi holds the description of the HTTP API: written by hand in
// openapi.yaml, served as JSON and as a page. It owns the text and its two
// renderings and knows no handler; a test of package api compares it with the
// routes and with real answers.
package openapi

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"sort"
	"strings"

	"github.com/goccy/go-yaml"
)

//go:embed openapi.yaml
var source []byte

//go:embed page.html
var pageSource string

// JSON is the description as JSON.
func JSON() ([]byte, error) {
	out, err := yaml.YAMLToJSON(source)
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	return bytes.TrimSpace(out), nil
}

// document is what the page shows of the description.
type document struct {
	Info struct {
		Title, Version, Description string
	}
	Paths      map[string]map[string]operation
	Components struct {
		Parameters map[string]parameter
		Schemas    map[string]schema
		Responses  map[string]response
	}
}

type operation struct {
	Summary, Description string
	Parameters           []parameter
	RequestBody          struct {
		Content content
	} `yaml:"requestBody"`
	Responses map[string]response
}

type parameter struct {
	Ref                   string `yaml:"$ref"`
	Name, In, Description string
	Required              bool
	Schema                schema
}

type response struct {
	Ref         string `yaml:"$ref"`
	Description string
	Content     content
}

type content map[string]struct{ Schema schema }

// schema stays text on the page: whoever reads it knows JSON Schema.
type schema map[string]any

// Page is the description as an HTML page that needs nothing else.
func Page() ([]byte, error) {
	var doc document
	if err := yaml.Unmarshal(source, &doc); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"code": codeSpans, "upper": strings.ToUpper, "yaml": indented,
	}).Parse(pageSource)
	if err != nil {
		return nil, fmt.Errorf("page.html: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, struct {
		document
		Operations []shown
	}{doc, doc.operations()}); err != nil {
		return nil, fmt.Errorf("page.html: %w", err)
	}
	return out.Bytes(), nil
}

// shown is an operation with its references resolved.
type shown struct {
	Method, Path, Summary, Description string
	Parameters                         []parameter
	Request                            string // name of the body's schema
	Responses                          []shownResponse
}

type shownResponse struct{ Status, Description, Schema string }

func (d *document) operations() []shown {
	var all []shown
	for path, methods := range d.Paths {
		for method, op := range methods {
			s := shown{Method: method, Path: path, Summary: op.Summary, Description: op.Description, Request: op.RequestBody.Content.schema()}
			for _, p := range op.Parameters {
				if p.Ref != "" {
					p = d.Components.Parameters[refName(p.Ref)]
				}
				s.Parameters = append(s.Parameters, p)
			}
			for status, r := range op.Responses {
				if r.Ref != "" {
					r = d.Components.Responses[refName(r.Ref)]
				}
				s.Responses = append(s.Responses, shownResponse{status, r.Description, r.Content.schema()})
			}
			sort.Slice(s.Responses, func(i, j int) bool { return s.Responses[i].Status < s.Responses[j].Status })
			all = append(all, s)
		}
	}
	order := map[string]int{"post": 0, "get": 1, "head": 2, "put": 3, "delete": 4}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if api := strings.HasPrefix(a.Path, "/v1/"); api != strings.HasPrefix(b.Path, "/v1/") {
			return api
		}
		if a.Path != b.Path {
			return a.Path < b.Path
		}
		return order[a.Method] < order[b.Method]
	})
	return all
}

func (c content) schema() string {
	for _, media := range c {
		if ref, ok := media.Schema["$ref"].(string); ok {
			return refName(ref)
		}
	}
	return ""
}

// refName is the last part of "#/components/schemas/Room".
func refName(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// codeSpans shows `this` as code and keeps paragraphs.
func codeSpans(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(strings.TrimSpace(text), "`") {
		escaped := strings.ReplaceAll(template.HTMLEscapeString(part), "\n\n", "<br><br>")
		if i%2 == 1 {
			escaped = "<code>" + escaped + "</code>"
		}
		b.WriteString(escaped)
	}
	return template.HTML(b.String()) //nolint:gosec // escaped above
}

func indented(v any) (string, error) {
	out, err := yaml.Marshal(v)
	return strings.TrimSpace(string(out)), err
}
