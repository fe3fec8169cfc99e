package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
)

// servers are the Redis processes of a run, in one of the three arrangements.
type servers struct {
	kind     string
	nodes    []*testkit.RedisServer
	sentinel *testkit.SentinelGroup
	cluster  *testkit.RedisCluster

	mu   sync.Mutex
	away map[*testkit.RedisServer]bool // killed or stopped by us: not to be asked
}

// Arrangements of Redis.
const (
	standalone = "standalone"
	sentinel   = "sentinel"
	cluster    = "cluster"
)

// startServers starts Redis with its AOF on, synced every second.
func startServers(kind, dir string) (*servers, error) {
	s := &servers{kind: kind, away: map[*testkit.RedisServer]bool{}}
	dir = filepath.Join(dir, kind)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := []string{"--appendonly", "yes", "--appendfsync", "everysec", "--repl-backlog-size", "64mb"}
	switch kind {
	case standalone:
		one, err := testkit.StartRedis(dir, args...)
		if err != nil {
			return nil, err
		}
		s.nodes = []*testkit.RedisServer{one}
	case sentinel:
		group, err := testkit.StartSentinel(dir, 2, 3, args...)
		if err != nil {
			return nil, err
		}
		s.sentinel, s.nodes = group, group.Nodes
	case cluster:
		c, err := testkit.StartCluster(dir, 3, 1, args...)
		if err != nil {
			return nil, err
		}
		s.cluster, s.nodes = c, c.Nodes
	default:
		return nil, fmt.Errorf("redis %q is not known: give standalone, sentinel or cluster", kind)
	}
	return s, nil
}

func (s *servers) url() string {
	switch s.kind {
	case sentinel:
		return s.sentinel.URL()
	case cluster:
		return s.cluster.URL()
	}
	return s.nodes[0].URL()
}

func (s *servers) close() {
	switch s.kind {
	case sentinel:
		s.sentinel.Kill()
	case cluster:
		s.cluster.Kill()
	default:
		s.nodes[0].Kill()
	}
}

func (s *servers) setAway(n *testkit.RedisServer, away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away[n] = away
}

// here are the servers that are not away.
func (s *servers) here() (here []*testkit.RedisServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if !s.away[n] {
			here = append(here, n)
		}
	}
	return here
}

// primaries are the servers that take writes now.
func (s *servers) primaries() (primaries []*testkit.RedisServer) {
	switch s.kind {
	case sentinel:
		if p := s.sentinel.Primary(); p != nil {
			return []*testkit.RedisServer{p}
		}
		return nil
	case cluster:
		for _, n := range s.here() {
			if n.Info("replication")["role"] == "master" && ownsSlots(n) {
				primaries = append(primaries, n)
			}
		}
		return primaries
	}
	return s.nodes
}

func ownsSlots(n *testkit.RedisServer) bool {
	v, _ := n.Do("CLUSTER", "NODES")
	for line := range strings.Lines(fmt.Sprint(v)) {
		if f := strings.Fields(line); len(f) > 2 && strings.Contains(f[2], "myself") {
			return len(f) > 8
		}
	}
	return false
}

// inStep says whether every server is there and every replica follows its
// primary: a further failure may strike.
func (s *servers) inStep() bool {
	if len(s.here()) != len(s.nodes) {
		return false
	}
	if s.kind == standalone {
		_, err := s.nodes[0].Do("PING")
		return err == nil
	}
	primaries := s.primaries()
	want, each := 1, 2
	if s.kind == cluster {
		want, each = 3, 1
	}
	if len(primaries) != want {
		return false
	}
	for _, p := range primaries {
		v, err := p.Do("INFO", "replication")
		if err != nil || strings.Count(fmt.Sprint(v), "state=online") != each {
			return false
		}
	}
	for _, n := range s.nodes {
		if n.Info("persistence")["loading"] != "0" {
			return false
		}
	}
	return s.kind != sentinel || s.sentinelsAgree(primaries[0])
}

// sentinelsAgree says whether all Sentinels take one server for the primary, with
// no failover under way: one that leads a failover whose new primary dies holds on
// to it until that is back.
func (s *servers) sentinelsAgree(primary *testkit.RedisServer) bool {
	for _, sn := range s.sentinel.Sentinels {
		v, err := sn.Do("SENTINEL", "master", s.sentinel.Name)
		fields, _ := v.([]any)
		port, flags := "", ""
		for i := 0; i+1 < len(fields); i += 2 {
			switch fields[i] {
			case "port":
				port = fmt.Sprint(fields[i+1])
			case "flags":
				flags = fmt.Sprint(fields[i+1])
			}
		}
		if err != nil || port != fmt.Sprint(primary.Port) || flags != "master" {
			return false
		}
		v, err = sn.Do("SENTINEL", "replicas", s.sentinel.Name)
		if text := fmt.Sprint(v); err != nil || strings.Contains(text, "s_down") || strings.Contains(text, "disconnected") {
			return false
		}
	}
	return true
}

// aPrimary and aReplica pick one; nil when none is there at the moment.
func (s *servers) aPrimary(rng *rand.Rand) *testkit.RedisServer {
	return pick(rng, patiently(s.primaries))
}

func (s *servers) aReplica(rng *rand.Rand) *testkit.RedisServer {
	return pick(rng, patiently(func() (replicas []*testkit.RedisServer) {
		for _, n := range s.here() {
			if n.Info("replication")["role"] == "slave" {
				replicas = append(replicas, n)
			}
		}
		return replicas
	}))
}

// patiently asks again while nobody is found: on a busy machine servers may take
// their time to say what they are, and after a failover to become it.
func patiently(find func() []*testkit.RedisServer) (found []*testkit.RedisServer) {
	for began := time.Now(); len(found) == 0 && time.Since(began) < 15*time.Second; {
		if found = find(); len(found) == 0 {
			time.Sleep(200 * time.Millisecond)
		}
	}
	return found
}

func pick[T any](rng *rand.Rand, from []T) (one T) {
	if len(from) > 0 {
		one = from[rng.IntN(len(from))]
	}
	return one
}
