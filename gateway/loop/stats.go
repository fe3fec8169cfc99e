package loop

import "github.com/madang-chat/madang/protocol"

// CloseReason says why a connection ended. Its String is a metric label.
type CloseReason uint8

// Reasons.
const (
	ClosedUnknown        CloseReason = iota
	ClosedByClient                   // it sent a close frame; a stream or a poll: it ended its side
	ClosedPeerGone                   // its end of the socket failed; a WebSocket's: or closed
	ClosedHeartbeat                  // silent after a ping
	ClosedSlow                       // did not read: 4008
	ClosedTokenExpired               // 4001
	ClosedKeyWithdrawn               // the key of its token is no longer published: 4001
	ClosedOtherUser                  // a renewed token names another user: 4003
	ClosedTooMany                    // too many connections of the user: 4009
	ClosedRateLimit                  // too many frames: 4029
	ClosedProtocol                   // broke RFC 6455: 1002, 1003, 1007, 1009
	ClosedMalformed                  // an upward message that can't be read: 1008
	ClosedMessageTimeout             // a message that was never completed: 1008
	ClosedResumeTimeout              // positions that did not come: 1013
	ClosedByHub                      // CmdClose
	ClosedDrain                      // 4012
	ClosedRebalance                  // 4012
	ClosedShed                       // 4012
	ClosedStop                       // 1001
	ClosedIdle                       // a long poll's socket that no other poll came on
	ClosedBug                        // a panic of ours while it was handled
	ClosedHandshake                  // never became a connection: refused, late, gone
	closeReasons
)

var closeReasonNames = [closeReasons]string{
	"unknown", "client", "peer_gone", "heartbeat", "slow", "token_expired", "key_withdrawn", "other_user", "too_many", "rate_limit",
	"protocol", "malformed", "message_timeout", "resume_timeout", "hub", "drain", "rebalance", "shed", "stop", "idle", "bug", "handshake",
}

func (r CloseReason) String() string { return closeReasonNames[r] }

// CloseReasons lists all reasons, for metrics.
func CloseReasons() []CloseReason { return upTo(closeReasons) }

// code is what a close frame says for a reason that has one code.
func (r CloseReason) code() protocol.CloseCode {
	switch r {
	case ClosedSlow:
		return protocol.CloseTooSlow
	case ClosedTokenExpired, ClosedKeyWithdrawn:
		return protocol.CloseTokenExpired
	case ClosedOtherUser:
		return protocol.CloseForbidden
	case ClosedTooMany:
		return protocol.CloseTooMany
	case ClosedRateLimit:
		return protocol.CloseRateLimit
	case ClosedMalformed, ClosedMessageTimeout:
		return protocol.CloseMalformed
	case ClosedResumeTimeout:
		return protocol.CloseTryLater
	case ClosedDrain, ClosedRebalance, ClosedShed:
		return protocol.CloseDraining
	case ClosedStop:
		return protocol.CloseGoingAway
	}
	return protocol.CloseProtocolError
}

// bye is the reason of the `bye` that goes before the close frame; "" for none.
func (r CloseReason) bye() protocol.ByeReason {
	switch r {
	case ClosedSlow:
		return protocol.ByeSlow
	case ClosedTokenExpired:
		return protocol.ByeTokenExpired
	case ClosedKeyWithdrawn:
		return protocol.ByeRevoked
	case ClosedDrain:
		return protocol.ByeDrain
	case ClosedRebalance:
		return protocol.ByeRebalance
	case ClosedShed:
		return protocol.ByeShed
	}
	return ""
}

// UpgradeOutcome is what became of a request. Its String is a metric label.
type UpgradeOutcome uint8

// Outcomes.
const (
	UpgradeOK           UpgradeOutcome = iota
	UpgradeBadRequest                  // 400
	UpgradeUnauthorized                // 401
	UpgradeForbidden                   // 403: origin
	UpgradeNotFound                    // 404
	UpgradeVersion                     // 426
	UpgradeTooLarge                    // 431
	UpgradeUnavailable                 // 503: full, or refusing
	UpgradeTooMany                     // 4009 after the upgrade
	UpgradeTimeout                     // the request was never completed
	UpgradeGone                        // the client left before
	UpgradeProxy                       // 400: no PROXY header where one is needed
	UpgradeTooManyAddr                 // 429: too many connections of the address
	UpgradeTLS                         // the TLS handshake failed
	UpgradeMethod                      // 405
	UpgradeRate                        // 429: too many polls
	UpgradePreflight                   // 204: a browser asked whether a page may ask
	upgradeOutcomes
)

var upgradeOutcomeNames = [upgradeOutcomes]string{
	"ok", "bad_request", "unauthorized", "forbidden", "not_found", "version", "too_large", "unavailable", "too_many",
	"timeout", "gone", "proxy", "too_many_addr", "tls", "method", "rate", "preflight",
}

func (o UpgradeOutcome) String() string { return upgradeOutcomeNames[o] }

