package doctor

import (
	"fmt"
	"math"
	"slices"

	"github.com/madang-chat/madang/internal/plan"
)

// memoryShare is the default of --shed-percent: above it a gateway refuses new
// clients.
const memoryShare = 85

// BytesPerConn is what one idle client costs a gateway's host: the process's
// memory and the kernel's for its socket, as measured (internal/plan).
func BytesPerConn() float64 {
	return plan.GatewayBytesPerConn.Value + plan.KernelBytesPerSocket.Value
}

// Bound is one thing that limits how many clients a host can hold.
type Bound struct {
	By    string `json:"by"`
	Conns int64  `json:"connections"`
	How   string `json:"how"`
}

// Capacity lists what limits the number of clients of this host when that many
// gateways run on it, the tightest first.
func Capacity(h Host, processes int64) []Bound {
	processes = max(processes, 1)
	var out []Bound
	add := func(by string, conns int64, how string, args ...any) {
		out = append(out, Bound{by, max(conns, 0), fmt.Sprintf(how, args...)})
	}
	if limit := h.MemoryLimit(); limit > 0 {
		usable := limit * memoryShare / 100
		add("memory", int64(float64(usable)/BytesPerConn()), "%d %% of %s at %.0f bytes per idle client: %.0f in the process and %.0f in the kernel, measured",
			memoryShare, size(limit), BytesPerConn(), plan.GatewayBytesPerConn.Value, plan.KernelBytesPerSocket.Value)
	}
	if h.NoFileHard >= 0 {
		add("open files per process", saturate(h.NoFileHard-spareFiles, processes), "%d less %d to spare, in %d process(es)", h.NoFileHard, spareFiles, processes)
	}
	if h.FileMax >= 0 && h.FilesOpen >= 0 {
		add("open files of the machine", h.FileMax-h.FilesOpen-spareFiles*processes, "fs.file-max less those in use")
	}
	if h.EpollWatches >= 0 {
		add("epoll watches", h.EpollWatches-spareFiles, "fs.epoll.max_user_watches, for each user of the system")
	}
	if h.ConntrackMax > 0 {
		add("connection tracking", h.ConntrackMax-max(h.ConntrackCount, 0), "only where a firewall rule looks at states")
	}
	slices.SortStableFunc(out, func(a, b Bound) int {
		switch {
		case a.Conns < b.Conns:
			return -1
		case a.Conns > b.Conns:
			return 1
		}
		return 0
	})
	return out
}

// saturate multiplies without running over.
func saturate(a, b int64) int64 {
	if a > 0 && a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return a * b
}
