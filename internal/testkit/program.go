package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Program is the path of cmd/madang: what MADANG_TEST_BINARY names, or built into dir,
// with the race detector when the test has it.
func Program(dir string) (string, error) {
	if path := os.Getenv("MADANG_TEST_BINARY"); path != "" {
		return path, nil
	}
	if raceEnabled {
		return build(dir, "-race")
	}
	return build(dir)
}

// Released is cmd/madang, built into dir as teams run it: the race detector has other
// code in the place of some of it (internal/rawconn).
func Released(dir string) (string, error) { return build(dir) }

func build(dir string, flags ...string) (string, error) {
	path := filepath.Join(dir, "madang")
	args := append([]string{"build", "-tags", "nomsgpack", "-o", path}, flags...)
	out, err := exec.Command("go", append(args, "github.com/madang-chat/madang/cmd/madang")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building cmd/madang: %w\n%s", err, out)
	}
	return path, nil
}
