package follow

import "github.com/madang-chat/madang/internal/chat"

// LinkUp takes in that a link was made, for the gen-th time, and carries nothing
// yet. Everything on it is subscribed again at the end of the turn, and audited
// as its confirmations come (L2).
func (c *Core) LinkUp(n int, gen uint64) {
	l := &c.links[n]
	if gen < l.gen {
		return
	}
	*l = link{gen: gen, up: true, made: true}
}

// LinkDown takes in that a link may have missed events since it last spoke.
// Answers to audits that were under way on it no longer count.
func (c *Core) LinkDown(n int, gen uint64) {
	l := &c.links[n]
	if gen < l.gen {
		return
	}
	l.up, l.made = false, false
	for _, u := range c.userList {
		if u != nil && int(u.link) == n {
			u.confirmed = false
			u.readTok = 0
		}
	}
	for _, r := range c.roomList {
		if r != nil && int(r.link) == n {
			r.confirmed = false
			c.unask(r)
		}
	}
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
	for _, u := range c.userList {
		if u != nil && c.links[u.link].made {
			c.out.Subscribe(int(u.link), c.links[u.link].gen, u.channel())
		}
	}
	for _, r := range c.roomList {
		if r != nil && c.links[r.link].made {
			c.out.Subscribe(int(r.link), c.links[r.link].gen, r.channel())
		}
	}
	for i := range c.links {
		c.links[i].made = false
	}
}

// subscribe asks for a channel now, unless its link is down or was made in this
// turn: then resubscribe does.
func (c *Core) subscribe(n int32, ch chat.Channel) {
	if l := &c.links[n]; l.up && !l.made {
		c.out.Subscribe(int(n), l.gen, ch)
	}
}

func (c *Core) unsubscribe(n int32, ch chat.Channel) {
	if l := &c.links[n]; l.up {
		c.out.Unsubscribe(int(n), l.gen, ch)
	}
}

// Confirmed takes in that a link carries a channel from here on.
func (c *Core) Confirmed(n int, gen uint64, ch chat.Channel) {
	if l := &c.links[n]; !l.up || l.gen != gen {
		return
	}
	switch ch.Kind {
	case chat.UserChannel:
		if u := c.users[ch.Name]; u != nil && !u.confirmed {
			u.confirmed = true
			c.readUser(u)
		}
	case chat.RoomChannel:
		if r := c.rooms[ch.Name]; r != nil && !r.confirmed {
			r.confirmed = true
			r.audit = r.state != roomNew
			c.wantAsk(r)
		}
	}
}

// Event takes in a publication.
func (c *Core) Event(now int64, n int, gen uint64, ch chat.Channel, payload []byte) {
	if l := &c.links[n]; !l.up || l.gen != gen {
		return
	}
	switch ch.Kind {
	case chat.UserChannel:
		if u := c.users[ch.Name]; u != nil {
			c.userEvent(now, u, payload)
		}
	case chat.RoomChannel:
		if r := c.rooms[ch.Name]; r != nil {
			c.roomEvent(now, r, payload)
		}
	}
}

// Canary takes in a partition's epoch. A new one means that Redis lost the
// partition's data: every room in it is told a gap as soon as its new head is
// known, and every user's index is read again. On a standalone server one
// partition stands for all that its link carries.
func (c *Core) Canary(n int, gen uint64, partition int, epoch string) {
	if l := &c.links[n]; l.gen != gen {
		return
	}
	old, known := c.epochs[partition]
	c.epochs[partition] = epoch
	if !known || old == epoch {
		return
	}
	for _, r := range c.roomList {
		if r != nil && int(r.link) == n {
			r.lost = true
			r.audit = r.state != roomNew
			if r.confirmed {
				c.unask(r)
				c.wantAsk(r)
			}
		}
	}
	for _, u := range c.userList {
		if u != nil && int(u.link) == n && u.confirmed {
			c.readUser(u)
		}
	}
}
