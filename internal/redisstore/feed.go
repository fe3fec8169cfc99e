package redisstore

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/chat"
)

const (
	// canaryEvery is how often a link is tried, canaryLimit when it is given up
	// (DELIVERY L1).
	canaryEvery = 2 * time.Second
	canaryLimit = 5 * time.Second
	// canaryTick is how finely both are kept.
	canaryTick = 250 * time.Millisecond
	// canaryTTL cleans up after gateways that are gone.
	canaryTTL = time.Minute
)

// feed is the Store's links, all of them in one group.
type feed struct {
	links []*link

	mu       sync.Mutex
	listener chat.Listener // nil before Listen
	running  sync.WaitGroup
}

func (f *feed) init(s *Store) {
	n := s.opt.Links
	if s.target.kind == cluster {
		n = s.opt.Partitions
	}
	f.links = make([]*link, n)
	for i := range f.links {
		f.links[i] = newLink(s, i)
	}
}

// stop ends the links; the Store's context is ended already.
func (f *feed) stop() {
	for _, l := range f.links {
		l.interrupt(errClosed)
	}
	f.running.Wait()
}

// Links implements chat.Feed.
func (s *Store) Links() int { return len(s.feed.links) }

// PartitionOf implements chat.Feed.
func (s *Store) PartitionOf(ch chat.Channel) int { return s.keys.partition(ch.Name) }

// LinkOf implements chat.Feed: in a Cluster a partition's link follows its slot;
// elsewhere partitions are spread over the few links.
func (s *Store) LinkOf(ch chat.Channel) int { return s.keys.partition(ch.Name) % len(s.feed.links) }

// Listen implements chat.Feed. After Close it starts nothing.
func (s *Store) Listen(listener chat.Listener) {
	f := &s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil {
		panic("BUG: Listen was called twice")
	}
	if !s.begin() {
		return
	}
	defer s.end()
	f.listener = listener
	f.running.Add(1 + len(f.links))
	for _, l := range f.links {
		go func() {
			defer f.running.Done()
			l.run(s.ctx, listener)
		}()
	}
	go func() {
		defer f.running.Done()
		f.beat(s.ctx)
	}()
}

// Subscribe implements chat.Feed.
func (s *Store) Subscribe(link int, gen uint64, chs []chat.Channel) {
	s.feed.links[link].ask(gen, chs, true)
}

// Unsubscribe implements chat.Feed.
func (s *Store) Unsubscribe(link int, gen uint64, chs []chat.Channel) {
	s.feed.links[link].ask(gen, chs, false)
}

// beat sends the canaries and gives up links whose canary stays away.
func (f *feed) beat(ctx context.Context) {
	ticker := time.NewTicker(canaryTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, l := range f.links {
				l.beat(now)
			}
		}
	}
}

// Healthy says whether every link's canary came back in time, and if not, which
// did not. Before Listen nothing is healthy.
func (s *Store) Healthy() (ok bool, detail string) {
	now := time.Now()
	var deaf []string
	for _, l := range s.feed.links {
		if why := l.unhealthy(now); why != "" {
			deaf = append(deaf, fmt.Sprintf("link %d: %s", l.id, why))
		}
	}
	if len(deaf) == 0 {
		return true, ""
	}
	if len(deaf) > 5 {
		deaf = append(deaf[:5], fmt.Sprintf("and %d more", len(deaf)-5))
	}
	return false, strings.Join(deaf, "; ")
}
