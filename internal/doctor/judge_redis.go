package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/redisstore"
)

// WantRedis is what Redis is to be good for.
type WantRedis struct {
	Partitions     int // --partitions
	MinReplicasAck int // --min-replicas-ack
	Gateways       int // of the deployment; 0: not known
}

// Bounds of what is still called fast. A send is one round trip, and a heartbeat
// of a link (the canary) is given 5 s.
const (
	slowRoundTrip    = 5 * time.Millisecond
	uselessRoundTrip = 100 * time.Millisecond
	badClock         = 2 * time.Second
	longFork         = 500 * time.Millisecond
	fullMemory       = 0.8
	// linkBuffer is how much Redis should hold for a link that a gateway reads
	// too slowly: 8 MiB for 60 s, the default, is a busy shard's one second.
	linkBuffer = 64 << 20
	// plainConnections is above what a gateway has to a server that is no Cluster's: a
	// link, and its pools' at their largest.
	plainConnections = 32
)

// JudgeRedis compares a deployment's Redis with what madang needs of it.
func JudgeRedis(in redisstore.Inspection, w WantRedis) []Finding {
	var f findings
	judgeSchema(&f, in, w)
	judgeSentinels(&f, in)
	judgeCluster(&f, in)
	primaries := 0
	for _, n := range in.Nodes {
		if n.Err != nil {
			f.bad(Error, "redis "+n.Addr, "does not answer: "+n.Err.Error(), "what it holds cannot be sent to or read", "redis-cli -h "+host(n.Addr)+" -p "+port(n.Addr)+" ping   # user, password and TLS as in the URL")
			continue
		}
		node := node{n, &f}
		node.judgeVersion()
		node.judgeLatency()
		node.judgeMemory()
		node.judgePersistence()
		node.judgeLoading()
		if n.Info["role"] == "master" {
			primaries++
			node.judgeReplicas(w)
			node.judgeLinks(in, w)
		} else {
			node.judgeReplica()
		}
		if n.ConfigErr != nil {
			f.unknown("redis "+n.Addr+" settings", "CONFIG GET is refused (%v): buffers and limits cannot be looked at", n.ConfigErr)
		}
	}
	if primaries == 0 && len(in.Nodes) > 0 {
		f.bad(Error, "redis primary", "none of the servers is one", "nothing can be sent", "# promote one: redis-cli replicaof no one")
	}
	return f
}

func judgeSchema(f *findings, in redisstore.Inspection, w WantRedis) {
	const check = "redis schema"
	switch {
	case in.SchemaErr != nil:
		f.unknown(check, "it cannot be read: %v", in.SchemaErr)
	case in.Partitions == "":
		f.ok(check, "nothing written yet: the first process makes it with --partitions %d", w.Partitions)
	case in.SchemaVersion != strconv.Itoa(redisstore.SchemaVersion):
		f.bad(Error, check, "made by version "+in.SchemaVersion, fmt.Sprintf("this madang has version %d: its processes refuse to start", redisstore.SchemaVersion),
			"# run a madang of schema version "+in.SchemaVersion+", as the deployment's other processes are")
	case w.Partitions != 0 && in.Partitions != strconv.Itoa(w.Partitions):
		f.bad(Error, check, "made with --partitions "+in.Partitions, fmt.Sprintf("with --partitions %d everything would be looked for in the wrong place: processes refuse to start", w.Partitions),
			"# give every process --partitions "+in.Partitions)
	default:
		f.ok(check, "version %s, %s partitions", in.SchemaVersion, in.Partitions)
	}
}

func judgeSentinels(f *findings, in redisstore.Inspection) {
	if in.Kind != "sentinel" {
		return
	}
	alive := 0
	for _, s := range in.Sentinels {
		check := "sentinel " + s.Addr
		switch {
		case s.Err != nil:
			f.bad(Error, check, "does not answer: "+s.Err.Error(), "one that is down does not vote, and a process that starts asks the others only", "redis-cli -h "+host(s.Addr)+" -p "+port(s.Addr)+" ping")
			continue
		case s.QuorumErr != nil:
			f.bad(Error, check, s.QuorumErr.Error(), "a dead primary would not be replaced", "redis-cli -h "+host(s.Addr)+" -p "+port(s.Addr)+" sentinel ckquorum "+s.Master["name"])
		case s.Master["flags"] != "master":
			f.bad(Error, check, "the primary is "+s.Master["flags"], "a failover is needed or under way", "redis-cli -h "+host(s.Addr)+" -p "+port(s.Addr)+" sentinel failover "+s.Master["name"])
		default:
			f.ok(check, "primary %s:%s, %s replicas, quorum %s", s.Master["ip"], s.Master["port"], s.Master["num-slaves"], s.Master["quorum"])
		}
		alive++
		if ms, _ := strconv.Atoi(s.Master["down-after-milliseconds"]); ms > 10_000 {
			f.bad(Warning, check+" detection", fmt.Sprintf("%d ms", ms), "for so long after a primary's death nothing can be sent", "redis-cli -h "+host(s.Addr)+" -p "+port(s.Addr)+" sentinel set "+s.Master["name"]+" down-after-milliseconds 5000")
		}
	}
	if n := known(in); alive > 0 && n < 3 {
		f.bad(Warning, "sentinels", strconv.Itoa(n), "fewer than three cannot outvote one that is cut off", "# run at least three, on hosts of their own")
	}
}

