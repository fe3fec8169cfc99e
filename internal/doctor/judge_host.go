package doctor

import (
	"fmt"
	"strings"
)

// Want is what the host is to be good for.
type Want struct {
	Roles Role
	// Connections is how many clients this host shall hold; 0: as many as it can.
	// With a number, a limit below it is an error; without, only what is small by
	// itself is a warning.
	Connections int64
	// Processes is how many gateways share the host. 0 means one.
	Processes int64
}

func (w Want) processes() int64 { return max(w.Processes, 1) }

// Least values below which a setting is reported. Each is a default of a
// distribution that is known to hurt, or a rule of thumb that is explained where
// it is used.
const (
	spareFiles     = 1000      // descriptors of a process for Redis, logs, listeners, admin
	goodFiles      = 1_048_576 // what deploy/systemd asks for
	goodBacklog    = 4096      // as many as --max-upgrades: a storm waits there instead of being dropped
	goodPorts      = 40_000    // 1024–65535 has 64,512; Linux starts with 28,232
	conntrackShare = 0.8       // of the table, above which it is called full
)

// JudgeHost compares a host with what it shall be good for.
func JudgeHost(h Host, w Want) []Finding {
	var f findings
	if h.OS != "linux" {
		f.bad(Warning, "platform", h.OS, "production runs on Linux (epoll); other systems are for development, and their limits are not checked", "# run the gateways on Linux")
		return f
	}
	f.ok("kernel", "Linux %s, %d cores", h.Kernel, h.Cores)
	if h.CPUQuota > 0 && h.CPUQuota < 1 {
		f.bad(Warning, "cpu quota", fmt.Sprintf("%.2f cores", h.CPUQuota),
			"below one core the kernel stops the process for parts of each 100 ms, which shows as delivery latency",
			"# raise the control group's cpu.max (Kubernetes: leave resources.limits.cpu out, or set at least 1)")
	}
	if w.Roles.has(Gateway) {
		h.judgeFiles(&f, w)
		h.judgeEpoll(&f, w)
	}
	if w.Roles.has(Gateway | API | Balancer) {
		h.judgeAccept(&f)
		h.judgeConntrack(&f, w)
	}
	if w.Roles.has(Balancer | API) {
		h.judgePorts(&f, w)
	}
	if w.Roles.has(Gateway) {
		h.judgeTCPMemory(&f, w)
		h.judgeIdleWindow(&f)
	}
	h.judgeMemory(&f, w)
	h.judgeClock(&f)
	return f
}

func (h Host) judgeFiles(f *findings, w Want) {
	const check = "open files per process"
	limit, need := h.NoFileHard, int64(goodFiles)
	level := Warning
	if w.Connections > 0 {
		need, level = w.Connections/w.processes()+spareFiles, Error
	}
	fix := fmt.Sprintf("# in the unit of the service (deploy/systemd has it): LimitNOFILE=%d\n"+
		"sudo mkdir -p /etc/systemd/system/madang-gateway.service.d && printf '[Service]\\nLimitNOFILE=%d\\n' | sudo tee /etc/systemd/system/madang-gateway.service.d/files.conf && sudo systemctl daemon-reload",
		max(need, goodFiles), max(need, goodFiles))
	if h.NrOpen > 0 && h.NrOpen < need {
		fix = sysctl("fs.nr_open", need) + "\n" + fix
	}
	switch {
	case limit < 0:
		f.unknown(check, "getrlimit did not say")
	case limit < need:
		f.bad(level, check, fmt.Sprintf("%d (hard limit)", limit),
			fmt.Sprintf("each client is a descriptor: this process can hold %d; above it, clients wait to be accepted", max(limit-spareFiles, 0)), fix)
	default:
		f.ok(check, "%d (hard limit; the process raises its soft limit of %d by itself)", limit, h.NoFileSoft)
	}

	const all = "open files of the machine"
	if h.FileMax >= 0 && h.FilesOpen >= 0 {
		free := h.FileMax - h.FilesOpen
		if want := w.Connections + w.processes()*spareFiles; w.Connections > 0 && free < want {
			f.bad(Error, all, fmt.Sprintf("%d of fs.file-max %d are free", free, h.FileMax),
				"at the limit every open and accept on the machine fails with ENFILE", sysctl("fs.file-max", h.FilesOpen+2*want))
		} else {
			f.ok(all, "%d of fs.file-max %d are free", free, h.FileMax)
		}
	}
}

