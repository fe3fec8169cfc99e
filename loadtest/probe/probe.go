// Package probe measures the processes under test from outside, when they are on
// the same machine: CPU time and memory by pid, and what the kernel holds for
// sockets. It reads /proc and changes nothing; on a system without it nothing is
// found.
package probe

import (
	"fmt"
	"os"
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
