package hub

import (
	"slices"
	"strconv"
	"strings"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/fifo"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/gateway/live"
)

// To loops and to gateway/follow every long poll is a connection of its own: it begins
// with its positions, and nothing of it outlives its answer. To gateway/live all polls
// of a client are one connection, so that what it looks at and watches, said over HTTP,
// stands from one to the next. pollers translates between the two.
//
// That connection has the ID of the client's first poll. Answers tell it (`conn`), and
// the client sends it back with the next poll; one that does not is another client.
// IDs are guessable, so only the same user's count.
type pollers struct {
	*follow.Core // as live.Rooms, asked with live's IDs
	prefix       string
	graceMs      int64

	byID   map[edge.ConnID]*poller
	byPoll map[edge.ConnID]*poller // by the polls that wait
	byUser map[string][]*poller
	ends   fifo.Timed[pollerEnd]
}

// poller is a client that polls.
type poller struct {
	id      edge.ConnID
	user    string
	poll    edge.ConnID // the one that waits; 0: it is between two
	answers int         // polls that have ended
	// sent are the whispers to the poll that waits, as long as it is not known
	// whether they are in its answer; between two polls, those for the next. dropped
	// counts those to the poll that are not remembered.
	sent    []*edge.Frame
	dropped int
}

type pollerEnd struct {
	p       *poller
	answers int // it has polled since when there are more
}

const (
	// mostPollerMs bounds how long a client that has not polled again is remembered,
	// whatever the grace time of presence: as long as its socket is kept.
	mostPollerMs = 30_000
	// mostWhispers bounds poller.sent: one of each user that may be watched.
	mostWhispers = 500
)

func newPollers(core *follow.Core, cfg live.Config) *pollers {
	return &pollers{
		Core: core, prefix: cfg.ConnPrefix, graceMs: min(cfg.WithDefaults().GraceMs, mostPollerMs),
		byID: map[edge.ConnID]*poller{}, byPoll: map[edge.ConnID]*poller{}, byUser: map[string][]*poller{},
	}
}

// opened finds out whose poll one is. A second one of the same client takes over.
func (ps *pollers) opened(ev *edge.Event) {
	p := ps.known(ev.Known)
	if p == nil || p.user != ev.User {
		p = &poller{id: ev.Conn, user: ev.User}
		ps.byID[p.id] = p
		ps.byUser[p.user] = append(ps.byUser[p.user], p)
	}
	p.poll = ev.Conn
	ps.byPoll[ev.Conn] = p
}

// closed takes in that a poll has ended; nil: it was none. What was not in its answer
// any more is for the next.
func (ps *pollers) closed(now int64, ev *edge.Event) *poller {
	p := ps.byPoll[ev.Conn]
	if p == nil {
		return nil
	}
	delete(ps.byPoll, ev.Conn)
	if p.poll != ev.Conn { // another has taken over
		return p
	}
	p.poll = 0
	p.answers++
	p.sent = p.sent[min(max(int(ev.Whispers)-p.dropped, 0), len(p.sent)):]
	if len(p.sent) == 0 {
		p.sent = nil
	}
	ps.ends.Push(now+ps.graceMs, pollerEnd{p, p.answers})
	return p
}

func (ps *pollers) known(conn string) *poller {
	hex, ours := strings.CutPrefix(conn, ps.prefix)
	if !ours || len(hex) != 16 {
		return nil
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return nil
	}
	return ps.byID[edge.ConnID(id)]
}

// forget takes in that a client has not polled again.
func (ps *pollers) forget(p *poller) {
	delete(ps.byID, p.id)
	rest := slices.DeleteFunc(ps.byUser[p.user], func(o *poller) bool { return o == p })
	if ps.byUser[p.user] = rest; len(rest) == 0 {
		delete(ps.byUser, p.user)
	}
}

