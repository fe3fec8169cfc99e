// Package probe measures the processes under test from outside, when they are on
// the same machine: CPU time and memory by pid, and what the kernel holds for
// sockets. It reads /proc and changes nothing; on a system without it nothing is
// found.
package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Proc is a process under test.
type Proc struct {
	Pid  int
	Name string // as the kernel knows it
	Role string // api, gateway, redis …
	Port int    // it listens on; tells two gateways apart
}

// Sample is what a process has used at one time.
type Sample struct {
	CPU  time.Duration // since its start
	RSS  int64         // resident bytes
	Anon int64         // of these, private memory: not the program's text
}

// Read samples a process. It fails when the process has ended.
func Read(pid int) (s Sample, err error) {
	// The CPU clock of another process: nanoseconds, where /proc/PID/stat counts
	// hundredths of a second (clock_getcpuclockid(3) builds the ID this way).
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return s, fmt.Errorf("process %d: %w", pid, err)
	}
	s.CPU = time.Duration(ts.Nano())
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, fmt.Errorf("process %d: %w", pid, err)
	}
	s.RSS = field(b, "VmRSS:") << 10
	s.Anon = field(b, "RssAnon:") << 10
	return s, nil
}

// Machine is what the whole machine has used at one time.
type Machine struct {
	Busy      time.Duration // of all cores, since boot
	Idle      time.Duration
	Total     int64 // memory
	Available int64 // memory that programs could still get
	Slab      int64 // kernel objects: sockets, files, inodes
	TCPMem    int64 // buffers of TCP sockets
	Sockets   int64 // TCP sockets in use
	TimeWait  int64
}

// ReadMachine samples the machine. What can't be read is 0.
func ReadMachine() (m Machine) {
	const tick = time.Second / 100 // USER_HZ
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		line, _, _ := strings.Cut(string(b), "\n")
		for i, word := range strings.Fields(line) {
			v, err := strconv.ParseInt(word, 10, 64)
			switch {
			case err != nil || i > 8: // guest time is in user time already
			case i == 4 || i == 5:
				m.Idle += time.Duration(v) * tick
			default:
				m.Busy += time.Duration(v) * tick
			}
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.Total = field(b, "MemTotal:") << 10
		m.Available = field(b, "MemAvailable:") << 10
		m.Slab = field(b, "Slab:") << 10
	}
	if b, err := os.ReadFile("/proc/net/sockstat"); err == nil {
		for line := range strings.Lines(string(b)) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "TCP:" {
				continue
			}
			for i := 1; i+1 < len(words); i += 2 {
				v, _ := strconv.ParseInt(words[i+1], 10, 64)
				switch words[i] {
				case "inuse":
					m.Sockets = v
				case "tw":
					m.TimeWait = v
				case "mem":
					m.TCPMem = v * int64(os.Getpagesize())
				}
			}
		}
	}
	return m
}

// field returns a number of a "Name:  123 kB" file.
func field(b []byte, name string) int64 {
	_, rest, ok := strings.Cut("\n"+string(b), "\n"+name)
	if !ok {
		return 0
	}
	words := strings.Fields(rest)
	if len(words) == 0 {
		return 0
	}
	v, _ := strconv.ParseInt(words[0], 10, 64)
	return v
}

// Listeners finds the processes of this machine that listen on one of the ports.
func Listeners(role string, ports ...int) []Proc {
	return listeners(sockets(), role, ports)
}

func listeners(all []socket, role string, ports []int) []Proc {
	inodes := map[string]int{}
	for _, s := range all {
		if s.state == listening && slices.Contains(ports, s.localPort) {
			inodes[s.inode] = s.localPort
		}
	}
	var found []Proc
	for pid, port := range owners(inodes) {
		found = append(found, Proc{Pid: pid, Name: comm(pid), Role: role, Port: port})
	}
	slices.SortFunc(found, func(a, b Proc) int { return a.Port - b.Port })
	return found
}

// Redises finds the Redis servers of this machine that the given processes are
// connected to.
func Redises(clients []Proc) []Proc {
	peers := map[int]bool{}
	all := sockets()
	for _, c := range clients {
		inodes := inodesOf(c.Pid)
		for _, s := range all {
			if s.state == established && inodes[s.inode] {
				peers[s.remotePort] = true
			}
		}
	}
	var ports []int
	for p := range peers {
		ports = append(ports, p)
	}
	found := listeners(all, "redis", ports)
	return slices.DeleteFunc(found, func(p Proc) bool {
		return !strings.Contains(p.Name, "redis") && !strings.Contains(p.Name, "valkey")
	})
}

type socket struct {
	localPort, remotePort int
	state                 string
	inode                 string
}

// States in /proc/net/tcp.
const (
	established = "01"
	listening   = "0A"
)

func sockets() []socket {
	var all []socket
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if len(w) < 10 || w[0] == "sl" {
				continue
			}
			all = append(all, socket{port(w[1]), port(w[2]), w[3], w[9]})
		}
	}
	return all
}

func port(address string) int {
	_, hex, _ := strings.Cut(address, ":")
	p, _ := strconv.ParseInt(hex, 16, 32)
	return int(p)
}

// owners finds the processes that hold a socket. It looks at those with few open
// files first and ends when all are found: reading a hundred thousand links of
// somebody's sockets takes seconds.
func owners(inodes map[string]int) map[int]int {
	type candidate struct {
		pid   int
		files int64
	}
	var candidates []candidate
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if fi, err := os.Stat(dir + "/fd"); err == nil {
			candidates = append(candidates, candidate{pid, fi.Size()}) // the number of open files, since Linux 6.2
		}
	}
	slices.SortFunc(candidates, func(a, b candidate) int { return int(a.files - b.files) })
	found, left := map[int]int{}, len(inodes)
	for _, c := range candidates {
		if left == 0 {
			break
		}
		for inode := range inodesOf(c.pid) {
			if port, ok := inodes[inode]; ok {
				found[c.pid] = port
				left--
			}
		}
	}
	return found
}

func inodesOf(pid int) map[string]bool {
	found := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			found[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return found
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}
