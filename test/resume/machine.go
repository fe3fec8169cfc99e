package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
)

// machine is what is looked at from outside: Redis's counters and processes' CPU.
type machine struct {
	redis *testkit.RedisServer
	pids  map[string]int
}

// look is what there was at a moment, since the beginning.
type look struct {
	at                  time.Time
	commands            map[string]int
	reads               int64
	gateway, redis, own time.Duration
}

func (m *machine) look() (l look, err error) {
	l.commands = m.redis.Calls()
	if l.reads, err = strconv.ParseInt(m.redis.Info("stats")["total_reads_processed"], 10, 64); err != nil {
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
