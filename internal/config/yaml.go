package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// File is a YAML file of settings. Its keys are the flags' names; a nested
// mapping's keys are joined with dashes (`jwt: {secret-file: x}` is
// jwt-secret-file). A list gives a setting several values. One file may hold the
// settings of all subcommands.
//
// It is a kong.Resolver of our own because kong lets resolvers win over the
// environment, and because a setting that nobody knows must be an error that
// names its line.
type File struct {
	path   string
	values map[string]setting
}

type setting struct {
	text string // as kong parses it: list elements separated by commas
	line int
}

// ReadFile reads and parses a file.
func ReadFile(path string) (*File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseFile(path, b)
}

// ParseFile parses a file's content; path is for messages.
func ParseFile(path string, content []byte) (*File, error) {
	tree, err := parser.ParseBytes(content, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(path, err)
	}
	f := &File{path: path, values: map[string]setting{}}
	var bad []error
	for _, doc := range tree.Docs {
		if doc.Body != nil {
			bad = append(bad, f.read("", doc.Body)...)
		}
	}
	return f, errors.Join(bad...)
}

// syntaxError says where a file is not YAML without the lines around it, which
// yaml would print: one of them may hold a password.
func syntaxError(path string, err error) error {
	var at interface {
		error
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fmt.Errorf("%s: it is not YAML", path)
	}
	message, _, _ := strings.Cut(at.GetMessage(), `: "`) // what stands there
	return fmt.Errorf("%s:%d: %s", path, at.GetToken().Position.Line, message)
}

// read takes one node of the tree whose key is name, "" at the root.
func (f *File) read(name string, node ast.Node) (bad []error) {
	line := node.GetToken().Position.Line
	complain := func(format string, args ...any) []error {
		return append(bad, fmt.Errorf("%s:%d: %s", f.path, line, fmt.Sprintf(format, args...)))
	}
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			bad = append(bad, f.read(name, v)...)
		}
		return bad
	case *ast.MappingValueNode:
		key := n.Key.GetToken().Value
		if name != "" {
			key = name + "-" + key
		}
		return f.read(key, n.Value)
	case *ast.CommentGroupNode:
		return nil
	}
	if name == "" {
		return complain("settings are written as name: value")
	}
	text, ok := scalarOrList(node)
	if !ok {
		return complain("%s: neither a value nor a list of values", name)
	}
	if first, twice := f.values[name]; twice {
		return complain("%s: already set in line %d", name, first.line)
	}
	f.values[name] = setting{text, line}
	return nil
}

func scalarOrList(node ast.Node) (text string, ok bool) {
	switch n := node.(type) {
	case *ast.SequenceNode:
		elems := make([]string, len(n.Values))
		for i, v := range n.Values {
			elem, ok := scalar(v)
			if !ok {
				return "", false
			}
			elems[i] = strings.ReplaceAll(elem, ",", `\,`)
		}
		return strings.Join(elems, ","), true
	default:
		return scalar(n)
	}
}

func scalar(node ast.Node) (text string, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// Validate implements kong.Resolver. Unknown settings were reported before kong
// gets here: it would complain of missing ones first, which are the ones misspelt.
func (f *File) Validate(*kong.Application) error { return nil }

// unknown reports the file's settings that no subcommand knows.
func (f *File) unknown(app *kong.Application) error {
	known := map[string]bool{}
	_ = kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			known[flag.Name] = true
		}
		return next(nil)
	})
	delete(known, "help")
	delete(known, "version")
	delete(known, "config")
	var unknown []string
	for name := range f.values {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	sort.Slice(unknown, func(i, j int) bool { return f.values[unknown[i]].line < f.values[unknown[j]].line })
	var bad []error
	for _, name := range unknown {
		bad = append(bad, fmt.Errorf("%s:%d: unknown setting %q%s", f.path, f.values[name].line, name, suggestion(name, known)))
	}
	return errors.Join(bad...)
}

// Resolve gives kong the file's value of a flag, unless the environment has one.
func (f *File) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	s, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	for _, env := range flag.Envs {
		if _, set := os.LookupEnv(env); set {
			return nil, nil
		}
	}
	// Parsed once for nothing, so that an error names file and line.
	trial := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Parse(kong.Scan().PushTyped(s.text, kong.FlagValueToken), trial); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", f.path, s.line, err)
	}
	return s.text, nil
}
