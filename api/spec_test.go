package api_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/api/openapi"
)

// spec is the served description, decoded once.
var spec = sync.OnceValue(func() map[string]any {
	text, err := openapi.JSON()
	if err != nil {
		panic(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		panic(err)
	}
	return doc
})

// dig follows names into a decoded document.
func dig(v any, names ...string) any {
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// deref follows a $ref, keeping what stands beside it.
func deref(v any) map[string]any {
	m, _ := v.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	target := deref(dig(spec(), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
	if target == nil {
		panic("dangling reference " + ref)
	}
	return target
}

func TestSpecAndRoutesAgree(t *testing.T) {
	described := map[string]bool{}
	for path, methods := range spec()["paths"].(map[string]any) {
		path = regexp.MustCompile(`\{(\w+)\}`).ReplaceAllString(path, ":$1")
		for method := range methods.(map[string]any) {
			described[strings.ToUpper(method)+" "+path] = true
		}
	}
	for _, route := range api.Routes() {
		if !described[route] {
			t.Errorf("%s is served but not described", route)
		}
		delete(described, route)
	}
	for route := range described {
		t.Errorf("%s is described but not served", route)
	}
}

func TestSpecHasNoDanglingReferences(t *testing.T) {
	used := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				used[ref] = true
				deref(v) // panics
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(spec())
	for kind, things := range spec()["components"].(map[string]any) {
		if kind == "securitySchemes" {
			continue
		}
		for name := range things.(map[string]any) {
			if !used["#/components/"+kind+"/"+name] {
				t.Errorf("component %s/%s is not used", kind, name)
			}
		}
	}
}

// Programs that make types of the description take an object of which it says nothing
// for one that has no fields.
func TestSpecSaysWhatIsInItsObjects(t *testing.T) {
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			kinds, _ := v["type"].([]any)
			if v["type"] == "object" || slices.Contains(kinds, any("object")) {
				if v["properties"] == nil && v["additionalProperties"] == nil {
					t.Errorf("%s has neither properties nor additionalProperties", at)
				}
			}
			for name, x := range v {
				walk(at+"/"+name, x)
			}
		case []any:
			for _, x := range v {
				walk(at, x)
			}
		}
	}
	walk("", spec())
}

func TestSpecAndDocsAreServed(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	w.nobody().get("/openapi.json").want(200).wantField("openapi", "3.1.0")
	page := w.nobody().get("/docs").want(200)
	for _, want := range []string{"<!doctype html>", "/v1/rooms/{room}/messages", "idempotency_key_reuse", `id="NewMessage"`} {
		if !strings.Contains(page.body, want) {
			t.Errorf("/docs lacks %q", want)
		}
	}
	if regexp.MustCompile(`(src|href)="(https?:)?//`).MatchString(page.body) || strings.Contains(page.body, "<script") {
		t.Error("/docs needs something from elsewhere")
	}
}

// checkAgainstSpec compares an answer with what is described for it.
func checkAgainstSpec(a *answer, method, path string) {
	a.t.Helper()
	op := operationFor(method, path)
	if op == nil {
		return // 404 and 405
	}
	responses := op["responses"].(map[string]any)
	described, ok := responses[strconv.Itoa(a.status)]
	if !ok {
		if described = responses["default"]; a.status < 500 {
			a.t.Errorf("%s: status %d is not described", a.request, a.status)
			return
		}
	}
	content, _ := deref(described)["content"].(map[string]any)
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if len(content) == 0 {
		if a.body != "" {
			a.t.Errorf("%s: %d has a body that is not described: %s", a.request, a.status, a.body)
		}
		return
	}
	media, ok := content[kind].(map[string]any)
	if _, any := content["*/*"]; any && a.status < 300 {
		return
	}
	if !ok {
		a.t.Errorf("%s: %d as %q is not described", a.request, a.status, kind)
		return
	}
	if !strings.HasSuffix(kind, "json") {
		return
	}
	var v any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		a.t.Errorf("%s: %v in %s", a.request, err, a.body)
		return
	}
	for _, wrong := range check(media["schema"], v, "answer") {
		a.t.Errorf("%s: %s, in %s", a.request, wrong, a.body)
	}
}

func operationFor(method, path string) map[string]any {
	for pattern, methods := range spec()["paths"].(map[string]any) {
		expr := "^" + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(pattern), "[^/]+") + "$"
		if regexp.MustCompile(expr).MatchString(path) {
			op, _ := dig(methods, strings.ToLower(method)).(map[string]any)
			return op
		}
	}
	return nil
}