func (h Host) judgeEpoll(f *findings, w Want) {
	const check = "epoll watches of a user"
	switch {
	case h.EpollWatches < 0:
		f.unknown(check, "fs.epoll.max_user_watches cannot be read")
	case w.Connections > 0 && h.EpollWatches < w.Connections+spareFiles:
		f.bad(Error, check, fmt.Sprint(h.EpollWatches), "above it a new socket cannot be watched and is closed", sysctl("fs.epoll.max_user_watches", 2*w.Connections))
	default:
		f.ok(check, "%d", h.EpollWatches)
	}
}

func (h Host) judgeAccept(f *findings) {
	backlog := func(check, name string, value int64, why string) {
		switch {
		case value < 0:
			f.unknown(check, "%s cannot be read", name)
		case value < goodBacklog:
			f.bad(Warning, check, fmt.Sprint(value), why, sysctl(name, goodBacklog))
		default:
			f.ok(check, "%d", value)
		}
	}
	backlog("accept queue (somaxconn)", "net.core.somaxconn", h.SomaxConn,
		"when everybody comes back at once, connections that find the queue full are dropped and tried again a second later, then three, then seven")
	backlog("handshake queue (tcp_max_syn_backlog)", "net.ipv4.tcp_max_syn_backlog", h.SynBacklog,
		"half-open connections beyond it fall back to SYN cookies, or are dropped where those are off")
	if h.SynCookies == 0 {
		f.bad(Warning, "SYN cookies", "off", "a full handshake queue, by a storm or an attack, drops clients", sysctl("net.ipv4.tcp_syncookies", 1))
	}
}

func (h Host) judgePorts(f *findings, w Want) {
	const check = "local ports"
	if h.PortFirst < 0 || h.PortLast < h.PortFirst {
		f.unknown(check, "net.ipv4.ip_local_port_range cannot be read")
		return
	}
	ports := h.PortLast - h.PortFirst + 1
	found := fmt.Sprintf("%d (%d–%d)", ports, h.PortFirst, h.PortLast)
	if w.Roles.has(Balancer) && ports < goodPorts {
		f.bad(Warning, check, found,
			fmt.Sprintf("a balancer has one local port for each connection to a gateway's address and port: %d per gateway and source address", ports),
			sysctl("net.ipv4.ip_local_port_range", "1024 65535")+
				"\n"+sysctl("net.ipv4.ip_local_reserved_ports", "8080,8081,8404")+" # what listens on this host: no connection may take its port while it restarts"+
				"\n# beyond 64,512 per gateway: several source addresses (HAProxy: source), or several ports per gateway")
		return
	}
	f.ok(check, "%s", found)
}

func (h Host) judgeTCPMemory(f *findings, w Want) {
	const check = "TCP memory of the machine"
	if h.TCPMem[2] < 0 {
		f.unknown(check, "net.ipv4.tcp_mem cannot be read")
		return
	}
	pressure, most := h.TCPMem[1]*h.PageBytes, h.TCPMem[2]*h.PageBytes
	found := fmt.Sprintf("pressure from %s, refusal from %s", size(pressure), size(most))
	// One page in flight for every client at once: a message to everybody.
	if need := w.Connections * h.PageBytes; w.Connections > 0 && pressure < need {
		pages := 2 * need / h.PageBytes
		f.bad(Warning, check, found,
			fmt.Sprintf("with data on the way to all %d clients at once the kernel needs about %s; under pressure it shrinks windows and drops", w.Connections, size(need)),
			sysctl("net.ipv4.tcp_mem", fmt.Sprintf("%d %d %d", pages/2, pages, pages*3/2)))
	} else {
		f.ok(check, "%s", found)
	}
	if h.TCPWMem[2] > 0 && h.TCPWMem[2] < 64<<10 {
		f.bad(Warning, "TCP send buffer", size(h.TCPWMem[2]), "a busy room's messages wait in our queue instead of the kernel's, and readers count as slow too soon",
			sysctl("net.ipv4.tcp_wmem", "4096 16384 4194304"))
	}
}

func (h Host) judgeIdleWindow(f *findings) {
	if h.CongestionWindowReset == 1 {
		f.bad(Warning, "slow start after idle", "on",
			"a chat's sockets are idle most of the time: after a pause a burst (catching up, say) starts with ten packets again and waits for round trips",
			sysctl("net.ipv4.tcp_slow_start_after_idle", 0))
	}
}