// known is how many Sentinels the first one that answers knows of, itself among
// them.
func known(in redisstore.Inspection) int {
	for _, s := range in.Sentinels {
		if s.Err == nil {
			others, _ := strconv.Atoi(s.Master["num-other-sentinels"])
			return others + 1
		}
	}
	return 0
}

func judgeCluster(f *findings, in redisstore.Inspection) {
	if in.Kind != "cluster" {
		return
	}
	const check = "redis cluster"
	c := in.Cluster
	first := "HOST"
	if len(in.Nodes) > 0 {
		first = host(in.Nodes[0].Addr) + ":" + port(in.Nodes[0].Addr)
	}
	if c["cluster_state"] != "ok" || c["cluster_slots_ok"] != "16384" {
		f.bad(Error, check, fmt.Sprintf("state %s, %s of 16384 slots served", c["cluster_state"], c["cluster_slots_ok"]),
			"rooms and users of the other slots cannot be sent to or read", "redis-cli --cluster fix "+first)
	} else {
		f.ok(check, "state ok, %s primaries, %s nodes", c["cluster_size"], c["cluster_known_nodes"])
	}
	if size, _ := strconv.Atoi(c["cluster_size"]); size > 0 && size < 3 {
		f.bad(Warning, check+" size", fmt.Sprintf("%d primaries", size), "fewer than three cannot agree that one is dead", "redis-cli --cluster add-node NEW:6379 "+first)
	}
	for _, n := range in.Nodes {
		if flags := strings.Split(n.ClusterFlags, ","); slices.Contains(flags, "fail") || slices.Contains(flags, "fail?") || slices.Contains(flags, "noaddr") {
			f.bad(Error, check+" node "+n.Addr, n.ClusterFlags, "the others think that it is down", "redis-cli --cluster check "+first)
		}
	}
}

type node struct {
	redisstore.NodeInspection
	f *findings
}

func (n node) name(what string) string { return "redis " + n.Addr + " " + what }

// set is the command that changes a setting now and in the file.
func (n node) set(name, value string) string {
	cli := "redis-cli -h " + host(n.Addr) + " -p " + port(n.Addr)
	return fmt.Sprintf("%s config set %s '%s' && %s config rewrite", cli, name, value, cli)
}

// replicate is the command that gives a primary a replica more. A Cluster refuses REPLICAOF.
func (n node) replicate() string {
	if n.Info["cluster_enabled"] == "1" {
		return "redis-cli --cluster add-node REPLICA:6379 " + host(n.Addr) + ":" + port(n.Addr) + " --cluster-slave"
	}
	return "redis-cli -h REPLICA replicaof " + host(n.Addr) + " " + port(n.Addr)
}

func (n node) number(name string) int64 {
	v, err := strconv.ParseInt(n.Info[name], 10, 64)
	if err != nil {
		return -1
	}
	return v
}

func (n node) judgeVersion() {
	v := n.Info["redis_version"]
	product := "Redis"
	if vk := n.Info["valkey_version"]; vk != "" {
		product, v = "Valkey", vk
	}
	major, _, _ := strings.Cut(v, ".")
	if m, _ := strconv.Atoi(major); m < 7 {
		n.f.bad(Error, n.name("version"), product+" "+v, "7.0 is needed: sharded pub/sub, and scripts that may write after reading the time", "# install Redis 7.0 or newer, or Valkey")
		return
	}
	n.f.ok(n.name("version"), "%s %s, %s", product, v, n.Info["role"])
}

