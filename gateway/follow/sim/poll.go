package sim

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/protocol"
)

// poll is what a loop has collected for a long poll, until it answers.
type poll struct {
	start  *edge.Frame // edge.Polled; nil: not told yet
	frames []*edge.Frame
	full   bool // what comes is for the next
	end    bool // `resumed` has come
}

// pollFrames is how many events an answer has at the most.
const pollFrames = 6

func (p *poll) collect(f *edge.Frame) {
	switch {
	case p.full:
	case p.start == nil && edge.IsPolled(f.JSON()):
		p.start = f
	case protocol.IsResumed(f.JSON()):
		p.end = true
		p.frames = append(p.frames, f)
	case len(p.frames) == pollFrames:
		p.full = true
	default:
		p.frames = append(p.frames, f)
	}
}

// polled is what a client sends back with its next poll: the rooms of its last answer.
type polled map[string]protocol.ID

// poll begins one.
func (c *client) poll(g *gateway, l int, again bool) {
	if !again {
		for i := range c.views {
			c.views[i] = view{}
		}
		c.rev, c.knows, c.list, c.greeted, c.at = 0, false, false, false, nil
	}
	if c.w.trace != nil {
		c.w.logf("c%d (%s) polls g%d with %v", c.id, userNames[c.user], g.id, c.at)
	}
	c.resume, c.positions, c.resumed = true, true, false
	for i := range c.got {
		c.got[i] = map[protocol.ID]bool{}
	}
	loop := g.loops[l]
	c.conn = loop.open(c, follow.Opening{Via: edge.LongPoll, Resume: true})
	c.conn.poll = &poll{}
	loop.events = append(loop.events, edge.Event{Kind: edge.EvPositions, Conn: c.conn.id, Positions: c.at})
}

// answered takes the answer of a poll: where it started, what came, and where to go on.
func (c *client) answered() {
	cn, p := c.conn, c.conn.poll
	if p.start == nil { // it is refused, and asks again with the positions that it has
		cn.l.close(cn)
		return
	}
	start := edge.ParsePolled(p.start.JSON())
	at := polled(start.Rooms)
	rev := start.RoomsRev
	c.greeted = true
	for room := range c.w.rooms {
		v := &c.views[room]
		pos, in := at[roomNames[room]]
		sent, told := c.at[roomNames[room]]
		switch {
		case !in:
			if told && rev == c.atRev && c.stayed(room) {
				c.w.violate("poll", "c%d polled %s from %v, and is not told where to go on", c.id, roomNames[room], sent)
			}
			v.leave()
		case !told: // it begins with what comes first, or where it is to go on
			v.leave()
			v.active = true
		case sent != pos:
			c.w.violate("poll", "c%d polled %s from %v, and starts at %v", c.id, roomNames[room], sent, pos)
		case !v.active || !v.known || v.filter != pos:
			v.startAt(pos, true)
		default:
			v.wired = true
		}
	}
	for _, f := range p.frames {
		own := rev
		c.take(f)
		ev := f.JSON()
		room := string(field(ev, "room"))
		switch string(field(ev, "type")) {
		case "message":
			at[room] = f.ID
		case "gap":
			at[room] = ident(ev, "head")
		case "joined":
			if own = number(ev, "rooms_rev"); own != 0 {
				at[room] = ident(ev, "head")
			}
		case "left":
			if string(field(ev, "user")) == userNames[c.user] {
				delete(at, room)
				own = number(ev, "rooms_rev")
			}
		case "resumed":
			own = number(ev, "rooms_rev")
		}
		if own != 0 {
			rev = own
		}
	}
	c.at, c.atRev = at, rev
	for room := range c.w.rooms {
		v := &c.views[room]
		if v.active && !v.known {
			v.startAt(at[roomNames[room]], true)
		}
		if pos, in := at[roomNames[room]]; v.active != in || in && v.filter != pos {
			c.w.violate("poll", "c%d is told to go on from %v in %s (%v), and is at %v (%v)", c.id, pos, roomNames[room], in, v.filter, v.active)
		}
	}
	if c.w.trace != nil {
		c.w.logf("c%d is to go on from %v, revision %d", c.id, at, rev)
	}
	c.checkRev(rev)
	cn.l.close(cn)
}

// stayed says whether the user has never left a room, nor lost it.
func (c *client) stayed(room int) bool {
	r := &c.w.roomShard(room).data().rooms[room]
	return r.members[c.user] && !c.w.left[room][c.user] && c.w.losses() == 0
}

// news says whether the answer would tell the client something.
func (c *client) news() bool {
	p := c.conn.poll
	if p.start == nil || !p.end {
		return p.end || p.full // or refused: its rooms were not known in time
	}
	start := edge.ParsePolled(p.start.JSON())
	if !c.greeted || len(p.frames) > 1 || start.RoomsRev != c.atRev || number(p.frames[0].JSON(), "rooms_rev") != c.atRev || len(start.Rooms) != len(c.at) {
		return true
	}
	for room, pos := range start.Rooms {
		if c.at[room] != pos {
			return true
		}
	}
	return false
}