func (h Host) judgeConntrack(f *findings, w Want) {
	const check = "connection tracking"
	switch {
	case h.ConntrackMax < 0:
		f.ok(check, "not loaded: nothing to fill")
		return
	case h.ConntrackMax == 0: // none: no limit
		f.ok(check, "no limit")
		return
	}
	found := fmt.Sprintf("%d of %d entries used", max(h.ConntrackCount, 0), h.ConntrackMax)
	need := max(w.Connections+w.Connections/5, int64(float64(max(h.ConntrackCount, 0))/conntrackShare))
	if h.ConntrackMax < need {
		level := Warning
		if w.Connections > 0 {
			level = Error
		}
		f.bad(level, check, found, "each connection is an entry where a firewall rule looks at states; a full table drops packets of new ones (dmesg: nf_conntrack: table full)",
			sysctl("net.netfilter.nf_conntrack_max", 2*need)+"\n# or leave the client port out: iptables -t raw -A PREROUTING -p tcp --dport 8081 -j NOTRACK")
		return
	}
	f.ok(check, "%s", found)
}

func (h Host) judgeMemory(f *findings, w Want) {
	const check = "memory"
	limit := h.MemoryLimit()
	if limit < 0 {
		f.unknown(check, "/proc/meminfo cannot be read")
		return
	}
	found := size(limit)
	if limit == h.CgroupBytes {
		found += " (control group)"
	}
	if need := w.Connections * int64(BytesPerConn()); w.Roles.has(Gateway) && w.Connections > 0 && need > limit*memoryShare/100 {
		f.bad(Error, check, found, fmt.Sprintf("%d clients need about %s, kernel sockets included, and from %d %% on new ones are refused", w.Connections, size(need), memoryShare),
			fmt.Sprintf("# give it at least %s, or spread the clients over more hosts: madang plan --connections %d", size(need*100/memoryShare), w.Connections))
	} else {
		f.ok(check, "%s", found)
	}
	if h.SwapBytes > 0 && h.Swappiness > 10 {
		f.bad(Warning, "swap", fmt.Sprintf("%s, swappiness %d", size(h.SwapBytes), h.Swappiness),
			"a process whose pages are on disk answers in seconds: leases run out, and Redis counts as dead", sysctl("vm.swappiness", 1))
	}
	if h.HugePages == "always" && w.Roles.has(RedisServer|Gateway) {
		f.bad(Warning, "transparent huge pages", "always",
			"Redis copies 2 MiB for each small write while it forks (latency, memory), and Go's memory looks larger than it is",
			"echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled\n# at every start: transparent_hugepage=madvise on the kernel's command line")
	} else if h.HugePages != "" {
		f.ok("transparent huge pages", "%s", h.HugePages)
	}
	if w.Roles.has(RedisServer) && h.Overcommit >= 0 && h.Overcommit != 1 {
		f.bad(Warning, "memory overcommit", fmt.Sprint(h.Overcommit),
			"Redis forks to rewrite its append-only file; without overcommit the fork can fail although memory would do, and the file grows",
			sysctl("vm.overcommit_memory", 1))
	}
}

// badClocks cost a system call, and a slow one, for every reading of the time.
var badClocks = []string{"hpet", "acpi_pm", "jiffies", "pit", "xen"}

func (h Host) judgeClock(f *findings) {
	const check = "clock source"
	bad := false
	for _, c := range badClocks {
		bad = bad || h.ClockSource == c
	}
	switch {
	case h.ClockSource == "":
		f.unknown(check, "the kernel does not say")
	case bad:
		better := "tsc"
		if !strings.Contains(h.ClockSources, better) {
			better, _, _ = strings.Cut(strings.ReplaceAll(h.ClockSources, h.ClockSource, ""), " ")
		}
		fix := "# this machine has no better one"
		if better != "" {
			fix = "echo " + better + " | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource"
		}
		f.bad(Warning, check, h.ClockSource, "reading the time is a slow system call there, and the loops read it at every turn", fix)
	default:
		f.ok(check, "%s", h.ClockSource)
	}
	switch {
	case !h.ClockKnown:
		f.unknown("clock synchronisation", "the kernel does not say")
	case !h.ClockSynced:
		f.bad(Warning, "clock synchronisation", "not synchronised",
			"tokens' expiry and sent_at are judged by this clock (message order and leases are not)",
			"sudo apt-get install -y chrony && chronyc tracking")
	default:
		f.ok("clock synchronisation", "synchronised")
	}
}

// size writes bytes for people.
func size(b int64) string {
	const unit = 1024
	if b < unit {
		return fmt.Sprintf("%d B", b)
	}
	v, i := float64(b)/unit, 0
	for v >= unit && i < 4 {
		v /= unit
		i++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[i]
}
