// Package config is every setting of every process: its meaning, unit, default
// and what gets worse when it is larger or smaller, in one place. The structs'
// tags are read by the command line (flags, environment, --help), by the YAML
// resolver and by Defaults, so that the three can't disagree.
//
// A flag goes before an environment variable (MADANG_ and the flag's name in
// capitals), that before the YAML file, that before the default.
//
// The package opens nothing but the files that hold secrets, and starts nothing.
package config
