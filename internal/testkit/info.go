package testkit

import (
	"strconv"
	"strings"
	"time"
)

// Info is a section of INFO by its fields; empty when the server does not answer.
func (s *RedisServer) Info(section string) map[string]string {
	v, _ := s.Do("INFO", section)
	text, _ := v.(string)
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields[name] = value
	}
	return fields
}

// CPU is what all threads of the server have used so far.
func (s *RedisServer) CPU() (used time.Duration) {
	info := s.Info("cpu")
	for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
		seconds, _ := strconv.ParseFloat(info[name], 64)
		used += time.Duration(seconds * float64(time.Second))
	}
	return used
}

// Calls is how often each command ran, but for INFO.
func (s *RedisServer) Calls() map[string]int {
	calls := map[string]int{}
	for name, value := range s.Info("commandstats") {
		name, ok := strings.CutPrefix(name, "cmdstat_")
		if n, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ","); ok && name != "info" {
			calls[name], _ = strconv.Atoi(n)
		}
	}
	return calls
}
