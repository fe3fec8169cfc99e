package doctor

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// sample is a host in good order, as its kernel's files tell it.
func sample() fstest.MapFS {
	fs := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/sys/kernel/osrelease":                                         "6.1.0-31-amd64\n",
		"proc/sys/vm/swappiness":                                            "1\n",
		"proc/sys/vm/overcommit_memory":                                     "1\n",
		"sys/kernel/mm/transparent_hugepage/enabled":                        "always [madvise] never\n",
		"proc/sys/fs/nr_open":                                               "1048576\n",
		"proc/sys/fs/file-max":                                              "9223372036854775807\n",
		"proc/sys/fs/file-nr":                                               "1000\t0\t9223372036854775807\n",
		"proc/sys/fs/epoll/max_user_watches":                                "14000000\n",
		"proc/sys/net/core/somaxconn":                                       "4096\n",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":                             "8192\n",
		"proc/sys/net/ipv4/tcp_syncookies":                                  "1\n",
		"proc/sys/net/ipv4/tcp_mem":                                         "766635\t1022182\t1533270\n",
		"proc/sys/net/ipv4/tcp_wmem":                                        "4096\t16384\t4194304\n",
		"proc/sys/net/ipv4/ip_local_port_range":                             "1024\t65535\n",
		"proc/sys/net/ipv4/tcp_slow_start_after_idle":                       "0\n",
		"proc/meminfo":                                                      "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:   12000000 kB\nSwapTotal:             0 kB\n",
		"proc/self/cgroup":                                                  "0::/\n",
		"sys/devices/system/clocksource/clocksource0/current_clocksource":   "tsc\n",
		"sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm\n",
	} {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

// good is that host, with what no file tells.
func good() Host {
	h := ReadHost(sample())
	h.OS, h.NoFileSoft, h.NoFileHard = "linux", 1024, 1_048_576
	h.ClockKnown, h.ClockSynced, h.PageBytes = true, true, 4096
	return h
}

const everyRole = Gateway | API | RedisServer | Balancer

func TestAHostInGoodOrderHasNoFindings(t *testing.T) {
	for _, f := range JudgeHost(good(), Want{Roles: everyRole, Connections: 200_000}) {
		if f.Level != OK {
			t.Errorf("%v %s: %s", f.Level, f.Check, f.Found)
		}
	}
}

// Each case breaks one thing of a host in good order.
func TestEachFaultOfAHostIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*Host)
		want   Want
		level  Level
		check  string
		fix    string // a part of it
	}{
		"files, nothing wanted": {func(h *Host) { h.NoFileHard = 20_000 }, Want{Roles: Gateway}, Warning, "open files per process", "LimitNOFILE=1048576"},
		"files, more wanted":    {func(h *Host) { h.NoFileHard = 20_000 }, Want{Roles: Gateway, Connections: 50_000}, Error, "open files per process", "LimitNOFILE=1048576"},
		"files above nr_open": {func(h *Host) { h.NrOpen = 100_000; h.NoFileHard = 100_000; h.TCPMem[1] = 4_000_000 }, Want{Roles: Gateway, Connections: 2_000_000},
			Error, "open files per process", "sysctl -w fs.nr_open='2001000'"},
		"files of the machine": {func(h *Host) { h.FileMax = 100_000 }, Want{Roles: Gateway, Connections: 200_000}, Error, "open files of the machine", "sysctl -w fs.file-max="},
		"epoll":                {func(h *Host) { h.EpollWatches = 1000 }, Want{Roles: Gateway, Connections: 10_000}, Error, "epoll watches of a user", "sysctl -w fs.epoll.max_user_watches='20000'"},
		"somaxconn":            {func(h *Host) { h.SomaxConn = 128 }, Want{Roles: API}, Warning, "accept queue (somaxconn)", "sysctl -w net.core.somaxconn='4096'"},
		"syn backlog":          {func(h *Host) { h.SynBacklog = 512 }, Want{Roles: Gateway}, Warning, "handshake queue (tcp_max_syn_backlog)", "tcp_max_syn_backlog='4096'"},
		"syn cookies":          {func(h *Host) { h.SynCookies = 0 }, Want{Roles: Gateway}, Warning, "SYN cookies", "tcp_syncookies='1'"},
		"ports":                {func(h *Host) { h.PortFirst, h.PortLast = 32768, 60999 }, Want{Roles: Balancer}, Warning, "local ports", "ip_local_port_range='1024 65535'"},
		"tcp memory":           {func(h *Host) { h.TCPMem = [3]int64{1, 2, 3} }, Want{Roles: Gateway, Connections: 1000}, Warning, "TCP memory of the machine", "tcp_mem='1000 2000 3000'"},
		"send buffer":          {func(h *Host) { h.TCPWMem[2] = 16384 }, Want{Roles: Gateway}, Warning, "TCP send buffer", "tcp_wmem"},
		"idle window":          {func(h *Host) { h.CongestionWindowReset = 1 }, Want{Roles: Gateway}, Warning, "slow start after idle", "tcp_slow_start_after_idle='0'"},
		"conntrack too small":  {func(h *Host) { h.ConntrackMax, h.ConntrackCount = 65536, 10 }, Want{Roles: Gateway, Connections: 100_000}, Error, "connection tracking", "nf_conntrack_max='240000'"},
		"conntrack full":       {func(h *Host) { h.ConntrackMax, h.ConntrackCount = 1000, 990 }, Want{Roles: API}, Warning, "connection tracking", "nf_conntrack_max"},
		"memory":               {func(h *Host) { h.CgroupBytes = 64 << 20 }, Want{Roles: Gateway, Connections: 100_000}, Error, "memory", "madang plan --connections 100000"},
		"swap":                 {func(h *Host) { h.SwapBytes, h.Swappiness = 1<<30, 60 }, Want{Roles: Gateway}, Warning, "swap", "vm.swappiness='1'"},
		"huge pages":           {func(h *Host) { h.HugePages = "always" }, Want{Roles: RedisServer}, Warning, "transparent huge pages", "echo madvise"},
		"overcommit":           {func(h *Host) { h.Overcommit = 0 }, Want{Roles: RedisServer}, Warning, "memory overcommit", "vm.overcommit_memory='1'"},
		"clock source":         {func(h *Host) { h.ClockSource = "hpet" }, Want{Roles: API}, Warning, "clock source", "echo tsc"},
		"clock":                {func(h *Host) { h.ClockSynced = false }, Want{Roles: API}, Warning, "clock synchronisation", "chrony"},
		"cpu quota":            {func(h *Host) { h.CPUQuota = 0.5 }, Want{Roles: API}, Warning, "cpu quota", "cpu.max"},
		"not Linux":            {func(h *Host) { h.OS = "darwin" }, Want{Roles: Gateway}, Warning, "platform", "Linux"},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			c.damage(&h)
			var bad []Finding
			for _, f := range JudgeHost(h, c.want) {
				if f.Level != OK {
					bad = append(bad, f)
				}
			}
			if len(bad) != 1 {
				t.Fatalf("%d findings: %v", len(bad), bad)
			}
			f := bad[0]
			if f.Level != c.level || f.Check != c.check || !strings.Contains(f.Fix, c.fix) || f.Why == "" {
				t.Errorf("got %v %q (%s) fix %q; want %v %q fix with %q", f.Level, f.Check, f.Why, f.Fix, c.level, c.check, c.fix)
			}
		})
	}
}

