package metrics

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/madang-chat/madang/internal/redisstore"
)

func TestKernelSocketsAreRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sockstat")
	text := "sockets: used 17\nTCP: inuse 12 orphan 1 tw 3 alloc 14 mem 2\nUDP: inuse 0 mem 0\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := testutil.CollectAndCount(newKernelSockets(file)); n != 5 {
		t.Errorf("%d figures, want 5", n)
	}
	err := testutil.CollectAndCompare(newKernelSockets(file), strings.NewReader(`
# HELP madang_kernel_tcp_sockets TCP sockets of this network namespace, by state: inuse, orphan, tw, alloc.
# TYPE madang_kernel_tcp_sockets gauge
madang_kernel_tcp_sockets{state="alloc"} 14
madang_kernel_tcp_sockets{state="inuse"} 12
madang_kernel_tcp_sockets{state="orphan"} 1
madang_kernel_tcp_sockets{state="tw"} 3
`), "madang_kernel_tcp_sockets")
	if err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(newKernelSockets(file + ".not")); n != 0 {
		t.Errorf("without the file %d figures are told", n)
	}
}

func TestPoolAndReadinessAreTold(t *testing.T) {
	r := prometheus.NewRegistry()
	ready := false
	WatchReady(r, func() bool { return ready })
	WatchPool(r, func() redisstore.PoolStats {
		return redisstore.PoolStats{Open: 7, Idle: 3, Waits: 5, Waited: 1500 * time.Millisecond, Queued: 2}
	})
	want := `
# HELP madang_ready 1 while /readyz says ready, 0 while it does not.
# TYPE madang_ready gauge
madang_ready 0
# HELP madang_redis_pool_connections Connections to Redis, links apart, by state: idle, used.
# TYPE madang_redis_pool_connections gauge
madang_redis_pool_connections{state="idle"} 3
madang_redis_pool_connections{state="used"} 4
# HELP madang_redis_pool_wait_seconds_total Time that callers waited for a connection to Redis.
# TYPE madang_redis_pool_wait_seconds_total counter
madang_redis_pool_wait_seconds_total 1.5
`
	names := []string{"madang_ready", "madang_redis_pool_connections", "madang_redis_pool_wait_seconds_total"}
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	ready = true
	if err := testutil.GatherAndCompare(r, strings.NewReader(strings.Replace(want, "madang_ready 0", "madang_ready 1", 1)), names...); err != nil {
		t.Error(err)
	}
}

// In OpenMetrics a counter x_total is called x: nothing else may be.
func TestNoTwoMetricsHaveOneNameInOpenMetrics(t *testing.T) {
	r, _, _, _ := everything()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "madang_") {
			continue
		}
		base := strings.TrimSuffix(f.GetName(), "_total")
		if other, ok := seen[base]; ok {
			t.Errorf("%s and %s", f.GetName(), other)
		}
		seen[base] = f.GetName()
	}
}

// Both forms of a latency: classic buckets for every Prometheus, a native
// histogram for those that take it.
func TestLatenciesAreClassicAndNative(t *testing.T) {
	r, _, _, _ := everything()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if f.GetType() != dto.MetricType_HISTOGRAM || !strings.HasPrefix(f.GetName(), "madang_") {
			continue
		}
		n++
		if h := f.GetMetric()[0].GetHistogram(); len(h.GetBucket()) == 0 || h.Schema == nil {
			t.Errorf("%s: %d classic buckets, native schema %v", f.GetName(), len(h.GetBucket()), h.Schema)
		}
	}
	if n < 5 {
		t.Errorf("only %d histograms", n)
	}
}
