package api

import (
	"hash/maphash"
	"sync"
	"time"
)

// rateLimit is a token bucket per user, kept as the one number GCRA needs: the
// time at which the bucket will be full again. It is exact for one process;
// what a user sends through several is not added up.
type rateLimit struct {
	interval time.Duration // between two tokens
	burst    time.Duration // what a full bucket is worth: burst × interval
	start    time.Time     // origin of the monotonic clock
	seed     maphash.Seed
	shards   [rateShards]rateShard
}

// rateShards keeps cores out of each other's way; a power of two.
const rateShards = 16

// rateShardUsers bounds a shard: 65,536 users in all, some 10 MB with the
// longest names. Full, it forgets somebody, who then has a full bucket.
const rateShardUsers = 4096

type rateShard struct {
	mu     sync.Mutex
	fullAt map[string]time.Duration // guarded by mu; since start
	_      [48]byte                 // a cache line each
}

func newRateLimit(perSecond float64, burst int) *rateLimit {
	interval := time.Duration(float64(time.Second) / perSecond)
	l := &rateLimit{interval: interval, burst: interval * time.Duration(burst), start: time.Now(), seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].fullAt = make(map[string]time.Duration)
	}
	return l
}

// take takes a token of user's. wait is how long until there is one, 0 when it
// was taken.
func (l *rateLimit) take(user string, at time.Time) (wait time.Duration) {
	now := at.Sub(l.start)
	s := &l.shards[maphash.String(l.seed, user)%rateShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	fullAt, known := s.fullAt[user]
	fullAt = max(fullAt, now) + l.interval
	if wait = fullAt - now - l.burst; wait > 0 {
		return wait
	}
	if !known && len(s.fullAt) >= rateShardUsers {
		s.forgetOne(now)
	}
	s.fullAt[user] = fullAt
	return 0
}

// forgetOne makes room: for choice somebody whose bucket is full, who loses
// nothing, among the few it looks at (a map's order is random).
func (s *rateShard) forgetOne(now time.Duration) {
	const looks = 8
	looked := 0
	for user, fullAt := range s.fullAt {
		if looked++; fullAt <= now || looked == looks {
			delete(s.fullAt, user)
			return
		}
	}
}
