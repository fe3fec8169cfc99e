package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
)

// comparePeer prints the figures for which Centrifugo's are known, ours and its own
// from this machine, one right after the other: how they compare here, and how the
// budget compares with its figure there.
func comparePeer(program, madang, dir, only string) error {
	fmt.Println("| what | ours | Centrifugo | ours / its | budget / its, there | command |\n|---|---|---|---|---|---|")
	ours, its := map[source]figures{}, map[source]figures{}
	var failed []error
	for _, r := range rows {
		there, ok := centrifugoThere(r)
		if !ok || !strings.Contains(r.what+r.from.command(), only) {
			continue
		}
		if _, done := ours[r.from]; !done {
			fmt.Fprintln(os.Stderr, "…", r.from.command())
			f, err := r.from.run(madang, dir)
			failed = append(failed, err)
			ours[r.from] = f
			fmt.Fprintln(os.Stderr, "… the same on Centrifugo")
			f, err = runCentrifugo(program, madang, dir, r.from)
			failed = append(failed, err)
			its[r.from] = f
		}
		a, b := ours[r.from].values[r.read], its[r.from].values[theirs(r.read)]
		if a == 0 || b == 0 {
			fmt.Printf("| %s | ? | ? | ? | ? | `%s` |\n", r.what, r.from.command())
			continue
		}
		peer := r
		peer.read = theirs(r.read)
		budget, _ := strconv.ParseFloat(strings.ReplaceAll(strings.TrimPrefix(r.budget, "≥ "), ",", ""), 64)
		fmt.Printf("| %s | %s | %s | %.2f | %.2f | `%s` |\n", r.what, r.value(ours[r.from]), peer.value(its[r.from]), a/b, budget/there, r.from.command())
	}
	return errors.Join(failed...)
}

// theirs is the field of a result that has Centrifugo's figure: it is gateway and API
// in one, and the tester counts its Redis as part of it.
func theirs(read string) string {
	read = strings.Replace(read, "gateway_per_delivery", "server_per_delivery", 1)
	return strings.Replace(read, "gateway_per_connection", "server_per_connection", 1)
}

// centrifugoThere is Centrifugo's figure that a row names, where the same load can be
// put on it here.
func centrifugoThere(r row) (float64, bool) {
	text, ok := strings.CutPrefix(r.peer, "Centrifugo ")
	if !ok || r.from.fleet == "" || r.budget == "" || strings.Contains(r.read, "per_send") || strings.Contains(r.read, "log_to_arrival") {
		return 0, false
	}
	text, _, _ = strings.Cut(text, " ")
	v, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimRight(text, ","), ",", ""), 64)
	return v, err == nil
}

const centrifugoSecret = "0123456789abcdef0123456789abcdef"

// runCentrifugo starts one on a Redis of its own, puts the same load on it, and stops
// both.
func runCentrifugo(program, madang, dir string, s source) (_ figures, err error) {
	redis, err := testkit.StartRedis(dir)
	if err != nil {
		return figures{}, err
	}
	defer redis.Kill()
	host, port := "127.0.0.1", strconv.Itoa(testkit.FreePort())
	addr := net.JoinHostPort(host, port)
	// What our rooms do: recovery by offset from the last hundred messages.
	config, err := json.Marshal(map[string]any{
		"http_server": map[string]any{"address": host, "port": port},
		"client": map[string]any{
			"token": map[string]any{"hmac_secret_key": centrifugoSecret}, "allowed_origins": []string{"http://localhost"}, "channel_limit": 1000,
		},
		"http_api": map[string]any{"key": "key"},
		"channel": map[string]any{"without_namespace": map[string]any{
			"history_size": 100, "history_ttl": "300s", "force_recovery": true, "allow_subscribe_for_client": true,
		}},
		"engine": map[string]any{"type": "redis", "redis": map[string]any{"address": redis.URL()}},
		"log":    map[string]any{"level": "error"},
	})
	if err != nil {
		return figures{}, err
	}
	file := filepath.Join(dir, "centrifugo.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return figures{}, err
	}
	server := exec.Command(program, "--config", file)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		return figures{}, fmt.Errorf("centrifugo: %w", err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			return figures{}, fmt.Errorf("centrifugo does not listen: %w", err)
		}
	}

	args := strings.Fields(s.fleet)[2:] // behind --scenario and its name
	result := filepath.Join(dir, "result.json")
	args = append([]string{"loadtest", strings.Fields(s.fleet)[1]}, append(args,
		"--target", "centrifugo", "--gateway", addr, "--api", addr, "--api-key", "key", "--jwt-secret", centrifugoSecret,
		"--server-pid", strconv.Itoa(redis.PID()), "--json", result)...)
	out, runErr := exec.Command(madang, args...).CombinedOutput()
	text, err := os.ReadFile(result)
	if err != nil {
		return figures{}, fmt.Errorf("%w\n%s", cmp.Or(runErr, err), out)
	}
	defer os.Remove(result)
	return resultValues(text)
}