func (n node) judgeLatency() {
	check := n.name("round trip")
	if len(n.RoundTrips) == 0 {
		n.f.unknown(check, "PING did not come back")
		return
	}
	median := n.RoundTrips[len(n.RoundTrips)/2]
	worst := n.RoundTrips[len(n.RoundTrips)-1]
	found := fmt.Sprintf("median %s, worst of %d %s", micros(median), len(n.RoundTrips), micros(worst))
	switch {
	case median > uselessRoundTrip:
		n.f.bad(Error, check, found, "every send waits for at least one round trip", "# put Redis and the processes into one region")
	case median > slowRoundTrip:
		n.f.bad(Warning, check, found, "every send waits for at least one round trip", "# put Redis and the processes into one zone; on the host: redis-cli --intrinsic-latency 10")
	case worst > uselessRoundTrip:
		n.f.bad(Warning, check, found, "something stops this server now and then: a fork, a slow command, swap, a neighbour", "redis-cli -h "+host(n.Addr)+" -p "+port(n.Addr)+" latency doctor && redis-cli -h "+host(n.Addr)+" -p "+port(n.Addr)+" slowlog get 10")
	default:
		n.f.ok(check, "%s", found)
	}
	if ahead := n.ClockAhead; ahead > badClock || ahead < -badClock {
		n.f.bad(Warning, n.name("clock"), fmt.Sprintf("%s from ours", ahead.Round(time.Millisecond)), "messages' IDs carry Redis's time: after a failover to a clock that is behind they only count up until it has caught up", "# on both hosts: chronyc tracking")
	}
}

func (n node) judgeMemory() {
	policy := n.Config["maxmemory-policy"]
	if policy == "" {
		policy = n.Info["maxmemory_policy"]
	}
	if policy != "noeviction" {
		n.f.bad(Error, n.name("eviction"), policy, "when memory is full, Redis would throw away logs and memberships that were acknowledged", n.set("maxmemory-policy", "noeviction"))
	} else {
		n.f.ok(n.name("eviction"), "noeviction")
	}
	limit, used := n.number("maxmemory"), n.number("used_memory")
	total := n.number("total_system_memory")
	check := n.name("memory")
	switch {
	case limit == 0:
		fix := n.set("maxmemory", "8gb")
		if total > 0 {
			fix = n.set("maxmemory", strconv.FormatInt(total*6/10, 10))
		}
		n.f.bad(Warning, check, fmt.Sprintf("%s used, no limit", size(used)), "without a limit the kernel kills it when memory ends, where a limit would refuse sends (507) and lose nothing; a fork needs room too", fix)
	case limit > 0 && float64(used) > fullMemory*float64(limit):
		n.f.bad(Error, check, fmt.Sprintf("%s of %s used", size(used), size(limit)), "at the limit sends are refused (507); receiving goes on", "# more shards or memory, or a shorter --log-max-len / --log-max-age (madang plan says how much)\n"+n.set("maxmemory", strconv.FormatInt(limit*3/2, 10)))
	default:
		n.f.ok(check, "%s of %s used", size(used), size(limit))
	}
}

