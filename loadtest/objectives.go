package loadtest

import (
	"strings"
	"time"

	"github.com/madang-chat/madang/loadtest/report"
	"github.com/madang-chat/madang/loadtest/swarm"
)

// weighObjectives compares the figures with the limits of the command line: those
// of a comparison for each transport.
func (r *run) weighObjectives() {
	if len(r.result.Compared) == 0 {
		r.weighPart("", r.result.Deliveries.Lost)
	}
	for _, c := range r.result.Compared {
		r.weighPart(c.Transport+": ", c.Lost)
	}
	drops := r.result.Connections.Drops
	r.weigh("connections dropped", r.spec.Objectives.MaxDrops, float64(drops.Total()-drops[swarm.DroppedByUs]), "", false)
}

// weighPart weighs the phases whose names begin so. The worst one in which messages
// were sent on purpose counts; a ramp does not.
func (r *run) weighPart(part string, lost uint64) {
	var worst report.Phase
	rate, sendRate := -1.0, -1.0
	var memory float64
	for _, p := range r.result.Phases {
		name, ok := strings.CutPrefix(p.Name, part)
		if !ok {
			continue
		}
		memory = max(memory, p.Memory.GatewayPerConn)
		if name == "ramp" || name == "warm-up" {
			continue
		}
		worst.Latency.P50 = max(worst.Latency.P50, p.Latency.P50)
		worst.Latency.P99 = max(worst.Latency.P99, p.Latency.P99)
		worst.Latency.P999 = max(worst.Latency.P999, p.Latency.P999)
		worst.Latency.Max = max(worst.Latency.Max, p.Latency.Max)
		worst.AckTime.P99 = max(worst.AckTime.P99, p.AckTime.P99)
		worst.BackTime.P99 = max(worst.BackTime.P99, p.BackTime.P99)
		worst.PerUnit.ServerPerDelivery = max(worst.PerUnit.ServerPerDelivery, p.PerUnit.ServerPerDelivery)
		if p.Acked > 0 && p.Seconds > 0 {
			rate = least(rate, float64(p.Arrivals)/p.Seconds)
			sendRate = least(sendRate, float64(p.Acked)/p.Seconds)
		}
	}
	cpu := worst.PerUnit.ServerPerDelivery
	if !r.servers.seesGateways() {
		cpu, memory = unknown, unknown
	}
	o := r.spec.Objectives
	r.atMost(part+"p50 latency", o.MaxP50, worst.Latency.P50)
	r.atMost(part+"p99 latency", o.MaxP99, worst.Latency.P99)
	r.atMost(part+"p99.9 latency", o.MaxP999, worst.Latency.P999)
	r.atMost(part+"longest latency", o.MaxLatency, worst.Latency.Max)
	r.atMost(part+"p99 of acknowledgements", o.MaxAckP99, worst.AckTime.P99)
	r.atMost(part+"p99 of coming back", o.MaxBackP99, worst.BackTime.P99)
	r.weigh(part+"lost deliveries", o.MaxLoss, float64(lost), "", false)
	r.weigh(part+"deliveries per second", o.MinRate, rate, "/s", true)
	r.weigh(part+"sends per second", o.MinSendRate, sendRate, "/s", true)
	r.weigh(part+"server CPU per delivery", o.MaxCPUPerDelivery, cpu, "µs", false)
	r.weigh(part+"gateway memory per connection", o.MaxMemoryPerConn, memory, "bytes", false)
}

func least(a, b float64) float64 {
	if a < 0 {
		return b
	}
	return min(a, b)
}

func (r *run) atMost(name string, limit time.Duration, gotMs float64) {
	if limit < 0 {
		return
	}
	r.weigh(name, float64(limit)/1e6, gotMs, "ms", false)
}

func (r *run) weigh(name string, limit, got float64, unit string, least bool) {
	if limit < 0 {
		return
	}
	met := got >= 0 && got <= limit // less than nothing: not known
	if least {
		met = got >= limit
	}
	r.result.Objectives = append(r.result.Objectives, report.Objective{Name: name, Limit: limit, Got: got, Unit: unit, Met: met})
}