// UpgradeOutcomes lists all outcomes, for metrics.
func UpgradeOutcomes() []UpgradeOutcome { return upTo(upgradeOutcomes) }

func upTo[T ~uint8](n T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = T(i)
	}
	return all
}

// Stats is what the loops have done since they started, and what they hold.
type Stats struct {
	// Counters.
	Accepted       uint64
	AcceptFailures uint64 // out of descriptors, mostly
	AcceptPauses   uint64 // times that the accept rate held clients back
	TLSHandshakes  uint64
	Upgrades       [upgradeOutcomes]uint64
	Closed         [closeReasons]uint64
	FramesIn       uint64 // messages, fragments and control frames
	BytesIn        uint64
	Deliveries     uint64 // events queued: a broadcast message to 1,000 members is 1,000
	BytesOut       uint64
	Reads          uint64 // system calls
	Writes         uint64 // system calls
	WouldBlock     uint64 // writes that a full socket cut short
	Pings          uint64
	Shed           uint64 // ephemeral events dropped for sockets that were behind
	LeftOut        uint64 // room events left out for slow readers, to be caught up
	SlowReaders    uint64 // times that a reader became slow
	Turns          uint64
	BusyNs         uint64 // time spent in turns, waiting excluded
	Commands       uint64
	Deflated       uint64 // messages compressed: each once, by the loop that needed it first
	DeflatedFrom   uint64 // their bytes before
	DeflatedTo     uint64 // and after
	Inflated       uint64 // compressed messages received
	Polls          uint64 // long polls begun
	Bugs           uint64 // panics that were recovered

	// Gauges.
	Heads       int64    // accepted, request awaited
	Open        int64    // those between two polls included
	OpenBy      [3]int64 // of them, by edge.Transport
	Compressed  int64    // of them, those that negotiated permessage-deflate
	Closing     int64
	Behind      int64 // slow readers now
	Attachments int64
	QueuedBytes int64 // sum over connections; shared bytes count for each
	HeldBytes   int64 // of incomplete requests and messages
	MaxTurnNs   int64 // the longest turn since the last snapshot
}

func (s *Stats) add(o *Stats) {
	s.Accepted += o.Accepted
	s.AcceptFailures += o.AcceptFailures
	s.AcceptPauses += o.AcceptPauses
	s.TLSHandshakes += o.TLSHandshakes
	for i := range s.Upgrades {
		s.Upgrades[i] += o.Upgrades[i]
	}
	for i := range s.Closed {
		s.Closed[i] += o.Closed[i]
	}
	s.FramesIn += o.FramesIn
	s.BytesIn += o.BytesIn
	s.Deliveries += o.Deliveries
	s.BytesOut += o.BytesOut
	s.Reads += o.Reads
	s.Writes += o.Writes
	s.WouldBlock += o.WouldBlock
	s.Pings += o.Pings
	s.Shed += o.Shed
	s.LeftOut += o.LeftOut
	s.SlowReaders += o.SlowReaders
	s.Turns += o.Turns
	s.BusyNs += o.BusyNs
	s.Commands += o.Commands
	s.Deflated += o.Deflated
	s.DeflatedFrom += o.DeflatedFrom
	s.DeflatedTo += o.DeflatedTo
	s.Inflated += o.Inflated
	s.Polls += o.Polls
	s.Bugs += o.Bugs

	s.Heads += o.Heads
	s.Open += o.Open
	for i := range s.OpenBy {
		s.OpenBy[i] += o.OpenBy[i]
	}
	s.Compressed += o.Compressed
	s.Closing += o.Closing
	s.Behind += o.Behind
	s.Attachments += o.Attachments
	s.QueuedBytes += o.QueuedBytes
	s.HeldBytes += o.HeldBytes
	s.MaxTurnNs = max(s.MaxTurnNs, o.MaxTurnNs)
}

// Stats sums up all loops. It may lag behind by a turn.
func (g *Group) Stats() Stats {
	var sum Stats
	for _, l := range g.loops {
		one := l.snapshot()
		sum.add(&one)
	}
	return sum
}

// snapshot is called from any goroutine.
func (l *loop) snapshot() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.published
	l.published.MaxTurnNs = 0
	return s
}

// openNow is called from any goroutine.
func (l *loop) openNow() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.published.Open)
}

// publish makes the loop's figures visible, and says whether the mailbox holds
// something. One uncontended lock per turn is cheaper than an atomic operation per
// delivery.
func (l *loop) publish() (mail bool) {
	l.stats.Heads = int64(l.heads)
	l.stats.Behind = int64(len(l.slow))
	l.stats.HeldBytes = int64(l.pool.Lent())
	l.mu.Lock()
	l.stats.MaxTurnNs = max(l.stats.MaxTurnNs, l.published.MaxTurnNs)
	l.published = l.stats
	mail = len(l.cmds)+len(l.calls) > 0
	l.mu.Unlock()
	l.stats.MaxTurnNs = 0
	return mail
}
