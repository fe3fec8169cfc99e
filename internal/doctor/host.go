package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Host is what is known of a machine. A number that could not be read is -1, a
// text "".
type Host struct {
	OS     string
	Kernel string
	Cores  int

	MemoryBytes int64 // of the machine
	CgroupBytes int64 // limit of this process's control group; -1: none
	SwapBytes   int64
	Swappiness  int64
	Overcommit  int64
	HugePages   string // the chosen one of always, madvise, never

	NoFileSoft, NoFileHard int64 // of this process; Go raises soft to hard
	NrOpen                 int64 // most that NoFileHard can be
	FileMax, FilesOpen     int64 // of the machine
	EpollWatches           int64 // of a user

	SomaxConn, SynBacklog int64
	SynCookies            int64
	PortFirst, PortLast   int64
	TCPMem                [3]int64 // pages: low, pressure, high
	TCPWMem               [3]int64 // bytes: least, default, most
	ConntrackMax          int64    // -1: not loaded
	ConntrackCount        int64
	ClockSource           string
	ClockSources          string // those that there are
	ClockSynced           bool
	ClockKnown            bool // whether ClockSynced is known
	PageBytes             int64
	CPUQuota              float64 // cores that the control group allows; -1: all
	CongestionWindowReset int64   // tcp_slow_start_after_idle
}

// ReadHost reads what this machine says of itself. root is "/" in life and a
// directory of samples in tests; parts that only the kernel's calls can tell are
// left to readProcess.
func ReadHost(root fs.FS) Host {
	r := reader{root}
	h := Host{
		OS: runtime.GOOS, Kernel: r.text("proc/sys/kernel/osrelease"), Cores: runtime.NumCPU(),
		CgroupBytes: r.cgroupMemory(), CPUQuota: r.cgroupCPU(),
		Swappiness: r.number("proc/sys/vm/swappiness"), Overcommit: r.number("proc/sys/vm/overcommit_memory"),
		HugePages:  r.chosen("sys/kernel/mm/transparent_hugepage/enabled"),
		NoFileSoft: -1, NoFileHard: -1,
		NrOpen: r.number("proc/sys/fs/nr_open"), FileMax: r.number("proc/sys/fs/file-max"),
		FilesOpen:    r.numbers("proc/sys/fs/file-nr", 1)[0],
		EpollWatches: r.number("proc/sys/fs/epoll/max_user_watches"),
		SomaxConn:    r.number("proc/sys/net/core/somaxconn"),
		SynBacklog:   r.number("proc/sys/net/ipv4/tcp_max_syn_backlog"),
		SynCookies:   r.number("proc/sys/net/ipv4/tcp_syncookies"),
		TCPMem:       [3]int64(r.numbers("proc/sys/net/ipv4/tcp_mem", 3)),
		TCPWMem:      [3]int64(r.numbers("proc/sys/net/ipv4/tcp_wmem", 3)),
		ConntrackMax: r.number("proc/sys/net/netfilter/nf_conntrack_max"), ConntrackCount: r.number("proc/sys/net/netfilter/nf_conntrack_count"),
		ClockSource:           r.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
		ClockSources:          r.text("sys/devices/system/clocksource/clocksource0/available_clocksource"),
		PageBytes:             int64(os.Getpagesize()),
		CongestionWindowReset: r.number("proc/sys/net/ipv4/tcp_slow_start_after_idle"),
	}
	ports := r.numbers("proc/sys/net/ipv4/ip_local_port_range", 2)
	h.PortFirst, h.PortLast = ports[0], ports[1]
	h.MemoryBytes, h.SwapBytes = r.meminfo()
	h.readProcess()
	return h
}

// MemoryLimit is what the process may use: the least of the machine's memory and
// the control group's limit.
func (h Host) MemoryLimit() int64 {
	if h.CgroupBytes > 0 && (h.MemoryBytes < 0 || h.CgroupBytes < h.MemoryBytes) {
		return h.CgroupBytes
	}
	return h.MemoryBytes
}

// reader reads small files of the kernel; what cannot be read is -1 or "".
type reader struct{ root fs.FS }

func (r reader) text(name string) string {
	b, err := fs.ReadFile(r.root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (r reader) number(name string) int64 { return r.numbers(name, 1)[0] }

// numbers reads the first n numbers of a file.
func (r reader) numbers(name string, n int) []int64 {
	out := make([]int64, n)
	fields := strings.Fields(r.text(name))
	for i := range out {
		out[i] = -1
		if i < len(fields) {
			if v, err := strconv.ParseInt(fields[i], 10, 64); err == nil {
				out[i] = v
			} else if errors.Is(err, strconv.ErrRange) {
				out[i] = 1<<63 - 1 // fs.file-max can be 2^63 and more
			}
		}
	}
	return out
}

// chosen is the word in brackets: "always [madvise] never".
func (r reader) chosen(name string) string {
	_, after, _ := strings.Cut(r.text(name), "[")
	word, _, ok := strings.Cut(after, "]")
	if !ok {
		return ""
	}
	return word
}

func (r reader) meminfo() (total, swap int64) {
	total, swap = -1, -1
	for line := range strings.Lines(r.text("proc/meminfo")) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		kb, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "MemTotal":
			total = kb << 10
		case "SwapTotal":
			swap = kb << 10
		}
	}
	return total, swap
}

// cgroups are the directories of this process's control group, inside first:
// version 2 has one tree, version 1 one for each controller.
func (r reader) cgroups(controller string) (v2, v1 []string) {
	for line := range strings.Lines(r.text("proc/self/cgroup")) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var dirs *[]string
		base := "sys/fs/cgroup"
		switch {
		case f[1] == "":
			dirs = &v2
		case hasWord(f[1], controller):
			dirs, base = &v1, base+"/"+controller
		default:
			continue
		}
		// A limit of any group above counts too. In a container the path may be
		// the host's and the tree the container's: the root is looked at anyway.
		for dir := f[2]; ; dir = path.Dir(dir) {
			*dirs = append(*dirs, path.Join(base, dir))
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return v2, v1
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// noLimit is above what version 1 says for "none" (2^63 rounded down to a page).
const noLimit = 1 << 60

func (r reader) cgroupMemory() int64 {
	least := int64(-1)
	v2, v1 := r.cgroups("memory")
	look := func(dirs []string, file string) {
		for _, dir := range dirs {
			if n := r.number(path.Join(dir, file)); n > 0 && n < noLimit && (least < 0 || n < least) {
				least = n
			}
		}
	}
	look(v2, "memory.max") // "max" is no number: -1
	look(v1, "memory.limit_in_bytes")
	return least
}

func (r reader) cgroupCPU() float64 {
	least := -1.0
	see := func(quota, period int64) {
		if quota > 0 && period > 0 {
			if c := float64(quota) / float64(period); least < 0 || c < least {
				least = c
			}
		}
	}
	v2, v1 := r.cgroups("cpu")
	for _, dir := range v2 {
		n := r.numbers(path.Join(dir, "cpu.max"), 2)
		see(n[0], n[1])
	}
	for _, dir := range v1 {
		see(r.number(path.Join(dir, "cpu.cfs_quota_us")), r.number(path.Join(dir, "cpu.cfs_period_us")))
	}
	return least
}
