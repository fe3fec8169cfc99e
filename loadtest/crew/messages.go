package crew

import (
	"time"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/reactor"
	"github.com/madang-chat/madang/loadtest/sender"
	"github.com/madang-chat/madang/loadtest/swarm"
)

// Verb is what a worker is ordered to do.
type Verb uint8

// Orders. Those for receivers are ignored by senders, and the other way round;
// receivers of a target without senders (target.Echoer) obey those for senders.
const (
	Ramp       Verb = iota + 1 // receivers: connect
	SendsBegin                 // receivers: from here on, messages are owed
	Drop                       // receivers: a Share closes and comes back, over Spread, at Rate
	Stall                      // receivers: Count of them stop reading
	Unstall                    // receivers: they read again
	Chat                       // receivers: say things besides messages, as much as Chatter
	BeginSends                 // senders: a schedule of Rate per second of the whole run, 0: flat out
	EndSends                   // senders: issue nothing new
	Abandon                    // senders: give up what is not answered
	Look                       // report now; the report carries Seq
	Acks                       // receivers: more of what was acknowledged
	Judge                      // receivers: compare with it; the report carries Seq
)

// Order is what the coordinator tells a worker.
type Order struct {
	Verb    Verb
	Seq     uint64
	Spread  time.Duration
	Rate    float64
	Count   int
	Share   float64
	Chatter swarm.Chatter
	Acks    []ledger.Ack
}

// Report is what a worker tells the coordinator: every second at the turn of the
// second, and when asked.
type Report struct {
	Worker int    // set by the coordinator
	Seq    uint64 // of the order it answers; 0: the regular one
	At     int64  // run time

	Receivers *Receivers
	Senders   *Senders
	Judgement *ledger.Judgement

	CPUNs int64         // of the process, since its start
	RSS   int64         // bytes
	Loop  reactor.Share // of this interval

	Err string // the worker ends because of it
}

// Receivers are a swarm's counters, and its meters of this interval, encoded.
type Receivers struct {
	Stats                           swarm.Stats
	Latency, SinceLog, Opened, Back []byte
}

// Senders are a sender's counters, what was acknowledged in this interval, and
// its meters of this interval, encoded.
type Senders struct {
	Stats                       sender.Stats
	Acks                        []ledger.Ack
	Acked, Service, Upload, Lag []byte
}
