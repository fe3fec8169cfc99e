package follow_test

import (
	"testing"

	"github.com/madang-chat/madang/gateway/follow"
)

// The event says since when: it may come late, and the next connection may come
// while the user is still followed, so that no read tells of it.
func TestM4ADisconnectionStandsForWhoComesLater(t *testing.T) {
	s, alice := playing(t, func(c *follow.Config) { c.LingerMs = 1000 })
	newer := s.open("alice", false, 3000)
	newer.gets("hello 7")
	s.published("alice", `{"type":"disconnect","before_ms":2000500,"rooms_rev":8}`)
	alice.gets("close 4001") // its token does not say how old it is
	newer.gets()
	older := s.open("alice", false, 2000)
	older.gets("close 4001", "hello 8")
	newer.closes()
	older.closes()
	alice.closes()
	later := s.open("alice", false, 1999) // still followed: nothing is read
	later.gets("close 4001", "hello 8")
}

// A connection is as old as the token that it has now.
func TestM4ARevokedTokenDoesNotRenewAConnection(t *testing.T) {
	s, _ := playing(t)
	s.published("alice", `{"type":"disconnect","before_ms":2000500,"rooms_rev":8}`)
	alice := s.open("alice", false, 3000)
	alice.gets("hello 8")
	alice.renews(3001)
	alice.gets()
	alice.renews(2000)
	alice.gets("close 4001")
}

func TestM4ARenewedConnectionOutlivesADisconnectionFromBefore(t *testing.T) {
	s, _ := playing(t)
	alice, bob := s.open("alice", false, 2000), s.open("alice", false, 2000)
	alice.gets("hello 7")
	bob.gets("hello 7")
	alice.renews(3000)
	s.published("alice", `{"type":"disconnect","before_ms":2000500,"rooms_rev":8}`) // late
	alice.gets()
	bob.gets("close 4001")
}

// A disconnection moves rooms_rev (M4), and a list of rooms has the new one: who is
// told the one before would read the list again with every hello, and every poll.
func TestM4ADisconnectionsRevisionIsToldToWhoComesLater(t *testing.T) {
	s, alice := playing(t)
	s.published("alice", `{"type":"disconnect","before_ms":2000500,"rooms_rev":8}`)
	alice.gets("close 4001")
	later := s.open("alice", false, 3000)
	later.gets("hello 8")
	alice.closes()
	again := s.open("alice", false, 3000)
	again.gets("hello 8")
}
