package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// fit is a primary with a replica that nothing is wrong with.
func fit() redisstore.Inspection {
	node := func(addr, role string) redisstore.NodeInspection {
		n := redisstore.NodeInspection{
			Addr: addr,
			Info: map[string]string{
				"redis_version": "7.0.15", "role": role, "loading": "0", "aof_enabled": "1", "aof_last_write_status": "ok",
				"rdb_last_bgsave_status": "ok", "latest_fork_usec": "300", "maxmemory": "1073741824", "used_memory": "1000000",
				"maxmemory_policy": "noeviction", "connected_clients": "10", "maxclients": "10000", "connected_slaves": "0",
			},
			Config: map[string]string{
				"maxmemory-policy": "noeviction", "appendfsync": "everysec", "repl-backlog-size": "67108864",
				"client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 268435456 67108864 60", "maxclients": "10000",
			},
			LoadsAs:    "OK",
			RoundTrips: []time.Duration{90 * time.Microsecond, 100 * time.Microsecond, 200 * time.Microsecond},
		}
		return n
	}
	primary, replica := node("10.0.0.1:6379", "master"), node("10.0.0.2:6379", "slave")
	primary.Info["connected_slaves"] = "1"
	primary.Info["slave0"] = "ip=10.0.0.2,port=6379,state=online,offset=1,lag=0"
	replica.Info["master_link_status"] = "up"
	return redisstore.Inspection{
		Kind: "sentinel", SchemaVersion: "1", Partitions: "256",
		Nodes: []redisstore.NodeInspection{primary, replica},
		Sentinels: []redisstore.SentinelInspection{{
			Addr: "10.0.0.9:26379", Quorum: "OK 3 usable Sentinels",
			Master: map[string]string{"name": "madang", "flags": "master", "num-slaves": "1", "num-other-sentinels": "2", "quorum": "2", "down-after-milliseconds": "5000"},
		}},
	}
}

var wantFit = WantRedis{Partitions: 256, MinReplicasAck: 1, Gateways: 3}

func TestARedisInGoodOrderHasNoFindings(t *testing.T) {
	for _, f := range JudgeRedis(fit(), wantFit) {
		if f.Level != OK {
			t.Errorf("%v %s: %s", f.Level, f.Check, f.Found)
		}
	}
}

