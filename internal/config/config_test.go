package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// line is a command line as cmd/madang has one, with two roles.
type line struct {
	Base
	API     struct{ API }     `cmd:"" name:"api"`
	Gateway struct{ Gateway } `cmd:""`
	Dev     struct{ Dev }     `cmd:""`
}

// parse parses args with settings in a file and in the environment.
func parse(t *testing.T, file string, env map[string]string, args ...string) (*line, error) {
	t.Helper()
	for k, v := range env {
		t.Setenv(k, v)
	}
	if file != "" {
		path := filepath.Join(t.TempDir(), "madang.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	var l line
	k, err := kong.New(&l, Options()...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Parse(args)
	return &l, err
}

const secret = "0123456789abcdef0123456789abcdef"

func TestPrecedence(t *testing.T) {
	file := "max-text: 3\njwt-secret: " + secret + "\n"
	env := map[string]string{"MADANG_MAX_TEXT": "2"}
	for _, tt := range []struct {
		name string
		file string
		env  map[string]string
		args []string
		want int
	}{
		{"default", "jwt-secret: " + secret, nil, nil, 8000},
		{"file before default", file, nil, nil, 3},
		{"environment before file", file, env, nil, 2},
		{"flag before environment", file, env, []string{"--max-text=1"}, 1},
		{"flag before file", file, nil, []string{"--max-text=1"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := parse(t, tt.file, tt.env, append([]string{"api"}, tt.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.API.MaxText; got != tt.want {
				t.Errorf("max-text is %d, want %d", got, tt.want)
			}
		})
	}
}

func TestConfigFileFromEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(path, []byte("max-text: 7\njwt-secret: "+secret), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := parse(t, "", map[string]string{"MADANG_CONFIG": path}, "api")
	if err != nil || l.API.MaxText != 7 {
		t.Errorf("max-text is %d, err %v", l.API.MaxText, err)
	}
}

func TestYAMLForms(t *testing.T) {
	l, err := parse(t, `
# one file for the fleet
jwt:
  secret: `+secret+`
  audience: [phones, "a,b"]
gateway-addr: ":9000"
heartbeat: 40s
out-queue: 1MiB
max:
  conns-per-user: 3
`, nil, "gateway")
	if err != nil {
		t.Fatal(err)
	}
	g := l.Gateway
	if g.GatewayAddr != ":9000" || g.Heartbeat != 40*time.Second || g.OutQueue != 1<<20 || g.MaxConnsPerUser != 3 {
		t.Errorf("got %q %s %s %d", g.GatewayAddr, g.Heartbeat, g.OutQueue, g.MaxConnsPerUser)
	}
	if got := strings.Join(g.JWTAudience, "|"); got != "phones|a,b" {
		t.Errorf("jwt-audience is %q", got)
	}
}

func TestErrorsNameTheSetting(t *testing.T) {
	for _, tt := range []struct {
		name string
		file string
		env  map[string]string
		args []string
		want []string
	}{
		{name: "unknown flag", args: []string{"--max-txt=3"}, want: []string{"unknown flag --max-txt", "--max-text"}},
		{name: "bad flag value", args: []string{"--max-text=many"}, want: []string{"--max-text", "many"}},
		{name: "bad size", args: []string{"--max-body=64KB"}, want: []string{"--max-body", `"64KB" is not a size`}},
		{name: "bad variable", env: map[string]string{"MADANG_MAX_TEXT": "x"}, want: []string{"MADANG_MAX_TEXT"}},
		{name: "unknown variable", env: map[string]string{"MADANG_MAX_TXT": "3"}, want: []string{"MADANG_MAX_TXT", "MADANG_MAX_TEXT"}},
		{name: "unknown keys", file: "max-txt: 3\n\nrediss: 4\n", want: []string{`madang.yaml:1: unknown setting "max-txt" (did you mean max-text?)`, `madang.yaml:3: unknown setting "rediss" (did you mean redis?)`}},
		{name: "nested unknown key", file: "jwt:\n  sekret: x\n", want: []string{`madang.yaml:2: unknown setting "jwt-sekret"`}},
		{name: "bad file value", file: "log-level: info\nmax-text: many\n", want: []string{"madang.yaml:2:", "--max-text"}},
		{name: "twice", file: "max-text: 1\nmax-text: 2\n", want: []string{"madang.yaml:2: max-text: already set in line 1"}},
		{name: "no value", file: "max-text:\n", want: []string{"madang.yaml:1: max-text: neither a value nor a list"}},
		{name: "not settings", file: "- a\n", want: []string{"settings are written as name: value"}},
		{name: "not YAML", file: "a: [\n", want: []string{"madang.yaml"}},
		{name: "not YAML, beside a secret", file: "redis: redis://secret:word@r\n\tmax-text: 1\n", want: []string{"madang.yaml:2: found character"}},
		{name: "not YAML, and a secret", file: "max-text: 1\njwt-secret: |secret:word\n", want: []string{"madang.yaml:2: invalid header option"}},
		{name: "no such file", args: []string{"--config", "/does/not/exist.yaml"}, want: []string{"/does/not/exist.yaml"}},
		{name: "bad choice", args: []string{"--log-level=loud"}, want: []string{"--log-level", "loud"}},
		{name: "short secret", args: []string{"--jwt-secret=short"}, want: []string{"--jwt-secret", "at least 32"}},
		{name: "no secret", want: []string{"--jwt-secret-file", "--jwks-url"}},
		{name: "everything at once", args: []string{"--partitions=0", "--api-addr=x", "--redis=http://secret:word@x", "--origins=chat.example.com"},
			want: []string{"--partitions: 0 is not between 1 and 16384", `--api-addr: "x"`, `--redis: scheme "http"`, "--jwt-secret-file", `--origins: "chat.example.com"`}},
		{name: "origins that no browser sends", args: []string{"--origins=https://*.example.com,https://a.example.com:443,http://b.example.com:80,https://c.example.com:,https://bücher.example"}, want: []string{
			`--origins: "https://*.example.com" stands for no other origins`, `--origins: "https://a.example.com:443" has the port that browsers leave out`,
			`--origins: "http://b.example.com:80" has the port`, `--origins: "https://c.example.com:" is not an origin`, `--origins: "https://bücher.example" has`,
		}},
		{name: "no rate", args: []string{"--sends-per-second=NaN"}, want: []string{"--sends-per-second: NaN is not 0 or more"}},
		{name: "a negative rate", args: []string{"--sends-per-second=-1"}, want: []string{"--sends-per-second: -1 is not 0 or more"}},
		{name: "attachments", args: []string{
			"--max-attachment-bytes=6GiB", "--attachment-types=png", "--attachment-pending=1m", "--attachment-keep=1h", "--blob-s3-endpoint=s3.example.com",
			"--blob-s3-access-key=a", "--max-uploads=0", "--upload-timeout=2h",
		}, want: []string{
			"--max-attachment-bytes: 6GiB is more than 5GiB", `--attachment-types: "png"`, "--attachment-pending: 1m0s", "--max-uploads: 0", "--upload-timeout: 2h",
			"--blob-s3-bucket: --blob-s3-endpoint needs it", `--blob-s3-endpoint: "s3.example.com"`, "--blob-s3-secret-key-file: --blob-s3-access-key needs it",
		}},
		{name: "attachments that go before they may be sent", args: []string{"--attachment-keep=2h"}, want: []string{"--attachment-keep: 2h0m0s is not between 24h0m0s"}},
		{name: "URLs with passwords", args: []string{
			"--jwks-url=htps://secret:word?secret:word@id.example.com/keys?key=secret:word", "--trace-endpoint=secret:word@tempo:4318", "--blob-s3-endpoint=https://secret:word@", "--blob-s3-bucket=b",
		}, want: []string{`--jwks-url: "htps://id.example.com/keys" is not`, `--trace-endpoint: "tempo:4318" is not`, `--blob-s3-endpoint: "https://" is not`}},
		{name: "no secret of S3", args: []string{"--blob-s3-secret-key-file=/does/not/exist"}, want: []string{"--blob-s3-secret-key-file: open /does/not/exist"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, tt.file, tt.env, append([]string{"api"}, tt.args...)...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q:\n%v", w, err)
				}
			}
			if strings.Contains(err.Error(), "secret:word") {
				t.Errorf("error shows the password:\n%v", err)
			}
		})
	}
}

// TestAnEmptyPathIsNone: Compose and shells give what is not set as empty.
func TestAnEmptyPathIsNone(t *testing.T) {
	l, err := parse(t, "blob-dir: ''\njwt-secret: "+secret, nil, "api", "--redis-ca=")
	if err != nil || l.API.BlobDir != "" || l.API.RedisCA != "" {
		t.Errorf("blob-dir is %q, redis-ca %q, err %v", l.API.BlobDir, l.API.RedisCA, err)
	}
	env := map[string]string{"MADANG_CONFIG": "", "MADANG_BLOB_DIR": "", "MADANG_JWT_SECRET_FILE": "", "MADANG_JWT_SECRET": secret}
	l, err = parse(t, "", env, "api")
	if err != nil || l.API.BlobDir != "" || l.API.JWTSecretFile != "" {
		t.Errorf("from the environment: blob-dir is %q, jwt-secret-file %q, err %v", l.API.BlobDir, l.API.JWTSecretFile, err)
	}
}

func TestOneFileServesAllSubcommands(t *testing.T) {
	file := "jwt-secret: " + secret + "\nheartbeat: 20s\nmax-text: 5\n"
	if _, err := parse(t, file, nil, "api"); err != nil {
		t.Error(err)
	}
	if _, err := parse(t, file, nil, "gateway"); err != nil {
		t.Error(err)
	}
}

func TestVariablesOfKubernetesServicesAreNotSettings(t *testing.T) {
	_, err := parse(t, "", map[string]string{
		"MADANG_JWT_SECRET":             secret,
		"MADANG_API_SERVICE_HOST":       "10.0.0.1",
		"MADANG_API_SERVICE_PORT_HTTP":  "8080",
		"MADANG_API_PORT":               "tcp://10.0.0.1:8080",
		"MADANG_API_PORT_8080_TCP_ADDR": "10.0.0.1",
	}, "api")
	if err != nil {
		t.Error(err)
	}
}

func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write := func(s string) Secret {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return Secret{JWTSecretFile: path}
	}
	if b, err := write(secret + "\r\n").Bytes(); err != nil || string(b) != secret {
		t.Errorf("got %q, %v", b, err)
	}
	for _, bad := range []string{"", "\n", "short\n"} {
		if _, err := write(bad).Bytes(); err == nil {
			t.Errorf("a file with %q was accepted", bad)
		}
	}
	both := write(secret)
	both.JWTSecret = secret
	if err := (Dev{Auth: Auth{Secret: both}}).Validate(); err == nil {
		t.Error("both flag and file were accepted")
	}
}

func TestDefaultsAreValid(t *testing.T) {
	api := Defaults[API]()
	api.JWTSecret = secret
	if err := api.Validate(); err != nil {
		t.Error(err)
	}
	gateway := Defaults[Gateway]()
	gateway.JWTSecret = secret
	if err := gateway.Validate(); err != nil {
		t.Error(err)
	}
	dev := Defaults[Dev]()
	if err := dev.Validate(); err != nil {
		t.Error(err)
	}
	if api.AdminAddr == gateway.AdminAddr {
		t.Error("an api and a gateway on one host would want the same admin address")
	}
}

func TestProxies(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.10": "10.0.0.10/32", "10.0.0.10/8": "10.0.0.0/8", "2001:db8::1": "2001:db8::1/128", "fe80::1%eth0": "fe80::1/128",
		"::ffff:10.0.0.10": "10.0.0.10/32", "::ffff:10.0.0.0/104": "10.0.0.0/8", "::/0": "::/0",
	} {
		if got, err := (Sockets{ProxyProtocolFrom: []string{in}}).Proxies(); err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "balancer", "10.0.0.10:8081", "10.0.0.0/33", "fe80::%eth0/64"} {
		if got, err := (Sockets{ProxyProtocolFrom: []string{bad}}).Proxies(); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for in, want := range map[string]Bytes{"0": 0, "17": 17, "8KiB": 8192, "1 MiB": 1 << 20, "3GiB": 3 << 30, "5B": 5} {
		var b Bytes
		if err := b.UnmarshalText([]byte(in)); err != nil || b != want {
			t.Errorf("%q: %d, %v", in, b, err)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q prints as %q, which is %d, %v", in, b, again, err)
		}
	}
	for _, bad := range []string{"", "x", "-1", "1.5KiB", "1KB", "9223372036854775807GiB"} {
		if err := new(Bytes).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestEverySettingIsDocumented holds for what the next developer adds, too.
func TestEverySettingIsDocumented(t *testing.T) {
	var l line
	k, err := kong.New(&l, Options()...)
	if err != nil {
		t.Fatal(err)
	}
	_ = kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && f.Name != "help" {
			if f.Help == "" || strings.Contains(f.Help, "${") {
				t.Errorf("--%s: help is %q", f.Name, f.Help)
			}
			if f.HasDefault && f.Default != "" && f.PlaceHolder != "" && !strings.Contains(describe(f.Value), f.Default) {
				t.Errorf("--%s: help does not tell its default %q", f.Name, f.Default)
			}
			if len(f.Envs) != 1 {
				t.Errorf("--%s: variables %v", f.Name, f.Envs)
			}
		}
		return next(nil)
	})
}
