package app

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

const (
	// memoryEvery is how often memory is looked at while nobody comes.
	memoryEvery = time.Second
	// memoryNewcomers are how many connections more are looked at at once: they take
	// 2 MB, the kernel's part included. A storm opens sixty times as many in a second,
	// which is more than a small container has between 85 % and the end.
	memoryNewcomers = 250
	// glanceEvery is how often it is seen whether so many came. A storm opens a thousand
	// in it.
	glanceEvery = 50 * time.Millisecond
)

// reliefPercent is how far use must fall below the mark before all is as before, so
// that the gate does not flutter.
const reliefPercent = 3

// memoryGuard has less held before the kernel ends the process.
type memoryGuard struct {
	root        fs.FS // "/"
	shedPercent float64
	shed        func(bool) // begins, ends
	what        string     // shed does, for the log
	open        func() int // connections; nil: they are short, and don't count
	log         *slog.Logger

	shedding bool
	seen     int           // connections when memory was looked at last
	waited   time.Duration // since that was because it was time to
	settled  settled
	rounds
}

func (g *memoryGuard) start() {
	g.look()
	every := memoryEvery
	if g.open != nil {
		every = glanceEvery
	}
	g.begin(context.Background(), every, func(context.Context) { g.glance(every) })
}

// glance looks at memory when it is time to, or when many have come. It is called each
// time that after is over.
func (g *memoryGuard) glance(after time.Duration) {
	open := 0
	if g.open != nil {
		open = g.open()
	}
	g.waited += after
	due := g.waited >= memoryEvery
	if !due && open-g.seen < memoryNewcomers {
		return
	}
	g.seen = open
	g.look()
	if !due {
		return
	}
	g.waited = 0
	if g.open != nil && g.settled.after(open) {
		debug.FreeOSMemory()
	}
}

func (g *memoryGuard) look() {
	used := memoryUsedPercent(g.root)
	switch {
	case !g.shedding && used >= g.shedPercent:
		g.shedding = true
		g.log.Warn("memory is short", "therefore", g.what, "used_percent", int(used), "from_percent", int(g.shedPercent))
	case g.shedding && used < g.shedPercent-reliefPercent:
		g.shedding = false
		g.log.Info("memory is no longer short", "used_percent", int(used))
	default:
		return
	}
	g.shed(g.shedding)
}

// settled notices when many connections have come or gone and it is quiet again:
// the time to give back what opening or closing them has left behind, which the
// runtime would keep for long because an idle gateway allocates next to nothing.
type settled struct {
	before int // connections when memory was given back last
	last   int
	quiet  int // looks without much change
}

const (
	settledLooks  = 3
	settledChange = 1000 // connections, and a tenth: less is not worth a collection
)

func (s *settled) after(open int) bool {
	moved := func(from, share int) bool {
		d := open - from
		return max(d, -d) > max(from, open)/share
	}
	if moved(s.last, 100) {
		s.quiet = 0
	} else {
		s.quiet++
	}
	s.last = open
	if d := open - s.before; s.quiet < settledLooks || max(d, -d) < settledChange || !moved(s.before, 10) {
		return false
	}
	s.before = open
	return true
}

// memoryUsedPercent is how much of what this process may use is in use: of its
// cgroup's limit or the machine's memory, whichever is tighter. What the kernel
// can take back at once (page cache) does not count, nor where it is called active:
// that is a file that was read twice. Its socket buffers do, which the process's own
// size would not show. 0: this system does not tell.
func memoryUsedPercent(root fs.FS) float64 {
	return max(machinePercent(root), cgroupPercent(root))
}

func machinePercent(root fs.FS) float64 {
	total, _ := field(root, "proc/meminfo", "MemTotal:")
	available, told := field(root, "proc/meminfo", "MemAvailable:")
	if total <= 0 || !told { // what imitates Linux leaves it out
		return 0
	}
	return 100 * (total - available) / total
}

// cgroupVersion is where one version of cgroups keeps its figures.
type cgroupVersion struct {
	line           string // in /proc/self/cgroup, what stands before the path
	mount          string
	limit, current string    // files
	cache          [2]string // fields of memory.stat
}

var cgroupVersions = []cgroupVersion{
	{"0::", "sys/fs/cgroup", "memory.max", "memory.current", [...]string{"inactive_file", "active_file"}},
	{"memory:", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", [...]string{"total_inactive_file", "total_active_file"}},
}

// cgroupPercent looks at the process's own cgroup and those above it.
func cgroupPercent(root fs.FS) float64 {
	worst := 0.0
	eachCgroup(root, func(v cgroupVersion, dir string) {
		limit, current := number(root, path.Join(dir, v.limit)), number(root, path.Join(dir, v.current))
		if limit > 0 && current > 0 {
			for _, cache := range v.cache {
				n, _ := field(root, path.Join(dir, "memory.stat"), cache)
				current -= n
			}
			worst = max(worst, 100*current/limit)
		}
	})
	return worst
}

// memoryLimit is how many bytes this process may use; 0: this system does not tell.
func memoryLimit(root fs.FS) int64 {
	least, _ := field(root, "proc/meminfo", "MemTotal:")
	least *= 1 << 10
	eachCgroup(root, func(v cgroupVersion, dir string) {
		if limit := number(root, path.Join(dir, v.limit)); limit > 0 && (least == 0 || limit < least) {
			least = limit
		}
	})
	return int64(least)
}

// eachCgroup calls f with the directories of the process's own cgroup and of those above
// it. In a container the path may be the host's, and only the topmost is there to see.
func eachCgroup(root fs.FS, f func(v cgroupVersion, dir string)) {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		for _, v := range cgroupVersions {
			// "0::/path", or "4:memory:/path"
			before, own, ok := strings.Cut(strings.TrimSpace(line), ":/")
			if !ok || !strings.HasSuffix(before+":", v.line) {
				continue
			}
			// What is outside of the container's own tree begins with "..".
			for dir := path.Join(v.mount, path.Clean("/"+own)); strings.HasPrefix(dir, v.mount); dir = path.Dir(dir) {
				f(v, dir)
			}
		}
	}
}

// number reads a file that holds one; 0 when there is none ("max", say).
func number(root fs.FS, name string) float64 {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseFloat(string(bytes.TrimSpace(b)), 64)
	if err != nil {
		return 0
	}
	return n
}

// field reads the number after a name at the beginning of a line.
func field(root fs.FS, name, key string) (n float64, ok bool) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) >= 2 && words[0] == key {
			if n, err := strconv.ParseFloat(words[1], 64); err == nil {
				return n, true
			}
		}
	}
	return 0, false
}
