// Package report holds what a run found out, and shows it: as text, as JSON, as
// one HTML page that needs nothing from elsewhere, and as the difference of two
// runs. It measures nothing itself.
package report

import (
	"strings"
	"time"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
)

// Result is a run. Everything that would be needed to believe it is in it.
type Result struct {
	Tool        string    `json:"tool"`
	Scenario    string    `json:"scenario"`
	Target      string    `json:"target"`
	Command     []string  `json:"command"`
	Began       time.Time `json:"began"`
	TookSeconds float64   `json:"took_seconds"`
	// Ended says how: "completed", or what cut it short.
	Ended       string            `json:"ended"`
	Settings    map[string]string `json:"settings"`
	Environment Environment       `json:"environment"`

	Connections Connections `json:"connections"`
	Sends       Sends       `json:"sends"`
	Deliveries  Deliveries  `json:"deliveries"`
	Phases      []Phase     `json:"phases"`
	Servers     []Server    `json:"servers,omitempty"`
	Tester      Tester      `json:"tester"`
	Agents      []Agent     `json:"agents,omitempty"`
	// ClockErrorMs is how wrong times between two of the agents may be.
	ClockErrorMs float64   `json:"clock_error_ms,omitempty"`
	Series       []Second  `json:"series"`
	Capacity     *Capacity `json:"capacity,omitempty"`
	// Compared are the transports of a comparison, side by side.
	Compared []Compared `json:"compared,omitempty"`

	Problems   []string    `json:"problems,omitempty"` // why the run failed, or can't be quoted
	Notes      []string    `json:"notes,omitempty"`
	Objectives []Objective `json:"objectives,omitempty"`
}

// Passed says whether the run is fit to be shown: completed, nothing lost, and
// every objective met.
func (r *Result) Passed() bool {
	for _, o := range r.Objectives {
		if !o.Met {
			return false
		}
	}
	return r.Ended == Completed && len(r.Problems) == 0
}

// Completed is how a run ends that was not cut short.
const Completed = "completed"

// Environment is where the run took place.
type Environment struct {
	Host      string  `json:"host"`
	Kernel    string  `json:"kernel"`
	CPU       string  `json:"cpu"`
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memory_gib"`
	Go        string  `json:"go"`
	OpenFiles uint64  `json:"open_files_limit"`
	PortRange string  `json:"local_port_range"`
	Somaxconn string  `json:"somaxconn"`
}

// Connections is what became of the sockets.
type Connections struct {
	Asked    int           `json:"asked"`
	Opened   uint64        `json:"opened"`       // came to deliver, the first time
	LiveEnd  int           `json:"live_at_end"`  //
	GivenUp  int           `json:"given_up"`     //
	Returned uint64        `json:"returned"`     // came to deliver again after a loss
	Failures meter.Reasons `json:"failures"`     // attempts that failed, by reason
	Drops    meter.Reasons `json:"drops"`        // ends of live connections, by reason
	Byes     meter.Reasons `json:"byes"`         // `bye` events, by reason
	Errors   meter.Reasons `json:"errors"`       // `error` events, by code
	Pings    uint64        `json:"server_pings"` //
	Pongs    uint64        `json:"pongs"`        // answers to the clients' own pings
	Chatter  uint64        `json:"chatter"`      // what clients said besides
}

// Add adds what became of another crew's sockets.
func (c *Connections) Add(o Connections) {
	c.Asked += o.Asked
	c.Opened += o.Opened
	c.LiveEnd += o.LiveEnd
	c.GivenUp += o.GivenUp
	c.Returned += o.Returned
	c.Failures.Add(o.Failures)
	c.Drops.Add(o.Drops)
	c.Byes.Add(o.Byes)
	c.Errors.Add(o.Errors)
	c.Pings += o.Pings
	c.Pongs += o.Pongs
	c.Chatter += o.Chatter
}

// Sends is what became of the sends.
type Sends struct {
	Issued   uint64        `json:"issued"`
	Unsent   uint64        `json:"unsent"` // were due and never begun: all connections waited for the server
	Acked    uint64        `json:"acknowledged"`
	Replayed uint64        `json:"replayed"` // acknowledged at a retry as already there
	Attempts uint64        `json:"attempts"`
	Refused  meter.Reasons `json:"refused"` // to be tried later (429, 5xx), by status and code
	Broken   meter.Reasons `json:"broken"`  // attempts of unknown outcome, by reason
	Failed   meter.Reasons `json:"failed"`  // given up, by reason
	Uploads  uint64        `json:"uploads,omitempty"`
	// NotUploaded are files that could not be stored, by reason.
	NotUploaded meter.Reasons `json:"uploads_failed,omitempty"`
}

