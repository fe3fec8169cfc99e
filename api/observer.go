package api

import "time"

// Observer counts what happens. Its methods are called by many goroutines at
// once, on the path of every request: they must be quick and must not block.
// All types are built-in ones, so that who counts need not import this package.
type Observer interface {
	// Request was answered. route is the pattern of the table
	// ("/v1/rooms/:room"), or empty for a path that has none.
	Request(method, route string, status int, took time.Duration)
	// Send ended, with one of SendOutcomes; took counts from when the sender was
	// known to the outcome.
	Send(outcome string, took time.Duration)
	// Upload ended, with one of UploadOutcomes; bytes are of what was stored, took
	// counts to its answer.
	Upload(outcome string, bytes int64, took time.Duration)
	// Download sent so many bytes of a file.
	Download(bytes int64)
}

// Outcomes of a send, as a metric's label.
const (
	SendAccepted    = "accepted"    // in the log
	SendReplayed    = "replayed"    // was in the log already
	SendRefused     = "refused"     // the client's doing: 4xx, or it went away
	SendLimited     = "limited"     // 429
	SendUnavailable = "unavailable" // Redis did not answer, or not with enough replicas: 503, 507
	SendFailed      = "failed"      // our doing: 500
)

// SendOutcomes are all there are.
var SendOutcomes = []string{SendAccepted, SendReplayed, SendRefused, SendLimited, SendUnavailable, SendFailed}

type nobody struct{}

func (nobody) Request(string, string, int, time.Duration) {}
func (nobody) Send(string, time.Duration)                 {}
func (nobody) Upload(string, int64, time.Duration)        {}
func (nobody) Download(int64)                             {}
