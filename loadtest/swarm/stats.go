package swarm

import (
	"maps"
	"time"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/reactor"
)

// Stats are a swarm's counters, since its start.
type Stats struct {
	Live     int
	Gone     int // given up
	Waiting  int // not live, will try (again)
	Attempts uint64
	Opened   uint64 // first connections that came to deliver
	Returned uint64 // later ones
	Failures meter.Reasons
	Drops    meter.Reasons // ends of live connections, by reason
	Byes     meter.Reasons
	Errors   meter.Reasons // `error` events, by code

	Arrivals     uint64 // messages of this run that were new
	BytesRead    uint64
	BytesWritten uint64
	Reads        uint64
	Frames       uint64 // or events of a stream, or answers to polls
	Requests     uint64 // of HTTP: to open, and each poll
	Pings        uint64
	Pongs        uint64
	Chatter      uint64 // said besides heartbeats
	Strays       uint64 // messages of rooms that the client is not in
	Ledger       ledger.Counts
	Paging       int // readers that were told of a gap and have not read all of it from history
	// LongestSilence is the longest time between two messages at one reader.
	LongestSilence time.Duration
}

// Snapshot is what happened since the last one, and the counters as they are.
type Snapshot struct {
	Stats    Stats
	Latency  meter.Meter // of this interval: due → arrived
	SinceLog meter.Meter // in the log → arrived
	Opened   meter.Meter // its turn to connect → live
	Back     meter.Meter // lost its connection → live again
	Loop     reactor.Share

	// Of targets whose clients send themselves.
	Echoed uint64 // sends so far
	Echoes []ledger.Ack
	Lag    meter.Meter // due → written: the tester's own lateness
}

// meters are what a snapshot takes and resets.
type meters struct {
	latency, sinceLog, opened, back meter.Meter
	arrivals                        uint64
}

func newMeters() meters {
	return meters{latency: meter.New(), sinceLog: meter.New(), opened: meter.New(), back: meter.New()}
}

func (s *Swarm) snapshot() Snapshot {
	st := s.stats
	st.Waiting = len(s.clients) - st.Live - st.Gone
	st.Arrivals = s.meters.arrivals
	st.Ledger, st.Paging = s.book.Counts, s.book.Paging()
	st.Failures = maps.Clone(st.Failures)
	st.Drops = maps.Clone(st.Drops)
	st.Byes = maps.Clone(st.Byes)
	st.Errors = maps.Clone(st.Errors)
	snap := Snapshot{
		Stats:   st,
		Latency: s.meters.latency.Detach(), SinceLog: s.meters.sinceLog.Detach(),
		Opened: s.meters.opened.Detach(), Back: s.meters.back.Detach(),
		Loop: s.poll.Share(),
	}
	if e := &s.echo; e.dialect != nil {
		snap.Echoed, snap.Echoes, snap.Lag = e.numbers, e.acks, e.lag.Detach()
		e.acks = nil
	}
	return snap
}
