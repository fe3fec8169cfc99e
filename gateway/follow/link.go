package follow

import "github.com/madang-chat/madang/internal/chat"

// link is what is known of one subscriber link.
type link struct {
	gen  uint64
	up   bool
	made bool // LinkUp came in this turn; subscriptions are still to be asked for
	// stale counts, by channel, confirmations still to come of subscriptions that
	// were given up before they were confirmed. Without it the confirmation of an
	// earlier subscription would pass for that of the present one, which the
	// server has not seen yet.
	stale map[chat.Channel]int
	owed  []owing // what holds its time back
}

// subscription is a channel that a user or a room needs.
type subscription struct {
	link      uint16
	partition uint16
	place     uint32 // in its table's list of the partition
	asked     bool   // of the present making of the link
	confirmed bool   // the link carries the channel
}

func (c *Core) newSubscription(ch chat.Channel) subscription {
	return subscription{link: uint16(c.cfg.LinkOf(ch)), partition: uint16(c.cfg.PartitionOf(ch))}
}

// LinkUp takes in that a link was made, for the gen-th time, and carries nothing
// yet. Everything on it is subscribed again at the end of the turn, and audited
// as its confirmations come (L2).
func (c *Core) LinkUp(n int, gen uint64) {
	l := &c.links[n]
	if gen <= l.gen {
		return
	}
	if l.up {
		c.silence(n)
	}
	*l = link{gen: gen, up: true, made: true}
}

// LinkDown takes in that a link may have missed events since it last spoke.
func (c *Core) LinkDown(n int, gen uint64) {
	l := &c.links[n]
	if gen != l.gen || !l.up {
		return
	}
	*l = link{gen: gen}
	c.silence(n)
}

// silence forgets what only a link that carries everything could vouch for:
// confirmations, events that wait behind an index, and every read under way. An
// answer may be older than what the link is silent about, and if it raised a
// room's head, a tail that was lost meanwhile would not look lost (L2).
func (c *Core) silence(n int) {
	silent := func(link int) bool { return link == n }
	for u := range c.people.on(silent) {
		u.sub.asked, u.sub.confirmed = false, false
		u.readTok = 0
		delete(c.waiting, u)
	}
	var waitedFor []*room
	for r := range c.rooms.on(silent) {
		r.sub.asked, r.sub.confirmed = false, false
		r.unask()
		r.logTok = 0
		if len(r.parked) > 0 {
			waitedFor = append(waitedFor, r)
		}
	}
	c.stuck(waitedFor...)
}

// resubscribe asks the links that were made in this turn to carry what is
// followed on them: one pass for all of them.
func (c *Core) resubscribe() {
	any := false
	for i := range c.links {
		any = any || c.links[i].made
	}
	if !any {
		return
	}
	made := func(link int) bool { return c.links[link].made }
	for u := range c.people.on(made) {
		c.ask(&u.sub, u.channel())
		c.owe(u.sub.link, owing{u: u})
	}
	for r := range c.rooms.on(made) {
		c.ask(&r.sub, r.channel())
		c.owe(r.sub.link, owing{r: r})
	}
	for i := range c.links {
		c.links[i].made = false
	}
}

func (c *Core) ask(s *subscription, ch chat.Channel) {
	s.asked = true
	c.out.Subscribe(int(s.link), c.links[s.link].gen, ch)
}

// subscribe asks for a channel now, unless its link is down or was made in this
// turn: then resubscribe does.
func (c *Core) subscribe(s *subscription, ch chat.Channel) {
	if l := &c.links[s.link]; l.up && !l.made {
		c.ask(s, ch)
	}
}

func (c *Core) unsubscribe(s *subscription, ch chat.Channel) {
	if !s.asked {
		return
	}
	l := &c.links[s.link]
	if !s.confirmed {
		if l.stale == nil {
			l.stale = map[chat.Channel]int{}
		}
		l.stale[ch]++
	}
	c.out.Unsubscribe(int(s.link), l.gen, ch)
}

// Confirmed takes in that a link carries a channel from here on. What follows it
// is read now, not before (F1).
func (c *Core) Confirmed(n int, gen uint64, ch chat.Channel) {
	l := &c.links[n]
	if !l.up || l.gen != gen {
		return
	}
	if l.stale[ch] > 0 {
		if l.stale[ch]--; l.stale[ch] == 0 {
			delete(l.stale, ch)
		}
		return
	}
	switch ch.Kind {
	case chat.UserChannel:
		if u := c.people.named(ch.Name); u != nil && !u.sub.confirmed {
			u.sub.confirmed = true
			c.compare(u)
		}
	case chat.RoomChannel:
		if r := c.rooms.named(ch.Name); r != nil && !r.sub.confirmed {
			r.sub.confirmed = true
			r.audit = r.state != roomNew
			c.wantAsk(r)
		}
	}
}

// Event takes in a publication.
func (c *Core) Event(n int, gen uint64, ch chat.Channel, payload []byte) {
	if l := &c.links[n]; !l.up || l.gen != gen {
		return
	}
	switch ch.Kind {
	case chat.UserChannel:
		if u := c.people.named(ch.Name); u != nil && u.sub.confirmed {
			c.userEvent(u, payload)
		}
	case chat.RoomChannel:
		if r := c.rooms.named(ch.Name); r != nil && r.sub.confirmed {
			c.roomEvent(r, payload)
		}
	}
}

// Canary takes in a partition's epoch. A new one means that Redis lost the
// partition's data, though its links may have stayed up: everything in it is read
// again and compared, and rooms' heads will be found behind, or not in the log
// (L3). The first one of a partition proves nothing about what was read before it.
func (c *Core) Canary(n int, gen uint64, partition int, epoch string) {
	if l := &c.links[n]; l.gen != gen {
		return
	}
	old, known := c.epochs[partition]
	c.epochs[partition] = epoch
	if known && old == epoch {
		return
	}
	for r := range c.rooms.in(partition) {
		r.audit = r.state != roomNew
		c.owe(r.sub.link, owing{r: r})
		r.unask()
		c.wantAsk(r)
	}
	for u := range c.people.in(partition) {
		if u.sub.confirmed {
			c.owe(u.sub.link, owing{u: u})
			c.compare(u)
		}
	}
}
