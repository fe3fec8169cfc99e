package sim

// actions are what may happen in a step, with how often. Each says whether it
// could happen in the present state.
var actions = []struct {
	weight int
	fault  bool
	do     func(w *world) bool
}{
	{14, false, (*world).playSend},
	{4, false, (*world).playMember},
	{5, false, (*world).playSweep},
	{2, false, (*world).playTrim},
	{6, false, (*world).playReplicate},
	{9, false, (*world).playConnect},
	{3, false, (*world).playDisconnect},
	{14, false, (*world).playReceive},
	{8, false, (*world).playClient},
	{20, false, (*world).playLinks},
	{12, false, (*world).playReads},
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

// tries is how many actions a step tries until one can happen.
const tries = 4

func (w *world) play() {
	for range tries {
		n := w.pick(totalWeight)
		i := 0
		for n >= actions[i].weight {
			n -= actions[i].weight
			i++
		}
		if a := actions[i]; (!a.fault || w.faults) && a.do(w) {
			return
		}
	}
}

func (w *world) anyShard() *shard     { return w.shards[w.pick(len(w.shards))] }
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

func (w *world) playSend() bool {
	room := w.anyRoom()
	s := w.roomShard(room)
	if !s.data().rooms[room].exists && w.pick(3) == 0 {
		var members [maxUsers]bool
		for u := range w.users {
			members[u] = w.pick(2) == 0
		}
		w.create(room, members, s.node)
		return true
	}
	n := 1 + w.pick(8)/5
	if w.pick(12) == 0 {
		n = 4 + w.pick(8) // more than a resume may fill, or a slow socket hold
	}
	sent := false
	for range n {
		sent = w.send(room, w.anyUser(), w.writer(s)) || sent
	}
	return sent
}

func (w *world) playMember() bool {
	room, user := w.anyRoom(), w.anyUser()
	node := w.writer(w.roomShard(room))
	if w.pick(3) == 0 { // and back again at once
		is := w.roomShard(room).data().rooms[room].members[user]
		return w.setMember(room, user, !is, node) && w.setMember(room, user, is, node)
	}
	return w.setMember(room, user, w.pick(5) > 1, node)
}

func (w *world) playSweep() bool {
	s := w.anyShard()
	n := len(s.data().outbox)
	if n > 0 {
		w.sweep(s, w.pick(n), w.pick(5) == 0)
	}
	return n > 0
}

func (w *world) playTrim() bool { return w.trim(w.anyRoom(), 1+w.pick(6)) }

func (w *world) playReplicate() bool {
	s := w.anyShard()
	behind := len(s.history) - 1
	if s.old != nil || behind == 0 {
		return false
	}
	s.history = s.history[1+w.pick(behind):]
	return true
}

func (w *world) playConnect() bool {
	c := w.anyClient()
	if c.conn != nil {
		return false
	}
	c.connect(w.anyGateway(), w.pick(w.loopsPerGateway), w.pick(3) != 0, w.pick(4) == 0)
	return true
}

func (w *world) playDisconnect() bool {
	c := w.anyClient()
	if c.conn == nil {
		return false
	}
	c.conn.l.close(c.conn)
	return true
}

func (w *world) playReceive() (did bool) {
	c := w.anyClient()
	if c.lazy && w.pick(4) != 0 {
		return false
	}
	if c.polls && c.conn != nil { // often before all of it has come
		c.answered()
		return true
	}
	for range 1 + w.pick(4) {
		if c.conn != nil && len(c.conn.wire) > 0 {
			c.conn.receive()
			did = true
		}
	}
	return did
}

func (w *world) playClient() bool {
	c := w.anyClient()
	switch {
	case c.conn != nil && c.resume && !c.positions && (c.greeted || w.pick(2) == 0):
		forget := -1
		if w.pick(6) == 0 {
			forget = w.anyRoom()
		}
		c.sendPositions(w.pick(3) == 0, forget)
		return true
	case c.conn != nil && c.list && c.greeted:
		c.listRooms()
		return true
	}
	room := w.anyRoom()
	return c.views[room].hole && c.page(room)
}

func (w *world) playLinks() bool {
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
	default:
		return false
	}
	return true
}

func (w *world) playReads() bool {
	g := w.anyGateway()
	if len(g.reads) == 0 {
		return false
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
	return true
}

func (w *world) playLoops() bool {
	g := w.anyGateway()
	l := g.loops[w.pick(len(g.loops))]
	if w.pick(2) == 0 {
		if len(l.events) == 0 {
			return false
		}
		l.handle()
		return true
	}
	if len(l.cmds) == 0 {
		return false
	}
	for range 1 + w.pick(len(l.cmds)) {
		l.obey()
	}
	return true
}

func (w *world) playTime() bool {
	w.now += int64(w.pick(60))
	return w.playFlush()
}

func (w *world) playFlush() bool {
	w.anyGateway().flush()
	return true
}

func (w *world) playCanary() bool {
	g := w.anyGateway()
	g.canary(w.pick(len(g.links)))
	return true
}

func (w *world) playLinkFault() bool {
	g := w.anyGateway()
	n := w.pick(len(g.links))
	l := g.links[n]
	if !l.up {
		return false
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
	return true
}

func (w *world) playFailover() bool {
	s := w.anyShard()
	if s.old != nil {
		if w.trace != nil {
			w.logf("shard %d: the old primary becomes a replica", s.id)
		}
		s.resync()
		return true
	}
	w.count.Failovers++
	lost := s.failover()
	if w.trace != nil {
		w.logf("shard %d fails over to node %d, %d writes lost", s.id, s.node, lost)
	}
	return true
}

// playView lets a gateway learn who the primary is.
func (w *world) playView() bool {
	g := w.anyGateway()
	n := w.pick(len(g.view))
	if g.view[n] == w.shards[n].node {
		return false
	}
	g.view[n] = w.shards[n].node
	return true
}

func (w *world) playFlushAll() bool {
	if w.pick(2) == 0 {
		return false
	}
	w.count.Flushes++
	w.flush(w.anyShard())
	return true
}

// playKill is a kill -9 of a gateway, which comes back with nothing.
func (w *world) playKill() bool {
	if w.pick(2) == 0 {
		return false
	}
	i := w.pick(len(w.gateways))
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
	return true
}
