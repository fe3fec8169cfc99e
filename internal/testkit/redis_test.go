package testkit_test

import (
	"testing"

	"github.com/madang-chat/madang/internal/testkit"
)

func TestRedisKeepsItsPortOverARestart(t *testing.T) {
	s := testkit.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	if _, err := s.Do("SET", "a", "1"); err != nil {
		t.Fatal(err)
	}
	addr := s.Addr()
	s.Kill()
	if _, err := s.Do("PING"); err == nil {
		t.Fatal("a killed server answers")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Do("GET", "a"); err != nil || v != "1" || s.Addr() != addr {
		t.Fatalf("after the restart: %v %v at %s", v, err, s.Addr())
	}
}

func TestSentinelFailsOver(t *testing.T) {
	g := testkit.Sentinel(t)
	old := g.Primary()
	if old != g.Nodes[0] {
		t.Fatal("the first node is not the primary")
	}
	if err := g.Failover(); err != nil {
		t.Fatal(err)
	}
}

func TestClusterMovesASlot(t *testing.T) {
	c := testkit.Cluster(t, 3, 1)
	const slot = 15495 // of "a"
	from := c.Owner(slot)
	if _, err := from.Do("SET", "a", "1"); err != nil {
		t.Fatal(err)
	}
	to := c.Nodes[0]
	if err := c.MoveSlot(slot, to); err != nil {
		t.Fatal(err)
	}
	if v, err := to.Do("GET", "a"); err != nil || v != "1" {
		t.Fatalf("at the new owner: %v %v", v, err)
	}
	if c.Owner(slot) != to {
		t.Fatal("the slot has another owner")
	}
}
