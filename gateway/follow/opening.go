package follow

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/protocol"
)

// Opening is how a connection begins.
type Opening struct {
	Via    edge.Transport
	Resume bool // its positions follow
	// Since is a Redis time (Unix ms) up to which it has everything, as an event's
	// Time said; 0: it does not say. Not with Resume.
	Since uint64
	// Known is the ID that a long poll's answer tells; 0: its own.
	Known    edge.ConnID
	IssuedAt int64 // its token's `iat`, Unix seconds; 0 when it has none
}

// resumeSince begins a resume from a time: the same position in every room, which
// need not be in any log (R4). Clocks of Redis's servers differ, so it goes back by
// a margin; the client drops what it has.
func (c *Core) resumeSince(ref *connRef, ms uint64) {
	j := c.jobOf(ref)
	j.timed, j.complete = true, true
	if margin := uint64(c.cfg.SinceMarginMs); ms > margin {
		j.since = protocol.ID{Ms: ms - margin}
	}
}

// ahead says whether a time, although it went back by the margin, is still to come: a
// clock told it that was set back since, and what came after it may be older.
func (c *Core) ahead(at protocol.ID) bool { return c.clocks.least != 0 && at.Ms > c.clocks.least }

// clocks are Redis's times as links' last canaries told them.
type clocks struct {
	ms    []uint64 // by link; 0: none has come yet
	least uint64
}

// owing is a user or a room that may have missed something: what is in Redis has to
// be read before a time is true of it.
type owing struct {
	u *user
	r *room
}

func (c *Core) owe(link uint16, o owing) {
	l := &c.links[link]
	l.owed = append(l.owed, o)
}

// settled says whether it has been read since, or is followed no more.
func (c *Core) settled(o owing) bool {
	if u := o.u; u != nil {
		return c.people.list[u.num] != u || u.current()
	}
	r := o.r
	return r.dropped || r.sub.confirmed && !r.unchecked() && r.state == roomLive
}

// Clock takes in the time at which a canary passed Redis, which came back through
// a link. What was published on the link before has come, too, unless the link was
// deaf before, or a message did not follow the one before it: then the link's time
// stands still until that has been read. What is followed newly is not waited for:
// there is always something, and whoever follows it is told when it has been read.
func (c *Core) Clock(n int, gen uint64, ms uint64) {
	l := &c.links[n]
	if l.gen != gen || !l.up || l.made {
		return
	}
	for last := len(l.owed) - 1; last >= 0; last-- {
		if !c.settled(l.owed[last]) {
			return
		}
		l.owed[last] = owing{}
		l.owed = l.owed[:last]
	}
	l.owed = nil
	c.clocks.ms[n] = ms
	c.clocks.least = ms
	for _, ms := range c.clocks.ms {
		c.clocks.least = min(c.clocks.least, ms)
	}
}

// aheadMs is how far a message's time may be ahead of the clocks: canaries are sent
// every two seconds, and missed after five.
const aheadMs = 10_000

// timeOf is the time that a message says (edge.Frame.Time). It stands still while a
// link is silent, because what that has missed is older; and where a server's clock
// has jumped ahead, because other rooms' messages are older, too.
func (c *Core) timeOf(ms uint64) uint64 {
	if ms > c.clocks.least+aheadMs {
		return 0
	}
	return ms
}

// polled tells a long poll's loop where the poll starts in every room of the user:
// at its position or, without one, at the head. What it gets after this moves the
// positions. In a room that could not be followed yet and has no position, or one that
// could not be kept, it starts at the beginning, which is true whatever will be found;
// as long as there may be more rooms by now than are known, its other positions are
// repeated. While none are known there is nothing to tell: what the answer leaves out
// the next poll does not say, and would start at the head.
func (c *Core) polled(u *user, ref *connRef) {
	j := ref.job
	known := ref.id
	if j.known != 0 {
		known = j.known
	}
	f := edge.NewFrame(96+48*len(u.rooms), func(b []byte) []byte {
		b = edge.AppendPolled(b, c.cfg.ConnPrefix+known.String(), u.name, u.rev)
		for m := range c.members.each(u.rooms) {
			if m.state == memberRefused {
				continue
			}
			room := c.roomOf(m).name
			at, given := j.positions[room]
			if !given && !j.cut {
				at = j.start[room]
			}
			b = edge.AppendPosition(b, room, at)
		}
		if !u.current() {
			for room, at := range j.positions {
				if c.membershipIn(u, room) == nil {
					b = edge.AppendPosition(b, room, at)
				}
			}
		}
		return append(b, '}', '}')
	})
	c.out.Unicast(ref.id, f)
}
