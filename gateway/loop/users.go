package loop

import (
	"hash/maphash"
	"sync"

	"github.com/madang-chat/madang/gateway/index"
)

// userShards keeps loops out of each other's way when connections open and
// close.
const (
	userShardBits = 6
	userShards    = 1 << userShardBits
)

// userTable counts each user's connections across all loops and gives a user a
// number, so that a connection need not hold its name. It knows users by a hash
// of 64 bits with a secret seed: two users of one gateway share one with a chance
// of 2^-64 a pair, and names would double what it holds. It is touched when a
// connection opens, closes or renews its token, not in between.
type userTable struct {
	seed   maphash.Seed
	max    int32
	named  bool // names are kept, to be shown
	shards [userShards]userShard
}

type userShard struct {
	mu    sync.Mutex
	index index.Index // guarded by mu, as all below
	users []userEntry
	names []string // beside users, when they are kept
	free  []uint32
}

type userEntry struct {
	hash  uint64
	conns int32
}

func newUserTable(maxPerUser int) *userTable {
	return &userTable{seed: maphash.MakeSeed(), max: int32(maxPerUser)}
}

// namedTable keeps names beside the counts.
func namedTable(most int) *userTable {
	t := newUserTable(most)
	t.named = true
	return t
}

// acquire counts one more connection of a user and returns its number, or false
// when it has the most already.
func (t *userTable) acquire(name string) (ref uint32, ok bool) {
	hash := maphash.String(t.seed, name)
	shard := uint32(hash % userShards)
	s := &t.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.index.Find(hash>>userShardBits, func(i uint32) bool { return s.users[i].hash == hash })
	switch {
	case known:
		if s.users[i].conns >= t.max {
			return 0, false
		}
	case len(s.free) > 0:
		i = s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		s.users[i] = userEntry{hash: hash}
		s.index.Add(s.hashOf(i), i, s.hashOf)
	default:
		i = uint32(len(s.users))
		s.users = append(s.users, userEntry{hash: hash})
		s.index.Add(s.hashOf(i), i, s.hashOf)
		if t.named {
			s.names = append(s.names, "")
		}
	}
	if t.named {
		s.names[i] = name
	}
	s.users[i].conns++
	return i*userShards + shard, true
}

// hashOf is by what a user is found in its shard: the bits that do not say which
// shard it is.
func (s *userShard) hashOf(i uint32) uint64 { return s.users[i].hash >> userShardBits }

func (t *userTable) release(ref uint32) {
	s := &t.shards[ref%userShards]
	i := ref / userShards
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &s.users[i]
	if u.conns--; u.conns == 0 {
		s.index.Remove(s.hashOf(i), i, s.hashOf)
		*u = userEntry{}
		s.free = append(s.free, i)
	}
}

// is says whether a number is this user's.
func (t *userTable) is(ref uint32, name string) bool {
	s := &t.shards[ref%userShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[ref/userShards].hash == maphash.String(t.seed, name)
}

// name is whose a number is, in a table that keeps names.
func (t *userTable) name(ref uint32) string {
	s := &t.shards[ref%userShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[ref/userShards]
}
