package swarm

import (
	"fmt"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/target"
)

// wire is how a transport carries events over a client's socket. It has no state
// of its own beside the swarm's: what it knows of a client is in the client.
type wire interface {
	// opens is the step between a connected socket and one that delivers, as its
	// failures are counted.
	opens() string
	// begin says what opens, on a socket that just connected.
	begin(i uint32)
	// take acts on what was read and returns what is left: the beginning of
	// something.
	take(i uint32, data []byte) []byte
	// ended says what it means that the server closed a live client's socket, and
	// whether the client lost anything by it.
	ended(i uint32) (reason string, lost bool)
	// due is called when a live client's deadline has come.
	due(i uint32)
}

// wireOf returns the transport's wire, if the dialect speaks it.
func (s *Swarm) wireOf(t target.Transport) (wire, error) {
	if t == target.WebSocket {
		return webSocket{s}, nil
	}
	http, ok := s.cfg.Dialect.(target.OverHTTP)
	if !ok {
		return nil, fmt.Errorf("%s clients can't receive by %s", s.cfg.Dialect.Name(), t)
	}
	if t == target.EventStream {
		return eventStream{s, http}, nil
	}
	s.told = make([]ledger.Pos, s.firstReader[s.cfg.Count])
	for id := range s.told {
		s.told[id] = untold
	}
	if t == target.LongPoll {
		return polls{Swarm: s, http: http, wait: s.cfg.PollWait}, nil
	}
	return polls{Swarm: s, http: http, every: s.cfg.PollEvery}, nil
}
