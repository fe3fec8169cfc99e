package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRedisURLComesFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("redis://user:pass@10.0.0.1:6379/0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Defaults[API]().Redis
	c.RedisFile = file
	if url, err := c.Where(); err != nil || url != "redis://user:pass@10.0.0.1:6379/0" {
		t.Errorf("%q, %v", url, err)
	}
}

// What is wrong with files is said with the flag's name, and never with what a
// file holds: it may be a password.
func TestWrongRedisFilesAreNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "url")
	if err := os.WriteFile(file, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Redis){
		"--redis-file: ":                     func(r *Redis) { r.RedisFile = file },
		"--redis-file":                       func(r *Redis) { r.RedisFile = filepath.Join(dir, "none") },
		"--redis-ca: ":                       func(r *Redis) { r.RedisCA, r.URL = file, "rediss://h" },
		"--redis-ca":                         func(r *Redis) { r.RedisCA = filepath.Join(dir, "none") },
		"--redis-key: --redis-cert needs it": func(r *Redis) { r.RedisCert = file },
		"--redis-ca: without a rediss URL":   func(r *Redis) { r.RedisCA = file },
		"--redis-cert: without a rediss URL": func(r *Redis) { r.RedisCert, r.RedisKey = file, file },
		"--redis-cert: ":                     func(r *Redis) { r.RedisCert, r.RedisKey = file, file },
	} {
		c := Defaults[API]()
		c.JWTSecret = strings.Repeat("x", 32)
		change(&c.Redis)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestURLsAreShownWithoutSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"redis://h:1/0":                   "redis://h:1/0",
		"redis://u:p@h:1/0":               "redis://h:1/0",
		"redis+cluster://:p@ss@h:1,i:2":   "redis+cluster://h:1,i:2",
		"rediss+sentinel://u:p@h:1/m/2":   "rediss+sentinel://h:1/m/2",
		"u:p@somewhere, not a URL at all": "somewhere, not a URL at all",
		"https://h/keys?key=k":            "https://h/keys",
	} {
		if got := Shown(in); got != want {
			t.Errorf("%q shows as %q, want %q", in, got, want)
		}
	}
}
