package app

import (
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// garbage is how much of it may lie about before it is collected: percent of what is
// live, but least bytes at the least.
type garbage struct {
	percent int
	least   uint64
}

var (
	// A gateway's heap is mostly what it knows of idle users. Go's usual GOGC of 100
	// would hold as much again in garbage, and what a delivery allocates is little, so
	// it is 30. But of a small heap that is next to nothing: opening the first ten
	// thousand connections would collect dozens of times, for a tenth of the CPU.
	gatewayGarbage = garbage{30, 4 << 20}
	// An API's heap is some 2 MiB, and what a request allocates is garbage when it is
	// answered. Go would collect at 4 MiB, twenty times a second when much is sent: a
	// tenth of the CPU of a send.
	apiGarbage = garbage{100, 16 << 20}
)

// collectByNeed begins to set GOGC after every collection, unless the environment
// does. It ends with the process.
func collectByNeed(g garbage) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(g.percentFor(liveBytes()))
		g.afterCollection()
	}
}

// afterCollection sets GOGC after the next collection, and again: that collection
// ends a small object that nobody refers to.
func (g garbage) afterCollection() {
	runtime.AddCleanup(new([16]byte), func(struct{}) {
		debug.SetGCPercent(g.percentFor(liveBytes()))
		g.afterCollection()
	}, struct{}{})
}

func (g garbage) percentFor(live uint64) int {
	return max(g.percent, int(100*g.least/max(live, 1<<20)))
}

// collectBefore has more collected when so much of the memory limit is used, unless the
// environment says when (GOMEMLIMIT): an API may hold --max-answers, and Go would have as
// much again lie about as garbage. It is no use to a gateway, half of whose memory is
// the kernel's.
func collectBefore(root fs.FS, percent int) {
	if limit := memoryLimit(root); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 100 * int64(percent))
	}
}

// liveBytes is what the last collection has left.
func liveBytes() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}
