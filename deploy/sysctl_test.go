package deploy

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/doctor"
)

// A host with our settings file is one that doctor has nothing to say against.
func TestDoctorIsContentWithTheSysctlFile(t *testing.T) {
	fs := fstest.MapFS{}
	n := 0
	for l := range strings.Lines(read(t, "sysctl/90-madang.conf")) {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(l, " = ")
		if !ok {
			t.Errorf("%q is not name = value", l)
		}
		fs[filepath.Join("proc/sys", strings.ReplaceAll(name, ".", "/"))] = &fstest.MapFile{Data: []byte(value + "\n")}
		n++
	}
	h := doctor.ReadHost(fs)
	h.OS = "linux"
	found := 0
	for _, f := range doctor.JudgeHost(h, doctor.Want{Roles: doctor.Gateway | doctor.API | doctor.RedisServer | doctor.Balancer}) {
		if f.Level > doctor.Unknown && strings.Contains(f.Fix, "sysctl") {
			t.Errorf("%s is %s: %s", f.Check, f.Found, f.Fix)
		}
		if f.Level == doctor.OK {
			found++
		}
	}
	if n < 8 || found < 4 {
		t.Errorf("%d settings, of which doctor looked at %d", n, found)
	}
}

// No connection may have the port that something is about to listen at again.
func TestPortsThatAreListenedAtAreReserved(t *testing.T) {
	_, list, _ := strings.Cut(read(t, "sysctl/90-madang.conf"), "\nnet.ipv4.ip_local_reserved_ports = ")
	list, _, _ = strings.Cut(list, "\n")
	reserved := map[int]bool{}
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil {
			t.Fatalf("%q is no list of ports", list)
		}
		for p := from; p <= to; p++ {
			reserved[p] = true
		}
	}
	ports := map[string][]string{}
	for file, listens := range map[string]string{
		"haproxy/haproxy.cfg":    `(?m)^ +bind :(\d+)`,
		"nginx/stream.conf":      `(?m)^ +listen (\d+)`,
		"redis/redis.conf":       `(?m)^port (\d+)`,
		"redis/sentinel.conf":    `(?m)^port (\d+)`,
		"systemd/madang.yaml":    `(?m)^admin-addr: ":(\d+)"`,
		"kubernetes/config.yaml": `(?m)^ +admin-addr: ":(\d+)"`,
	} {
		for _, m := range regexp.MustCompile(listens).FindAllStringSubmatch(read(t, file), -1) {
			ports[file] = append(ports[file], m[1])
		}
		if ports[file] == nil {
			t.Errorf("%s: nothing listens", file)
		}
	}
	ports["a Cluster's bus"] = []string{"16379"}
	for name, addr := range map[string]string{"api": config.Defaults[config.API]().APIAddr, "gateway": config.Defaults[config.Gateway]().GatewayAddr} {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		ports[name] = []string{port}
	}
	for who, listens := range ports {
		for _, p := range listens {
			if n, _ := strconv.Atoi(p); !reserved[n] {
				t.Errorf("%s: port %s may be a connection's while nobody listens", who, p)
			}
		}
	}
}
