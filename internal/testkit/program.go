package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ProgramGiven is the program that the environment names; empty: tests build it.
func ProgramGiven() string { return os.Getenv("MADANG_TEST_BINARY") }

// Program is the path of cmd/madang: the one that is given, or built into dir, with the
// race detector when the test has it.
func Program(dir string) (string, error) {
	if path := ProgramGiven(); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "madang")
	args := []string{"build", "-tags", "nomsgpack", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/madang-chat/madang/cmd/madang")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building cmd/madang: %w\n%s", err, out)
	}
	return path, nil
}
