package metrics

import "github.com/madang-chat/madang/gateway/hub"

// newLiveCollector tells of presence, markers and the fleet as one gateway sees
// them.
func newLiveCollector(snapshot func() hub.Stats) *collector[hub.LiveStats] {
	c := &collector[hub.LiveStats]{snapshot: func() hub.LiveStats { return snapshot().Live }}
	type stats = hub.LiveStats
	c.gauge("madang_online_users", "Users who are online by a connection here, those in their grace time included.", func(s *stats) float64 { return float64(s.Online) })
	c.gauge("madang_watched_users", "Users whose presence somebody here watches.", func(s *stats) float64 { return float64(s.Watched) })
	c.gauge("madang_watches", "Pairs of connection and user it watches.", func(s *stats) float64 { return float64(s.Watches) })
	c.gauge("madang_focused_connections", "Connections that look at a room.", func(s *stats) float64 { return float64(s.Focused) })
	c.gauge("madang_presence_waiting", "Users whose presence waits to be written to Redis, or is being written.", func(s *stats) float64 { return float64(s.SeatQueue + s.InFlight) })
	c.counter("madang_presence_writes_total", "Presences written to Redis: new, changed and refreshed ones.", func(s *stats) uint64 { return s.Taken })
	c.counter("madang_presence_refreshes_total", "Presences refreshed, so that they do not expire.", func(s *stats) uint64 { return s.Refreshed })
	c.counter("madang_presence_rewrites_total", "Presences written again because Redis lost its data, or the gateway has a new ID.", func(s *stats) uint64 { return s.Rewritten })
	c.counter("madang_presence_leaves_total", "Users who left this gateway.", func(s *stats) uint64 { return s.Left })
	c.counter("madang_presence_surplus_total", "Presences found in Redis that were nobody's here, and removed.", func(s *stats) uint64 { return s.Surplus })
	c.counter("madang_presence_changes_total", "Changes of watched users that were told to somebody here.", func(s *stats) uint64 { return s.Changes })
	c.counter("madang_watch_limited_total", "Changes of watch sets that came too soon, and waited.", func(s *stats) uint64 { return s.WatchLimited })
	c.counter("madang_typing_total", "Typing events sent.", func(s *stats) uint64 { return s.TypingSent })
	c.counter("madang_typing_limited_total", "Typing events left out by their limits.", func(s *stats) uint64 { return s.TypingLimited })
	c.counter("madang_markers_moved_total", "Read and delivered markers that moved.", func(s *stats) uint64 { return s.MarkersMoved })
	c.counter("madang_markers_coalesced_total", "Moves of markers that needed no write of their own.", func(s *stats) uint64 { return s.MarkersCoalesced })
	c.counter("madang_live_events_told_total", "Typing events and receipts passed on to connections that look at the room.", func(s *stats) uint64 { return s.Receipts })
	c.counter("madang_live_refused_total", "Things clients said of rooms, markers and users that were not allowed.", func(s *stats) uint64 { return s.Refused })
	c.counter("madang_live_events_shed_total", "Typing events left out because Redis did not keep up.", func(s *stats) uint64 { return s.EventsShed })

	c.gauge("madang_fleet_gateways", "Gateways that live, as this one sees it.", func(s *stats) float64 { return float64(s.Fleet.Alive) })
	c.gauge("madang_fleet_connections", "Connections of all gateways that live, as their leases say.", func(s *stats) float64 { return float64(s.Fleet.Conns) })
	c.counter("madang_fleet_deaths_total", "Gateways that this one declared dead.", func(s *stats) uint64 { return s.Fleet.Declared })
	c.counter("madang_fleet_announced_total", "Users of dead gateways that this one announced.", func(s *stats) uint64 { return s.Fleet.Announced })
	c.counter("madang_fleet_reborn_total", "Times that this gateway was declared dead and went on under a new ID.", func(s *stats) uint64 { return s.Fleet.Reborn })
	c.counter("madang_lease_failures_total", "Renewals of the lease that failed.", func(s *stats) uint64 { return s.Fleet.RenewFailed })
	return c
}
