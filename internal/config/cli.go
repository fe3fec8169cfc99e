package config

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

// Base are the settings of the command line itself. Every command line embeds it.
type Base struct {
	Config string `help:"YAML file of settings: the flags' names are its keys." placeholder:"FILE" type:"path"`
}

// BeforeResolve loads the file, when there is one, before kong fills in flags
// that are not on the command line, and checks the environment's names.
func (b *Base) BeforeResolve(k *kong.Kong, ctx *kong.Context) error {
	known := map[string]bool{}
	path := b.Config
	err := kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			for _, env := range flag.Envs {
				known[env] = true
			}
			if flag.Name == "config" {
				if s, ok := ctx.FlagValue(flag).(string); ok && s != "" {
					path = s
				}
			}
		}
		return next(nil)
	})
	if err != nil {
		return err
	}
	if err := CheckEnviron(os.Environ(), known); err != nil {
		return err
	}
	if path == "" {
		return nil
	}
	f, err := ReadFile(path)
	if err != nil {
		return err
	}
	if err := f.unknown(k.Model); err != nil {
		return err
	}
	ctx.AddResolver(f)
	return nil
}

// Options are what a kong parser of these settings needs.
func Options() []kong.Option {
	return []kong.Option{
		kong.PostBuild(nameVariables),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.ValueFormatter(describe),
		kong.NamedMapper("path", kong.MapperFunc(path)),
	}
}

// path makes a file's name absolute. An empty one is none: kong would take it for
// the working directory, where files that people attach would end up.
func path(ctx *kong.DecodeContext, target reflect.Value) error {
	var name string
	if err := ctx.Scan.PopValueInto("file", &name); err != nil {
		return err
	}
	if name != "" && name != "-" {
		name = kong.ExpandPath(name)
	}
	target.SetString(name)
	return nil
}

// describe is a setting's help. Kong shows a default where the placeholder would
// be; what has a placeholder gets it here.
func describe(v *kong.Value) string {
	help := v.Help
	if v.HasDefault && v.Default != "" && v.Flag != nil && v.Flag.PlaceHolder != "" {
		help += fmt.Sprintf(" [default: %s]", v.Default)
	}
	if len(v.Tag.Envs) > 0 {
		help += " ($" + v.Tag.Envs[0] + ")"
	}
	return help
}

// nameVariables gives every flag its environment variable. kong.DefaultEnvars
// splits words its own way (MAX_CONNS_PER_USER would do, but JWKS_URL and digits
// are at its mercy); here it is the flag's name in capitals, always.
func nameVariables(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag.Name != "help" && flag.Name != "version" {
			env := EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
			flag.Envs = []string{env}
			flag.Value.Tag.Envs = []string{env}
		}
		return next(nil)
	})
}

// Defaults fills in every setting's default, as the command line would. T is one
// of API, Gateway and Dev.
func Defaults[T any]() T {
	var c T
	app, err := kong.New(&c)
	if err == nil {
		var ctx *kong.Context
		if ctx, err = kong.Trace(app, nil); err == nil {
			err = ctx.ApplyDefaults()
		}
	}
	if err != nil {
		panic("BUG: config: " + err.Error()) // the tags are wrong, in every process alike
	}
	return c
}
