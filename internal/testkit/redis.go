package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/embedded"
)

// startTimeout bounds how long a started server may take to answer.
const startTimeout = time.Minute

// RedisServer is a real redis-server (or redis-sentinel) process of its own, on
// a free port of the loopback and in a directory of its own.
type RedisServer struct {
	Port int

	binary string
	dir    string
	args   []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done <-chan struct{} // closed when the process is gone
}

// Redis starts a redis-server that stops with the test. Arguments are given to
// it as they are, for instance "--appendonly", "yes"; without any it persists
// nothing.
func Redis(tb testing.TB, args ...string) *RedisServer {
	tb.Helper()
	s, err := StartRedis(tb.TempDir(), args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Kill)
	return s
}

// StartRedis starts a redis-server that keeps its files in dir.
func StartRedis(dir string, args ...string) (*RedisServer, error) {
	return start("redis-server", dir, func(port int) []string {
		return append([]string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir,
			"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction",
			"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
			"--dbfilename", "dump-" + strconv.Itoa(port) + ".rdb",
			"--logfile", filepath.Join(dir, "redis-"+strconv.Itoa(port)+".log"),
		}, args...)
	})
}

// start tries ports until the server is up: another process may take the port
// between the look and the bind.
func start(binary, dir string, args func(port int) []string) (*RedisServer, error) {
	var last error
	for range 5 {
		port := freePort()
		s := &RedisServer{Port: port, binary: binary, dir: dir, args: args(port)}
		if last = s.launch(); last == nil {
			return s, nil
		}
	}
	return nil, last
}

func (s *RedisServer) launch() error {
	cmd := exec.Command(s.binary, s.args...)
	cmd.Dir = s.dir
	done, err := Launch(cmd)
	if err != nil {
		return fmt.Errorf("starting %s (is it installed?): %w", s.binary, err)
	}
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()

	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		select {
		case <-done:
			return fmt.Errorf("%s on port %d ended at once: %s", s.binary, s.Port, s.logTail())
		case <-time.After(5 * time.Millisecond):
		}
		// The port may be answered by a stranger: the process ID tells. And a server
		// that answers may still read what it has kept.
		info, err := s.Do("INFO")
		if text := fmt.Sprint(info); err == nil && strings.Contains(text, "process_id:"+strconv.Itoa(cmd.Process.Pid)+"\r") &&
			!strings.Contains(text, "\nloading:1\r") {
			return nil
		}
	}
	s.Kill()
	return fmt.Errorf("%s on port %d does not answer: %s", s.binary, s.Port, s.logTail())
}

func (s *RedisServer) logTail() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "redis-"+strconv.Itoa(s.Port)+".log"))
	return string(b[max(0, len(b)-3000):])
}

// Addr is the server's host:port.
func (s *RedisServer) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.Port) }

// URL is what --redis takes.
func (s *RedisServer) URL() string { return "redis://" + s.Addr() + "/0" }

// PID is the server's process ID.
func (s *RedisServer) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

func (s *RedisServer) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done: // the ID may be another process's by now
	default:
		_ = s.cmd.Process.Signal(sig)
	}
}

// Pause freezes the server (SIGSTOP): connections stay open and say nothing.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *RedisServer) Kill() {
	s.signal(syscall.SIGKILL)
	<-s.done
}

// Restart starts the server again on the same port and files, after Kill when
// it still runs.
func (s *RedisServer) Restart() error {
	s.Kill()
	return s.launch()
}

// Do runs one command on a connection of its own. The answer is a string, an
// int64, nil or a slice of these.
func (s *RedisServer) Do(args ...string) (any, error) {
	conn, err := net.DialTimeout("tcp", s.Addr(), 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	cmd := "*" + strconv.Itoa(len(args)) + "\r\n"
	for _, a := range args {
		cmd += "$" + strconv.Itoa(len(a)) + "\r\n" + a + "\r\n"
	}
	if _, err := io.WriteString(conn, cmd); err != nil {
		return nil, err
	}
	return readReply(bufio.NewReader(conn))
}

// readReply reads one RESP2 value.
func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty reply")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return nil, errors.New(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return nil, err
	}
	switch kind {
	case '$':
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return string(b[:n]), err
	case '*':
		vs := make([]any, n)
		for i := range vs {
			if vs[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return vs, nil
	}
	return nil, fmt.Errorf("unknown reply %q", line)
}

// freePort finds a port below the range that the kernel gives to outgoing
// connections, so that a server that is down finds its port free again. One after the
// other from a place of this process's own: what is drawn each time is drawn twice now
// and then, before the first has begun to listen.
func freePort() int {
	const first, ports = 12000, 20000
	for {
		port := first + int(portsGiven.Add(1)+portsFrom)%ports
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return port
		}
	}
}

