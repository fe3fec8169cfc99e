package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/plan"
	"github.com/madang-chat/madang/internal/testkit"
)

// sections are what can be measured by itself.
var sections = []struct {
	name string
	run  func(binary string, soFar constants) (constants, error)
}{
	{"sockets", sockets},
	{"idle", idle},
	{"deliveries", deliveries},
	{"sends", sends},
	{"canaries", canaries},
	{"memory", memory},
}

func main() {
	only := flag.String("only", "", "sections to measure, separated by commas; all by default: the constants of the others stay as they are")
	write := flag.String("write", "", "Go file to write the constants to")
	flag.Parse()
	if err := measure(*only, *write); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func measure(only, write string) error {
	dir, err := os.MkdirTemp("", "madang-measure-bin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := testkit.Released(dir)
	if err != nil {
		return err
	}
	found := constants{}
	for _, s := range sections {
		if only != "" && !slices.Contains(strings.Split(only, ","), s.name) {
			continue
		}
		start := time.Now()
		c, err := s.run(binary, found)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", s.name, time.Since(start).Round(time.Second))
		maps.Copy(found, c)
	}
	all := plan.Constants()
	for i, m := range all {
		if v, ok := found[m.Name]; ok {
			all[i].Value = v
			delete(found, m.Name)
			fmt.Printf("%-28s %10.2f %s\n", m.Name, v, m.Unit)
		}
	}
	for name := range found {
		return fmt.Errorf("internal/plan has no constant %s", name)
	}
	if write == "" {
		return nil
	}
	return os.WriteFile(write, plan.Source(all, machine()), 0o644)
}

// machine says where the figures were measured.
func machine() plan.Machine {
	m := plan.Machine{Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Go: runtime.Version()}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	redis, _ := exec.Command("redis-server", "--version").Output()
	for field := range strings.FieldsSeq(string(redis)) {
		if v, ok := strings.CutPrefix(field, "v="); ok {
			m.Redis = v
		}
	}
	revision, _ := exec.Command("git", "describe", "--always", "--dirty").Output()
	m.Revision = strings.TrimSpace(string(revision))
	return m
}