func TestChecksOfOtherRolesAreLeftOut(t *testing.T) {
	h := good()
	h.NoFileHard, h.PortFirst, h.Overcommit = 1024, 60_000, 0
	for _, f := range JudgeHost(h, Want{Roles: API}) {
		if f.Level != OK {
			t.Errorf("an API host is told: %v %s", f.Level, f.Check)
		}
	}
}

func TestLimitsOfControlGroupsAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		memory int64
		cpu    float64
	}{
		"none":           {nil, -1, -1},
		"version 2":      {map[string]string{"proc/self/cgroup": "0::/app/a\n", "sys/fs/cgroup/app/a/memory.max": "max\n", "sys/fs/cgroup/app/memory.max": "1048576\n", "sys/fs/cgroup/app/a/cpu.max": "150000 100000\n"}, 1048576, 1.5},
		"in a container": {map[string]string{"proc/self/cgroup": "0::/../../pod\n", "sys/fs/cgroup/memory.max": "2097152\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 2097152, -1},
		"version 1": {map[string]string{"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "4194304\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}, 4194304, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			fs := sample()
			for file, text := range c.files {
				fs[file] = &fstest.MapFile{Data: []byte(text)}
			}
			h := ReadHost(fs)
			if h.CgroupBytes != c.memory || h.CPUQuota != c.cpu {
				t.Errorf("memory %d and %v cores, want %d and %v", h.CgroupBytes, h.CPUQuota, c.memory, c.cpu)
			}
		})
	}
}

func TestNothingCanBeReadIsSaidSo(t *testing.T) {
	h := ReadHost(fstest.MapFS{})
	h.OS, h.NoFileHard = "linux", -1
	unknown := 0
	for _, f := range JudgeHost(h, Want{Roles: everyRole}) {
		if f.Level == Unknown {
			unknown++
		} else if f.Level == Error {
			t.Errorf("called an error without knowing: %s: %s", f.Check, f.Found)
		}
	}
	if unknown < 5 {
		t.Errorf("only %d checks say that they do not know", unknown)
	}
}

// The real files of this machine must be understood as the sample's are.
func TestThisMachineIsRead(t *testing.T) {
	h := ReadHost(os.DirFS("/"))
	if h.OS != "linux" {
		t.Skip("the files are Linux's")
	}
	if h.Kernel == "" || h.MemoryBytes < 1<<20 || h.NoFileHard < 1 || h.FileMax < 1 || h.SomaxConn < 1 || h.PortLast < h.PortFirst || h.TCPMem[2] < 1 {
		t.Errorf("not read: %+v", h)
	}
}

func TestTheTightestLimitDecidesTheCapacity(t *testing.T) {
	h := good()
	h.NoFileHard = 21_000
	c := Capacity(h, 3)
	if c[0].By != "open files per process" || c[0].Conns != 60_000 {
		t.Errorf("first limit is %+v", c[0])
	}
	h.NoFileHard = 1 << 40
	c = Capacity(h, 1)
	usable := float64(16000000<<10) * memoryShare / 100
	if want := int64(usable / BytesPerConn()); c[0].By != "memory" || c[0].Conns < want-1 || c[0].Conns > want+1 {
		t.Errorf("first limit is %+v, want memory with %d", c[0], want)
	}
	for i := range c[1:] {
		if c[i].Conns > c[i+1].Conns {
			t.Errorf("not sorted: %+v", c)
		}
	}
}
