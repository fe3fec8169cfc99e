// Package meter measures durations: HdrHistograms of microseconds with three
// digits, taken and emptied every second by the process that fills them, sent as
// bytes and merged where the run is judged. Reasons count beside it what went
// otherwise, and why.
package meter

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Longest is what anything longer is recorded as. A check sends through outages: what
// was due when one began is late by its length. (A meter has 230 KB; of two minutes,
// 150.)
const Longest = 24 * time.Hour

// Meter is a histogram of durations. It is for one goroutine.
type Meter struct {
	hist *hdrhistogram.Histogram
}

// New returns an empty meter.
func New() Meter {
	return Meter{hist: hdrhistogram.New(1, Longest.Microseconds(), 3)}
}

// Record records a duration in nanoseconds.
func (m Meter) Record(ns int64) {
	_ = m.hist.RecordValue(min(max(ns/1000, 1), Longest.Microseconds())) // always in range
}

// Detach hands over what was recorded and leaves an empty meter. It is cheap: who
// records goes on at once, and another goroutine may encode.
func (m *Meter) Detach() Meter {
	if m.hist.TotalCount() == 0 {
		return Meter{}
	}
	full := *m
	*m = New()
	return full
}

// Encode returns the meter as bytes; nil when it is empty.
func (m Meter) Encode() []byte {
	if m.hist == nil || m.hist.TotalCount() == 0 {
		return nil
	}
	b, err := m.hist.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		panic("BUG: a histogram that can't be encoded: " + err.Error())
	}
	return b
}

// Merge adds what another meter's Encode returned.
func (m Meter) Merge(encoded []byte) error {
	if len(encoded) == 0 {
		return nil
	}
	other, err := hdrhistogram.Decode(encoded)
	if err != nil {
		return fmt.Errorf("a worker's histogram: %w", err)
	}
	m.hist.Merge(other)
	return nil
}

// Dist is what a report says about a meter. Times are in milliseconds.
type Dist struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// Dist returns the percentiles.
func (m Meter) Dist() Dist {
	ms := func(micros int64) float64 { return float64(micros) / 1000 }
	h := m.hist
	return Dist{
		Count: h.TotalCount(), Mean: h.Mean() / 1000,
		P50: ms(h.ValueAtQuantile(50)), P90: ms(h.ValueAtQuantile(90)), P99: ms(h.ValueAtQuantile(99)),
		P999: ms(h.ValueAtQuantile(99.9)), Max: ms(h.Max()),
	}
}

// Point is one point of a percentile curve.
type Point struct {
	Percentile float64 `json:"percentile"`
	Ms         float64 `json:"ms"`
}

// Curve returns the percentiles for a plot, ever closer to 100.
func (m Meter) Curve() []Point {
	var points []Point
	if m.hist.TotalCount() == 0 {
		return nil
	}
	for _, b := range m.hist.CumulativeDistributionWithTicks(5) {
		points = append(points, Point{b.Quantile, float64(b.ValueAt) / 1000})
	}
	return points
}
