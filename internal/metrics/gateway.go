package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/gateway/loop"
)

// Gateway tells what a gateway has done and holds. Loops and hub count by
// themselves; it asks them when Prometheus asks.
type Gateway struct {
	delivery, upgrade, heartbeat prometheus.Histogram
	turn                         prometheus.Histogram
}

// NewGateway registers the gateway's histograms. Watch adds the rest, once there
// is a gateway to ask.
func NewGateway(r prometheus.Registerer) *Gateway {
	m := &Gateway{
		delivery: prometheus.NewHistogram(histogram("madang_delivery_latency_seconds",
			"Age of a message when the last of a loop's sockets has taken it: from Redis's clock to this one's.", deliveryBuckets)),
		upgrade: prometheus.NewHistogram(histogram("madang_upgrade_duration_seconds",
			"From a connection's first byte being awaited to its answer, in steps of 50 ms; TLS handshakes come before.", waitBuckets)),
		heartbeat: prometheus.NewHistogram(histogram("madang_heartbeat_round_trip_seconds",
			"From a ping to the client's next sign of life, in steps of 50 ms.", waitBuckets)),
		turn: prometheus.NewHistogram(histogram("madang_loop_turn_seconds",
			"Time an event loop was busy in one turn: how long everything else on the loop had to wait.", turnBuckets)),
	}
	r.MustRegister(m.delivery, m.upgrade, m.heartbeat, m.turn)
	return m
}

// Delivered is called when the last socket of a loop has taken a message.
func (m *Gateway) Delivered(latencyMs int64, _ int) {
	m.delivery.Observe(max(0, float64(latencyMs)/1000)) // clocks differ
}

// Upgraded is called when a connection is open.
func (m *Gateway) Upgraded(took time.Duration) { m.upgrade.Observe(took.Seconds()) }

// Heartbeat is called when a client that was pinged gives a sign of life.
func (m *Gateway) Heartbeat(took time.Duration) { m.heartbeat.Observe(took.Seconds()) }

// Turn is called at the end of a loop's turn.
func (m *Gateway) Turn(busy time.Duration) { m.turn.Observe(busy.Seconds()) }

// Watch registers what loops and hub count themselves.
func (m *Gateway) Watch(r prometheus.Registerer, loops func() loop.Stats, hubs func() hub.Stats) {
	r.MustRegister(newLoopCollector(loops), newHubCollector(hubs), newLiveCollector(hubs))
}

// figure is one number of a snapshot: its description, and how to read it.
type figure[S any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*S) float64
	label []string
}

// collector tells figures of one snapshot, so that they belong together.
type collector[S any] struct {
	snapshot func() S
	figures  []figure[S]
}

func (c *collector[S]) counter(name, help string, value func(*S) uint64) {
	c.figures = append(c.figures, figure[S]{
		desc: prometheus.NewDesc(name, help, nil, nil), kind: prometheus.CounterValue,
		value: func(s *S) float64 { return float64(value(s)) },
	})
}

func (c *collector[S]) seconds(name, help string, value func(*S) time.Duration) {
	c.figures = append(c.figures, figure[S]{
		desc: prometheus.NewDesc(name, help, nil, nil), kind: prometheus.CounterValue,
		value: func(s *S) float64 { return value(s).Seconds() },
	})
}

func (c *collector[S]) gauge(name, help string, value func(*S) float64) {
	c.figures = append(c.figures, figure[S]{
		desc: prometheus.NewDesc(name, help, nil, nil), kind: prometheus.GaugeValue, value: value,
	})
}

// Describe implements prometheus.Collector.
func (c *collector[S]) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector[S]) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	for _, f := range c.figures {
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(&s), f.label...)
	}
}