// Each case breaks one thing of a Redis in good order.
func TestEachFaultOfARedisIsFound(t *testing.T) {
	type nodes = []redisstore.NodeInspection
	for name, c := range map[string]struct {
		damage func(*redisstore.Inspection, nodes)
		level  Level
		check  string
		fix    string
	}{
		"old":            {func(_ *redisstore.Inspection, n nodes) { n[0].Info["redis_version"] = "6.2.7" }, Error, "version", "7.0"},
		"evicts":         {func(_ *redisstore.Inspection, n nodes) { n[0].Config["maxmemory-policy"] = "allkeys-lru" }, Error, "eviction", "config set maxmemory-policy 'noeviction'"},
		"no limit":       {func(_ *redisstore.Inspection, n nodes) { n[0].Info["maxmemory"] = "0" }, Warning, "memory", "config set maxmemory"},
		"nearly full":    {func(_ *redisstore.Inspection, n nodes) { n[0].Info["used_memory"] = "1000000000" }, Error, "memory", "log-max-len"},
		"not persistent": {func(_ *redisstore.Inspection, n nodes) { n[0].Info["aof_enabled"] = "0" }, Error, "persistence", "config set appendonly 'yes'"},
		"no fsync":       {func(_ *redisstore.Inspection, n nodes) { n[0].Config["appendfsync"] = "no" }, Warning, "persistence", "appendfsync 'everysec'"},
		"cannot write":   {func(_ *redisstore.Inspection, n nodes) { n[0].Info["aof_last_write_status"] = "err" }, Error, "persistence", "df -h"},
		"forgets":        {func(_ *redisstore.Inspection, n nodes) { n[1].LoadsAs = "User default has no permissions" }, Error, "loading", "acl setuser default off"},
		"hides users": {func(_ *redisstore.Inspection, n nodes) {
			n[1].LoadsAs, n[1].LoadsAsErr = "", errors.New("NOPERM")
		}, Unknown, "loading", ""},
		"no snapshot":      {func(_ *redisstore.Inspection, n nodes) { n[0].Info["rdb_last_bgsave_status"] = "err" }, Error, "snapshot", "bgsave"},
		"slow fork":        {func(_ *redisstore.Inspection, n nodes) { n[0].Info["latest_fork_usec"] = "900000" }, Warning, "fork", "shards"},
		"far away":         {func(_ *redisstore.Inspection, n nodes) { n[0].RoundTrips = []time.Duration{20 * time.Millisecond} }, Warning, "round trip", "zone"},
		"in another world": {func(_ *redisstore.Inspection, n nodes) { n[0].RoundTrips = []time.Duration{time.Second} }, Error, "round trip", "region"},
		"stutters":         {func(_ *redisstore.Inspection, n nodes) { n[0].RoundTrips[2] = time.Second }, Warning, "round trip", "latency doctor"},
		"clock":            {func(_ *redisstore.Inspection, n nodes) { n[0].ClockAhead = -time.Minute }, Warning, "clock", "chronyc"},
		"replica gone":     {func(_ *redisstore.Inspection, n nodes) { n[0].Info["connected_slaves"] = "0" }, Error, "replicas", "replicaof 10.0.0.1 6379"},
		"a Cluster's gone": {func(_ *redisstore.Inspection, n nodes) {
			n[0].Info["connected_slaves"], n[0].Info["cluster_enabled"] = "0", "1"
		}, Error, "replicas", "add-node REPLICA:6379 10.0.0.1:6379 --cluster-slave"},
		"replica behind": {func(_ *redisstore.Inspection, n nodes) {
			n[0].Info["slave0"] = "ip=10.0.0.2,port=6379,state=online,offset=1,lag=40"
		}, Warning, "replicas", "info replication"},
		"replica cut off": {func(_ *redisstore.Inspection, n nodes) { n[1].Info["master_link_status"] = "down" }, Error, "replication", "info replication"},
		"small backlog":   {func(_ *redisstore.Inspection, n nodes) { n[0].Config["repl-backlog-size"] = "1048576" }, Warning, "replication backlog", "repl-backlog-size"},
		"link buffers": {func(_ *redisstore.Inspection, n nodes) {
			n[0].Config["client-output-buffer-limit"] = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"
		}, Warning, "link buffers", "client-output-buffer-limit 'pubsub 268435456"},
		"clients":        {func(_ *redisstore.Inspection, n nodes) { n[0].Info["maxclients"] = "100" }, Warning, "clients", "config set maxclients"},
		"hides settings": {func(_ *redisstore.Inspection, n nodes) { n[0].Config, n[0].ConfigErr = nil, errors.New("NOPERM") }, Unknown, "settings", ""},
		"down":           {func(_ *redisstore.Inspection, n nodes) { n[1].Err = errors.New("connection refused") }, Error, "redis 10.0.0.2:6379", "ping"},
		"newer schema":   {func(in *redisstore.Inspection, _ nodes) { in.SchemaVersion = "999" }, Error, "redis schema", "version 999"},
		"other schema":   {func(in *redisstore.Inspection, _ nodes) { in.Partitions = "64" }, Error, "redis schema", "--partitions 64"},
		"no primary": {func(_ *redisstore.Inspection, n nodes) {
			n[0].Info["role"], n[0].Info["master_link_status"] = "slave", "up"
		}, Error, "redis primary", "replicaof no one"},
		"sentinel down": {func(in *redisstore.Inspection, _ nodes) {
			in.Sentinels = append(in.Sentinels, redisstore.SentinelInspection{Addr: "10.0.0.8:26379", Err: errors.New("refused")})
		}, Error, "sentinel 10.0.0.8:26379", "ping"},
		"no quorum":      {func(in *redisstore.Inspection, _ nodes) { in.Sentinels[0].QuorumErr = errors.New("NOQUORUM") }, Error, "sentinel 10.0.0.9:26379", "ckquorum madang"},
		"one sentinel":   {func(in *redisstore.Inspection, _ nodes) { in.Sentinels[0].Master["num-other-sentinels"] = "0" }, Warning, "sentinels", "three"},
		"slow sentinel":  {func(in *redisstore.Inspection, _ nodes) { in.Sentinels[0].Master["down-after-milliseconds"] = "60000" }, Warning, "detection", "down-after-milliseconds 5000"},
		"primary is out": {func(in *redisstore.Inspection, _ nodes) { in.Sentinels[0].Master["flags"] = "master,o_down" }, Error, "sentinel 10.0.0.9:26379", "failover madang"},
		"cluster with holes": {func(in *redisstore.Inspection, _ nodes) {
			in.Kind, in.Cluster = "cluster", map[string]string{"cluster_state": "fail", "cluster_slots_ok": "10000", "cluster_size": "3"}
		}, Error, "redis cluster", "--cluster fix"},
		"cluster of two": {func(in *redisstore.Inspection, _ nodes) {
			in.Kind, in.Cluster = "cluster", map[string]string{"cluster_state": "ok", "cluster_slots_ok": "16384", "cluster_size": "2"}
		}, Warning, "redis cluster size", "add-node"},
		"cluster node suspected": {func(in *redisstore.Inspection, n nodes) {
			in.Kind, in.Cluster = "cluster", map[string]string{"cluster_state": "ok", "cluster_slots_ok": "16384", "cluster_size": "3"}
			n[1].ClusterFlags = "slave,fail?"
		}, Error, "redis cluster node 10.0.0.2:6379", "--cluster check"},
	} {
		t.Run(name, func(t *testing.T) {
			in := fit()
			c.damage(&in, in.Nodes)
			var bad []Finding
			for _, f := range JudgeRedis(in, wantFit) {
				if f.Level != OK {
					bad = append(bad, f)
				}
			}
			if len(bad) != 1 {
				t.Fatalf("%d findings: %v", len(bad), bad)
			}
			if f := bad[0]; f.Level != c.level || !strings.HasSuffix(f.Check, c.check) || !strings.Contains(f.Fix, c.fix) {
				t.Errorf("got %v %q fix %q; want %v …%q fix with %q", f.Level, f.Check, f.Fix, c.level, c.check, c.fix)
			}
		})
	}
}

