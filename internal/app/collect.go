package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// A gateway's heap is mostly what it knows of idle users. Go's usual GOGC of 100
// would hold as much again in garbage, and what a delivery allocates is little, so
// it is 30. But of a small heap that is next to nothing: opening the first ten
// thousand connections would collect dozens of times, for a tenth of the CPU. So
// some garbage may always lie about.
const (
	gcPercent    = 30
	leastGarbage = 4 << 20
)

// collectByNeed begins to set GOGC after every collection, unless the environment
// does. It ends with the process.
func collectByNeed() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percentFor(liveBytes()))
		afterCollection()
	}
}

// afterCollection sets GOGC after the next collection, and again: that collection
// ends a small object that nobody refers to.
func afterCollection() {
	runtime.AddCleanup(new([16]byte), func(struct{}) {
		debug.SetGCPercent(percentFor(liveBytes()))
		afterCollection()
	}, struct{}{})
}

func percentFor(live uint64) int {
	return max(gcPercent, int(100*leastGarbage/max(live, 1<<20)))
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
