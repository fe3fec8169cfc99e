package testkit

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// SentinelGroup is a primary with replicas, watched by Sentinels.
type SentinelGroup struct {
	Name      string
	Nodes     []*RedisServer // Nodes[0] is the first primary
	Sentinels []*RedisServer
}

// Sentinel starts a primary, one replica and one Sentinel; a dead primary is
// noticed after a second.
func Sentinel(tb testing.TB, args ...string) *SentinelGroup {
	tb.Helper()
	g, err := StartSentinel(tb.TempDir(), 1, 1, args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.Kill)
	return g
}

// StartSentinel starts a primary with replicas and Sentinels, in directories
// below dir. Arguments go to the redis-servers.
func StartSentinel(dir string, replicas, sentinels int, args ...string) (g *SentinelGroup, err error) {
	g = &SentinelGroup{Name: "madang"}
	defer func() {
		if err != nil {
			g.Kill()
		}
	}()
	for i := range 1 + replicas {
		nodeArgs := args
		if i > 0 {
			nodeArgs = append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(g.Nodes[0].Port)}, args...)
		}
		s, err := StartRedis(subdir(dir, "node", i), nodeArgs...)
		if err != nil {
			return g, err
		}
		g.Nodes = append(g.Nodes, s)
	}
	if err := g.Nodes[0].AwaitReplicas(replicas); err != nil {
		return g, err
	}
	for i := range sentinels {
		d := subdir(dir, "sentinel", i)
		s, err := start("redis-sentinel", d, func(port int) []string {
			conf := filepath.Join(d, "sentinel-"+strconv.Itoa(port)+".conf")
			text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nlogfile %s\n"+
				"sentinel monitor %s 127.0.0.1 %d %d\nsentinel down-after-milliseconds %s 1000\n"+
				"sentinel failover-timeout %s 3000\nsentinel parallel-syncs %s 1\n",
				port, d, filepath.Join(d, "redis-"+strconv.Itoa(port)+".log"),
				g.Name, g.Nodes[0].Port, sentinels/2+1, g.Name, g.Name, g.Name)
			_ = os.WriteFile(conf, []byte(text), 0o600)
			return []string{conf}
		})
		if err != nil {
			return g, err
		}
		g.Sentinels = append(g.Sentinels, s)
	}
	return g, waitFor("sentinels that know each other and the replicas", func() bool {
		for _, s := range g.Sentinels {
			v, err := s.Do("SENTINEL", "master", g.Name)
			if err != nil {
				return false
			}
			f := fields(v)
			if f["num-slaves"] != strconv.Itoa(replicas) || f["num-other-sentinels"] != strconv.Itoa(sentinels-1) || f["flags"] != "master" {
				return false
			}
		}
		return true
	})
}

// fields makes a map of an alternating list of names and values.
func fields(v any) map[string]string {
	m := map[string]string{}
	list, _ := v.([]any)
	for i := 0; i+1 < len(list); i += 2 {
		m[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return m
}

// URL is what --redis takes.
func (g *SentinelGroup) URL() string {
	addrs := make([]string, len(g.Sentinels))
	for i, s := range g.Sentinels {
		addrs[i] = s.Addr()
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/" + g.Name + "/0"
}

// Primary is the node that the first Sentinel takes for the primary, nil when
// it is none of Nodes.
func (g *SentinelGroup) Primary() *RedisServer {
	v, err := g.Sentinels[0].Do("SENTINEL", "get-master-addr-by-name", g.Name)
	addr, _ := v.([]any)
	if err != nil || len(addr) != 2 {
		return nil
	}
	for _, n := range g.Nodes {
		if addr[1] == strconv.Itoa(n.Port) {
			return n
		}
	}
	return nil
}

// Failover asks the first Sentinel for a failover and waits until another node
// is primary.
func (g *SentinelGroup) Failover() error {
	old := g.Primary()
	if err := old.awaitOffset(1); err != nil { // else Sentinel may promote one that has nothing
		return err
	}
	if err := waitFor("a failover that Sentinel accepts", func() bool {
		_, err := g.Sentinels[0].Do("SENTINEL", "failover", g.Name)
		return err == nil
	}); err != nil {
		return err
	}
	return waitFor("another primary", func() bool { p := g.Primary(); return p != nil && p != old })
}

// Kill ends all processes of the group.
func (g *SentinelGroup) Kill() {
	for _, s := range append(append([]*RedisServer{}, g.Sentinels...), g.Nodes...) {
		s.Kill()
	}
}
