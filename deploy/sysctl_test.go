package deploy

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

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
