package loadtest

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/madang-chat/madang/loadtest/target"
)

// completeTransports fills in by which ways clients receive, and reports what is
// wrong with them.
func (s *Spec) completeTransports(wrong func(format string, args ...any)) {
	s.Transport = cmp.Or(s.Transport, "ws")
	s.PollEvery = cmp.Or(s.PollEvery, time.Second)
	s.PollWait = cmp.Or(s.PollWait, 25*time.Second)
	flag, used := "transport", []string{s.Transport}
	if s.Scenario == "compare" {
		if len(s.Transports) == 0 {
			s.Transports = target.AllTransports()
		}
		if s.Transport != "ws" {
			wrong("--transport %s: a comparison has --transports", s.Transport)
		}
		flag, used = "transports", s.Transports
		s.Transport = s.Transports[0] // the first clients'
		s.completeCompare(wrong)
	}
	for i, name := range used {
		_, err := target.ParseTransport(name)
		switch {
		case err != nil:
			wrong("--%s: %w", flag, err)
		case name != "ws" && s.Target != "madang":
			wrong("--%s %s: clients of --target %s have WebSockets only", flag, name, s.Target)
		case slices.Contains(used[:i], name):
			wrong("--%s: %s is named twice", flag, name)
		}
	}
	if s.PingEvery > 0 && s.Scenario != "compare" && s.Transport != "ws" {
		wrong("--ping: only clients on WebSockets have a heartbeat of their own")
	}
}

// completeCompare fills in what a comparison is made of.
func (s *Spec) completeCompare(wrong func(format string, args ...any)) {
	s.Idle = cmp.Or(s.Idle, 30*time.Second)
	if s.echoes() {
		wrong("--target ws-echo: an echo comes by a WebSocket only: there is nothing to compare")
	}
	if s.flatOut() || !s.sends() {
		wrong("--rate %v: a comparison is of the same work for all; give sends per second", s.Rate)
	}
}

// describeTransports is the part of the settings about them.
func (s *Spec) describeTransports(m map[string]string) {
	used := []string{s.Transport}
	if s.Scenario == "compare" {
		used = s.Transports
		m["idle"] = s.Idle.String()
	}
	m["transport"] = strings.Join(used, " ")
	if slices.Contains(used, "poll") {
		m["a long poll waits"] = s.PollWait.String()
	}
	if slices.Contains(used, "polling") {
		m["polled every"] = s.PollEvery.String()
	}
}