// check is as much of JSON Schema as the description uses; anything else in it
// panics, so that nothing is taken for checked that is not.
func check(schema, v any, at string) (wrong []string) {
	s, _ := schema.(map[string]any)
	if ref, ok := s["$ref"]; ok {
		wrong = check(deref(map[string]any{"$ref": ref}), v, at)
	}
	say := func(format string, args ...any) { wrong = append(wrong, at+": "+fmt.Sprintf(format, args...)) }
	text, isText := v.(string)
	number, isNumber := v.(float64)
	object, isObject := v.(map[string]any)
	list, isList := v.([]any)
	for keyword, arg := range s {
		switch keyword {
		case "$ref", "description", "examples", "default":
		case "type":
			kinds, ok := arg.([]any)
			if !ok {
				kinds = []any{arg}
			}
			is := map[string]bool{"string": isText, "integer": isNumber && number == float64(int64(number)), "object": isObject, "array": isList, "null": v == nil}
			_, is["boolean"] = v.(bool)
			if !slices.ContainsFunc(kinds, func(k any) bool { return is[k.(string)] }) {
				say("%v is no %v", v, arg)
			}
		case "const":
			if v != arg {
				say("%v is not %v", v, arg)
			}
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				say("%v is none of %v", v, arg)
			}
		case "pattern":
			if isText && !regexp.MustCompile(arg.(string)).MatchString(text) {
				say("%q does not match %v", text, arg)
			}
		case "format":
			if _, err := time.Parse("2006-01-02T15:04:05.000Z", text); arg != "date-time" || err != nil {
				say("%q is no %v", text, arg)
			}
		case "minLength":
			if isText && utf8.RuneCountInString(text) < int(arg.(float64)) {
				say("%q is too short", text)
			}
		case "maxLength":
			if isText && utf8.RuneCountInString(text) > int(arg.(float64)) {
				say("%q is too long", text)
			}
		case "minimum":
			if isNumber && number < arg.(float64) {
				say("%v is below %v", number, arg)
			}
		case "maximum":
			if isNumber && number > arg.(float64) {
				say("%v is above %v", number, arg)
			}
		case "maxItems":
			if len(list) > int(arg.(float64)) {
				say("%d items", len(list))
			}
		case "items":
			for i, x := range list {
				wrong = append(wrong, check(arg, x, at+"["+strconv.Itoa(i)+"]")...)
			}
		case "required":
			for _, name := range arg.([]any) {
				if _, there := object[name.(string)]; isObject && !there {
					say("%v is missing", name)
				}
			}
		case "properties":
			for name, x := range object {
				if sub, known := arg.(map[string]any)[name]; known {
					wrong = append(wrong, check(sub, x, at+"."+name)...)
				}
			}
		case "additionalProperties":
			described, _ := dig(s, "properties").(map[string]any)
			for name := range object {
				if _, known := described[name]; !known && arg == false {
					say("%s is not described", name)
				}
			}
		default:
			panic("the description uses a keyword that this test does not check: " + keyword)
		}
	}
	return wrong
}

func TestTheCheckItself(t *testing.T) {
	schema := map[string]any{"$ref": "#/components/schemas/SentMessage"}
	good := `{"type":"message","room":"r","id":"1-0","prev":"0-0","n":1,"from":"a","sent_at":"2026-11-22T18:33:00.000Z","body":{"type":"text"},"key":"k","durability":"accepted"}`
	for change, ok := range map[string]bool{
		"":                             true,
		`"n":1→"n":0`:                  false,
		`"n":1→"n":"1"`:                false,
		`"n":1→"n":1,"x":1`:            false,
		`"id":"1-0"→"id":"1"`:          false,
		`accepted→perhaps`:             false,
		`"from":"a",→`:                 false,
		`{"type":"text"}→{"text":"x"}`: false,
		`18:33:00.000Z→18:33`:          false,
	} {
		old, repl, _ := strings.Cut(change, "→")
		var v any
		if err := json.Unmarshal([]byte(strings.Replace(good, old, repl, 1)), &v); err != nil {
			t.Fatal(err)
		}
		if wrong := check(schema, v, "x"); (len(wrong) == 0) != ok {
			t.Errorf("%s: %v", change, wrong)
		}
	}
	if operationFor("POST", "/v1/rooms/r/messages") == nil || operationFor("GET", "/nowhere") != nil {
		t.Error("operationFor")
	}
}
