package sim

import (
	"slices"

	"github.com/madang-chat/madang/gateway/follow"
)

// settle ends the faults, lets everything be delivered, and checks.
func (w *world) settle() {
	if w.trace != nil {
		w.logf("the faults end")
	}
	w.settling = true
	for _, s := range w.shards {
		s.resync()
	}
	for _, g := range w.gateways {
		for n, s := range w.shards {
			g.view[n] = s.node
		}
	}
	w.deliverAll()
	for _, s := range w.shards {
		for len(s.data().outbox) > 0 {
			w.sweep(s, 0, false)
		}
	}
	w.repairAll()
	w.deliverAll()
	w.check(false)

	// Everybody gets what is sent now, and nobody else.
	for room := range w.rooms {
		w.send(room, -1, w.roomShard(room).node)
	}
	w.deliverAll()
	w.check(true)
	w.checkEnd()
}

// deliverAll goes on until nothing is under way any more.
func (w *world) deliverAll() {
	const enough = 400 // rounds; a world that is not quiet by then never will be
	tried := false
	for range enough {
		w.step++
		w.now += 3
		busy := false
		for _, g := range w.gateways {
			busy = w.deliver(g) || busy
		}
		for _, c := range w.clients {
			busy = w.serve(c) || busy
		}
		if !busy {
			// Nothing but time can go on now.
			w.now += w.cfg.HelloMs + w.cfg.RetryMs
			for _, g := range w.gateways {
				g.flush()
				busy = busy || g.underWay()
			}
			if !busy && tried {
				return
			}
			if !busy {
				tried = true
				for _, c := range w.clients {
					if c.polls && c.conn != nil { // it has waited as long as it wanted to
						c.answered()
					}
				}
				for _, g := range w.gateways {
					for n := range g.links {
						g.canary(n)
					}
				}
			}
		}
	}
	w.violate("settle", "it does not come to rest")
}

func (g *gateway) underWay() bool {
	for _, l := range g.links {
		if !l.up || len(l.ups)+len(l.down) > 0 {
			return true
		}
	}
	for _, l := range g.loops {
		if len(l.cmds)+len(l.events) > 0 {
			return true
		}
	}
	return len(g.reads) > 0 || g.core.Stats().AuditsWaiting > 0
}

func (w *world) deliver(g *gateway) (busy bool) {
	for n, l := range g.links {
		switch {
		case !l.up:
			g.makeLink(n)
			busy = true
		case l.severed || l.deaf || l.node != w.shards[n].node:
			g.breakLink(n)
			busy = true
		default:
			for len(l.ups) > 0 {
				g.takeUp(n)
				busy = true
			}
			for len(l.down) > 0 && l.up {
				g.hear(n)
				busy = true
			}
		}
	}
	for n := len(g.reads); n > 0 && len(g.reads) > 0; n-- {
		w.step++
		g.answer(w.pick(len(g.reads)), false)
		busy = true
	}
	for _, l := range g.loops {
		for len(l.events) > 0 {
			l.handle()
			busy = true
		}
		for len(l.cmds) > 0 {
			l.obey()
			busy = true
		}
	}
	return busy
}

func (w *world) serve(c *client) (busy bool) {
	if c.conn == nil {
		c.connect(w.anyGateway(), w.pick(w.loopsPerGateway), true, false)
		return true
	}
	if c.polls && c.news() {
		c.answered()
		return true
	}
	for c.conn != nil && len(c.conn.wire) > 0 {
		c.conn.receive()
		busy = true
	}
	if c.conn == nil {
		return true
	}
	if c.resume && !c.positions && c.greeted {
		c.sendPositions(false, -1)
		busy = true
	}
	// Revisions are no chain. What HTTP told and a failover lost, a client learns
	// from its next hello; what a flush took from its index under a revision that
	// came later, or a failover gave back then, when it next lists its rooms.
	us := w.userShard(c.user)
	switch index := &us.data().users[c.user]; {
	case c.rev != 0 && !slices.Contains(index.revs, c.rev),
		(c.rev == 0 || c.listed == 0) && us.flushes > 0 && index.rev != 0,
		c.flushes != us.flushes:
		c.list = true
	}
	if c.list && c.greeted {
		c.listRooms()
		busy = true
	}
	for room := range w.rooms {
		if c.views[room].hole && c.page(room) {
			busy = true
		}
	}
	return busy
}

// check compares what clients have with what Redis has; told: a message came in
// every room since the faults ended.
func (w *world) check(told bool) {
	for _, c := range w.clients {
		if c.polls && !c.conn.poll.end {
			w.violate("resumed", "c%d waits for its poll", c.id)
		}
		if !c.greeted {
			w.violate("hello", "c%d waits for hello", c.id)
		}
		if c.resume && !c.resumed && !c.polls {
			w.violate("resumed", "c%d waits for resumed", c.id)
		}
		for room := range w.rooms {
			w.checkView(c, room, told)
		}
	}
}

func (w *world) checkView(c *client, room int, told bool) {
	r := &w.roomShard(room).data().rooms[room]
	v := &c.views[room]
	member := r.exists && r.members[c.user]
	if v.active != member {
		w.violate("membership", "c%d (%s) believes %v to be in %s, but it is %v", c.id, userNames[c.user], v.active, roomNames[room], member)
	}
	if !member {
		return
	}
	if !v.known && !told {
		return // it paged what a flush had left, and a failover has brought the rest back: the next message tells it
	}
	if v.hole {
		w.violate("hole", "c%d could not page %s", c.id, roomNames[room])
	}
	for _, e := range r.log() {
		if !v.settled[e.id] && !w.aged[room][e.id] {
			w.violate("lost", "c%d (%s) never got %v of %s (it is at %v)", c.id, userNames[c.user], e.id, roomNames[room], v.filter)
		}
	}
	for _, id := range v.untold {
		if w.lost(room, id) {
			w.violate("untold", "c%d got %v of %s, which was lost, and was not told", c.id, id, roomNames[room])
		}
	}
}

// checkEnd closes everything and looks for what is left.
func (w *world) checkEnd() {
	for _, c := range w.clients {
		c.conn.l.close(c.conn)
	}
	for _, g := range w.gateways {
		for _, l := range g.loops {
			for len(l.events) > 0 {
				l.handle()
			}
		}
		w.now += w.cfg.LingerMs
		g.flush()
		var st follow.Stats
		if st = g.core.Stats(); st.Users+st.Rooms+st.Conns+st.Memberships != 0 {
			w.violate("leak", "g%d still follows %d users and %d rooms, by %d memberships, for %d connections", g.id, st.Users, st.Rooms, st.Memberships, st.Conns)
		}
	}
}
