package loop

import (
	"hash/maphash"
	"sync"
)

// userShards keeps loops out of each other's way when connections open and
// close; a power of two.
const userShards = 64

// userTable counts each user's connections across all loops and gives a user a
// number, so that a connection need not hold its name. It is touched when a
// connection opens, closes or renews its token, not in between.
type userTable struct {
	seed   maphash.Seed
	max    int32
	shards [userShards]userShard
}

type userShard struct {
	mu     sync.Mutex
	byName map[string]uint32 // guarded by mu, as all below
	users  []userEntry
	free   []uint32
}

type userEntry struct {
	name  string
	conns int32
}

func newUserTable(maxPerUser int) *userTable {
	t := &userTable{seed: maphash.MakeSeed(), max: int32(maxPerUser)}
	for i := range t.shards {
		t.shards[i].byName = make(map[string]uint32)
	}
	return t
}

// acquire counts one more connection of a user and returns its number, or false
// when it has the most already.
func (t *userTable) acquire(name string) (ref uint32, ok bool) {
	shard := uint32(maphash.String(t.seed, name) % userShards)
	s := &t.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.byName[name]
	switch {
	case known:
		if s.users[i].conns >= t.max {
			return 0, false
		}
	case len(s.free) > 0:
		i = s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		s.users[i] = userEntry{name: name}
		s.byName[name] = i
	default:
		i = uint32(len(s.users))
		s.users = append(s.users, userEntry{name: name})
		s.byName[name] = i
	}
	s.users[i].conns++
	return i*userShards + shard, true
}

func (t *userTable) release(ref uint32) {
	s := &t.shards[ref%userShards]
	i := ref / userShards
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &s.users[i]
	if u.conns--; u.conns == 0 {
		delete(s.byName, u.name)
		*u = userEntry{}
		s.free = append(s.free, i)
	}
}

func (t *userTable) name(ref uint32) string {
	s := &t.shards[ref%userShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[ref/userShards].name
}
