package sim

import (
	"bytes"
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/follow"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// client is a user's device, with an SDK that keeps DELIVERY's rules: positions,
// a filter, paging of holes, GET /v1/rooms when rooms_rev is not its own.
type client struct {
	w     *world
	id    int
	user  int
	lazy  bool // its socket is slow
	conn  *conn
	rev   uint64
	knows bool // rev is that of the rooms it knows
	// The revision of its index when it was last listed, and the flushes of that till then.
	listed  uint64
	flushes int
	views   [maxRooms]view

	// Of the present connection.
	resume    bool // `?resume` in the URL
	greeted   bool // hello has come
	positions bool // have been sent
	resumed   bool
	list      bool                           // GET /v1/rooms is due
	got       [maxRooms]map[protocol.ID]bool // since the room was told anew

	polls bool   // it has no connection that lasts
	at    polled // what its last answer said
	atRev uint64 // and its rooms_rev
}

// view is what a client knows of a room.
type view struct {
	active bool
	known  bool        // filter means something
	filter protocol.ID // what is not newer is dropped
	wired  bool        // the filter was told by the gateway, not by HTTP
	losses int         // how often Redis had lost data when HTTP told it
	pos    protocol.ID // to resume from
	hole   bool        // the messages up to base are to be paged
	base   protocol.ID
	chain  []protocol.ID // received since base, each the next one's prev

	// settled are messages before which nothing is missing; they outlive a
	// `left`, as a device's memory does.
	settled map[protocol.ID]bool
	// untold are messages that came by the socket since it last told of a loss.
	untold []protocol.ID
}

func (c *client) connect(g *gateway, l int, resume, timed bool) {
	if c.polls {
		c.poll(g, l, resume)
		return
	}
	since := uint64(0)
	if resume && timed {
		since = c.since()
	}
	// Who resumes from a time sends no positions.
	c.resume, c.greeted, c.positions, c.resumed, c.list = resume, false, since != 0, false, false
	for i := range c.got {
		c.got[i] = map[protocol.ID]bool{}
	}
	if !resume {
		for i := range c.views {
			c.views[i] = view{}
		}
		c.rev, c.knows = 0, false
	}
	if c.w.trace != nil {
		c.w.logf("c%d (%s) connects to g%d, resume %v since %d", c.id, userNames[c.user], g.id, resume, since)
	}
	if since != 0 {
		c.w.count.Timed++
		c.expectSince()
	}
	c.conn = g.loops[l].open(c, follow.Opening{Resume: resume && since == 0, Since: since})
}

// since is a time up to which the client has everything in all of its rooms; 0 when
// it has none.
func (c *client) since() (ms uint64) {
	for i := range c.views {
		switch v := &c.views[i]; {
		case !v.active:
		case v.pos.IsZero():
			return 1 // which is older than everything
		case ms == 0 || v.pos.Ms < ms:
			ms = v.pos.Ms
		}
	}
	return ms
}

// expectSince is sendPositions for a client that resumes from a time. It is not
// told of messages it has that were lost: the next one shows it, by its prev.
func (c *client) expectSince() {
	for room := range c.w.rooms {
		v := &c.views[room]
		if !v.active {
			continue
		}
		v.known, v.filter, v.wired = true, v.pos, false
		if v.losses = c.w.losses(); c.w.lost(room, v.pos) {
			v.losses = -1
		}
		v.hole, v.chain, v.untold = false, nil, nil
	}
}

// dropped: the connection is gone.
func (c *client) dropped() {
	if c.w.trace != nil {
		c.w.logf("c%d is disconnected", c.id)
	}
	c.conn = nil
}

// sendPositions sends a `resume`, in two frames when split. One that forgets a
// room must page it.
func (c *client) sendPositions(split bool, forget int) {
	c.positions = true
	pos := map[string]protocol.ID{}
	more := map[string]protocol.ID{}
	for room := range c.w.rooms {
		v := &c.views[room]
		if !v.active {
			continue
		}
		if room == forget {
			v.known, v.hole, v.chain, v.base = false, true, nil, protocol.ID{}
			v.untold = nil
			continue
		}
		v.known, v.filter, v.wired = true, v.pos, true
		v.hole, v.chain = false, nil // what follows pos comes again, and what does not is lost
		v.untold = slices.DeleteFunc(v.untold, func(id protocol.ID) bool { return !v.settled[id] })
		if split && room > 0 {
			more[roomNames[room]] = v.pos
		} else {
			pos[roomNames[room]] = v.pos
		}
	}
	l := c.conn.l
	l.events = append(l.events, edge.Event{Kind: edge.EvPositions, Conn: c.conn.id, Positions: pos, More: split})
	if split {
		l.events = append(l.events, edge.Event{Kind: edge.EvPositions, Conn: c.conn.id, Positions: more})
	}
}

// take receives a frame.
func (c *client) take(f *edge.Frame) {
	if c.w.trace != nil {
		c.w.logf("c%d receives %s", c.id, f.JSON())
	}
	if !f.ID.IsZero() {
		c.message(roomOf(f), f.ID, f.Prev)
		return
	}
	ev := f.JSON()
	switch string(field(ev, "type")) {
	case "hello":
		c.greeted = true
		c.checkRev(number(ev, "rooms_rev"))
		c.list = c.list || !c.resume
	case "resumed":
		if !c.resumed && !c.positions && c.resume {
			c.w.violate("resumed", "c%d got `resumed` before it sent its positions", c.id)
		}
		c.resumed = true
		c.checkRev(number(ev, "rooms_rev"))
	case "gap":
		c.gap(indexOf(string(field(ev, "room"))), ident(ev, "head"))
	// What the gateway tells of the user's rooms is taken in as it comes. A lower
	// revision than what HTTP answered is late, or a failover lost revisions: the
	// rooms are listed again.
	case "joined":
		if rev := number(ev, "rooms_rev"); rev != 0 {
			c.setRev(rev)
			c.list, c.knows = true, false // it may know nothing of the room
			c.joined(indexOf(string(field(ev, "room"))), ident(ev, "head"))
		}
	case "left":
		if string(field(ev, "user")) == userNames[c.user] {
			c.setRev(number(ev, "rooms_rev"))
			c.views[indexOf(string(field(ev, "room")))].leave()
		}
	}
}

func (c *client) setRev(rev uint64) {
	switch {
	case rev == 0: // the members' word, not the index's: listed with the next hello
		c.knows = false
		return
	case rev < c.rev:
		c.list, c.knows = true, false
	}
	c.rev = rev
}

func (c *client) checkRev(rev uint64) {
	if !c.knows || rev != c.rev {
		c.list, c.knows = true, false
	}
}

func (v *view) leave() {
	v.active, v.known, v.hole, v.chain = false, false, false, nil
	v.untold = nil
}

// startAt begins a stretch of messages after base; what is up to base is paged,
// unless the client has it.
func (v *view) startAt(base protocol.ID, wired bool) {
	v.active, v.known, v.wired = true, true, wired
	v.filter, v.base, v.chain = base, base, nil
	v.hole = true
}

func (c *client) gap(room int, head protocol.ID) {
	v := &c.views[room]
	c.w.count.Gaps++
	c.knows = c.knows && v.active // else it comes from a room that was not listed
	clear(c.got[room])
	v.untold = nil
	v.startAt(head, true)
}

func (c *client) joined(room int, head protocol.ID) {
	v := &c.views[room]
	if v.active && v.known && v.wired && v.filter == head {
		return // it goes on from where it is
	}
	clear(c.got[room])
	v.untold = nil
	v.startAt(head, true)
}

func (c *client) message(room int, id, prev protocol.ID) {
	w := c.w
	v := &c.views[room]
	if !c.greeted {
		w.violate("hello", "c%d got %v before hello", c.id, id)
	}
	if c.resume && !c.positions {
		w.violate("R1", "c%d got %v before it sent its positions", c.id, id)
	}
	if c.got[room][id] {
		w.count.Duplicates++
		if !c.conn.slow { // a slow reader's report may cross a Detach and an Attach
			w.violate("duplicate", "c%d got %v of %s twice on one connection", c.id, id, roomNames[room])
		}
	}
	c.got[room][id] = true
	w.count.Received++
	if !v.active || !v.known {
		c.knows = c.knows && v.active
		v.startAt(prev, true)
	}
	if !v.filter.Less(id) {
		if v.wired || v.settled[id] {
			return
		}
		// HTTP told of something newer, but not of this: that was lost, and a clock
		// is behind.
		v.startAt(prev, true)
	}
	if prev != v.filter {
		// A receiver whose last message is not prev has a hole. It can only be one
		// that the gateway couldn't know of: what it had read over HTTP was lost.
		if v.wired || v.losses == w.losses() && w.everLed(room, v.filter, id) && !w.lost(room, id) {
			w.violate("order", "c%d: %v of %s follows %v, but came after %v", c.id, id, roomNames[room], prev, v.filter)
		}
		v.startAt(prev, true)
	}
	v.filter, v.wired = id, true
	v.untold = append(v.untold, id)
	if v.hole {
		v.chain = append(v.chain, id)
		return
	}
	v.settle(id)
	v.pos = id
}

func (v *view) settle(ids ...protocol.ID) {
	if v.settled == nil {
		v.settled = map[protocol.ID]bool{}
	}
	for _, id := range ids {
		v.settled[id] = true
	}
}

// page closes a hole: history is read from base backwards, up to something that
// the client has.
func (c *client) page(room int) bool {
	v := &c.views[room]
	r := &c.w.roomShard(room).data().rooms[room]
	if !r.exists || !r.members[c.user] {
		return false
	}
	if !v.known {
		if !c.greeted {
			return false // what is sent until hello might be missed
		}
		v.startAt(r.head, false)
		v.losses = c.w.losses()
	}
	log := r.log()
	proven := v.base.IsZero() || v.base == r.head || r.has(v.base)
	if c.w.trace != nil {
		c.w.logf("c%d pages %s up to %v (proven %v)", c.id, roomNames[room], v.base, proven)
	}
	last := protocol.ID{}
	for i := len(log) - 1; i >= 0; i-- {
		id := log[i].id
		if v.base.Less(id) {
			continue
		}
		if last.IsZero() {
			last = id
		}
		if v.settled[id] {
			break
		}
		v.settle(id)
	}
	v.hole = false
	if proven {
		v.pos = v.base
		for _, id := range v.chain {
			v.settle(id)
			v.pos = id
		}
	} else {
		// What it was to begin with is not in the log: it has noticed. A failover may
		// bring that back, so what comes next follows nothing it could vouch for.
		v.pos, v.untold, v.known = last, nil, false
	}
	v.chain = nil
	return true
}

// listRooms is GET /v1/rooms.
func (c *client) listRooms() {
	c.list = false
	st := c.w.userShard(c.user).data().readUser(c.user)
	if c.w.trace != nil {
		c.w.logf("c%d lists its rooms: %+v", c.id, st)
	}
	c.rev, c.listed, c.knows, c.flushes = st.Rev, st.Rev, true, c.w.userShard(c.user).flushes
	for room := range c.w.rooms {
		v := &c.views[room]
		r := &c.w.roomShard(room).data().rooms[room]
		in := slices.ContainsFunc(st.Rooms, func(x chat.IndexedRoom) bool { return x.Room == roomNames[room] })
		switch {
		case !in && v.active:
			v.leave()
		case in && !v.active:
			v.startAt(r.head, false)
			v.losses = c.w.losses()
		}
	}
}

// Parsing of what protocol appends.

func field(ev []byte, name string) []byte {
	_, rest, ok := bytes.Cut(ev, []byte(`"`+name+`":"`))
	if !ok {
		return nil
	}
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return value
}

func number(ev []byte, name string) (n uint64) {
	_, rest, _ := bytes.Cut(ev, []byte(`"`+name+`":`))
	for _, d := range rest {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + uint64(d-'0')
	}
	return n
}

func ident(ev []byte, name string) protocol.ID {
	id, err := protocol.ParseID(field(ev, name))
	if err != nil {
		panic("BUG: " + string(ev))
	}
	return id
}

// roomOf is a message frame's room.
func roomOf(f *edge.Frame) int {
	const head = `{"type":"message","room":"`
	return int(f.JSON()[len(head)+1] - '0')
}
