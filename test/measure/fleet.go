package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/testkit"
)

const secret = "a-secret-of-the-measurements-only-0123456789"

// fleet is one Redis, one API and one gateway, as processes of their own.
type fleet struct {
	redis        *testkit.RedisServer
	cluster      *testkit.RedisCluster
	api, gateway *process
	dir          string
	http         *http.Client
	tokens       sync.Map // user → token
}

// process is one madang process.
type process struct {
	cmd         *exec.Cmd
	ended       <-chan struct{}
	addr, admin string
}

// startFleet starts everything; withGateway leaves the gateway out when false.
func startFleet(binary string, withGateway bool, apiArgs ...string) (*fleet, error) {
	dir, err := os.MkdirTemp("", "madang-measure-")
	if err != nil {
		return nil, err
	}
	f := &fleet{dir: dir, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}}
	if f.redis, err = testkit.StartRedis(dir); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if f.api, err = f.start(binary, "api", append([]string{"--sends-per-second", "0", "--send-burst", "100000", "--max-body", "1MiB"}, apiArgs...)...); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if withGateway {
		if f.gateway, err = f.start(binary, "gateway"); err != nil {
			return nil, errors.Join(err, f.stop())
		}
	}
	return f, nil
}

func (f *fleet) url() string {
	if f.cluster != nil {
		return f.cluster.URL()
	}
	return f.redis.URL()
}

// start starts one process and waits until it is ready.
func (f *fleet) start(binary, role string, args ...string) (*process, error) {
	p := &process{addr: freeAddr(), admin: freeAddr()}
	var log testkit.Log
	p.cmd = exec.Command(binary, append([]string{role, "--redis", f.url(), "--" + role + "-addr", p.addr, "--admin-addr", p.admin, "--log-level", "warn"}, args...)...)
	p.cmd.Env = append(os.Environ(), "MADANG_JWT_SECRET="+secret)
	p.cmd.Stdout, p.cmd.Stderr = &log, &log
	var err error
	if p.ended, err = testkit.Launch(p.cmd); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + p.admin + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return p, nil
		}
	}
	p.stop()
	return nil, fmt.Errorf("%s is not ready: %s", role, log.String())
}

func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
}

func (f *fleet) stop() error {
	f.gateway.stop()
	f.api.stop()
	if f.redis != nil {
		f.redis.Kill()
	}
	if f.cluster != nil {
		f.cluster.Kill()
	}
	f.http.CloseIdleConnections()
	return os.RemoveAll(f.dir)
}

// cpu is the user and system time of a process so far.
func (p *process) cpu() time.Duration { return cpuOf(p.cmd.Process.Pid) }

// cpuOf reads /proc/PID/stat: fields 14 and 15, in ticks of 10 ms.
func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// rss is a process's resident memory in bytes.
func (p *process) rss() float64 {
	return kilobytes(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid), "VmRSS")
}

// kilobytes reads one "Name:  n kB" line of a file, in bytes.
func kilobytes(file, name string) float64 {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n * 1024
		}
	}
	return 0
}

// redisInfo is one number of INFO.
func redisInfo(s *testkit.RedisServer, section, name string) float64 {
	x, _ := strconv.ParseFloat(s.Info(section)[name], 64)
	return x
}

// metric sums the samples of one metric of a process.
func (p *process) metric(name string) float64 {
	resp, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	var sum float64
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		n, _ := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		sum += n
	}
	return sum
}

func (f *fleet) token(user string) string {
	if t, ok := f.tokens.Load(user); ok {
		return t.(string)
	}
	t, err := auth.Mint([]byte(secret), user, time.Hour, auth.MintOptions{})
	if err != nil {
		panic(err)
	}
	f.tokens.Store(user, t)
	return t
}

// post sends JSON to the API as a user.
func (f *fleet) post(user, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest("POST", "http://"+f.api.addr+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+f.token(user))
	req.Header.Set("Content-Type", "application/json")
	resp, err := f.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s: %s", path, resp.Status, answer)
	}
	return nil
}

func user(i int) string { return "u" + strconv.Itoa(i) }

// room makes a room of users; the first is its owner.
func (f *fleet) room(id string, members []string) error {
	return f.post(members[0], "/v1/rooms", map[string]any{"id": id, "members": members[1:]})
}

// inParallel calls f for 0…n-1 from several goroutines and stops at an error.
func inParallel(n, workers int, f func(i int) error) error {
	var (
		mu   sync.Mutex
		next int
		errs error
		wg   sync.WaitGroup
	)
	for range workers {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := errs != nil || i >= n
				mu.Unlock()
				if stop {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					errs = errors.Join(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errs
}

func freeAddr() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort()) }

// startClusterFleet starts a Cluster of one node and no process.
func startClusterFleet() (*fleet, error) {
	dir, err := os.MkdirTemp("", "madang-measure-")
	if err != nil {
		return nil, err
	}
	f := &fleet{dir: dir, http: http.DefaultClient}
	f.cluster, err = testkit.StartCluster(dir, 1, 0)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return f, nil
}