// Where there is no Cluster a gateway's connections do not grow with the partitions.
func TestAFleetFitsOneServersClients(t *testing.T) {
	want := wantFit
	want.Gateways = 100
	for kind, level := range map[string]Level{"standalone": OK, "sentinel": OK, "cluster": Warning} {
		in := fit()
		in.Kind, in.Cluster = kind, map[string]string{"cluster_state": "ok", "cluster_slots_ok": "16384", "cluster_size": "3"}
		by := map[string]Finding{}
		for _, f := range JudgeRedis(in, want) {
			by[f.Check] = f
		}
		wantLevel(t, by, "redis 10.0.0.1:6379 clients", level)
	}
}

// examine looks at a Redis that really runs.
func examine(t *testing.T, url string) map[string]Finding {
	t.Helper()
	r, err := Examine(context.Background(), sample(), config.Doctor{Roles: []string{"api"}, Redis: config.Redis{URL: url, Partitions: 256}})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]Finding{}
	for _, f := range r.Redis {
		by[f.Check] = f
	}
	return by
}

func wantLevel(t *testing.T, by map[string]Finding, check string, level Level) {
	t.Helper()
	if f, ok := by[check]; !ok || f.Level != level {
		t.Errorf("%s is %v (%s), want %v; all: %v", check, f.Level, f.Found, level, by)
	}
}

func TestAStandaloneServerIsExamined(t *testing.T) {
	s := testkit.Redis(t)
	by := examine(t, s.URL())
	wantLevel(t, by, "redis "+s.Addr()+" version", OK)
	wantLevel(t, by, "redis "+s.Addr()+" persistence", Error)
	wantLevel(t, by, "redis "+s.Addr()+" eviction", OK)

	// What the advice says must make the finding go.
	s.Must(t, "CONFIG", "SET", "appendonly", "yes")
	s.Must(t, "HSET", "madang:schema", "version", "1", "partitions", "64")
	by = examine(t, s.URL())
	wantLevel(t, by, "redis "+s.Addr()+" persistence", OK)
	wantLevel(t, by, "redis schema", Error)

	s.Kill()
	wantLevel(t, examine(t, s.URL()), "redis "+s.Addr(), Error)
}

