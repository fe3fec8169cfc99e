// Package deploy has only tests: that the files here fit the programs that read
// them, our own among them.
package deploy

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"

	"github.com/madang-chat/madang/internal/config"
)

// line is the command line of the processes that are deployed.
type line struct {
	config.Base
	API     struct{ config.API }     `cmd:"" name:"api"`
	Gateway struct{ config.Gateway } `cmd:""`
}

// process is one that a file here starts: its arguments, environment and
// settings file.
type process struct {
	args []string
	env  map[string]string
	file string
}

// parse takes a process's settings as it would itself. Files that exist only
// where it runs are replaced.
func (p process) parse(t *testing.T) *line {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write(t, secret, strings.Repeat("s", 64))
	redisURL := filepath.Join(dir, "redis-url")
	write(t, redisURL, "redis+sentinel://madang:password@10.0.0.41:26379/madang/0\n")
	args := slices.Clone(p.args)
	for i, a := range args {
		if i == 0 {
			continue
		}
		switch args[i-1] {
		case "--jwt-secret-file":
			args[i] = secret
		case "--redis-file":
			args[i] = redisURL
		case "--config":
			if p.file == "" {
				t.Fatalf("settings are in %s, which nobody provides", a)
			}
			args[i] = filepath.Join(dir, "madang.yaml")
			write(t, args[i], p.file)
		}
	}
	for name, value := range p.env {
		if name == "MADANG_JWT_SECRET_FILE" {
			value = secret
		}
		t.Setenv(name, value)
	}
	var l line
	parser, err := kong.New(&l, append(config.Options(), kong.Exit(func(int) { t.Fatal("it printed help") }))...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	switch args[0] {
	case "api":
		err = l.API.Validate()
	case "gateway":
		err = l.Gateway.Validate()
	default:
		t.Fatalf("%q is neither api nor gateway", args[0])
	}
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return &l
}

func (l *line) process(role string) config.Process {
	if role == "api" {
		return l.API.Process
	}
	return l.Gateway.Process
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// compose is what of a compose file is used here; what is not in it is an error.
type compose struct {
	Name     string
	Services map[string]service
	Networks map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
	Volumes map[string]struct{}
	Secrets map[string]struct{ File string }

	Madang      any `yaml:"x-madang"`
	Environment any `yaml:"x-environment"`
	API         any `yaml:"x-api"`
	Gateway     any `yaml:"x-gateway"`
}

type service struct {
	Image, Restart  string
	Build           struct{ Context, Dockerfile string }
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	Secrets         []string
	DependsOn       any    `yaml:"depends_on"`
	StopGracePeriod string `yaml:"stop_grace_period"`
	Command         any
	Environment     map[string]string
	Ulimits         map[string]struct{ Soft, Hard int }
	Sysctls         map[string]string
	Volumes         []string
	Networks        []string
	Ports           []string
	Healthcheck     struct {
		Test              []string
		Interval, Timeout string
		Retries           int
	}
}

const composeFile = "docker/compose.yaml"

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.UnmarshalWithOptions([]byte(read(t, composeFile)), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestComposeFileHangsTogether(t *testing.T) {
	c := readCompose(t)
	published := map[string]string{}
	for name, s := range c.Services {
		if s.Image == "" {
			t.Errorf("%s has no image", name)
		}
		var needs []string
		switch d := s.DependsOn.(type) {
		case []any:
			for _, n := range d {
				needs = append(needs, fmt.Sprint(n))
			}
		case map[string]any:
			needs = slices.Collect(maps.Keys(d))
		}
		for _, n := range needs {
			if _, ok := c.Services[n]; !ok {
				t.Errorf("%s depends on %s, which there is not", name, n)
			}
		}
		for _, n := range s.Networks {
			if _, ok := c.Networks[n]; !ok {
				t.Errorf("%s is in network %s, which there is not", name, n)
			}
		}
		if len(s.Networks) == 0 {
			t.Errorf("%s is in no network", name)
		}
		for _, secret := range s.Secrets {
			if _, ok := c.Secrets[secret]; !ok {
				t.Errorf("%s is given secret %s, which there is not", name, secret)
			}
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(source, ".") {
				if _, err := os.Stat(filepath.Join(filepath.Dir(composeFile), source)); err != nil {
					t.Errorf("%s mounts %s: %v", name, source, err)
				}
			} else if _, ok := c.Volumes[source]; !ok {
				t.Errorf("%s mounts volume %s, which there is not", name, source)
			}
		}
		for _, p := range s.Ports {
			host := p[:strings.LastIndex(p, ":")]
			if other, taken := published[host]; taken {
				t.Errorf("%s and %s both publish %s", name, other, host)
			}
			published[host] = name
		}
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join(filepath.Dir(composeFile), s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s is built from: %v", name, err)
			}
			if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
				t.Errorf("%s may write to its file system, or has capabilities", name)
			}
		}
	}
	for _, want := range []string{"api-1", "api-2", "gateway-1", "gateway-2", "gateway-3", "redis", "haproxy", "prometheus", "grafana"} {
		if _, ok := c.Services[want]; !ok {
			t.Errorf("there is no %s", want)
		}
	}
}

// deployed are all processes that files here start.
func deployed(t *testing.T) map[string]process {
	t.Helper()
	all := map[string]process{}
	for name, s := range readCompose(t).Services {
		if s.Build.Dockerfile == "" {
			continue
		}
		p := process{env: s.Environment}
		for _, a := range s.Command.([]any) {
			p.args = append(p.args, fmt.Sprint(a))
		}
		all["compose "+name] = p
	}
	settings := read(t, "systemd/madang.yaml")
	for _, role := range []string{"api", "gateway"} {
		unit := read(t, "systemd/madang-"+role+".service")
		start := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/madang (.*)$`).FindStringSubmatch(unit)
		if start == nil {
			t.Fatalf("the unit of %s starts nothing", role)
		}
		all["systemd "+role] = process{args: strings.Fields(start[1]), file: settings}

		var pod struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		for doc := range strings.SplitSeq(read(t, "kubernetes/"+role+".yaml"), "\n---\n") {
			if strings.Contains(doc, "\nkind: Deployment\n") {
				if err := yaml.Unmarshal([]byte(doc), &pod); err != nil {
					t.Fatal(err)
				}
			}
		}
		var config struct{ Data map[string]string }
		if err := yaml.Unmarshal([]byte(read(t, "kubernetes/config.yaml")), &config); err != nil {
			t.Fatal(err)
		}
		all["kubernetes "+role] = process{args: pod.Spec.Template.Spec.Containers[0].Args, file: config.Data["madang.yaml"]}
	}
	return all
}

// Every flag, variable and setting in a file here is one that there is, and the
// values are ones that the processes accept.
func TestProcessesAcceptWhatTheyAreDeployedWith(t *testing.T) {
	all := deployed(t)
	if len(all) != 5+2+2 {
		t.Errorf("%d processes: %v", len(all), slices.Sorted(maps.Keys(all)))
	}
	for name, p := range all {
		t.Run(name, func(t *testing.T) { p.parse(t) })
	}
}

// Who stops a process must wait for longer than it takes to stop.
func TestNobodyIsKilledWhileDraining(t *testing.T) {
	all := deployed(t)
	takes := func(t *testing.T, name string) time.Duration {
		p := all[name].parse(t).process(all[name].args[0])
		return p.DrainDelay + p.DrainTimeout
	}
	for name, s := range readCompose(t).Services {
		if s.Build.Dockerfile == "" {
			continue
		}
		t.Run("compose "+name, func(t *testing.T) {
			grace, err := time.ParseDuration(s.StopGracePeriod)
			if d := takes(t, "compose "+name); err != nil || grace <= d {
				t.Errorf("it is killed after %v (%v), stopping takes %v", grace, err, d)
			}
		})
	}
	for _, role := range []string{"api", "gateway"} {
		t.Run("systemd "+role, func(t *testing.T) {
			m := regexp.MustCompile(`(?m)^TimeoutStopSec=(.*)$`).FindStringSubmatch(read(t, "systemd/madang-"+role+".service"))
			grace, err := time.ParseDuration(m[1])
			if d := takes(t, "systemd "+role); err != nil || grace <= d {
				t.Errorf("it is killed after %v (%v), stopping takes %v", grace, err, d)
			}
		})
	}
}

// A balancer must not call a client idle that the gateway still waits for.
func TestBalancersWaitLongerThanHeartbeats(t *testing.T) {
	g := config.Defaults[config.Gateway]()
	alive := g.Heartbeat + g.HeartbeatGrace
	for file, pattern := range map[string]string{
		"haproxy/haproxy.cfg": `(?m)^\s*timeout (?:client|server)\s+(\S+)`,
		"nginx/stream.conf":   `(?m)^\s*proxy_timeout\s+(\S+);`,
	} {
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, file), -1)
		if len(found) == 0 {
			t.Errorf("%s sets no idle time-out", file)
		}
		for _, m := range found {
			if d, err := time.ParseDuration(m[1]); err != nil || d <= alive {
				t.Errorf("%s: %s is not above %v (%v)", file, m[0], alive, err)
			}
		}
	}
}

// HAProxy asks the admin port of the processes that compose starts, and has
// noticed before a process that stops closes its door.
func TestHAProxyLooksWhereProcessesTell(t *testing.T) {
	cfg := read(t, "haproxy/haproxy.cfg")
	check := regexp.MustCompile(`check port (\d+) inter (\S+) fastinter (\S+) fall (\d+)`).FindStringSubmatch(cfg)
	if check == nil {
		t.Fatal("no check")
	}
	inter, _ := time.ParseDuration(check[2])
	noticed := inter * 2 // two bad answers; between them fastinter, which is shorter
	for name, p := range deployed(t) {
		if !strings.HasPrefix(name, "compose ") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := p.parse(t).process(p.args[0])
			if c.AdminAddr != ":"+check[1] || c.DrainDelay <= noticed {
				t.Errorf("the admin server is at %s and the door closes after %v; HAProxy asks port %s and needs %v", c.AdminAddr, c.DrainDelay, check[1], noticed)
			}
			server := strings.TrimPrefix(name, "compose ")
			if !regexp.MustCompile(`(?m)^\s*server ` + server + ` ` + server + `:808[01]\b`).MatchString(cfg) {
				t.Errorf("HAProxy has no server %s", server)
			}
			if !strings.Contains(read(t, "prometheus/prometheus.yml"), server+":"+check[1]) {
				t.Errorf("Prometheus does not scrape %s", server)
			}
		})
	}
}

// tool runs a program's own check of its file.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Skipf("%s is not installed (make deps)", name)
		}
	}
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out.String())
	}
	return out.String()
}

func TestHAProxyAcceptsItsFile(t *testing.T) {
	tool(t, "haproxy", "-c", "-f", "haproxy/haproxy.cfg")
}

func TestNginxAcceptsItsFile(t *testing.T) {
	dir := t.TempDir()
	// The file names the system's directories; the test must not write there.
	text := strings.NewReplacer("/run/nginx.pid", dir+"/nginx.pid", "/var/log/nginx/error.log", dir+"/error.log").Replace(read(t, "nginx/stream.conf"))
	write(t, dir+"/nginx.conf", text)
	tool(t, "nginx", "-t", "-e", dir+"/error.log", "-c", dir+"/nginx.conf")
}

func TestPrometheusAcceptsItsFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir+"/rules", os.DirFS("../grafana/rules")); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/prometheus.yml", read(t, "prometheus/prometheus.yml"))
	tool(t, "promtool", "check", "config", dir+"/prometheus.yml")
	// Debian's is built without what finds pods.
	found := regexp.MustCompile(`(?m)^    kubernetes_sd_configs:\n( {6,}.*\n)+`).ReplaceAllString(read(t, "prometheus/kubernetes.yml"), "    static_configs: [{targets: [pod]}]\n")
	write(t, dir+"/kubernetes.yml", found)
	tool(t, "promtool", "check", "config", dir+"/kubernetes.yml")
}

func TestSystemdAcceptsTheUnits(t *testing.T) {
	dir := t.TempDir()
	for _, role := range []string{"api", "gateway"} {
		// systemd looks whether the program is there.
		unit := strings.Replace(read(t, "systemd/madang-"+role+".service"), "/usr/local/bin/madang", "/bin/true", 1)
		unit = regexp.MustCompile(`(?m)^(User|Group)=.*\n`).ReplaceAllString(unit, "")
		file := filepath.Join(dir, "madang-"+role+".service")
		write(t, file, unit)
		if out := tool(t, "systemd-analyze", "verify", "--man=no", file); strings.Contains(out, "madang-"+role) {
			t.Errorf("systemd says: %s", out)
		}
	}
}

// What keeps a process from starting may take minutes to be put right.
func TestSystemdNeverGivesUp(t *testing.T) {
	for _, role := range []string{"api", "gateway"} {
		unit := read(t, "systemd/madang-"+role+".service")
		beginning, _, _ := strings.Cut(unit, "[Service]")
		if !strings.Contains(unit, "\nRestart=always\n") || !strings.Contains(beginning, "\nStartLimitIntervalSec=0\n") {
			t.Errorf("the unit of %s is not started again for as long as it takes", role)
		}
	}
}

// Secrets are named as the oldest systemd that hands them out has it: %d came later.
func TestUnitsAreHandedTheSecretsTheyName(t *testing.T) {
	for _, role := range []string{"api", "gateway"} {
		unit := read(t, "systemd/madang-"+role+".service")
		start := regexp.MustCompile(`(?m)^ExecStart=.*$`).FindString(unit)
		named := regexp.MustCompile(`-file \$\{CREDENTIALS_DIRECTORY\}/(\S+)`).FindAllStringSubmatch(start, -1)
		if len(named) != strings.Count(start, "-file ") {
			t.Errorf("%s", start)
		}
		for _, n := range named {
			if !strings.Contains(unit, "\nLoadCredential="+n[1]+":") {
				t.Errorf("the unit of %s is not given %s", role, n[1])
			}
		}
	}
}

// The image is built as `make build` builds.
func TestDockerfileBuildsAsTheMakefileDoes(t *testing.T) {
	dockerfile, makefile := read(t, "docker/Dockerfile"), read(t, "../Makefile")
	for _, want := range []string{"-trimpath", "nomsgpack", "internal/app.version=", "CGO_ENABLED=0"} {
		if !strings.Contains(dockerfile, want) || !strings.Contains(makefile, want) {
			t.Errorf("%s is not in both", want)
		}
	}
	for _, want := range []string{"USER 65532", "MADANG_ADMIN_ADDR=:9100", "STOPSIGNAL SIGTERM"} {
		if !strings.Contains(dockerfile, want) {
			t.Errorf("the Dockerfile has no %s", want)
		}
	}
}
