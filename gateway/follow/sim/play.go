package sim

// actions are what may happen in a step, with how often. One that can't happen
// in the present state passes.
var actions = []struct {
	weight int
	fault  bool
	do     func(w *world)
}{
	{14, false, (*world).playSend},
	{4, false, (*world).playMember},
	{5, false, (*world).playSweep},
	{2, false, (*world).playTrim},
	{6, false, (*world).playReplicate},
	{9, false, (*world).playConnect},
	{3, false, (*world).playDisconnect},
	{14, false, (*world).playReceive},
	{6, false, (*world).playClient},
	{22, false, (*world).playLinks},
	{14, false, (*world).playReads},
	{14, false, (*world).playLoops},
	{3, false, (*world).playTime},
	{3, false, (*world).playFlush},
	{3, true, (*world).playCanary},
	{3, true, (*world).playLinkFault},
	{2, true, (*world).playFailover},
	{3, true, (*world).playView},
	{1, true, (*world).playFlushAll},
	{1, true, (*world).playKill},
}

var totalWeight = func() (n int) {
	for _, a := range actions {
		n += a.weight
	}
	return n
}()

func (w *world) play() {
	n := w.pick(totalWeight)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			if !a.fault || w.faults {
				a.do(w)
			}
			return
		}
	}
}

func (w *world) anyGateway() *gateway { return w.gateways[w.pick(len(w.gateways))] }
func (w *world) anyClient() *client   { return w.clients[w.pick(len(w.clients))] }
func (w *world) anyRoom() int         { return w.pick(len(w.rooms)) }
func (w *world) anyUser() int         { return w.pick(len(w.users)) }

// writer is the node that some API believes is the primary.
func (w *world) writer(s *shard) int {
	if s.old != nil && w.pick(3) == 0 {
		return s.node - 1
	}
	return s.node
}

func (w *world) playSend() {
	room := w.anyRoom()
	s := w.roomShard(room)
	if !s.data().rooms[room].exists && w.pick(3) == 0 {
		var members [maxUsers]bool
		for u := range w.users {
			members[u] = w.pick(2) == 0
		}
		w.create(room, members, s.node)
		return
	}
	n := 1 + w.pick(8)/5
	if w.pick(12) == 0 {
		n = 4 + w.pick(8) // more than a resume may fill, or a slow socket hold
	}
	for range n {
		w.send(room, w.anyUser(), w.writer(s))
	}
}

func (w *world) playMember() {
	room := w.anyRoom()
	user := w.anyUser()
	node := w.writer(w.roomShard(room))
	if w.pick(3) == 0 { // and back again at once
		is := w.roomShard(room).data().rooms[room].members[user]
		w.setMember(room, user, !is, node)
		w.setMember(room, user, is, node)
		return
	}
	w.setMember(room, user, w.pick(5) > 1, node)
}

func (w *world) playSweep() {
	s := w.shards[w.pick(len(w.shards))]
	if n := len(s.data().outbox); n > 0 {
		w.sweep(s, w.pick(n), w.pick(5) == 0)
	}
}

func (w *world) playTrim() { w.trim(w.anyRoom(), 1+w.pick(6)) }

func (w *world) playReplicate() {
	s := w.shards[w.pick(len(w.shards))]
	if behind := len(s.history) - 1 - s.acked; s.old == nil && behind > 0 {
		s.acked += 1 + w.pick(behind)
		s.history = s.history[s.acked:]
		s.acked = 0
	}
}

func (w *world) playConnect() {
	if c := w.anyClient(); c.conn == nil {
		c.connect(w.anyGateway(), w.pick(w.loopsPerGateway), w.pick(3) != 0)
	}
}

func (w *world) playDisconnect() {
	if c := w.anyClient(); c.conn != nil {
		c.conn.l.close(c.conn)
	}
}

func (w *world) playReceive() {
	c := w.anyClient()
	if c.lazy && w.pick(4) != 0 {
		return
	}
	for range 1 + w.pick(4) {
		if c.conn != nil && len(c.conn.wire) > 0 {
			c.conn.receive()
		}
	}
}

