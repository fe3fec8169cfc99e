package deploy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/doctor"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// certificates writes an authority and a certificate it signed, for servers and
// clients on the loopback.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	save := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
		return file
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caKey, leafKey := newKey(), newKey()
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	ca = save("ca.pem", "CERTIFICATE", der)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, caKey); err != nil {
		t.Fatal(err)
	}
	cert = save("redis.pem", "CERTIFICATE", der)
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return ca, cert, save("redis.key", "EC PRIVATE KEY", keyDER)
}

// The user of users.acl may do what a whole fleet does, and no more; over TLS with
// certificates on both sides, and with the URL in a file.
func TestAFleetNeedsNoMoreOfRedisThanItsUserMay(t *testing.T) {
	ca, cert, key := certificates(t)
	tlsPort := strconv.Itoa(testkit.FreePort())
	redis := testkit.Redis(t, "--tls-port", tlsPort, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "yes")
	for l := range strings.Lines(read(t, "redis/users.acl")) {
		if rule, ok := strings.CutPrefix(strings.TrimSpace(l), "user madang "); ok {
			if _, err := redis.Do(append([]string{"ACL", "SETUSER", "madang"}, strings.Fields(rule)...)...); err != nil {
				t.Fatal(err)
			}
		}
	}
	url := filepath.Join(t.TempDir(), "redis-url")
	write(t, url, "rediss://madang:CHANGE-ME@127.0.0.1:"+tlsPort+"/0\n")
	use := func(r *config.Redis) { r.RedisFile, r.RedisCA, r.RedisCert, r.RedisKey = url, ca, cert, key }

	f := fleet.Start(t, "redis://nobody.invalid:1/0", 1, 2, fleet.API(func(c *config.API) { use(&c.Redis); c.BlobDir = t.TempDir() }), fleet.Gateway(func(c *config.Gateway) { use(&c.Redis) }))
	alice, bob := f.User("alice", fleet.OnGateway(0)), f.User("bob", fleet.OnGateway(1))
	alice.CreatesRoom("yard", "bob")
	alice.Connects()
	bob.Connects()
	ask := func(u *fleet.User, method, path string, body any, want int) {
		t.Helper()
		res, err := u.Requests(method, path, body)
		if err != nil || res.Status != want {
			t.Errorf("%s %s: %d %s %v", method, path, res.Status, res.Body, err)
		}
	}
	say := func(u *fleet.User, what map[string]any) {
		t.Helper()
		if err := u.Say(what); err != nil {
			t.Error(err)
		}
	}
	say(bob, map[string]any{"type": "watch", "users": []string{"alice", "carol"}})
	say(bob, map[string]any{"type": "focus", "room": "yard"})
	say(alice, map[string]any{"type": "focus", "room": "yard"})
	alice.Sends("yard", "hi")
	m := bob.WantMessage("yard", "hi")
	say(alice, map[string]any{"type": "typing", "room": "yard"})
	say(bob, map[string]any{"type": "delivered", "room": "yard", "id": m.ID})
	ask(bob, http.MethodPost, "/v1/rooms/yard/read", map[string]any{"id": m.ID}, http.StatusNoContent)
	ask(bob, http.MethodGet, "/v1/rooms", nil, http.StatusOK)
	ask(bob, http.MethodGet, "/v1/rooms/yard/messages?limit=10", nil, http.StatusOK)
	ask(bob, http.MethodGet, "/v1/rooms/yard/members", nil, http.StatusOK)
	ask(bob, http.MethodGet, "/v1/presence?user=alice&user=carol", nil, http.StatusOK)
	ask(bob, http.MethodPost, "/v1/tickets", nil, http.StatusCreated)
	ask(alice, http.MethodPut, "/v1/rooms/yard/members/carol", nil, http.StatusOK)
	ask(alice, http.MethodDelete, "/v1/rooms/yard/members/carol", nil, http.StatusNoContent)
	file := alice.Uploads("notes.txt", "notes")
	alice.Attaches("yard", file)
	bob.WantMessage("yard", "")
	ask(bob, http.MethodGet, "/v1/attachments/"+file, nil, http.StatusOK)
	bob.Reconnects(fleet.Resuming, 0)
	alice.Sends("yard", "again")
	bob.WantMessage("yard", "again")
	alice.Disconnects()
	f.Gateways[1].Stop() // a lease is given back, users leave

	settings := config.Defaults[config.Gateway]().Redis
	use(&settings)
	report, err := doctor.Examine(context.Background(), os.DirFS("/"), config.Doctor{Redis: settings, Roles: []string{"api"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range report.Redis {
		if finding.Level == doctor.Unknown || strings.Contains(finding.Found, "NOPERM") {
			t.Errorf("doctor may not look at %s: %s", finding.Check, finding.Found)
		}
	}

	denied, err := redis.Do("ACL", "LOG")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range denied.([]any) {
		t.Errorf("Redis denied something: %v", entry)
	}
	for _, command := range [][]string{{"FLUSHALL"}, {"KEYS", "*"}, {"CONFIG", "SET", "save", ""}, {"SHUTDOWN"}, {"GET", "others:key"}, {"DEBUG", "SLEEP", "0"}, {"ACL", "LIST"}} {
		if _, err := redis.Do(append([]string{"ACL", "DRYRUN", "madang"}, command...)...); err != nil {
			t.Fatal(err)
		}
		if v, _ := redis.Do(append([]string{"ACL", "DRYRUN", "madang"}, command...)...); v == "OK" {
			t.Errorf("the user may %v", command)
		}
	}
}

// startRedisOfFiles runs a server with redis.conf and users.acl as they are but for
// places, and for replicas, which it has none of.
func startRedisOfFiles(t *testing.T, dir string, port int) (stop func()) {
	t.Helper()
	write(t, dir+"/users.acl", read(t, "redis/users.acl"))
	conf := strings.NewReplacer("/etc/redis/users.acl", dir+"/users.acl", "/var/lib/redis", dir, "bind 0.0.0.0", "bind 127.0.0.1",
		"port 6379", "port "+strconv.Itoa(port), "maxclients 20000", "maxclients 1000", "min-replicas-to-write 1", "min-replicas-to-write 0").Replace(read(t, "redis/redis.conf"))
	write(t, dir+"/redis.conf", conf)
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command("redis-server", dir+"/redis.conf", "--logfile", log)
	ended, err := testkit.Launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	said := func() string { b, _ := os.ReadFile(log); return string(b) }
	fleet.Await(t, "redis-server runs", func() bool { return strings.Contains(said(), "Ready to accept connections") }, said)
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	t.Cleanup(stop)
	return stop
}

// Redis loads the append-only file in the name of the user "default", whom nobody
// may be: without rights, what scripts wrote would be left out silently.
func TestRedisWithItsUsersRemembersAfterACrash(t *testing.T) {
	dir, port := t.TempDir(), testkit.FreePort()
	crash := startRedisOfFiles(t, dir, port)
	f := fleet.Start(t, "redis://madang:CHANGE-ME@127.0.0.1:"+strconv.Itoa(port)+"/0", 1, 0)
	alice := f.User("alice")
	alice.CreatesRoom("yard", "bob")
	alice.Sends("yard", "one")
	alice.Sends("yard", "two")
	// While its first fsync is under way, Redis keeps what it takes to itself.
	fleet.Await(t, "Redis has written all of it", func() bool {
		out, err := exec.Command("redis-cli", "-p", strconv.Itoa(port), "--user", "admin", "--pass", "CHANGE-ME-FOUR", "info", "persistence").Output()
		return err == nil && strings.Contains(string(out), "aof_pending_bio_fsync:0\r\n") && strings.Contains(string(out), "aof_buffer_length:0\r\n")
	})
	crash()
	startRedisOfFiles(t, dir, port)
	var res fleet.Response
	fleet.Await(t, "the API finds Redis again", func() bool {
		var err error
		res, err = alice.Requests(http.MethodGet, "/v1/rooms/yard/messages?limit=10", nil)
		return err == nil && res.Status != http.StatusServiceUnavailable
	})
	if res.Status != http.StatusOK || !strings.Contains(string(res.Body), `"one"`) || !strings.Contains(string(res.Body), `"two"`) {
		t.Errorf("after the restart: %d %s", res.Status, res.Body)
	}

	// doctor sees that it will.
	settings := config.Defaults[config.Gateway]().Redis
	settings.URL = f.Redis
	report, err := doctor.Examine(t.Context(), os.DirFS("/"), config.Doctor{Redis: settings, Roles: []string{"api"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(report.Redis, func(f doctor.Finding) bool { return strings.HasSuffix(f.Check, " loading") && f.Level == doctor.OK }) {
		t.Errorf("doctor did not look at what is loaded: %+v", report.Redis)
	}

	// And nobody is let in without a password.
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	for _, command := range []string{"PING\r\n", "AUTH default \"\"\r\n", "AUTH anything\r\n", "GET x\r\n"} {
		if _, err := conn.Write([]byte(command)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 256)
		n, err := conn.Read(answer)
		if err != nil || answer[0] != '-' {
			t.Errorf("%q is answered %q, %v", command, answer[:n], err)
		}
	}
}

// Redis itself reads the files.
func TestRedisAcceptsItsFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/users.acl", read(t, "redis/users.acl"))
	conf := strings.NewReplacer("/etc/redis/users.acl", dir+"/users.acl", "/var/lib/redis", dir, "bind 0.0.0.0", "bind 127.0.0.1", "port 6379", "port "+strconv.Itoa(testkit.FreePort()), "maxclients 20000", "maxclients 1000").Replace(read(t, "redis/redis.conf"))
	write(t, dir+"/redis.conf", conf)
	// Sentinel wants its file writable, and a primary that it need not reach.
	sentinel := strings.NewReplacer("/var/lib/redis", dir, "bind 0.0.0.0", "bind 127.0.0.1", "port 26379", "port "+strconv.Itoa(testkit.FreePort()), "10.0.0.41", "127.0.0.1").Replace(read(t, "redis/sentinel.conf"))
	write(t, dir+"/sentinel.conf", sentinel)
	for binary, file := range map[string]string{"redis-server": "redis.conf", "redis-sentinel": "sentinel.conf"} {
		log := filepath.Join(dir, binary+".log")
		cmd := exec.Command(binary, dir+"/"+file, "--logfile", log)
		ended, err := testkit.Launch(cmd)
		if err != nil {
			t.Fatal(err)
		}
		said := func() string { b, _ := os.ReadFile(log); return string(b) }
		fleet.Await(t, binary+" runs with "+file, func() bool {
			return strings.Contains(said(), "Ready to accept connections") || strings.Contains(said(), "+monitor master madang")
		}, said)
		_ = cmd.Process.Kill()
		<-ended
	}
}
