// Package metrics is what a process tells Prometheus: every collector, with its
// name and help, on a registry of the process's own. It implements the observers
// that the API, the store and the gateway define, and they know nothing of
// Prometheus.
//
// Names follow Prometheus's rules: madang_, base units, _total for counters.
// Label values are bounded by the code, never by what clients send. Children are
// held, so that counting costs nanoseconds and looks nothing up.
package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry is a registry with what every process tells: its build, the Go
// runtime, and the process's own figures.
func NewRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "madang_build_info",
		Help: "1, labelled with what is running.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newKernelSockets("/proc/net/sockstat"),
	)
	return r
}

// histogram is a latency histogram in seconds, both as classic buckets, which
// every Prometheus understands, and native, which resolves 10 % everywhere.
func histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160, // a bound on memory per series: ~2 KB
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// Classic buckets, in seconds.
var (
	// requestBuckets: from a send that Redis answers at once to the time-out.
	requestBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}
	// uploadBuckets: from a photo on a LAN to the longest upload.
	uploadBuckets = []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 600}
	// redisBuckets: a round trip on a quiet LAN to the command time-out.
	redisBuckets = []float64{.0001, .0002, .0005, .001, .002, .005, .01, .05, .2, 1, 3}
	// waitBuckets: what event loops time by their wheel, of 50 ms.
	waitBuckets = []float64{.05, .1, .2, .5, 1, 2, 5, 10}
	// deliveryBuckets: from the log to the socket; Redis's clock has milliseconds.
	deliveryBuckets = []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}
	// turnBuckets: a loop's turn; above 10 ms others on the loop begin to notice.
	turnBuckets = []float64{.00001, .0001, .0005, .001, .002, .005, .01, .02, .05, .1, .5}
)
