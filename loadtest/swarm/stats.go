package swarm

import (
	"maps"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/madang-chat/madang/loadtest/ledger"
)

// Stats are a swarm's counters, since its start.
type Stats struct {
	Live     int
	Gone     int // given up
	Waiting  int // not live, will try (again)
	Attempts uint64
	Opened   uint64 // first connections that came to deliver
	Returned uint64 // later ones
	Failures map[string]uint64
	Drops    map[string]uint64 // ends of live connections, by reason
	Byes     map[string]uint64
	Errors   map[string]uint64 // `error` events, by code

	Arrivals  uint64 // messages of this run that were new
	BytesRead uint64
	Reads     uint64
	Frames    uint64
	Pings     uint64
	Pongs     uint64
	Strays    uint64 // messages of rooms that the client is not in
	Ledger    ledger.Counts
}

func (st *Stats) failed(reason string)   { bump(&st.Failures, reason) }
func (st *Stats) dropped(reason string)  { bump(&st.Drops, reason) }
func (st *Stats) byes(reason string)     { bump(&st.Byes, reason) }
func (st *Stats) complained(code string) { bump(&st.Errors, code) }

// maxReasons bounds what a hostile or broken server can make us remember.
const maxReasons = 64

func bump(m *map[string]uint64, reason string) {
	if *m == nil {
		*m = make(map[string]uint64)
	}
	if _, known := (*m)[reason]; !known && len(*m) >= maxReasons {
		reason = "other"
	}
	(*m)[reason]++
}

// Snapshot is what happened since the last one, and the counters as they are.
type Snapshot struct {
	Stats    Stats
	Latency  []byte // histograms of this interval, in microseconds, encoded (V2, compressed); nil when empty
	SinceLog []byte
	Opened   []byte
	Back     []byte
	BusyNs   int64 // the loop worked
	IdleNs   int64 // the loop waited
}

// meters are what a snapshot takes and resets.
type meters struct {
	latency, sinceLog, opened, back meter
	arrivals                        uint64
	busy, idle                      int64
}

func (m *meters) init() {
	for _, h := range []*meter{&m.latency, &m.sinceLog, &m.opened, &m.back} {
		h.hist = hdrhistogram.New(1, maxMeterMicros, 3)
	}
}

// maxMeterMicros: what takes longer than two minutes is recorded as that.
const maxMeterMicros = 120_000_000

// meter is a histogram of durations.
type meter struct{ hist *hdrhistogram.Histogram }

func (m *meter) record(ns int64) {
	_ = m.hist.RecordValue(min(max(ns/1000, 1), maxMeterMicros))
}

// take encodes and empties the histogram.
func (m *meter) take() []byte {
	if m.hist.TotalCount() == 0 {
		return nil
	}
	b, err := m.hist.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		panic("BUG: a histogram that can't be encoded: " + err.Error())
	}
	m.hist.Reset()
	return b
}

func (s *Swarm) snapshot() Snapshot {
	st := s.stats
	st.Waiting = len(s.clients) - st.Live - st.Gone
	st.Arrivals = s.meters.arrivals
	st.Ledger = s.book.Counts
	st.Failures = maps.Clone(st.Failures)
	st.Drops = maps.Clone(st.Drops)
	st.Byes = maps.Clone(st.Byes)
	st.Errors = maps.Clone(st.Errors)
	snap := Snapshot{
		Stats:   st,
		Latency: s.meters.latency.take(), SinceLog: s.meters.sinceLog.take(),
		Opened: s.meters.opened.take(), Back: s.meters.back.take(),
		BusyNs: s.meters.busy, IdleNs: s.meters.idle,
	}
	s.meters.busy, s.meters.idle = 0, 0
	return snap
}