func newLoopCollector(snapshot func() loop.Stats) *collector[loop.Stats] {
	c := &collector[loop.Stats]{snapshot: snapshot}
	c.counter("madang_accepted_total", "Sockets accepted.", func(s *loop.Stats) uint64 { return s.Accepted })
	c.counter("madang_accept_failures_total", "Accepts that failed, mostly for lack of descriptors.", func(s *loop.Stats) uint64 { return s.AcceptFailures })

	upgrades := prometheus.NewDesc("madang_upgrades_total", "Requests, by outcome; of a socket's long polls that are served, the first.", []string{"outcome"}, nil)
	for _, o := range loop.UpgradeOutcomes() {
		c.figures = append(c.figures, figure[loop.Stats]{upgrades, prometheus.CounterValue,
			func(s *loop.Stats) float64 { return float64(s.Upgrades[o]) }, []string{o.String()}})
	}
	closed := prometheus.NewDesc("madang_connections_closed_total", "Connections that ended, by reason.", []string{"reason"}, nil)
	for _, r := range loop.CloseReasons() {
		c.figures = append(c.figures, figure[loop.Stats]{closed, prometheus.CounterValue,
			func(s *loop.Stats) float64 { return float64(s.Closed[r]) }, []string{r.String()}})
	}
	connections := prometheus.NewDesc("madang_connections", "Sockets, by transport and state: handshake, open, closing.", []string{"transport", "state"}, nil)
	count := func(transport, state string, value func(*loop.Stats) int64) {
		c.figures = append(c.figures, figure[loop.Stats]{connections, prometheus.GaugeValue,
			func(s *loop.Stats) float64 { return float64(value(s)) }, []string{transport, state}})
	}
	count("any", "handshake", func(s *loop.Stats) int64 { return s.Heads })
	count("any", "closing", func(s *loop.Stats) int64 { return s.Closing })
	for via, transport := range map[edge.Transport]string{edge.WebSocket: "websocket", edge.SSE: "sse", edge.LongPoll: "longpoll"} {
		count(transport, "open", func(s *loop.Stats) int64 { return s.OpenBy[via] })
	}

	c.counter("madang_polls_total", "Long polls begun.", func(s *loop.Stats) uint64 { return s.Polls })
	c.counter("madang_deliveries_total", "Events queued for connections: a message to 1,000 members is 1,000.", func(s *loop.Stats) uint64 { return s.Deliveries })
	c.counter("madang_frames_received_total", "Frames received, control frames and fragments included.", func(s *loop.Stats) uint64 { return s.FramesIn })
	c.counter("madang_received_bytes_total", "Bytes read from sockets.", func(s *loop.Stats) uint64 { return s.BytesIn })
	c.counter("madang_sent_bytes_total", "Bytes written to sockets.", func(s *loop.Stats) uint64 { return s.BytesOut })
	c.counter("madang_socket_reads_total", "Read system calls.", func(s *loop.Stats) uint64 { return s.Reads })
	c.counter("madang_socket_writes_total", "Write system calls.", func(s *loop.Stats) uint64 { return s.Writes })
	c.counter("madang_socket_writes_short_total", "Writes that a full socket cut short.", func(s *loop.Stats) uint64 { return s.WouldBlock })
	c.counter("madang_pings_total", "Heartbeats: pings to silent WebSockets, comments to idle streams of events.", func(s *loop.Stats) uint64 { return s.Pings })
	c.counter("madang_ephemeral_shed_total", "Ephemeral events dropped for sockets that were behind.", func(s *loop.Stats) uint64 { return s.Shed })
	c.counter("madang_left_out_total", "Room events left out for slow readers, who catch up from the log.", func(s *loop.Stats) uint64 { return s.LeftOut })
	c.counter("madang_slow_readers_total", "Times that a reader became slow.", func(s *loop.Stats) uint64 { return s.SlowReaders })
	c.counter("madang_messages_compressed_total", "Messages compressed: each once for everybody.", func(s *loop.Stats) uint64 { return s.Deflated })
	c.counter("madang_compression_in_bytes_total", "Bytes of messages before they were compressed.", func(s *loop.Stats) uint64 { return s.DeflatedFrom })
	c.counter("madang_compression_out_bytes_total", "Bytes of messages after they were compressed.", func(s *loop.Stats) uint64 { return s.DeflatedTo })
	c.counter("madang_loop_panics_total", "Panics in event loops: mistakes of ours. Each costs the connection, or the room, that was being served.", func(s *loop.Stats) uint64 { return s.Bugs })
	c.counter("madang_loop_turns_total", "Turns of the event loops.", func(s *loop.Stats) uint64 { return s.Turns })
	c.seconds("madang_loop_busy_seconds_total", "Time the event loops were busy.", func(s *loop.Stats) time.Duration { return time.Duration(s.BusyNs) })

	c.gauge("madang_compressed_connections", "Open connections that negotiated permessage-deflate.", func(s *loop.Stats) float64 { return float64(s.Compressed) })
	c.gauge("madang_readers_behind", "Connections that are behind now.", func(s *loop.Stats) float64 { return float64(s.Behind) })
	c.gauge("madang_attachments", "Pairs of connection and room.", func(s *loop.Stats) float64 { return float64(s.Attachments) })
	c.gauge("madang_out_queue_bytes", "Bytes queued for sockets; what they share counts for each.", func(s *loop.Stats) float64 { return float64(s.QueuedBytes) })
	c.gauge("madang_incomplete_bytes", "Bytes held of requests and messages that are not complete.", func(s *loop.Stats) float64 { return float64(s.HeldBytes) })
	c.gauge("madang_loop_lag_seconds", "The longest turn of an event loop since the last scrape.", func(s *loop.Stats) float64 { return float64(s.MaxTurnNs) / 1e9 })
	return c
}

