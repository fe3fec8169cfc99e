package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/madang-chat/madang/internal/redisstore"
)

// Redis counts what the store does. Its Observer goes into redisstore.Options.
type Redis struct {
	roundTrips *prometheus.HistogramVec
	commands   *prometheus.CounterVec
	failures   *prometheus.CounterVec
	linksUp    prometheus.Gauge
	linkBreaks prometheus.Counter
	trimmed    *prometheus.CounterVec
	canary     prometheus.Histogram
	logLength  prometheus.Histogram

	lanes   sync.Map // lane → laneChild
	reasons sync.Map // reason → prometheus.Counter

	mu sync.Mutex
	up map[int]bool // guarded by mu: links that are up
}

type laneChild struct {
	roundTrip prometheus.Observer
	commands  prometheus.Counter
}

// NewRedis registers the store's collectors.
func NewRedis(r prometheus.Registerer) *Redis {
	m := &Redis{
		roundTrips: prometheus.NewHistogramVec(
			histogram("madang_redis_round_trip_seconds", "Time of one round trip to Redis, which may carry many commands, by lane.", redisBuckets),
			[]string{"lane"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "madang_redis_commands_total",
			Help: "Commands sent to Redis, by lane.",
		}, []string{"lane"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "madang_redis_command_failures_total",
			Help: "Commands that failed, by reason.",
		}, []string{"reason"}),
		linksUp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "madang_redis_links_up",
			Help: "Subscriber links that are connected.",
		}),
		linkBreaks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "madang_redis_link_breaks_total",
			Help: "Subscriber links that broke. Each is re-made and audited; nothing is lost by it.",
		}),
		trimmed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "madang_log_trimmed_total",
			Help: "Messages that left rooms' logs when this process sent others, by what is kept.",
		}, []string{"by"}),
		logLength: prometheus.NewHistogram(histogram("madang_log_messages",
			"Messages in the log of a room that was sent to, looked at when it may be trimmed, with each 16th of its messages at the least.",
			prometheus.ExponentialBuckets(16, 4, 9))), // to a million
		canary: prometheus.NewHistogram(
			histogram("madang_redis_canary_seconds", "Time from a canary's write to its coming back over the link.", redisBuckets)),
		up: map[int]bool{},
	}
	r.MustRegister(m.roundTrips, m.commands, m.failures, m.linksUp, m.linkBreaks, m.canary, m.trimmed, m.logLength)
	return m
}

// Observer is what the store reports to.
func (m *Redis) Observer() redisstore.Observer {
	return redisstore.Observer{
		Pipeline:      m.pipeline,
		CommandFailed: m.commandFailed,
		LogLength:     func(messages int) { m.logLength.Observe(float64(messages)) },
		Trimmed:       func(by string, messages int) { m.trimmed.WithLabelValues(by).Add(float64(messages)) },
		LinkUp:        func(link int) { m.link(link, true) },
		LinkDown:      func(link int, _ error) { m.link(link, false) },
		CanaryBack:    func(_ int, took time.Duration) { m.canary.Observe(took.Seconds()) },
	}
}

func (m *Redis) pipeline(lane string, commands int, took time.Duration) {
	child, ok := m.lanes.Load(lane)
	if !ok {
		child, _ = m.lanes.LoadOrStore(lane, laneChild{m.roundTrips.WithLabelValues(lane), m.commands.WithLabelValues(lane)})
	}
	c := child.(laneChild)
	c.roundTrip.Observe(took.Seconds())
	c.commands.Add(float64(commands))
}

func (m *Redis) commandFailed(reason string) {
	child, ok := m.reasons.Load(reason)
	if !ok {
		child, _ = m.reasons.LoadOrStore(reason, m.failures.WithLabelValues(reason))
	}
	child.(prometheus.Counter).Inc()
}

// link counts links by what they are, not by what is reported: a link that is
// reported down twice is one that is down.
func (m *Redis) link(link int, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.up[link] == up {
		return
	}
	m.up[link] = up
	if up {
		m.linksUp.Inc()
	} else {
		m.linksUp.Dec()
		m.linkBreaks.Inc()
	}
}
