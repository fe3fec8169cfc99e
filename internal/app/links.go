package app

import (
	"fmt"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/redisstore"
)

// deafAfter is how long a link may go without its canary before the process
// stops calling itself ready: as long as the link itself is given (DELIVERY L1).
const deafAfter = 5 * time.Second

// links remembers when each subscriber link last proved that it delivers.
type links struct {
	count int
	now   func() time.Time

	mu    sync.Mutex
	heard map[int]time.Time // guarded by mu; absent: down, or never proven
}

func newLinks() *links {
	return &links{now: time.Now, heard: map[int]time.Time{}}
}

// observe adds what it needs to know to what the store reports.
func (l *links) observe(o redisstore.Observer) redisstore.Observer {
	down, canary := o.LinkDown, o.CanaryBack
	o.LinkDown = func(link int, err error) {
		l.mu.Lock()
		delete(l.heard, link)
		l.mu.Unlock()
		if down != nil {
			down(link, err)
		}
	}
	o.CanaryBack = func(link int, took time.Duration) {
		l.mu.Lock()
		l.heard[link] = l.now()
		l.mu.Unlock()
		if canary != nil {
			canary(link, took)
		}
	}
	return o
}

// notReady says how many links are deaf; "" when none is.
func (l *links) notReady() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	proven := 0
	oldest := l.now().Add(-deafAfter)
	for _, at := range l.heard {
		if at.After(oldest) {
			proven++
		}
	}
	if proven >= l.count {
		return ""
	}
	return fmt.Sprintf("%d of %d subscriber links to Redis do not deliver", l.count-proven, l.count)
}