func (w *world) playClient() {
	c := w.anyClient()
	switch {
	case c.conn != nil && c.resume && !c.positions && (c.greeted || w.pick(2) == 0):
		forget := -1
		if w.pick(6) == 0 {
			forget = w.anyRoom()
		}
		c.sendPositions(w.pick(3) == 0, forget)
	case c.conn != nil && c.list && c.greeted:
		c.listRooms()
	default:
		if room := w.anyRoom(); c.views[room].hole {
			c.page(room)
		}
	}
}

func (w *world) playLinks() {
	g := w.anyGateway()
	n := w.pick(len(g.links))
	l := g.links[n]
	switch {
	case !l.up:
		g.makeLink(n)
	case l.deaf && w.pick(2) == 0:
		g.breakLink(n)
	case len(l.ups) > 0 && w.pick(2) == 0:
		for range 1 + w.pick(len(l.ups)) {
			g.takeUp(n)
		}
	case len(l.down) > 0:
		for range 1 + w.pick(len(l.down)) {
			g.hear(n)
		}
	case len(l.ups) > 0:
		g.takeUp(n)
	}
}

func (w *world) playReads() {
	g := w.anyGateway()
	if len(g.reads) == 0 {
		return
	}
	i := w.pick(len(g.reads))
	switch w.pick(8) {
	case 0, 1, 2:
		if r := g.reads[i]; r.executed == 0 {
			g.execute(r)
		}
	case 3:
		g.answer(i, w.faults)
	default:
		g.answer(i, false)
	}
}

func (w *world) playLoops() {
	g := w.anyGateway()
	l := g.loops[w.pick(len(g.loops))]
	if w.pick(2) == 0 {
		if len(l.events) > 0 {
			l.handle()
		}
		return
	}
	if len(l.cmds) > 0 {
		for range 1 + w.pick(len(l.cmds)) {
			l.obey()
		}
	}
}

func (w *world) playTime() {
	w.now += int64(w.pick(60))
	w.anyGateway().flush()
}

func (w *world) playFlush() { w.anyGateway().flush() }

func (w *world) playCanary() {
	g := w.anyGateway()
	g.canary(w.pick(len(g.links)))
}

func (w *world) playLinkFault() {
	g := w.anyGateway()
	n := w.pick(len(g.links))
	l := g.links[n]
	if !l.up {
		return
	}
	switch w.pick(3) {
	case 0: // noticed, when some of what was on the way has come
		if w.trace != nil {
			w.logf("g%d link %d is cut", g.id, n)
		}
		l.down = l.down[:w.pick(len(l.down)+1)]
		l.severed, l.deaf = true, true
	case 1: // silently
		if w.trace != nil {
			w.logf("g%d link %d is half-open", g.id, n)
		}
		l.severed = true
	case 2: // a full buffer, or a reset
		g.breakLink(n)
	}
}

func (w *world) playFailover() {
	s := w.shards[w.pick(len(w.shards))]
	if s.old != nil {
		if w.trace != nil {
			w.logf("shard %d: the old primary becomes a replica", s.id)
		}
		s.resync()
		return
	}
	w.count.Failovers++
	lost := s.failover()
	if w.trace != nil {
		w.logf("shard %d fails over to node %d, %d writes lost", s.id, s.node, lost)
	}
}

func (w *world) playView() {
	g := w.anyGateway()
	n := w.pick(len(g.view))
	g.view[n] = w.shards[n].node
}

func (w *world) playFlushAll() {
	if w.pick(2) == 0 {
		w.count.Flushes++
		w.flush(w.shards[w.pick(len(w.shards))])
	}
}

// playKill is a kill -9 of a gateway, which comes back with nothing.
func (w *world) playKill() {
	if w.pick(2) == 0 {
		w.kill(w.pick(len(w.gateways)))
	}
}

func (w *world) kill(i int) {
	w.count.Kills++
	if w.trace != nil {
		w.logf("g%d is killed", i)
	}
	for _, l := range w.gateways[i].loops {
		for _, cn := range l.conns {
			cn.c.dropped()
		}
	}
	w.gateways[i] = w.newGateway(i)
}
