package redisstore

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options say where Redis is and how it is used. The zero value of a field means
// its default.
type Options struct {
	// URL is one of the forms of parseURL. Required.
	URL string
	// TLS is used with a rediss URL. It is asked for each connection, because files are
	// renewed; nil, and an answer of nil, mean the system's roots.
	TLS func() (*tls.Config, error)

	// Partitions is how many parts the keys are in; fixed for a deployment and
	// kept in Redis. More of them spread finer over a Cluster's nodes and cost a
	// gateway a connection each there. Default 256.
	Partitions int
	// Links is how many subscriber connections carry the events of a standalone
	// server or Sentinel; a Cluster has one per partition. What is published together
	// arrives together on one: with four, a gateway took a third more CPU for what it
	// got of a busy server. Default 1.
	Links int

	// MinReplicasAck is how many replicas must have a write before it is
	// acknowledged. 0: the primary alone.
	MinReplicasAck int
	// AckTimeout is how long replicas may take. Default 1 s.
	AckTimeout time.Duration
	// IdempotencyTTL is how long a retry is recognised. Longer costs ~220 bytes
	// per message sent in it. Default 10 min.
	IdempotencyTTL time.Duration
	// MaxLen is how many messages a room's log keeps, approximately. Default 100,000.
	MaxLen int
	// MaxAge is how long a message is kept, approximately. 0: no limit.
	MaxAge time.Duration
	// MaxBytes is how much memory of Redis a room's log may take, approximately.
	// 0: no limit.
	MaxBytes int64
	// MaxMembers per room. Default 100,000.
	MaxMembers int
	// MaxRooms per user. Default 10,000.
	MaxRooms int
	// ReceiptMembers is how many members a room may have for receipts to be told.
	// Each receipt goes to all of them. Default 100.
	ReceiptMembers int

	// DialTimeout bounds a connect; a long one lengthens every failover. Default 1 s.
	DialTimeout time.Duration
	// CommandTimeout bounds a pipeline and a call without a deadline of its own.
	// Default 3 s.
	CommandTimeout time.Duration
	// MaxQueued is how many commands may wait for a node; over it they are
	// refused at once. Default 8,192.
	MaxQueued int

	// Logger gets links and failures. Default: none.
	Logger *slog.Logger
	// Observer is told what happens, for metrics.
	Observer Observer
}

// Observer is told what happens, for metrics. Functions that are nil are not
// called; none may block.
type Observer struct {
	// Pipeline: one round trip of that many commands ended.
	Pipeline func(lane string, commands int, took time.Duration)
	// CommandFailed: a command failed, by reason ("network", "unreachable", "moved",
	// "full", "overflow", "noscript", "error").
	CommandFailed func(reason string)
	// Trimmed: so many messages left a room's log, by what ("count", "age", "bytes").
	Trimmed func(by string, messages int)
	// LogLength: so many messages are in a room's log that was sent to; told for each
	// 16th at the least.
	LogLength func(messages int)
	// LinkUp and LinkDown: a subscriber connection came or broke.
	LinkUp   func(link int)
	LinkDown func(link int, err error)
	// CanaryBack: a canary came back after that long.
	CanaryBack func(link int, took time.Duration)
}

func (o Options) withDefaults() (Options, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defD := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Partitions, 256)
	def(&o.Links, 1)
	def(&o.MaxLen, 100_000)
	def(&o.MaxMembers, 100_000)
	def(&o.MaxRooms, 10_000)
	def(&o.ReceiptMembers, 100)
	def(&o.MaxQueued, 8192)
	defD(&o.AckTimeout, time.Second)
	defD(&o.IdempotencyTTL, 10*time.Minute)
	defD(&o.DialTimeout, time.Second)
	defD(&o.CommandTimeout, 3*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Links = min(o.Links, o.Partitions)

	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(o.Partitions < 1 || o.Partitions > slots, "partitions: %d is not in 1 to %d", o.Partitions, slots)
	bad(o.Links < 1, "links: %d is less than 1", o.Links)
	bad(o.MinReplicasAck < 0, "replicas to acknowledge: %d is negative", o.MinReplicasAck)
	bad(o.MaxLen < 1 || o.MaxMembers < 1 || o.MaxRooms < 1 || o.MaxQueued < 1, "a limit is less than 1")
	bad(o.MaxAge < 0, "max age: %v is negative", o.MaxAge)
	bad(o.MaxBytes < 0, "max bytes: %d is negative", o.MaxBytes)
	for name, d := range map[string]time.Duration{
		"ack time-out": o.AckTimeout, "idempotency TTL": o.IdempotencyTTL,
		"dial time-out": o.DialTimeout, "command time-out": o.CommandTimeout,
	} {
		bad(d < time.Millisecond, "%s: %v is less than 1ms", name, d)
	}
	return o, errors.Join(errs...)
}
