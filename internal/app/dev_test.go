package app_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/madang-chat/madang/internal/app"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/testkit"
)

// startDev runs everything in this process, on free ports.
func startDev(t *testing.T, change ...func(*config.Dev)) *app.Dev {
	t.Helper()
	c := config.Defaults[config.Dev]()
	c.APIAddr, c.GatewayAddr, c.AdminAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	for _, f := range change {
		f(&c)
	}
	d, err := app.NewDev(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := d.Stop(ctx); err != nil {
			t.Errorf("stopping twice: %v", err)
		}
	})
	return d
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) field(t *testing.T, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return m[name]
}

// ask sends a request; header are pairs.
func ask(t *testing.T, method, url, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

const jsonType = "application/json"

func tokenFor(t *testing.T, d *app.Dev, user string) string {
	t.Helper()
	b, err := json.Marshal(map[string]string{"user": user})
	if err != nil {
		t.Fatal(err)
	}
	a := ask(t, "POST", d.URL()+"/dev/token", string(b), "Content-Type", jsonType)
	if a.status != http.StatusOK {
		t.Fatalf("no token: %d %s", a.status, a.body)
	}
	return a.field(t, "token").(string)
}

func TestStoppingLeavesNothingBehind(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { // after dev's own
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, leaks)
	})
	d := startDev(t)
	tokenFor(t, d, "alice")
}

func TestDevServesThePage(t *testing.T) {
	d := startDev(t)
	for path, want := range map[string]string{
		"/":            "text/html; charset=utf-8",
		"/app.js":      "text/javascript; charset=utf-8",
		"/client.js":   "text/javascript; charset=utf-8",
		"/style.css":   "text/css; charset=utf-8",
		"/favicon.svg": "image/svg+xml",
	} {
		a := ask(t, "GET", d.URL()+path, "")
		if a.status != http.StatusOK || a.header.Get("Content-Type") != want || a.body == "" {
			t.Errorf("%s: %d, %s", path, a.status, a.header.Get("Content-Type"))
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'self'") {
			t.Errorf("%s: headers %v", path, a.header)
		}
	}
	ws, err := url.Parse(ask(t, "GET", d.URL()+"/dev/config.json", "").field(t, "ws").(string))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(d.GatewayAddr())
	if ws.Hostname() != "localhost" || ws.Port() != port || ws.Path != "/v1/ws" {
		t.Errorf("the page is told %s", ws)
	}
}

// Of origins that are given, the gateway lets in those and dev's own page, as a
// gateway elsewhere would; without any all are.
func TestDevKeepsToTheOriginsThatAreGiven(t *testing.T) {
	port := strconv.Itoa(testkit.FreePort())
	given := startDev(t, func(c *config.Dev) {
		c.APIAddr, c.Origins.Origins = "127.0.0.1:"+port, []string{"https://app.example"}
	})
	anyone := startDev(t)
	for origin, want := range map[string]int{
		"https://app.example":      http.StatusOK,
		"http://localhost:" + port: http.StatusOK,
		"http://127.0.0.1:" + port: http.StatusOK,
		"http://localhost":         http.StatusForbidden,
		"https://other.example":    http.StatusForbidden,
	} {
		polls := func(d *app.Dev) int {
			return ask(t, "POST", "http://"+d.GatewayAddr()+"/v1/poll", `{"wait_s":0}`,
				"Content-Type", jsonType, "Authorization", "Bearer "+tokenFor(t, d, "alice"), "Origin", origin).status
		}
		if status := polls(given); status != want {
			t.Errorf("%s: %d, want %d", origin, status, want)
		}
		if status := polls(anyone); status != http.StatusOK {
			t.Errorf("%s, when none are given: %d", origin, status)
		}
	}
}

// A hundredth of this machine's memory is in use for certain.
func TestMemoryThatIsShortIsSparedByBothRoles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("how much is in use is asked of /proc")
	}
	d := startDev(t, func(c *config.Dev) { c.ShedPercent = 1 })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		page, err := http.Get(d.URL())
		if err != nil {
			t.Fatal(err)
		}
		page.Body.Close()
		socket, err := http.Get("http://" + d.GatewayAddr() + "/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		socket.Body.Close()
		if page.StatusCode == http.StatusOK && page.Close && socket.StatusCode == http.StatusServiceUnavailable {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the page: %s, connection closed: %v; a newcomer at the gateway: %s", page.Status, page.Close, socket.Status)
		}
	}
}