func newHubCollector(snapshot func() hub.Stats) *collector[hub.Stats] {
	c := &collector[hub.Stats]{snapshot: snapshot}
	c.gauge("madang_followed_users", "Users that are followed.", func(s *hub.Stats) float64 { return float64(s.Users) })
	c.gauge("madang_followed_rooms", "Rooms that are followed.", func(s *hub.Stats) float64 { return float64(s.Rooms) })
	c.counter("madang_gaps_filled_total", "Holes in a room's chain that were filled from the log before anybody saw them.", func(s *hub.Stats) uint64 { return s.GapsFilled })
	c.counter("madang_gaps_told_total", "gap events: the log could not fill the hole.", func(s *hub.Stats) uint64 { return s.GapsTold })
	c.counter("madang_audits_total", "Rooms and users compared after a link was re-made.", func(s *hub.Stats) uint64 { return s.Audits })
	c.counter("madang_log_reads_total", "Reads of rooms' logs.", func(s *hub.Stats) uint64 { return s.LogReads })
	c.counter("madang_log_reads_saved_total", "Catch-ups answered from memory.", func(s *hub.Stats) uint64 { return s.FromTail })
	c.counter("madang_resumes_total", "Resumes completed.", func(s *hub.Stats) uint64 { return s.Resumes })
	c.counter("madang_duplicates_total", "Publications that were not newer than the room's head.", func(s *hub.Stats) uint64 { return s.Duplicates })
	c.counter("madang_hub_turns_total", "Turns of the hub.", func(s *hub.Stats) uint64 { return s.Turns })
	c.seconds("madang_hub_busy_seconds_total", "Time the hub was busy.", func(s *hub.Stats) time.Duration { return time.Duration(s.BusyNs) })
	c.gauge("madang_hub_lag_seconds", "How long the oldest input of the hub's last turn had waited.", func(s *hub.Stats) float64 { return s.Lag.Seconds() })
	c.gauge("madang_hub_queue_bytes", "Publications that wait for the hub.", func(s *hub.Stats) float64 { return float64(s.QueueBytes) })
	c.counter("madang_hub_links_broken_total", "Links broken, and audited, because the hub's mailbox was full.", func(s *hub.Stats) uint64 { return s.Broken })
	return c
}
