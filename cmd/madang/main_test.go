package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

const secret = "0123456789abcdef0123456789abcdef"

// madang runs a command line in this process.
func madang(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestTokenPrintsTheTokenAndNothingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := filepath.Join(t.TempDir(), "madang.yaml")
	if err := os.WriteFile(yaml, []byte("jwt-secret-file: "+file+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"flag": {"--jwt-secret", secret},
		"file": {"--jwt-secret-file", file},
		"yaml": {"--config", yaml},
		"env":  nil,
	} {
		if name == "env" {
			t.Setenv("MADANG_JWT_SECRET", secret)
		}
		code, stdout, stderr := madang(t, append([]string{"token", "--user", "바다", "--ttl", "1h"}, args...)...)
		if code != 0 || stderr != "" {
			t.Fatalf("%s: code %d, %s", name, code, stderr)
		}
		token, ok := strings.CutSuffix(stdout, "\n")
		if !ok || strings.ContainsAny(token, " \n") {
			t.Errorf("%s: printed %q", name, stdout)
		}
		var claims jwt.RegisteredClaims
		if _, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return []byte(secret), nil }); err != nil || claims.Subject != "바다" {
			t.Errorf("%s: %v, of %q", name, err, claims.Subject)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"no command":            {nil, exitUsage, []string{"dev", "gateway"}},
		"unknown command":       {[]string{"gatewy"}, exitUsage, []string{"gatewy"}},
		"unknown flag":          {[]string{"api", "--api-adr", ":1"}, exitUsage, []string{"--api-adr", "--api-addr"}},
		"bad values, all":       {[]string{"gateway", "--partitions=0", "--heartbeat=1ms", "--jwt-secret=short"}, exitUsage, []string{"--partitions", "--heartbeat", "--jwt-secret"}},
		"no secret for a token": {[]string{"token", "--user", "bob"}, exitFailed, []string{"--jwt-secret-file"}},
		"no user for a token":   {[]string{"token", "--jwt-secret", secret}, exitUsage, []string{"--user"}},
		"a name that is none":   {[]string{"token", "--jwt-secret", secret, "--user", "a\x00b"}, exitFailed, []string{"user name"}},
		"unknown Redis scheme":  {[]string{"api", "--jwt-secret", secret, "--redis", "http://pass@word"}, exitUsage, []string{"--redis", `"http"`}},
		"a Redis URL's port":    {[]string{"api", "--jwt-secret", secret, "--redis", "redis://:pass@word@h:x"}, exitUsage, []string{"--redis", `port "x"`}},
		"no such certificate":   {[]string{"gateway", "--jwt-secret", secret, "--tls-cert", "/does/not/exist", "--tls-key", "/does/not/exist"}, exitUsage, []string{"--tls-cert", "/does/not/exist"}},
		"no such public key":    {[]string{"api", "--jwt-key-file", "/does/not/exist"}, exitUsage, []string{"--jwt-key-file"}},
		"address in use or bad": {[]string{"api", "--jwt-secret", secret, "--api-addr", "nonsense"}, exitUsage, []string{"--api-addr", "nonsense"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := madang(t, tt.args...)
			if code != tt.code || stdout != "" {
				t.Errorf("code %d, want %d; printed %q", code, tt.code, stdout)
			}
			for _, w := range tt.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("does not say %q:\n%s", w, stderr)
				}
			}
			if strings.Contains(stderr, "pass@word") {
				t.Errorf("shows a password:\n%s", stderr)
			}
		})
	}
}

// TestAnAddressInUseIsNamed: whoever starts with two or three addresses has to know
// which one to change.
func TestAnAddressInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--api-addr", "--gateway-addr", "--admin-addr"} {
		free := map[string]string{"--api-addr": "127.0.0.1:0", "--gateway-addr": "127.0.0.1:0", "--admin-addr": ""}
		free[flag] = taken.Addr().String()
		args := []string{"dev"}
		for name, addr := range free {
			args = append(args, name+"="+addr)
		}
		code, _, stderr := madang(t, args...)
		if code != exitFailed || !strings.Contains(stderr, flag+": listen tcp "+taken.Addr().String()) {
			t.Errorf("%s: code %d: %s", flag, code, stderr)
		}
	}
}

func TestHelpTellsEverySetting(t *testing.T) {
	code, stdout, _ := madang(t, "--help")
	if code != 0 || !strings.Contains(stdout, "dev ") {
		t.Errorf("code %d:\n%s", code, stdout)
	}
	code, stdout, _ = madang(t, "gateway", "--help")
	if code != 0 {
		t.Errorf("code %d", code)
	}
	stdout = strings.Join(strings.Fields(stdout), " ") // lines are folded anywhere
	for _, want := range []string{"--heartbeat=25s", "MADANG_HEARTBEAT", "--gateway-addr", "[default: :8081]", "[default: 127.0.0.1:9091]", "--out-queue=256KiB", "MADANG_JWT_SECRET_FILE"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("does not say %q", want)
		}
	}
	if code, stdout, _ = madang(t, "--version"); code != 0 || strings.TrimSpace(stdout) == "" {
		t.Errorf("--version: code %d, %q", code, stdout)
	}
}

func TestASignalBeforeTheStartIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"dev", "--api-addr=127.0.0.1:0", "--gateway-addr=127.0.0.1:0", "--admin-addr="}, &stdout, &stderr)
	if code != 0 {
		t.Errorf("code %d: %s", code, stderr.String())
	}
}

// A collector of logs that dies must not take a process with it that holds
// everybody's sockets.
func TestWhoReadsTheLogMayGo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "dev", "--api-addr=127.0.0.1:0", "--gateway-addr=127.0.0.1:0", "--admin-addr=")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil { // the banner: it serves
		t.Fatal(err)
	}
	if err := stderr.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // it says so in the log
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with: %v", err)
	}
}