func TestDevWithCertificatesSaysSo(t *testing.T) {
	cert, key, _ := testkit.CertFiles(t)
	d := startDev(t, func(c *config.Dev) {
		c.APITLSCert, c.APITLSKey, c.TLSCert, c.TLSKey = cert, key, cert, key
	})
	_, apiPort, _ := net.SplitHostPort(d.APIAddr())
	_, gatewayPort, _ := net.SplitHostPort(d.GatewayAddr())
	for _, want := range []string{"open:  https://localhost:" + apiPort, "api      https://localhost:" + apiPort, "wss://localhost:" + gatewayPort + "/v1/ws"} {
		if !strings.Contains(d.Banner(), want) {
			t.Errorf("the banner does not say %q:\n%s", want, d.Banner())
		}
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	res, err := client.Get(d.URL() + "/dev/config.json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var page struct{ WS string }
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil || page.WS != "wss://localhost:"+gatewayPort+"/v1/ws" {
		t.Errorf("the page is told %q, %v", page.WS, err)
	}
}

func TestDevHandsOutTokensAndSeats(t *testing.T) {
	d := startDev(t)
	alice := "Bearer " + tokenFor(t, d, "alice")
	bob := "Bearer " + tokenFor(t, d, "bob")
	join := func(who, room string) answer {
		return ask(t, "POST", d.URL()+"/dev/join", `{"room":"`+room+`"}`, "Content-Type", jsonType, "Authorization", who)
	}
	if a := join(alice, "yard"); a.status != http.StatusOK || a.field(t, "created") != true {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := join(bob, "yard"); a.status != http.StatusOK || a.field(t, "created") != false {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := join(alice, "yard"); a.status != http.StatusOK { // whoever is in already keeps the role
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := ask(t, "GET", d.URL()+"/v1/rooms/yard", "", "Authorization", alice); a.field(t, "role") != "owner" {
		t.Errorf("alice is %v", a.field(t, "role"))
	}
	if a := ask(t, "GET", d.URL()+"/v1/rooms/yard", "", "Authorization", bob); a.field(t, "role") != "member" {
		t.Errorf("bob is %v", a.field(t, "role"))
	}
}

func TestDevRefusesBadRequests(t *testing.T) {
	d := startDev(t)
	token := "Bearer " + tokenFor(t, d, "alice")
	for name, tt := range map[string]struct {
		path, body, contentType, authorization string
		want                                   int
	}{
		"a form":             {"/dev/token", "user=alice", "application/x-www-form-urlencoded", "", 415},
		"no type":            {"/dev/token", `{"user":"alice"}`, "", "", 415},
		"no JSON":            {"/dev/token", `{`, jsonType, "", 400},
		"empty name":         {"/dev/token", `{"user":""}`, jsonType, "", 400},
		"control characters": {"/dev/token", `{"user":"a\u0000b"}`, jsonType, "", 400},
		"too large":          {"/dev/token", `{"user":"` + strings.Repeat("a", 5000) + `"}`, jsonType, "", 400},
		"no token":           {"/dev/join", `{"room":"yard"}`, jsonType, "", 401},
		"a forged token":     {"/dev/join", `{"room":"yard"}`, jsonType, token + "x", 401},
		"a bad room":         {"/dev/join", `{"room":"a/b"}`, jsonType, token, 400},
	} {
		a := ask(t, "POST", d.URL()+tt.path, tt.body, "Content-Type", tt.contentType, "Authorization", tt.authorization)
		if a.status != tt.want || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s, want %d", name, a.status, a.body, tt.want)
		}
	}
}

func TestAdminServer(t *testing.T) {
	d := startDev(t)
	base := "http://" + d.AdminAddr()
	deadline := time.Now().Add(20 * time.Second)
	for ask(t, "GET", base+"/readyz", "").status != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("never ready:", ask(t, "GET", base+"/readyz", "").body)
		}
		time.Sleep(10 * time.Millisecond)
	}
	ask(t, "GET", d.URL()+"/v1/rooms", "") // 401
	for path, want := range map[string]string{
		"/":                              "/metrics",
		"/healthz":                       "ok",
		"/readyz":                        "ready",
		"/debug/pprof/goroutine?debug=1": "goroutine profile",
		"/metrics":                       `madang_http_requests_total{method="GET",route="/v1/rooms",status="401"} 1`,
	} {
		if a := ask(t, "GET", base+path, ""); a.status != http.StatusOK || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d, without %q", path, a.status, want)
		}
	}
	if a := ask(t, "GET", d.URL()+"/metrics", ""); a.status != http.StatusNotFound {
		t.Errorf("the public address serves metrics: %d", a.status)
	}
}

func TestBanner(t *testing.T) {
	d := startDev(t)
	for _, want := range []string{d.URL(), "/docs", "embedded", "random"} {
		if !strings.Contains(d.Banner(), want) {
			t.Errorf("the banner does not say %q:\n%s", want, d.Banner())
		}
	}
	const secret = "0123456789abcdef0123456789abcdef"
	given := startDev(t, func(c *config.Dev) { c.JWTSecret = secret })
	if b := given.Banner(); strings.Contains(b, secret) {
		t.Errorf("the banner shows the secret:\n%s", b)
	}
}

func TestPortsInUseAreErrorsThatNameThem(t *testing.T) {
	d := startDev(t)
	for name, change := range map[string]func(*config.Dev){
		d.APIAddr():   func(c *config.Dev) { c.APIAddr = d.APIAddr() },
		d.AdminAddr(): func(c *config.Dev) { c.AdminAddr = d.AdminAddr() },
	} {
		c := config.Defaults[config.Dev]()
		c.APIAddr, c.GatewayAddr, c.AdminAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
		change(&c)
		second, err := app.NewDev(c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
}

func TestDevTakesAttachments(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	files := func() (n int) {
		err := filepath.WalkDir(temporary, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Cleanup(func() { // after dev's own
		if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
			t.Errorf("dev left %v, %v", left, err)
		}
	})
	d := startDev(t)
	bearer := "Bearer " + tokenFor(t, d, "alice")
	const form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n"
	up := ask(t, "POST", d.URL()+"/v1/attachments", form, "Authorization", bearer, "Content-Type", "multipart/form-data; boundary=b")
	if up.status != http.StatusCreated || files() != 1 {
		t.Fatalf("%d %s, %d files", up.status, up.body, files())
	}
	got := ask(t, "GET", d.URL()+"/v1/attachments/"+up.field(t, "id").(string), "", "Authorization", bearer)
	if got.status != http.StatusOK || got.body != "hello" {
		t.Fatalf("%d %s", got.status, got.body)
	}
}

// A container's file system may be read-only, or have no place for temporary files.
func TestDevSaysWhatToDoWithoutATemporaryDirectory(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	d, err := app.NewDev(config.Defaults[config.Dev](), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "--blob-dir") {
		t.Errorf("it says %v", err)
	}
}