// Add adds what became of another crew's sends.
func (s *Sends) Add(o Sends) {
	s.Issued += o.Issued
	s.Unsent += o.Unsent
	s.Acked += o.Acked
	s.Replayed += o.Replayed
	s.Attempts += o.Attempts
	s.Refused.Add(o.Refused)
	s.Broken.Add(o.Broken)
	s.Failed.Add(o.Failed)
	s.Uploads += o.Uploads
	s.NotUploaded.Add(o.NotUploaded)
}

// Deliveries is the judge's account.
type Deliveries struct {
	Judged     bool    `json:"judged"`
	Owed       uint64  `json:"owed"` // acknowledged sends × members
	Kept       uint64  `json:"kept"`
	Lost       uint64  `json:"lost"`
	Noticed    uint64  `json:"noticed"`   // lost, but a gap told the client so
	Unacked    uint64  `json:"unacked"`   // delivered though the send was never acknowledged
	Doubled    uint64  `json:"doubled"`   // sends in the log under two IDs
	Wrong      uint64  `json:"wrong"`     // one ID, two messages
	OnTheWire  uint64  `json:"delivered"` // arrivals that passed the client's filter
	Duplicates uint64  `json:"duplicates"`
	Reordered  uint64  `json:"reordered"`
	Skipped    uint64  `json:"skipped"` // passed over without a gap being told
	Broken     uint64  `json:"chain_breaks"`
	Gaps       uint64  `json:"gaps"`
	Paged      uint64  `json:"paged"`
	Strays     uint64  `json:"strays"`
	SilenceMs  float64 `json:"longest_silence_ms"` // between two messages at one reader

	Violations []string `json:"violations,omitempty"`
}

// Take takes over a judgement.
func (d *Deliveries) Take(j ledger.Judgement) {
	d.Judged = true
	d.Owed, d.Kept, d.Lost, d.Noticed = j.Owed, j.Kept, j.Lost, j.Noticed
	d.Unacked, d.Doubled, d.Wrong, d.Violations = j.Unacked, j.Doubled, j.Wrong, j.Violations
}

// Add adds the account of another crew.
func (d *Deliveries) Add(o Deliveries) {
	d.Judged = d.Judged || o.Judged
	d.Owed += o.Owed
	d.Kept += o.Kept
	d.Lost += o.Lost
	d.Noticed += o.Noticed
	d.Unacked += o.Unacked
	d.Doubled += o.Doubled
	d.Wrong += o.Wrong
	d.OnTheWire += o.OnTheWire
	d.Duplicates += o.Duplicates
	d.Reordered += o.Reordered
	d.Skipped += o.Skipped
	d.Broken += o.Broken
	d.Gaps += o.Gaps
	d.Paged += o.Paged
	d.Strays += o.Strays
	d.SilenceMs = max(d.SilenceMs, o.SilenceMs)
	d.Violations = append(d.Violations, o.Violations...)
}

// Phase is a part of a run, measured by itself.
type Phase struct {
	Name     string  `json:"name"`
	Seconds  float64 `json:"seconds"`
	Opened   uint64  `json:"opened"`
	Returned uint64  `json:"returned"`
	Live     int     `json:"live"`
	Acked    uint64  `json:"acknowledged"`
	Behind   uint64  `json:"behind"` // sends that were due and not begun when the phase ended
	Arrivals uint64  `json:"delivered"`
	MBRead   float64 `json:"mb_read"`
	// MBWritten and Requests are the receiving clients', not the senders'.
	MBWritten float64 `json:"mb_written"`
	Requests  uint64  `json:"requests"`
	Reads     uint64  `json:"reads"`
	Frames    uint64  `json:"frames"` // or events of a stream, or answers to polls

	Latency    meter.Dist `json:"latency_ms"`         // meant to be sent → arrived
	SinceLog   meter.Dist `json:"log_to_arrival_ms"`  // in the log → arrived
	AckTime    meter.Dist `json:"ack_ms"`             // meant to be sent → acknowledged
	Service    meter.Dist `json:"answer_ms"`          // request → answer
	UploadTime meter.Dist `json:"upload_ms"`          // meant to be sent → its file stored
	OpenTime   meter.Dist `json:"open_ms"`            // its turn to connect → live
	BackTime   meter.Dist `json:"back_ms"`            // lost → live again
	Lag        meter.Dist `json:"tester_lateness_ms"` // the tester's own lateness with sends

	CPU     map[string]float64 `json:"cpu_seconds"` // by role; "tester" is ours, "other" what nobody accounts for
	Busy    float64            `json:"machine_busy"`
	Slowed  float64            `json:"machine_slowed"` // share of the time at less than a quarter of its best speed
	PerUnit PerUnit            `json:"cpu_us"`
	Memory  Memory             `json:"memory"`
	Loop    float64            `json:"busiest_loop"` // share of a second that the tester's busiest loop had the CPU
	Starved float64            `json:"starved_loop"` // share of a second that a loop had work and no CPU

	Curve []meter.Point `json:"latency_curve,omitempty"`
}