var (
	portsFrom  = rand.Uint32()
	portsGiven atomic.Uint32
)

// AwaitReplicas waits until that many replicas have all that was written so far. A
// replica that is online may have nothing yet: after a synchronisation without a
// disk it gets what is new only when it has said, after a second, that it is there.
func (s *RedisServer) AwaitReplicas(replicas int) error {
	if _, err := s.Do("PUBLISH", "testkit", "counts as a write"); err != nil {
		return err
	}
	return s.awaitOffset(replicas)
}

// awaitOffset is AwaitReplicas for a server that was written to, and may be paused.
func (s *RedisServer) awaitOffset(replicas int) error {
	number := func(text, name string) (n int64) {
		if _, after, ok := strings.Cut(text, name); ok {
			_, _ = fmt.Sscan(after, &n)
		}
		return n
	}
	info, _ := s.Do("INFO", "replication")
	written := number(fmt.Sprint(info), "master_repl_offset:")
	return waitFor(fmt.Sprintf("%d replicas in step with %s", replicas, s.Addr()), func() bool {
		info, err := s.Do("INFO", "replication")
		inStep := 0
		for line := range strings.Lines(fmt.Sprint(info)) {
			if strings.Contains(line, "state=online") && number(strings.ReplaceAll(line, ",", " "), "offset=") >= max(written, 1) {
				inStep++
			}
		}
		return err == nil && inStep >= replicas
	})
}

// waitFor polls until ok says true.
func waitFor(what string, ok func() bool) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return fmt.Errorf("timed out: %s", what)
}

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

func subdir(dir, name string, i int) string {
	d := filepath.Join(dir, name+strconv.Itoa(i))
	_ = os.MkdirAll(d, 0o700)
	return d
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

// RedisCluster is a Redis Cluster; a dead primary is noticed after two seconds.
type RedisCluster struct {
	Nodes []*RedisServer // the first Masters were made primaries
	// Masters is how many nodes hold slots.
	Masters int
}

// Cluster starts a cluster of that many primaries, each with that many replicas.
func Cluster(tb testing.TB, masters, replicas int, args ...string) *RedisCluster {
	tb.Helper()
	c, err := StartCluster(tb.TempDir(), masters, replicas, args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Kill)
	return c
}

// StartCluster starts a cluster in directories below dir.
func StartCluster(dir string, masters, replicas int, args ...string) (c *RedisCluster, err error) {
	c = &RedisCluster{Masters: masters}
	defer func() {
		if err != nil {
			c.Kill()
		}
	}()
	var bus []int
	for i := range masters * (1 + replicas) {
		busPort := freePort()
		s, err := StartRedis(subdir(dir, "node", i), append([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", strconv.Itoa(busPort),
			// One part of the cluster that is down must not stop the others.
			"--cluster-require-full-coverage", "no",
			"--cluster-config-file", "nodes-" + strconv.Itoa(busPort) + ".conf",
		}, args...)...)
		if err != nil {
			return c, err
		}
		c.Nodes, bus = append(c.Nodes, s), append(bus, busPort)
	}
	for i, s := range c.Nodes {
		if _, err := s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return c, err
		}
		if i < masters {
			first, last := 16384*i/masters, 16384*(i+1)/masters-1
			if _, err := s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)); err != nil {
				return c, err
			}
		}
		for j := range i {
			if _, err := s.Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(c.Nodes[j].Port), strconv.Itoa(bus[j])); err != nil {
				return c, err
			}
		}
	}
	knows := func(want string) func() bool {
		return func() bool {
			for _, s := range c.Nodes {
				info, _ := s.Do("CLUSTER", "INFO")
				text := fmt.Sprint(info)
				if !strings.Contains(text, "cluster_state:ok") || !strings.Contains(text, want) {
					return false
				}
			}
			return true
		}
	}
	if err := waitFor("nodes that know each other", knows(fmt.Sprintf("cluster_known_nodes:%d\r", len(c.Nodes)))); err != nil {
		return c, err
	}
	if err := waitFor("all slots known everywhere", knows("cluster_slots_assigned:16384\r")); err != nil {
		return c, err
	}
	for i := masters; i < len(c.Nodes); i++ {
		id, err := c.Nodes[i%masters].Do("CLUSTER", "MYID")
		if err != nil {
			return c, err
		}
		if err := waitFor("a replica that is taken on", func() bool {
			_, err := c.Nodes[i].Do("CLUSTER", "REPLICATE", fmt.Sprint(id))
			return err == nil
		}); err != nil {
			return c, err
		}
	}
	for _, s := range c.Nodes[:masters] {
		if err := s.AwaitReplicas(replicas); err != nil {
			return c, err
		}
	}
	return c, waitFor("replicas known to all", func() bool {
		for _, s := range c.Nodes {
			nodes, _ := s.Do("CLUSTER", "NODES")
			if strings.Count(fmt.Sprint(nodes), "slave ") != masters*replicas {
				return false
			}
		}
		return true
	})
}

