package fleetnet

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

// site is a deployment on a lan: Sentinel and two Redis servers, two APIs, three
// gateways, HAProxy with the file that we deploy, and a host full of clients.
type site struct {
	t                   *testing.T
	lan                 *lan
	secret              string
	clients, balancer   *host
	apis, gateways      []*member
	http                *http.Client // from the clients' host
	apiURL, gatewayAddr string
}

// member is an API or a gateway.
type member struct {
	*program
	site *site
	role string
}

// clientAddrs are the last bytes of the addresses that clients have.
var clientAddrs = [2]int{100, 149}

func newSite(t *testing.T) *site {
	l := newLAN(t)
	s := &site{t: t, lan: l, secret: rand.Text() + rand.Text()}
	var addrs []int
	for a := clientAddrs[0]; a <= clientAddrs[1]; a++ {
		addrs = append(addrs, a)
	}
	s.clients, s.balancer = l.host("clients", addrs...), l.host("lb", 10)
	s.http = &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return s.clients.dial(ctx, "", addr)
		}},
	}
	t.Cleanup(s.http.CloseIdleConnections)
	redis := s.startRedis()
	binary := fleet.Binary(t)
	run := func(role string, i, addr int, args ...string) *member {
		h := l.host(role+strconv.Itoa(i), addr)
		args = append([]string{binary, role, "--redis", redis, "--admin-addr", ":9100", "--drain-delay", "3s", "--drain-timeout", "5s", "--log-level", "debug"}, args...)
		return &member{h.run([]string{"MADANG_JWT_SECRET=" + s.secret}, args...), s, role}
	}
	for i := 1; i <= 2; i++ {
		s.apis = append(s.apis, run("api", i, 30+i, "--api-addr", ":8080", "--sends-per-second", "0", "--trusted-proxies", s.balancer.addr))
	}
	for i := 1; i <= 3; i++ {
		s.gateways = append(s.gateways, run("gateway", i, 20+i, "--gateway-addr", ":8081", "--proxy-protocol-from", s.balancer.addr+"/32"))
	}
	for _, m := range append(append([]*member(nil), s.apis...), s.gateways...) {
		m.waitReady()
	}
	s.startBalancer()
	return s
}

// startRedis starts a primary, a replica and three Sentinels, on two hosts.
func (s *site) startRedis() string {
	s.t.Helper()
	hosts := []*host{s.lan.host("redis1", 41), s.lan.host("redis2", 42)}
	for i, h := range hosts {
		dir := filepath.Join(s.lan.dir, h.name)
		mkdir(s.t, dir)
		args := []string{"redis-server", "--port", "6379", "--bind", h.addr, "--protected-mode", "no", "--dir", dir, "--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0"}
		if i > 0 {
			args = append(args, "--replicaof", hosts[0].addr+" 6379")
		}
		h.run(nil, args...)
	}
	var addrs []string
	for i := range 3 {
		h, port := hosts[i%2], 26379+i
		conf := filepath.Join(s.lan.dir, fmt.Sprintf("sentinel%d.conf", i))
		text := fmt.Sprintf("port %d\nbind %s\nprotected-mode no\ndir %s\nsentinel monitor madang %s 6379 2\nsentinel down-after-milliseconds madang 1000\n", port, h.addr, s.lan.dir, hosts[0].addr)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
		h.run(nil, "redis-sentinel", conf)
		addrs = append(addrs, net.JoinHostPort(h.addr, strconv.Itoa(port)))
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/madang/0"
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// startBalancer runs HAProxy with deploy/haproxy/haproxy.cfg: only names become
// addresses, it is smaller, and dead peers are found sooner.
func (s *site) startBalancer() {
	s.t.Helper()
	text, err := os.ReadFile("../../deploy/haproxy/haproxy.cfg")
	if err != nil {
		s.t.Fatal(err)
	}
	config := string(text)
	for i, m := range s.apis {
		config = strings.Replace(config, fmt.Sprintf(" api-%d:8080", i+1), " "+m.h.addr+":8080", 1)
	}
	for i, m := range s.gateways {
		config = strings.Replace(config, fmt.Sprintf(" gateway-%d:8081", i+1), " "+m.h.addr+":8081", 1)
	}
	config = strings.Replace(config, "maxconn 100000", "maxconn 4000", 1) // the test's descriptors
	config = strings.ReplaceAll(config, "tcp-ut 15s", "tcp-ut 3s")
	config = regexp.MustCompile(`tcpka-idle 10s`).ReplaceAllString(config, "tcpka-idle 2s")
	config = regexp.MustCompile(`tcpka-intvl 5s`).ReplaceAllString(config, "tcpka-intvl 1s")
	file := filepath.Join(s.lan.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.balancer.run(nil, "/usr/sbin/haproxy", "-f", file)
	s.apiURL, s.gatewayAddr = "http://"+s.balancer.addr+":8080", s.balancer.addr+":8081"
	fleet.Await(s.t, "HAProxy answers", func() bool {
		res, err := s.http.Get(s.apiURL + "/openapi.json")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode < 500
	})
}

// admin gets a page of a member's admin server, from the balancer's host.
func (m *member) admin(path string) (status int, body string) {
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return m.site.balancer.dial(ctx, "", addr)
	}}}
	res, err := client.Get("http://" + m.h.addr + ":9100" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func (m *member) waitReady() {
	m.site.t.Helper()
	var last string
	fleet.Await(m.site.t, m.h.name+" is ready", func() bool {
		var status int
		status, last = m.admin("/readyz")
		return status == http.StatusOK
	}, func() string { return last })
}

// open is how many clients a gateway holds.
func (m *member) open() int {
	_, page := m.admin("/metrics")
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, `madang_connections{state="open",transport="websocket"} `); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(rest))
			return n
		}
	}
	return -1
}

// waitUsed waits until HAProxy sends to the member: it wants two good answers
// first.
func (m *member) waitUsed() {
	m.site.t.Helper()
	name := fmt.Sprintf("%s-%s", m.role, strings.TrimPrefix(m.h.name, m.role))
	up := fmt.Sprintf(`haproxy_server_status{proxy="%ss",server="%s",state="UP"} 1`, m.role, name)
	fleet.Await(m.site.t, "HAProxy uses "+name, func() bool {
		res, err := m.site.http.Get("http://" + m.site.balancer.addr + ":8404/metrics")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		page, err := io.ReadAll(res.Body)
		return err == nil && strings.Contains(string(page), up)
	})
}

// restart stops a member as SIGTERM does, starts it again when it has gone, and
// waits until it is used: what a careful operator does before the next one.
func (m *member) restart() {
	m.site.t.Helper()
	m.signal(syscall.SIGTERM)
	select {
	case <-m.ended():
	case <-time.After(40 * time.Second):
		m.site.t.Fatalf("%s does not stop", m.h.name)
	}
	m.start()
	m.waitReady()
	m.waitUsed()
}