// PerUnit is CPU per piece of work, in µs. 0 where there was no such work.
type PerUnit struct {
	ServerPerDelivery  float64 `json:"server_per_delivery"` // all server processes and Redis
	GatewayPerDelivery float64 `json:"gateway_per_delivery"`
	APIPerSend         float64 `json:"api_per_send"`
	RedisPerSend       float64 `json:"redis_per_send"`
	ServerPerConn      float64 `json:"server_per_connection"`
	GatewayPerConn     float64 `json:"gateway_per_connection"`
	TesterPerDelivery  float64 `json:"tester_per_delivery"`
	TesterPerConn      float64 `json:"tester_per_connection"`
}

// Memory is what a phase added, per connection that it opened, in bytes.
type Memory struct {
	GatewayPerConn float64 `json:"gateway_per_connection"`
	TesterPerConn  float64 `json:"tester_per_connection"`
	KernelPerPair  float64 `json:"kernel_per_pair"` // kernel objects and socket buffers, both ends
	MachinePerPair float64 `json:"machine_per_pair"`
}

// Server is a process under test.
type Server struct {
	Role       string  `json:"role"`
	Name       string  `json:"name"`
	Pid        int     `json:"pid"`
	Port       int     `json:"port"`
	CPUSeconds float64 `json:"cpu_seconds"` // during the run
	RSSBegin   int64   `json:"rss_begin"`
	RSSEnd     int64   `json:"rss_end"`
	RSSMost    int64   `json:"rss_most"`
	Died       bool    `json:"died,omitempty"`
}

// Tester is the tester's own share.
type Tester struct {
	Receivers  int      `json:"receiver_processes"`
	Senders    int      `json:"sender_processes"`
	CPUSeconds float64  `json:"cpu_seconds"`
	RSS        int64    `json:"rss"`
	Saturated  []string `json:"saturated,omitempty"` // why the client may have been the bottleneck
}

// Agent is a machine that ran workers for the coordinator.
type Agent struct {
	Name      string  `json:"name"`
	Addr      string  `json:"addr"`
	Cores     int     `json:"cores"`
	OpenFiles uint64  `json:"open_files_limit"`
	Workers   int     `json:"workers"`
	Here      bool    `json:"coordinators_machine"`
	AheadMs   float64 `json:"clock_ahead_ms"` // its wall clock, of the coordinator's; taken off
	ErrorMs   float64 `json:"clock_error_ms"` // how wrong that may be: half a round trip, and its drift
	DriftMs   float64 `json:"clock_drift_ms"` // by which the clocks parted during the run, not taken off
	Busiest   float64 `json:"busiest"`        // share of its machine, the most between two calls
	Gone      string  `json:"gone,omitempty"` // why it left
}

// Second is one second of the run.
type Second struct {
	T       int                `json:"t"`
	Phase   string             `json:"phase"`
	Live    int                `json:"live"`
	Opened  uint64             `json:"opened"`
	Drops   uint64             `json:"drops"`
	Acked   uint64             `json:"acknowledged"`
	Refused uint64             `json:"refused"`
	Arrived uint64             `json:"delivered"`
	P50     float64            `json:"p50_ms"`
	P99     float64            `json:"p99_ms"`
	Max     float64            `json:"max_ms"`
	CPU     map[string]float64 `json:"cpu"` // cores in use, by role
	RSSMiB  map[string]float64 `json:"rss_mib"`
	TCPMiB  float64            `json:"tcp_mib"`
}

// Objective is a limit that the command line sets.
type Objective struct {
	Name  string  `json:"name"`
	Limit float64 `json:"limit"`
	Got   float64 `json:"got"` // negative: it was not measured
	Unit  string  `json:"unit"`
	Met   bool    `json:"met"`
}

// GotText is what was got, to be read.
func (o Objective) GotText() string {
	if o.Got < 0 {
		return "nothing: it was not measured"
	}
	return strings.TrimSpace(number0(o.Got) + " " + o.Unit)
}

// Capacity is where a rising load broke an objective.
type Capacity struct {
	Unit  string  `json:"unit"`
	Knee  float64 `json:"knee"`  // the highest load that held
	Broke float64 `json:"broke"` // the lowest that did not; 0: none
	Why   string  `json:"why"`   //
	Steps []Step  `json:"steps"` //
	Sure  string  `json:"how_sure"`
}

// Step is one load of a capacity run.
type Step struct {
	Load     float64    `json:"load"`
	Achieved float64    `json:"achieved"`
	Latency  meter.Dist `json:"latency_ms"`
	Held     bool       `json:"held"`
	Why      string     `json:"why,omitempty"`
}