// URL is what --redis takes.
func (c *RedisCluster) URL() string {
	addrs := make([]string, len(c.Nodes))
	for i, s := range c.Nodes {
		addrs[i] = s.Addr()
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// Owner is the node that serves a slot now, nil when none says so.
func (c *RedisCluster) Owner(slot int) *RedisServer {
	for _, s := range c.Nodes {
		v, err := s.Do("CLUSTER", "SLOTS")
		if err != nil {
			continue
		}
		ranges, _ := v.([]any)
		for _, r := range ranges {
			r := r.([]any)
			if int64(slot) < r[0].(int64) || int64(slot) > r[1].(int64) {
				continue
			}
			port := r[2].([]any)[1].(int64)
			for _, n := range c.Nodes {
				if int64(n.Port) == port {
					return n
				}
			}
		}
	}
	return nil
}

// MoveSlot moves a slot and its keys to another primary, as a resharding does.
func (c *RedisCluster) MoveSlot(slot int, to *RedisServer) error {
	if err := c.BeginMove(slot, to); err != nil {
		return err
	}
	if err := c.MoveKeys(slot, to); err != nil {
		return err
	}
	toID, err := to.Do("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	// The new owner first: the other way round the slot has no owner for a moment.
	for _, s := range append([]*RedisServer{to, c.Owner(slot)}, c.Nodes[:c.Masters]...) {
		_, err := s.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "NODE", fmt.Sprint(toID))
		if err != nil && !strings.Contains(err.Error(), "only with masters") { // a first primary that is a replica now
			return err
		}
	}
	return nil
}

// BeginMove is the first step of MoveSlot: from here on the owner refuses what
// asks for keys that it does not have.
func (c *RedisCluster) BeginMove(slot int, to *RedisServer) error {
	from := c.Owner(slot)
	if from == nil || from == to {
		return fmt.Errorf("slot %d: nowhere to move it from", slot)
	}
	n := strconv.Itoa(slot)
	fromID, err := from.Do("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	toID, err := to.Do("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	if _, err := to.Do("CLUSTER", "SETSLOT", n, "IMPORTING", fmt.Sprint(fromID)); err != nil {
		return err
	}
	_, err = from.Do("CLUSTER", "SETSLOT", n, "MIGRATING", fmt.Sprint(toID))
	return err
}

// MoveKeys is the second step of MoveSlot: the owner has none of the keys then,
// and still is the owner.
func (c *RedisCluster) MoveKeys(slot int, to *RedisServer) error {
	from := c.Owner(slot)
	for {
		v, err := from.Do("CLUSTER", "GETKEYSINSLOT", strconv.Itoa(slot), "100")
		if err != nil {
			return err
		}
		keys, _ := v.([]any)
		if len(keys) == 0 {
			return nil
		}
		cmd := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.Port), "", "0", "5000", "KEYS"}
		for _, k := range keys {
			cmd = append(cmd, fmt.Sprint(k))
		}
		if _, err := from.Do(cmd...); err != nil {
			return err
		}
	}
}

// Kill ends all nodes.
func (c *RedisCluster) Kill() {
	for _, s := range c.Nodes {
		s.Kill()
	}
}

// Mini starts the Redis that `madang dev` embeds.
func Mini(tb testing.TB) *embedded.Redis {
	tb.Helper()
	m := StartMini()
	tb.Cleanup(m.Close)
	return m
}

// StartMini is Mini for those who call Close themselves.
func StartMini() *embedded.Redis {
	m := embedded.New()
	if err := m.Start(); err != nil {
		panic(err) // the loopback has no port left
	}
	return m
}
