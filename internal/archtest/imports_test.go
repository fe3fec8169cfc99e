package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/madang-chat/madang"

// root is the module's directory, seen from this package's.
const root = "../.."

// layer is one step of the one direction: its packages may import the packages
// of the module that are listed, and no others.
type layer struct {
	dirs []string // "a" is that package, "a/..." it and all below
	may  []string
}

// layers are the rules for code that is not a test. Each package belongs to the
// first layer that names it; one that none names is an error, so that a new
// folder is given its place here.
var layers = []layer{
	{dirs: []string{"protocol"}},
	{dirs: []string{"internal/chat"}, may: []string{"protocol"}},
	{dirs: []string{"internal/auth"}, may: []string{"protocol"}},
	{dirs: []string{"internal/config", "internal/archtest", "internal/certfile", "internal/rawconn", "internal/procs", "internal/descriptors", "internal/embedded", "web", "grafana/...", "deploy/..."}},
	{dirs: []string{"internal/blob"}},
	{dirs: []string{"internal/blob/..."}, may: []string{"internal/blob"}},
	{dirs: []string{"internal/metrics"}, may: []string{"gateway/...", "internal/redisstore"}},
	{dirs: []string{"internal/redisstore/..."}, may: []string{"internal/chat", "internal/rawconn", "protocol"}},
	{dirs: []string{"gateway/balance"}},
	{dirs: []string{"gateway/poll", "gateway/wsframe"}, may: []string{"protocol"}},
	{dirs: []string{"gateway/edge"}, may: []string{"protocol"}},
	{dirs: []string{"gateway/session"}, may: []string{"protocol", "gateway/wsframe", "gateway/edge"}},
	{dirs: []string{"gateway/..."}, may: []string{"protocol", "internal/chat", "internal/auth", "internal/descriptors", "gateway/..."}},
	{dirs: []string{"api/..."}, may: []string{"protocol", "internal/chat", "internal/auth", "internal/blob", "internal/rawconn", "internal/descriptors", "api/..."}},
	{dirs: []string{"loadtest/..."}, may: []string{"protocol", "internal/auth", "loadtest/..."}},
	{dirs: []string{"internal/plan", "internal/logs"}},
	{dirs: []string{"internal/trace"}, may: []string{"protocol"}},
	{dirs: []string{"internal/doctor"}, may: []string{"internal/config", "internal/redisstore", "internal/plan"}},
	{dirs: []string{"internal/app"}, may: []string{"protocol", "api/...", "gateway/...", "internal/...", "web"}},
	{dirs: []string{"cmd/..."}, may: []string{"internal/app", "internal/config", "internal/auth", "internal/doctor", "internal/plan", "loadtest/..."}},
	{dirs: []string{"internal/testkit/..."}, may: []string{"..."}},
	{dirs: []string{"test/..."}, may: []string{"..."}},
}

// homes are the outside libraries that only one part of the code may know.
var homes = []struct{ library, home string }{
	{"github.com/gin-gonic/gin", "api/..."},
	{"github.com/redis/go-redis", "internal/redisstore/..."},
	{"github.com/gabriel-vasile/mimetype", "api/..."},
	{"github.com/minio/", "internal/blob/s3"},
	{"github.com/golang-jwt/jwt", "internal/auth"},
	{"github.com/MicahParks/", "internal/auth"},
	{"github.com/alicebob/miniredis", "internal/embedded"},
	{"github.com/prometheus/client_golang", "internal/metrics"},
	{"github.com/alecthomas/kong", "internal/config"},
	{"go.opentelemetry.io/", "internal/trace"},
	{"github.com/chromedp/", "test/..."},
	{"github.com/pires/go-proxyproto", "gateway/loop"},
	{"github.com/coder/websocket", "internal/testkit/..."},
}

// exceptions are what a library's home list does not say, each with its reason.
var exceptions = map[string][]string{
	"cmd/madang":   {"github.com/alecthomas/kong"},                              // the command line itself
	"internal/app": {"github.com/prometheus/client_golang"},                     // serves the registry
	"test":         {"github.com/coder/websocket", "github.com/redis/go-redis"}, // whole-system tests
	// A stand-in for the server, so that the load tester is tested against
	// something it does not share code with.
	"loadtest/internal/fakechat": {"github.com/coder/websocket", "github.com/golang-jwt/jwt"},
}

func TestImportsGoOneWay(t *testing.T) {
	packages := 0
	eachFile(t, func(dir, file string, imports []string) {
		packages++
		rule := layerOf(dir)
		if rule == nil {
			t.Errorf("%s: internal/archtest does not say where %q belongs", file, dir)
			return
		}
		for _, imp := range imports {
			if rel, ours := strings.CutPrefix(imp, module+"/"); ours {
				if rel != dir && !slices.ContainsFunc(rule.may, func(p string) bool { return within(rel, p) }) {
					t.Errorf("%s imports %s: it may import %v only", file, rel, rule.may)
				}
			}
			for _, h := range homes {
				if hasPath(imp, h.library) && !within(dir, h.home) &&
					!excepted(dir, imp) {
					t.Errorf("%s imports %s: only %s may", file, imp, h.home)
				}
			}
		}
	})
	if packages < 10 {
		t.Fatalf("only %d files were looked at: is the module's root still %s?", packages, root)
	}
}

// excepted says whether dir's exceptions, or those of a folder above it, allow imp.
func excepted(dir, imp string) bool {
	for d, libraries := range exceptions {
		if within(dir, d+"/...") && slices.ContainsFunc(libraries, func(lib string) bool { return hasPath(imp, lib) }) {
			return true
		}
	}
	return false
}

func layerOf(dir string) *layer {
	for i := range layers {
		if slices.ContainsFunc(layers[i].dirs, func(p string) bool { return within(dir, p) }) {
			return &layers[i]
		}
	}
	return nil
}

// within says whether pattern ("a", "a/...", "...") covers dir.
func within(dir, pattern string) bool {
	base, below := strings.CutSuffix(pattern, "...")
	if !below {
		return dir == pattern
	}
	base = strings.TrimSuffix(base, "/")
	return base == "" || dir == base || strings.HasPrefix(dir, base+"/")
}

// hasPath says whether an import is of the library: its path, or below it.
func hasPath(imp, library string) bool {
	return imp == library || strings.HasPrefix(imp, strings.TrimSuffix(library, "/")+"/")
}

// eachFile calls f for every Go file of the module that is not a test.
func eachFile(t *testing.T, f func(dir, file string, imports []string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "tmp") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imports []string
		for _, spec := range file.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, imp)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f(filepath.ToSlash(filepath.Dir(rel)), filepath.ToSlash(rel), imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
