package redisstore

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// kind is how the Redis servers are arranged.
type kind uint8

const (
	standalone kind = iota
	sentinel
	cluster
)

// target is what a URL says.
type target struct {
	kind           kind
	tls            bool
	addrs          []string
	user, password string
	master         string // Sentinel's name of the primary
	db             int
}

// parseURL understands
//
//	redis://[user:password@]host[:port][/db]
//	redis+sentinel://[user:password@]host[:port],host[:port]/master[/db]
//	redis+cluster://[user:password@]host[:port],host[:port]
//
// and rediss, rediss+sentinel, rediss+cluster for TLS. User and password are
// percent-decoded and go to the data nodes. Errors never hold the password: what
// stands before the '@' is not quoted, which is also why net/url does not parse
// the whole.
func parseURL(s string) (t target, err error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return t, errors.New(`redis URL: no "://"; want redis://host:port/db`)
	}
	base, arrangement, _ := strings.Cut(scheme, "+")
	switch base {
	case "redis":
	case "rediss":
		t.tls = true
	default:
		return t, fmt.Errorf("redis URL: unknown scheme %q; want redis or rediss, with +sentinel or +cluster", scheme)
	}
	switch arrangement {
	case "":
		if strings.HasSuffix(scheme, "+") {
			return t, fmt.Errorf("redis URL: unknown scheme %q", scheme)
		}
	case "sentinel":
		t.kind = sentinel
	case "cluster":
		t.kind = cluster
	default:
		return t, fmt.Errorf("redis URL: unknown scheme %q; want redis or rediss, with +sentinel or +cluster", scheme)
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		rest = rest[at+1:]
		var err1, err2 error
		t.user, err1 = url.PathUnescape(user)
		t.password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return t, errors.New("redis URL: user or password is not percent-encoded rightly")
		}
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		name, _, _ := strings.Cut(rest[i:], "=") // what it is given may be the password
		return t, fmt.Errorf("redis URL: %q is not understood: parameters are settings of their own", name)
	}
	hosts, path, _ := strings.Cut(rest, "/")
	port := "6379"
	if t.kind == sentinel {
		port = "26379"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := hostPort(host, port)
		if err != nil {
			return t, err
		}
		t.addrs = append(t.addrs, addr)
	}
	if t.kind == standalone && len(t.addrs) > 1 {
		return t, errors.New("redis URL: several hosts; want redis+sentinel:// or redis+cluster:// for them")
	}
	return t, t.parsePath(strings.TrimSuffix(path, "/"))
}

func (t *target) parsePath(path string) error {
	db := path
	switch t.kind {
	case cluster:
		if path != "" && path != "0" {
			return fmt.Errorf("redis URL: %q after the hosts: a Cluster has only database 0", "/"+path)
		}
		return nil
	case sentinel:
		t.master, db, _ = strings.Cut(path, "/")
		if t.master == "" {
			return errors.New("redis URL: the name of Sentinel's master is missing: redis+sentinel://host:port/master")
		}
	}
	if db == "" {
		return nil
	}
	n, err := strconv.Atoi(db)
	if err != nil || n < 0 {
		return fmt.Errorf("redis URL: database %q is not a number", db)
	}
	t.db = n
	return nil
}

func hostPort(s, defaultPort string) (string, error) {
	host, port := s, defaultPort
	if strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1 {
		if h, p, err := net.SplitHostPort(s); err == nil {
			host, port = h, p
		} else if host = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"); strings.ContainsAny(host, "[]") {
			return "", fmt.Errorf("redis URL: %q is not host:port", s)
		}
	} else if strings.Contains(s, ":") {
		return "", fmt.Errorf("redis URL: %q is not host:port (IPv6 goes in brackets)", s)
	}
	if host == "" {
		return "", errors.New("redis URL: a host is missing")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("redis URL: port %q is not a number of 1 to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}
