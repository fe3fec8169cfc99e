package config

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Bytes is the shared secret, from the flag or the file; nil when none is given.
func (c Secret) Bytes() ([]byte, error) {
	secret, flag := []byte(c.JWTSecret), "jwt-secret"
	if c.JWTSecretFile != "" {
		flag = "jwt-secret-file"
		b, err := os.ReadFile(c.JWTSecretFile)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		secret = bytes.TrimRight(b, "\r\n")
		if len(secret) == 0 {
			return nil, fmt.Errorf("--%s: %s is empty", flag, c.JWTSecretFile)
		}
	}
	if len(secret) == 0 {
		return nil, nil
	}
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("--%s: the secret has %d bytes; it must have at least %d (openssl rand -hex 32 makes one)", flag, len(secret), MinSecretBytes)
	}
	return secret, nil
}

// ServerKeys are the keys in the server key file: one per line, blank lines and
// lines that begin with # left out. Nil when no file is given.
func (c HTTP) ServerKeys() ([]string, error) {
	if c.ServerKeyFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.ServerKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--server-key-file: %w", err)
	}
	var keys []string
	for i, line := range strings.Split(string(b), "\n") {
		key := strings.TrimSpace(line)
		if key == "" || key[0] == '#' {
			continue
		}
		if len(key) < MinSecretBytes {
			return nil, fmt.Errorf("--server-key-file: the key in line %d of %s has %d bytes; it must have at least %d", i+1, c.ServerKeyFile, len(key), MinSecretBytes)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("--server-key-file: %s holds no key", c.ServerKeyFile)
	}
	return keys, nil
}
