package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/madang-chat/madang/loadtest/meter"
)

// machine is what is looked at from outside: Redis's counters and processes' CPU.
type machine struct {
	redis string
	pids  map[string]int
}

// look is what there was at a moment, since the beginning.
type look struct {
	at                  time.Time
	commands            map[string]int64
	reads               int64
	gateway, redis, own time.Duration
}

func (m *machine) look() (l look, err error) {
	stats, err := m.info("commandstats")
	if err != nil {
		return l, err
	}
	l.commands = map[string]int64{}
	for name, value := range stats {
		if name, ok := strings.CutPrefix(name, "cmdstat_"); ok && name != "info" {
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			if l.commands[name], err = strconv.ParseInt(calls, 10, 64); err != nil {
				return l, fmt.Errorf("INFO commandstats: %w", err)
			}
		}
	}
	if stats, err = m.info("stats"); err != nil {
		return l, err
	}
	if l.reads, err = strconv.ParseInt(stats["total_reads_processed"], 10, 64); err != nil {
		return l, fmt.Errorf("INFO stats: %w", err)
	}
	for name, to := range map[string]*time.Duration{"gateway-1": &l.gateway, "redis": &l.redis} {
		if *to, err = cpu(m.pids[name]); err != nil {
			return l, err
		}
	}
	l.at = time.Now()
	l.own, err = cpu(os.Getpid())
	return l, err
}

// info asks Redis, without the store: its commands are what is counted.
func (m *machine) info(section string) (map[string]string, error) {
	u, err := url.Parse(m.redis)
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", u.Host, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(conn, "INFO %s\r\n", section); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	var n int
	if _, err := fmt.Fscanf(r, "$%d\r\n", &n); err != nil {
		return nil, fmt.Errorf("INFO %s: %w", section, err)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			values[name] = value
		}
	}
	return values, nil
}

// cpu is what a process's threads have used: /proc/PID/stat counts in 10 ms, and
// a storm is short.
func cpu(pid int) (used time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(tasks) == 0 {
		err = fmt.Errorf("no threads of process %d in /proc", pid)
	}
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended
		}
		running, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(running, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", task, err)
		}
		used += time.Duration(ns)
	}
	return used, nil
}

func newMeter() meter.Meter { return meter.New() }