func (n node) judgePersistence() {
	check := n.name("persistence")
	if n.Info["loading"] == "1" {
		n.f.bad(Error, check, "loading its data", "nothing can be sent or read until it is done", "redis-cli -h "+host(n.Addr)+" -p "+port(n.Addr)+" info persistence")
		return
	}
	switch {
	case n.Info["aof_enabled"] != "1":
		n.f.bad(Error, check, "append-only file off", "a restart of this server loses every message since the last snapshot, or all of them", n.set("appendonly", "yes"))
	case n.Config["appendfsync"] == "no":
		n.f.bad(Warning, check, "append-only file, fsync when the kernel likes", "a power cut can lose half a minute", n.set("appendfsync", "everysec"))
	default:
		fsync := n.Config["appendfsync"]
		if fsync == "" {
			fsync = "unknown"
		}
		n.f.ok(check, "append-only file, fsync %s", fsync)
	}
	if s := n.Info["aof_last_write_status"]; s != "" && s != "ok" {
		n.f.bad(Error, check, "the append-only file cannot be written", "sends are refused (MISCONF) until it can", "df -h   # on its host: is the disk full?")
	}
	if s := n.Info["rdb_last_bgsave_status"]; s != "" && s != "ok" {
		n.f.bad(Error, n.name("snapshot"), "the last one failed", "with stop-writes-on-bgsave-error sends are refused (MISCONF); a new replica cannot be fed", "redis-cli -h "+host(n.Addr)+" -p "+port(n.Addr)+" bgsave   # and look at its log: disk, or memory for the fork")
	}
	if us := n.number("latest_fork_usec"); time.Duration(us)*time.Microsecond > longFork {
		n.f.bad(Warning, n.name("fork"), fmt.Sprintf("the last took %s", time.Duration(us)*time.Microsecond), "everything on this server waits for it", "# smaller shards (madang plan), or huge pages off on its host: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
	}
}

// judgeLoading looks whether the append-only file, which is written well, is also
// read.
func (n node) judgeLoading() {
	check := n.name("loading")
	switch {
	case n.Info["aof_enabled"] != "1":
	case n.LoadsAsErr != nil:
		n.f.unknown(check, "whether a restart loads what scripts wrote: ACL DRYRUN default: %v", n.LoadsAsErr)
	case n.LoadsAs != "OK":
		cli := "redis-cli -h " + host(n.Addr) + " -p " + port(n.Addr)
		n.f.bad(Error, check, "the user default may not write", "Redis loads the append-only file in its name: after a restart every message and membership since the last rewrite is gone, silently (redis/redis#14541; late versions do not look)",
			cli+" acl setuser default off resetpass '~*' '&*' +@all && "+cli+" acl save   # off: nobody can be it")
	default:
		n.f.ok(check, "the append-only file's user may write")
	}
}

func (n node) judgeReplicas(w WantRedis) {
	check := n.name("replicas")
	online, found := 0, n.number("connected_slaves")
	var worst int64
	for i := range max(found, 0) {
		fields := map[string]string{}
		for part := range strings.SplitSeq(n.Info["slave"+strconv.FormatInt(i, 10)], ",") {
			k, v, _ := strings.Cut(part, "=")
			fields[k] = v
		}
		if fields["state"] == "online" {
			online++
		}
		lag, _ := strconv.ParseInt(fields["lag"], 10, 64)
		worst = max(worst, lag)
	}
	text := fmt.Sprintf("%d online, worst lag %d s", online, worst)
	switch {
	case online < w.MinReplicasAck:
		n.f.bad(Error, check, text, fmt.Sprintf("--min-replicas-ack %d can never be met: every send is answered with an error", w.MinReplicasAck), n.replicate())
	case online == 0:
		n.f.bad(Warning, check, text, "when this server's host dies, its rooms are down until it is back, and gone when its disk is", n.replicate())
	case worst > 5:
		n.f.bad(Warning, check, text, "a failover now would lose that much, unless --min-replicas-ack is used", "redis-cli -h "+host(n.Addr)+" -p "+port(n.Addr)+" info replication   # network or disk of the replica")
	default:
		n.f.ok(check, "%s", text)
	}
	if online > 0 && w.MinReplicasAck == 0 {
		n.f.bad(Warning, n.name("acknowledgement"), "--min-replicas-ack 0", "a failover can lose messages that were acknowledged (it is noticed, not repaired)", "# start api and gateway with --min-replicas-ack 1")
	}
	if b, err := strconv.ParseInt(n.Config["repl-backlog-size"], 10, 64); err == nil && b < 16<<20 && online > 0 {
		n.f.bad(Warning, n.name("replication backlog"), size(b), "a replica that was away for a moment copies everything again", n.set("repl-backlog-size", "67108864"))
	}
}

func (n node) judgeReplica() {
	check := n.name("replication")
	if s := n.Info["master_link_status"]; s != "up" {
		n.f.bad(Error, check, "link to the primary is "+s, "it does not count for WAIT and would be stale after a failover", "redis-cli -h "+host(n.Addr)+" -p "+port(n.Addr)+" info replication")
		return
	}
	n.f.ok(check, "in step with %s:%s", n.Info["master_host"], n.Info["master_port"])
}

// judgeLinks looks at what the gateways' subscriber connections need.
func (n node) judgeLinks(in redisstore.Inspection, w WantRedis) {
	check := n.name("link buffers")
	if limits, ok := n.Config["client-output-buffer-limit"]; ok {
		f := strings.Fields(limits)
		for i := 0; i+3 < len(f); i += 4 {
			if f[i] != "pubsub" {
				continue
			}
			hard, _ := strconv.ParseInt(f[i+1], 10, 64)
			if hard != 0 && hard < linkBuffer {
				n.f.bad(Warning, check, fmt.Sprintf("%s, then the link is cut", size(hard)), "a gateway that stops for a moment (a pause, a storm) loses its link and reads every room's log again", n.set("client-output-buffer-limit", "pubsub 268435456 67108864 60"))
			} else {
				n.f.ok(check, "hard limit %s", size(hard))
			}
		}
	}
	clients, most := n.number("connected_clients"), n.number("maxclients")
	if most < 0 {
		most, _ = strconv.ParseInt(n.Config["maxclients"], 10, 64)
	}
	// A gateway has about as many connections here as partitions in a Cluster.
	each := plainConnections
	if in.Kind == "cluster" {
		each = max(w.Partitions, 256)
	}
	need := clients + int64(w.Gateways)*int64(each)
	if most > 0 && clients > 0 {
		if float64(need) > fullMemory*float64(most) {
			n.f.bad(Warning, n.name("clients"), fmt.Sprintf("%d of %d", clients, most), "above it new links are refused, and gateways that start are never ready", n.set("maxclients", strconv.FormatInt(2*need, 10)))
		} else {
			n.f.ok(n.name("clients"), "%d of %d", clients, most)
		}
	}
}

func micros(d time.Duration) string { return d.Round(time.Microsecond).String() }

func host(addr string) string {
	h, _, found := cutLast(addr, ":")
	if !found {
		return addr
	}
	return strings.Trim(h, "[]")
}

func port(addr string) string {
	_, p, _ := cutLast(addr, ":")
	return p
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
