package testkit

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

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
		busPort := FreePort()
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
