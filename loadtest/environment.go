package loadtest

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/probe"
	"github.com/madang-chat/madang/loadtest/report"
)

// environment is what somebody needs to judge the figures, or to repeat them.
func environment() report.Environment {
	e := report.Environment{
		Cores: runtime.NumCPU(), Go: runtime.Version(), OpenFiles: openFiles(),
		PortRange: strings.Join(strings.Fields(line("/proc/sys/net/ipv4/ip_local_port_range")), "–"),
		Somaxconn: line("/proc/sys/net/core/somaxconn"),
	}
	e.Host, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		e.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name"); ok {
			name, _, _ := strings.Cut(rest, "\n")
			e.CPU = strings.Trim(name, " \t:")
		}
	}
	e.MemoryGiB = float64(probe.ReadMachine().Total) / (1 << 30)
	return e
}

func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// settings are the spec's values as a report shows them; secrets are not among
// them.
func (s *Spec) settings() map[string]string {
	rate := fmt.Sprintf("%g/s", s.Rate)
	switch {
	case s.flatOut():
		rate = "flat out"
	case !s.sends():
		rate = "none"
	}
	m := map[string]string{
		"gateways": strings.Join(s.Gateways, " "), "apis": strings.Join(s.APIs, " "),
		"clients": fmt.Sprint(s.Clients), "rooms": fmt.Sprint(s.Rooms), "members per room": fmt.Sprint(s.Members),
		"sends": rate, "sending connections": fmt.Sprint(s.Senders), "text bytes": fmt.Sprint(s.TextBytes),
		"duration": s.Duration.String(), "warm-up": s.Warmup.String(), "connections in flight": fmt.Sprint(s.InFlight),
		"prefix": s.Prefix,
	}
	if s.ConnectRate > 0 {
		m["connect rate"] = fmt.Sprintf("%g/s", s.ConnectRate)
	}
	s.describeTransports(m)
	if s.PingEvery > 0 {
		m["client heartbeat"] = s.PingEvery.String()
	}
	if s.UploadShare > 0 {
		m["uploads"] = fmt.Sprintf("%g %% of the sends, %d bytes each", 100*s.UploadShare, s.UploadBytes)
	}
	if s.Zipf > 0 {
		m["room sizes"] = fmt.Sprintf("Zipf, exponent %g, the largest has %d members", s.Zipf, s.Members)
	}
	return m
}
