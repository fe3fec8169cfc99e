package redisstore

import "time"

// linger decides how long a pipeline waits for company: until so long after the one
// before started, and only while waiting gains some. At a thousand sends a second, one
// by one, most of what a send costs is the waking of Redis, of the gateways and of the
// API; sends that share a round trip share that. Who sends one message after the other
// gains nothing by waiting and does not wait, but now and then to try.
//
// It is linger.ms of Kafka's producers, with the adaptive part of what network cards do
// with their interrupts. BenchmarkPacedSend shows what it saves and what it costs.
type linger struct {
	most time.Duration // 0: nothing waits

	last  time.Time // when the last pipeline started
	score int       // what waiting gained lately, less what was asked of it
	until time.Time // no waiting before it
}

const (
	// lingerEnough calls go at once: one more saves little.
	lingerEnough = 16
	// A wait is worth its while when one in lingerWorth gains a call.
	lingerWorth = 4
	// lingerMemory is how many waits for nothing are forgiven after better times.
	lingerMemory = 16
	// lingerPause is how long nothing waits when it was not worth its while.
	lingerPause = 100 * time.Millisecond
)

// wait is how long a pipeline that could carry so many calls now is to wait.
func (l *linger) wait(queued int, now time.Time) time.Duration {
	if l.most == 0 || queued >= lingerEnough || now.Before(l.until) {
		return 0
	}
	return max(0, l.last.Add(l.most).Sub(now))
}

// waited tells how many calls a wait gained.
func (l *linger) waited(gained int, now time.Time) {
	l.score = min(l.score+lingerWorth*gained-1, lingerMemory)
	if l.score < 0 {
		l.score, l.until = 0, now.Add(lingerPause)
	}
}

// started tells that a pipeline starts.
func (l *linger) started(now time.Time) { l.last = now }
