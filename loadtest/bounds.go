package loadtest

import (
	"math"
	"time"

	"github.com/madang-chat/madang/loadtest/agents"
)

// Bounds beyond which a number is a typing error.
const (
	maxRate        = 5_000_000
	maxClients     = 10_000_000 // as a crowd has it
	maxSenders     = 10_000
	maxText        = 60_000
	maxUpload      = 1 << 20 // a file is held in memory, once
	maxProcesses   = 1000
	maxRunDuration = 7 * 24 * time.Hour
	maxTimes       = 10_000
	maxPoll        = time.Minute           // as servers have it
	minPollEvery   = 20 * time.Millisecond // the clients' clocks tick every 16
)

// checkBounds tells wrong of every number that can't be meant, under the name of
// its flag. Not-a-number is within no bounds.
func (s *Spec) checkBounds(wrong func(format string, args ...any)) {
	number := func(flag string, v, low, high float64) {
		if !(v >= low && v <= high) {
			wrong("--%s %v is not between %v and %v", flag, v, low, high)
		}
	}
	count := func(flag string, v, low, high int) {
		if v < low || v > high {
			wrong("--%s %d is not between %d and %d", flag, v, low, high)
		}
	}
	span := func(flag string, d time.Duration) {
		if d < 0 || d > maxRunDuration {
			wrong("--%s %v is not between 0 and %v", flag, d, maxRunDuration)
		}
	}
	if s.Clients == 0 {
		wrong("there are no clients: give --clients, or --rooms and --members")
	} else {
		count("clients", s.Clients, 1, maxClients)
	}
	count("rooms", s.Rooms, 0, maxClients)
	count("members", s.Members, 1, maxClients)
	number("rate", s.Rate, math.Inf(-1), maxRate)
	number("connect-rate", s.ConnectRate, 0, maxRate)
	number("zipf", s.Zipf, 0, 10)
	number("upload-share", s.UploadShare, 0, 1)
	count("upload-size", s.UploadBytes, 1, maxUpload)
	number("share", s.SlowShare, 0, 1)
	number("from", s.StepFrom, math.SmallestNonzeroFloat64, maxRate)
	number("to", s.StepTo, s.StepFrom, maxRate)
	number("factor", s.StepFactor, 1.01, 1000)
	count("senders", s.Senders, 1, maxSenders)
	count("sender-processes", s.SenderProcesses, 1, min(s.Senders, maxProcesses))
	count("receivers", s.Receivers, 0, min(max(s.Clients, 1), maxProcesses))
	count("in-flight", s.InFlight, 1, maxClients)
	count("size", s.TextBytes, 1, maxText)
	times := "times"
	if s.Scenario == "check" {
		times = "drops (fleet: --times)"
	}
	count(times, s.Times, 0, maxTimes)
	span("duration", s.Duration)
	span("warmup", s.Warmup)
	span("drain", s.Drain)
	span("connect-timeout", s.ConnectTimeout)
	span("ping", s.PingEvery)
	span("idle", s.Idle)
	if s.PollEvery < minPollEvery || s.PollEvery > maxPoll {
		wrong("--poll-every %v is not between %v and %v", s.PollEvery, minPollEvery, maxPoll)
	}
	if s.PollWait < time.Second || s.PollWait > maxPoll || s.PollWait%time.Second != 0 {
		wrong("--poll-wait %v is not between 1s and %v, in whole seconds", s.PollWait, maxPoll)
	}
	span("spread", s.StormSpread)
	span("for", s.SlowFor)
	span("step", s.StepTime)
	count("agents", s.Agents, 0, agents.MaxAgents)
	span("agent-wait", s.AgentPatience)
	for flag, v := range map[string]float64{
		"max-loss": s.Objectives.MaxLoss, "min-rate": s.Objectives.MinRate, "min-send-rate": s.Objectives.MinSendRate,
		"max-cpu-per-delivery": s.Objectives.MaxCPUPerDelivery, "max-memory-per-conn": s.Objectives.MaxMemoryPerConn,
		"max-drops": s.Objectives.MaxDrops,
	} {
		if math.IsNaN(v) || math.IsInf(v, 1) { // what JSON has no word for, the result could not be written with
			wrong("--%s %v is not a number", flag, v)
		}
	}
}

// longest is more than a run takes, as long as that is less than a year.
func (s *Spec) longest() time.Duration {
	part := s.RampTimeout + s.Warmup + s.Idle + s.Duration + s.SlowFor + s.StepTime + s.StormSpread + s.Drain
	parts := 2*max(s.Times, chatRounds, len(s.Transports)) + 2
	if s.Scenario == "capacity" {
		parts += int((math.Log(s.StepTo)-math.Log(s.StepFrom))/math.Log(s.StepFactor)) + 6
	}
	return time.Duration(min(float64(part)*float64(parts), float64(365*24*time.Hour)))
}

// checkAgents checks what only a run with agents needs.
func (s *Spec) checkAgents(wrong func(format string, args ...any)) {
	if s.CoordinatorAddr == "" {
		wrong("--coordinator-addr must be given with --agents: where they register, as host:port")
	}
	if len(s.AgentSecret) < agents.MinSecretBytes {
		wrong("--agent-secret-file must be given with --agents, and hold at least %d bytes (openssl rand -hex 32 makes them)", agents.MinSecretBytes)
	}
	if len(s.Sources) > 0 {
		wrong("--source: with --agents, give each agent its own")
	}
	if s.Clients < s.Agents {
		wrong("--agents %d are more than there are clients (%d)", s.Agents, s.Clients)
	}
	if s.Receivers > 0 && s.Receivers < s.Agents {
		wrong("--receivers %d are fewer than --agents %d: each has one at least", s.Receivers, s.Agents)
	}
}
