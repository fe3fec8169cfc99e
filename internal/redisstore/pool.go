package redisstore

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// PoolStats is what the connections to Redis hold and wait for, links apart. In a
// Cluster it is the sum over the primaries known now, so that counters may go
// back when a node leaves.
type PoolStats struct {
	Open, Idle int
	Waits      uint64        // times a caller waited for a connection
	Waited     time.Duration // in all
	Timeouts   uint64        // callers that gave up waiting
	Dialed     uint64        // connections made because none was idle
	Queued     int           // commands that wait in lanes for a pipeline
}

// Pool returns the figures of now.
func (s *Store) Pool() PoolStats {
	var p *redis.PoolStats
	if s.nodes.cluster != nil {
		p = s.nodes.cluster.PoolStats()
	} else {
		p = s.nodes.single.PoolStats()
	}
	out := PoolStats{
		Open: int(p.TotalConns), Idle: int(p.IdleConns), Waits: uint64(p.WaitCount), Waited: time.Duration(p.WaitDurationNs),
		Timeouts: uint64(p.Timeouts), Dialed: uint64(p.Misses),
	}
	if q := p.PipelineStats; q != nil { // lanes use a pool of their own
		out.Open += int(q.TotalConns)
		out.Idle += int(q.IdleConns)
		out.Waits += uint64(q.WaitCount)
		out.Waited += time.Duration(q.WaitDurationNs)
		out.Timeouts += uint64(q.Timeouts)
		out.Dialed += uint64(q.Misses)
	}
	s.lanesMu.RLock()
	defer s.lanesMu.RUnlock()
	for _, l := range s.lanes {
		l.mu.Lock()
		out.Queued += len(l.queue)
		l.mu.Unlock()
	}
	return out
}