// is says whether an ID of live's is a poller's.
func (ps *pollers) is(id edge.ConnID) bool { return ps.byID[id] != nil }

// reach is where live's connection is reached now; for one between two polls the
// whisper is kept.
func (ps *pollers) reach(id edge.ConnID, f *edge.Frame) (conn edge.ConnID, now bool) {
	p := ps.byID[id]
	if p == nil {
		return id, true
	}
	if len(p.sent) == mostWhispers {
		p.sent = p.sent[1:]
		p.dropped++
	}
	p.sent = append(p.sent, f)
	return p.poll, p.poll != 0
}

// As live.Rooms.

// Connection is follow's; of a poller between two polls it is not known what it may
// be told.
func (ps *pollers) Connection(id edge.ConnID) (user string, greeted bool) {
	switch p := ps.byID[id]; {
	case p == nil && ps.byPoll[id] != nil: // nobody was told this ID
		return "", false
	case p == nil:
		return ps.Core.Connection(id)
	case p.poll == 0:
		return p.user, false
	default:
		return ps.Core.Connection(p.poll)
	}
}

// Connections is follow's, without the polls that another has taken over from, and
// with the pollers between two polls: they can't be told anything, and what they said
// stands.
func (ps *pollers) Connections(user string, f func(id edge.ConnID, greeted bool)) {
	ps.Core.Connections(user, func(id edge.ConnID, greeted bool) {
		p := ps.byPoll[id]
		switch {
		case p == nil:
			f(id, greeted)
		case p.poll == id:
			f(p.id, greeted)
		}
	})
	for _, p := range ps.byUser[user] {
		if p.poll == 0 {
			f(p.id, false)
		}
	}
}

// Membership is follow's.
func (ps *pollers) Membership(id edge.ConnID, room string) (num edge.RoomNum, member, deciding bool) {
	if p := ps.byID[id]; p != nil {
		id = p.poll
	}
	return ps.Core.Membership(id, room)
}

// Away says whether a poller is between two polls.
func (ps *pollers) Away(id edge.ConnID) bool {
	p := ps.byID[id]
	return p != nil && p.poll == 0
}

// What the hub has to say about them.

// knownAs is the ID that a client which polls has, if the connection is its poll; 0: it is none.
func (a *alive) knownAs(conn edge.ConnID) edge.ConnID {
	if a != nil {
		if p := a.pollers.byPoll[conn]; p != nil {
			return p.id
		}
	}
	return 0
}

// back goes on with a client whose next poll is there.
func (a *alive) back(now int64, conn edge.ConnID) {
	if a == nil {
		return
	}
	p := a.pollers.byPoll[conn]
	if p == nil {
		return
	}
	p.dropped = 0
	for _, f := range p.sent {
		a.h.out.toConn(conn, edge.Cmd{Kind: edge.CmdUnicast, Shed: true, Room: edge.NoRoom, Frame: f})
	}
	a.core.Back(now, p.id)
}

// pollClosed takes in that a poll has ended, and says whether it was one.
func (a *alive) pollClosed(now int64, ev *edge.Event) bool {
	p := a.pollers.closed(now, ev)
	if p == nil {
		return false
	}
	a.core.Left(now, p.user)
	if p.poll == 0 {
		a.core.Away(p.id)
	}
	return true
}

// endPollers forgets those who have not polled again.
func (a *alive) endPollers(now int64) {
	ps := a.pollers
	for end := range ps.ends.Due(now) {
		if p := end.p; p.poll == 0 && p.answers == end.answers {
			ps.forget(p)
			a.core.Forget(now, p.id, p.user)
		}
	}
}

// detached passes on that a connection gets nothing more of a room.
func (a *alive) detached(now int64, conn edge.ConnID, room edge.RoomNum) {
	if p := a.pollers.byPoll[conn]; p != nil {
		if p.poll != conn {
			return
		}
		conn = p.id
	}
	a.core.Detached(now, conn, room)
}
