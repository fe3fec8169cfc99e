package auth

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"
)

// cacheFor is how long a verified token is believed without looking again, unless
// Purge says that one should.
const cacheFor = time.Minute

// cacheShards keeps cores that verify at the same time out of each other's way;
// a power of two.
const cacheShards = 16

// Cache remembers good tokens, because checking one costs 7 µs (HS256) to 64 µs
// (ES256) and a client sends the same one with every request. Bad tokens are not
// remembered: they would push the good ones out.
type Cache struct {
	next     Verifier
	perShard int
	now      func() time.Time
	purges   atomic.Uint64
	shards   [cacheShards]cacheShard
}

type cacheShard struct {
	mu      sync.Mutex
	entries map[tokenSum]cached // guarded by mu
	_       [48]byte            // a cache line each
}

type cached struct {
	claims Claims
	until  int64 // Unix seconds
}

// tokenSum stands for a token in memory, so that a dump of it holds no tokens.
type tokenSum [sha256.Size]byte

// Cached wraps v with a memory of about size tokens (at least one per shard);
// one takes some 150 bytes.
func Cached(v Verifier, size int) *Cache {
	c := &Cache{next: v, perShard: max(1, size/cacheShards), now: time.Now}
	c.Purge()
	return c
}

// Purge forgets everything, because a key was withdrawn: also what is being
// verified now, perhaps with that key.
func (c *Cache) Purge() {
	c.purges.Add(1) // first: what put finds unchanged is forgotten below
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.entries = make(map[tokenSum]cached)
		s.mu.Unlock()
	}
}

// Verify implements Verifier.
func (c *Cache) Verify(token string) (Claims, error) {
	if len(token) > MaxTokenBytes {
		return Claims{}, errTooLong
	}
	sum := sumOf(token)
	shard := &c.shards[sum[0]%cacheShards]
	now := c.now().Unix()

	shard.mu.Lock()
	entry, known := shard.entries[sum]
	shard.mu.Unlock()
	if known && now < entry.until {
		return entry.claims, nil
	}

	purges := c.purges.Load()
	claims, err := c.next.Verify(token)
	if err != nil {
		return Claims{}, err
	}
	entry = cached{claims: claims, until: now + int64(cacheFor/time.Second)}
	if claims.Expires != 0 {
		entry.until = min(entry.until, claims.Expires)
	}
	if entry.until > now {
		c.put(shard, sum, entry, now, purges)
	}
	return claims, nil
}

// evictLooks bounds how many entries a put looks at to make room.
const evictLooks = 8

// put keeps an entry, unless there was a Purge since it was asked for. A full
// shard gives up what has ended among the few entries it looks at (a map's order
// is random), or else the last of them: an exact LRU would put a list's pointers
// and writes on the path of every hit.
func (c *Cache) put(s *cacheShard, sum tokenSum, entry cached, now int64, purges uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.purges.Load() != purges {
		return
	}
	if _, known := s.entries[sum]; !known && len(s.entries) >= c.perShard {
		looked := 0
		for other, e := range s.entries {
			looked++
			if e.until <= now || looked == evictLooks || looked == len(s.entries) {
				delete(s.entries, other)
				break
			}
		}
	}
	s.entries[sum] = entry
}

// sumOf hashes a token. The copy stays on the stack for a token of usual size;
// converting the string would allocate.
func sumOf(token string) tokenSum {
	var buf [1024]byte
	return sha256.Sum256(append(buf[:0], token...))
}
