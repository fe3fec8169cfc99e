package metrics

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/madang-chat/madang/internal/redisstore"
)

// WatchReady registers whether the process is ready: what /readyz says, for
// alerts and pictures.
func WatchReady(r prometheus.Registerer, ready func() bool) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "madang_ready",
		Help: "1 while /readyz says ready, 0 while it does not.",
	}, func() float64 {
		if ready() {
			return 1
		}
		return 0
	}))
}

// WatchLog registers how many log lines nobody will read: lost because the log
// was not read fast enough or could not be written, left out because there were too many alike.
func WatchLog(r prometheus.Registerer, lines func() (lost, leftOut uint64)) {
	type snapshot struct{ lost, leftOut uint64 }
	c := &collector[snapshot]{snapshot: func() snapshot { lost, leftOut := lines(); return snapshot{lost, leftOut} }}
	desc := prometheus.NewDesc("madang_log_lines_missing_total", "Log lines that nobody will read, by reason: slow_reader, flood.", []string{"reason"}, nil)
	c.figures = append(c.figures,
		figure[snapshot]{desc, prometheus.CounterValue, func(s *snapshot) float64 { return float64(s.lost) }, []string{"slow_reader"}},
		figure[snapshot]{desc, prometheus.CounterValue, func(s *snapshot) float64 { return float64(s.leftOut) }, []string{"flood"}})
	r.MustRegister(c)
}

// WatchTraces registers what became of spans for the collector; all are 0 while
// tracing is off.
func WatchTraces(r prometheus.Registerer, spans func() (exported, queueFull, refused uint64)) {
	type snapshot [3]uint64
	c := &collector[snapshot]{snapshot: func() snapshot { a, b, c := spans(); return snapshot{a, b, c} }}
	desc := prometheus.NewDesc("madang_trace_spans_total", "Spans of traces, by outcome: exported, or dropped for queue_full (the collector is slow) or refused (it is away, or does not want them).", []string{"outcome"}, nil)
	for i, outcome := range [...]string{"exported", "queue_full", "refused"} {
		c.figures = append(c.figures, figure[snapshot]{desc, prometheus.CounterValue, func(s *snapshot) float64 { return float64(s[i]) }, []string{outcome}})
	}
	r.MustRegister(c)
}

// WatchPool registers the figures of the connections to Redis.
func WatchPool(r prometheus.Registerer, pool func() redisstore.PoolStats) {
	c := &collector[redisstore.PoolStats]{snapshot: pool}
	conns := prometheus.NewDesc("madang_redis_pool_connections", "Connections to Redis, links apart, by state: idle, used.", []string{"state"}, nil)
	c.figures = append(c.figures,
		figure[redisstore.PoolStats]{conns, prometheus.GaugeValue, func(s *redisstore.PoolStats) float64 { return float64(s.Idle) }, []string{"idle"}},
		figure[redisstore.PoolStats]{conns, prometheus.GaugeValue, func(s *redisstore.PoolStats) float64 { return float64(s.Open - s.Idle) }, []string{"used"}})
	c.seconds("madang_redis_pool_wait_seconds_total", "Time that callers waited for a connection to Redis.", func(s *redisstore.PoolStats) time.Duration { return s.Waited })
	c.counter("madang_redis_pool_waits_total", "Times that a caller waited for a connection to Redis.", func(s *redisstore.PoolStats) uint64 { return s.Waits })
	c.counter("madang_redis_pool_timeouts_total", "Callers that gave up waiting for a connection to Redis.", func(s *redisstore.PoolStats) uint64 { return s.Timeouts })
	c.counter("madang_redis_pool_dials_total", "Connections to Redis made because none was idle.", func(s *redisstore.PoolStats) uint64 { return s.Dialed })
	c.gauge("madang_redis_queued_commands", "Commands that wait for a pipeline to Redis.", func(s *redisstore.PoolStats) float64 { return float64(s.Queued) })
	r.MustRegister(c)
}

// kernelSockets is what the kernel holds for TCP in this network namespace: half
// of what a gateway costs, and not in its resident memory.
type kernelSockets struct {
	file            string
	sockets, buffer *prometheus.Desc
}

func newKernelSockets(file string) *kernelSockets {
	return &kernelSockets{
		file:    file,
		sockets: prometheus.NewDesc("madang_kernel_tcp_sockets", "TCP sockets of this network namespace, by state: inuse, orphan, tw, alloc.", []string{"state"}, nil),
		buffer:  prometheus.NewDesc("madang_kernel_tcp_buffer_bytes", "Data in the buffers of all TCP sockets of this machine (net.ipv4.tcp_mem limits it); the sockets themselves are not in it.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (k *kernelSockets) Describe(ch chan<- *prometheus.Desc) {
	ch <- k.sockets
	ch <- k.buffer
}

// Collect implements prometheus.Collector. Where there is no such file it tells
// nothing.
func (k *kernelSockets) Collect(ch chan<- prometheus.Metric) {
	f, err := os.Open(k.file)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "TCP: ")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		for i := 0; i+1 < len(fields); i += 2 {
			n, err := strconv.ParseFloat(fields[i+1], 64)
			if err != nil {
				continue
			}
			if fields[i] == "mem" {
				ch <- prometheus.MustNewConstMetric(k.buffer, prometheus.GaugeValue, n*float64(os.Getpagesize()))
			} else {
				ch <- prometheus.MustNewConstMetric(k.sockets, prometheus.GaugeValue, n, fields[i])
			}
		}
	}
}
