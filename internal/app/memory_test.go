package app

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/fstest"
	"time"
)

func memFile(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func machine(totalKB, availableKB string) fstest.MapFS {
	return fstest.MapFS{"proc/meminfo": memFile("MemTotal:       " + totalKB + " kB\nMemFree: 1 kB\nMemAvailable:    " + availableKB + " kB\n")}
}

func TestMemoryUsed(t *testing.T) {
	inCgroup := machine("1000", "600")
	inCgroup["proc/self/cgroup"] = memFile("0::/system.slice/madang.service\n")
	inCgroup["sys/fs/cgroup/system.slice/madang.service/memory.max"] = memFile("2000\n")
	inCgroup["sys/fs/cgroup/system.slice/madang.service/memory.current"] = memFile("1900\n")
	inCgroup["sys/fs/cgroup/system.slice/madang.service/memory.stat"] = memFile("anon 1\ninactive_file 100\nactive_file 200\n")
	unlimited := machine("1000", "600")
	unlimited["proc/self/cgroup"] = memFile("0::/\n")
	unlimited["sys/fs/cgroup/memory.max"] = memFile("max\n")
	unlimited["sys/fs/cgroup/memory.current"] = memFile("1900\n")
	for name, tt := range map[string]struct {
		root fstest.MapFS
		want float64
	}{
		"machine":          {machine("1000", "250"), 75},
		"cgroup, tighter":  {inCgroup, 80},
		"cgroup, no limit": {unlimited, 40},
		"unknown system":   {fstest.MapFS{}, 0},
		"cgroup outside of the container's tree": {fstest.MapFS{
			"proc/self/cgroup":             memFile("0::/../../app\n"),
			"sys/fs/cgroup/memory.max":     memFile("1000\n"),
			"sys/fs/cgroup/memory.current": memFile("900\n"),
			"sys/fs/cgroup/memory.stat":    memFile("inactive_file 100\n"),
		}, 80},
		"cgroup version 1": {fstest.MapFS{
			"proc/self/cgroup":                                 memFile("9:name=systemd:/\n4:memory:/app/1\n0::/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":       memFile("9223372036854771712\n"),
			"sys/fs/cgroup/memory/memory.usage_in_bytes":       memFile("900\n"),
			"sys/fs/cgroup/memory/app/1/memory.limit_in_bytes": memFile("1000\n"),
			"sys/fs/cgroup/memory/app/1/memory.usage_in_bytes": memFile("900\n"),
			"sys/fs/cgroup/memory/app/1/memory.stat":           memFile("inactive_file 7\ntotal_inactive_file 30\ntotal_active_file 70\n"),
		}, 80},
		"nonsense":        {machine("many", "few"), 0},
		"nothing is left": {machine("1000", "0"), 100},
		"a system that does not say what is available": {fstest.MapFS{"proc/meminfo": memFile("MemTotal: 1000 kB\nMemFree: 500 kB\n")}, 0},
	} {
		if got := memoryUsedPercent(tt.root); got != tt.want {
			t.Errorf("%s: %v %%, want %v %%", name, got, tt.want)
		}
	}
	if got := memoryUsedPercent(os.DirFS("/")); got < 0 || got > 100 {
		t.Errorf("here: %v %%", got)
	}
}

func TestTheGateDoesNotFlutter(t *testing.T) {
	var told []bool
	g := &memoryGuard{shedPercent: 85, log: slog.New(slog.DiscardHandler), shed: func(on bool) { told = append(told, on) }}
	for _, availableKB := range []string{"300", "151", "150", "160", "149", "179", "181", "160"} {
		g.root = machine("1000", availableKB)
		g.look()
	}
	if want := []bool{true, false}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// A storm fills a small container within a second.
func TestMemoryIsLookedAtWhenManyHaveCome(t *testing.T) {
	open, shedding := 0, false
	g := &memoryGuard{
		shedPercent: 85, root: machine("1000", "500"), log: slog.New(slog.DiscardHandler),
		shed: func(on bool) { shedding = on }, open: func() int { return open },
	}
	g.glance(glanceEvery)
	g.root = machine("1000", "100")
	if g.glance(glanceEvery); shedding {
		t.Error("memory was looked at though nobody came")
	}
	open = 1000
	if g.glance(glanceEvery); !shedding {
		t.Error("memory was not looked at though a thousand came")
	}
	g.root = machine("1000", "500")
	for range memoryEvery / glanceEvery {
		g.glance(glanceEvery)
	}
	if shedding {
		t.Error("memory was not looked at for a second")
	}
}

func TestMemoryIsGivenBackOnceConnectionsHaveSettled(t *testing.T) {
	var s settled
	var gave []int
	for i, open := range []int{0, 5000, 10_000, 10_010, 10_020, 10_020, 10_020, 10_020, 10_900, 10_900, 10_900, 10_900, 100, 100, 100, 100} {
		if s.after(open) {
			gave = append(gave, i)
		}
	}
	if len(gave) != 2 || gave[0] != 5 || gave[1] != 15 {
		t.Errorf("given back at looks %v, want 5 and 15", gave)
	}
}

func TestGarbageIsBoundedByTheHeap(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 2 << 20: 200, 4 << 20: 100, 100 << 20: 30} {
		if got := gatewayGarbage.percentFor(live); got != want {
			t.Errorf("GOGC with %d bytes is %d, want %d", live, got, want)
		}
	}
}

func TestGarbageIsCollectedBeforeTheLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	root := machine("4000000", "3000000")
	root["proc/self/cgroup"] = memFile("0::/app\n")
	root["sys/fs/cgroup/app/memory.max"] = memFile("100000000\n")
	t.Setenv("GOMEMLIMIT", "1GiB")
	if collectBefore(root, 85); debug.SetMemoryLimit(-1) != before {
		t.Error("the environment's is not left alone")
	}
	t.Setenv("GOMEMLIMIT", "")
	if collectBefore(root, 85); debug.SetMemoryLimit(-1) != 85_000_000 {
		t.Errorf("it is %d", debug.SetMemoryLimit(-1))
	}
	if limit := memoryLimit(machine("4000000", "3000000")); limit != 4_000_000<<10 {
		t.Errorf("without a cgroup the limit is %d", limit)
	}
	if limit := memoryLimit(fstest.MapFS{}); limit != 0 {
		t.Errorf("where nothing is told it is %d", limit)
	}
}

func TestGOGCIsSetAfterEachCollection(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	collectByNeed(gatewayGarbage)
	hold := make([]byte, 200<<20) // then 30 it is
	for deadline := time.Now().Add(10 * time.Second); ; {
		runtime.GC()
		now := debug.SetGCPercent(31)
		if now == 30 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("GOGC is %d, want 30", now)
		}
	}
	runtime.KeepAlive(hold)
}
