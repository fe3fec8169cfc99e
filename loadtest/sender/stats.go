package sender

import (
	"maps"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/reactor"
)

// Stats are a sender's counters, since its start.
type Stats struct {
	Issued   uint64 // sends begun
	Unsent   uint64 // due, and never begun when the run was abandoned: all connections waited for the server
	Behind   uint64 // due by now, not begun yet
	Attempts uint64 // requests
	Acked    uint64
	Replayed uint64 // acknowledged at a later attempt as already there
	Uploads  uint64 // files stored
	InFlight int
	Held     int           // waiting for their next attempt
	Refused  meter.Reasons //  answers to try again later, by status and code
	Broken   meter.Reasons //  attempts with an unknown outcome, by reason
	Failed   meter.Reasons //  sends given up, by reason
	// NotUploaded are files that could not be stored, by reason; their messages went
	// without them.
	NotUploaded meter.Reasons
}

// Snapshot is what happened since the last one, and the counters as they are.
type Snapshot struct {
	Stats   Stats
	Acks    []ledger.Ack
	Acked   meter.Meter // of this interval: due → acknowledged
	Service meter.Meter // request → answer, any answer
	Upload  meter.Meter // due → its file stored
	Lag     meter.Meter // due, or a connection became idle → request: the tester's own lateness
	Loop    reactor.Share
}

type meters struct {
	acked, service, upload, lag meter.Meter
}

func newMeters() meters {
	return meters{acked: meter.New(), service: meter.New(), upload: meter.New(), lag: meter.New()}
}

func (s *Sender) snapshot() Snapshot {
	st := s.stats
	st.Refused = maps.Clone(st.Refused)
	st.Broken = maps.Clone(st.Broken)
	st.Failed = maps.Clone(st.Failed)
	st.NotUploaded = maps.Clone(st.NotUploaded)
	st.Held = len(s.held)
	for i := range s.conns {
		if s.conns[i].state == busy {
			st.InFlight++
		}
	}
	st.Behind = s.behind()
	snap := Snapshot{
		Stats: st, Acks: s.acks,
		Acked: s.meters.acked.Detach(), Service: s.meters.service.Detach(), Upload: s.meters.upload.Detach(), Lag: s.meters.lag.Detach(),
		Loop: s.poll.Share(),
	}
	s.acks = nil
	return snap
}
