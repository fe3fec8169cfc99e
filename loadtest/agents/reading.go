package agents

import (
	"fmt"
	"time"
)

// Reading is one comparison of an agent's clock with the hub's, as NTP does it:
// the hub's time was read at some moment of a round trip, so that the distance
// taken from the trip's middle is wrong by half of it at most.
type Reading struct {
	// Offset is what the agent's CLOCK_MONOTONIC lacks to the run's time: with it
	// workers of all machines tell the same time.
	Offset int64 `json:"offset_ns"`
	Trip   int64 `json:"round_trip_ns"`
	At     int64 `json:"at_ns"`    // run time
	Ahead  int64 `json:"ahead_ns"` // the agent's wall clock, before the run's time
}

// wander is how fast two machines' clocks may part: quartz keeps to 50 parts in a
// million, each.
const wander = 100e-6

// Error is how wrong the reading may be at a later time of the run.
func (r Reading) Error(at int64) time.Duration {
	return time.Duration(r.Trip/2 + int64(wander*float64(max(0, at-r.At))))
}

// Drift is by how much two readings contradict each other: what their errors do
// not explain.
func (r Reading) Drift(later Reading) time.Duration {
	apart := later.Offset - r.Offset
	return time.Duration(max(0, max(apart, -apart)-(r.Trip+later.Trip)/2))
}

// String is the reading for people.
func (r Reading) String() string {
	side, by := "ahead", r.Ahead
	if by < 0 {
		side, by = "behind", -by
	}
	return fmt.Sprintf("%.3f ms %s ± %.3f ms", float64(by)/1e6, side, float64(r.Trip)/2e6)
}

// plausible refuses what no clock can have measured, so that nonsense does not
// become a latency.
func (r Reading) plausible() bool {
	return r.Trip > 0 && r.Trip < int64(time.Minute)
}

// compare asks for the hub's time a few times and keeps the quickest answer: the
// longer a trip took, the less is known of when in it the hub looked.
func compare(times int, monotonic func() int64, ask func() (int64, error)) (best Reading, err error) {
	for range times {
		began, wall := monotonic(), time.Now().UnixNano()
		hub, err := ask()
		if err != nil {
			return best, err
		}
		trip := max(1, monotonic()-began)
		if best.Trip == 0 || trip < best.Trip {
			best = Reading{Offset: hub - began - trip/2, Trip: trip, At: hub, Ahead: wall + trip/2 - hub}
		}
	}
	return best, nil
}