// A user who may look at a server need not be one who may read its keys.
func TestASchemaThatMayNotBeReadIsNotTakenForNone(t *testing.T) {
	s := testkit.Redis(t)
	for _, command := range [][]string{
		{"HSET", "madang:schema", "version", "1", "partitions", "64"},
		{"ACL", "SETUSER", "watcher", "on", ">secret", "~nothing", "+@all"},
	} {
		if _, err := s.Do(command...); err != nil {
			t.Fatal(err)
		}
	}
	wantLevel(t, examine(t, s.URL()), "redis schema", Error)
	wantLevel(t, examine(t, strings.Replace(s.URL(), "://", "://watcher:secret@", 1)), "redis schema", Unknown)
}

func TestSentinelAndItsServersAreExamined(t *testing.T) {
	g := testkit.Sentinel(t)
	by := examine(t, g.URL())
	wantLevel(t, by, "sentinel "+g.Sentinels[0].Addr(), OK)
	wantLevel(t, by, "sentinels", Warning)
	wantLevel(t, by, "redis "+g.Nodes[0].Addr()+" replicas", OK)
	wantLevel(t, by, "redis "+g.Nodes[0].Addr()+" acknowledgement", Warning)
	wantLevel(t, by, "redis "+g.Nodes[1].Addr()+" replication", OK)
}

func TestEachNodeOfAClusterIsExamined(t *testing.T) {
	c := testkit.Cluster(t, 3, 0)
	by := examine(t, c.URL())
	wantLevel(t, by, "redis cluster", OK)
	for _, n := range c.Nodes {
		wantLevel(t, by, "redis "+n.Addr()+" version", OK)
	}
	c.Nodes[2].Kill()
	wantLevel(t, examine(t, c.URL()), "redis "+c.Nodes[2].Addr(), Error)
}

// Redis writes an IPv6 address as it writes any other: without brackets.
func TestEachNodeOfAClusterIsExaminedOverIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"--bind", "127.0.0.1", "::1", "--cluster-enabled", "yes"}
	a, b := testkit.Redis(t, args...), testkit.Redis(t, args...)
	a.Must(t, "CLUSTER", "MEET", "::1", strconv.Itoa(b.Port))
	met := func() bool {
		nodes := a.Must(t, "CLUSTER", "NODES")
		text := nodes.(string)
		return strings.Count(text, " ::1:") == 2 && !strings.Contains(text, "handshake")
	}
	testkit.Soon(t, 30*time.Second, "the nodes have met", met)
	by := examine(t, fmt.Sprintf("redis+cluster://[::1]:%d", a.Port))
	for _, n := range []*testkit.RedisServer{a, b} {
		wantLevel(t, by, fmt.Sprintf("redis [::1]:%d version", n.Port), OK)
	}
}

func TestTheReportIsReadByPeopleAndPrograms(t *testing.T) {
	r := Report{
		Host:     []Finding{{Level: OK, Check: "a", Found: "fine"}, {Level: Error, Check: "b", Found: "bad", Why: "it hurts", Fix: "one\ntwo"}},
		Capacity: []Bound{{By: "memory", Conns: 1234567, How: "counted"}},
	}
	var text, js bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := `This host
  ERROR   b: bad
          because it hurts
          fix: one
          fix: two
  ok      a: fine

Idle clients this host can hold, by what limits them
→    1,234,567  memory: counted

errors: 1, warnings: 0, not looked at: 0, fine: 1
`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
	if err := r.WriteJSON(&js); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Host []struct{ Level, Check, Fix string }
	}
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || back.Host[1].Level != "error" || back.Host[1].Fix != "one\ntwo" {
		t.Errorf("JSON reads back as %+v, %v", back, err)
	}
	if r.Worst() != Error {
		t.Errorf("worst is %v", r.Worst())
	}
}
