// Package agents spreads a run's worker processes over machines: an Agent on each
// starts them and carries their orders and reports, a Hub at the coordinator is
// where agents register and workers are placed. What travels between run and
// worker is the same as on one machine (crew): the packages above and below do
// not know where a worker is.
//
// The agents call the hub, over HTTP:
//
//	GET  /v1/clock                       the run's time, for the comparison of clocks
//	POST /v1/agents                      register: Join → Joined
//	POST /v1/agents/{id}/beat            once a second: Beat → Orders
//	POST /v1/agents/{id}/workers/{n}     Upgrade: orders down and reports up (gob), until one side ends it
//	POST /v1/agents/{id}/workers/{n}/end what a worker died of: End
//
// Every request carries the shared secret. The connection is not encrypted, and
// jobs carry the secret that tokens are signed with: hub and agents belong on a
// network of their own, or in a tunnel.
package agents

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"time"
)

// Join is what an agent says of itself.
type Join struct {
	Name      string   `json:"name"`
	Version   string   `json:"version"` // of the program: jobs and reports are its own format
	Cores     int      `json:"cores"`
	OpenFiles uint64   `json:"open_files"` // what a process may open
	Sources   []string `json:"sources"`    // addresses that its clients connect from
	Boot      string   `json:"boot"`       // tells whether two processes are on one machine
	Clock     Reading  `json:"clock"`
}

// Joined is the hub's answer.
type Joined struct {
	ID int `json:"id"`
}

// Beat says that an agent is there.
type Beat struct {
	Clock Reading `json:"clock"`
	Busy  float64 `json:"busy"` // share of its machine since the last beat
}

// Orders are the hub's answer to a beat.
type Orders struct {
	Start []int `json:"start,omitempty"` // workers to start
	Over  bool  `json:"over,omitempty"`  // the run has ended
}

// End is how a worker ended.
type End struct {
	Cause string `json:"cause"`
}

// Bounds of what is read from the other side.
const (
	maxBody    = 64 << 10
	maxHeaders = 16 << 10
	// MaxAgents: more is a typing error.
	MaxAgents = 100
	// MinSecretBytes is the shortest secret.
	MinSecretBytes = 16
)

const (
	// beatEvery is how often an agent calls, and how soon it hears of work.
	beatEvery = 500 * time.Millisecond
	// silence is how long either side may be unheard of before it counts as gone:
	// a connection to a machine that lost its power does not end by itself.
	silence = 15 * time.Second
	// protocolName is what a worker's connection is upgraded to.
	protocolName = "madang-worker"
)

// authorization is the header that proves the secret.
func authorization(secret []byte) string { return "Bearer " + string(secret) }

// proves compares in a time that tells nothing of the secret.
func proves(r *http.Request, secret []byte) bool {
	got, want := sha256.Sum256([]byte(r.Header.Get("Authorization"))), sha256.Sum256([]byte(authorization(secret)))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
