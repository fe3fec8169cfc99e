package follow

import "github.com/madang-chat/madang/gateway/fifo"

// auditing paces audits. When many links break at once (a primary failed, the
// network was away) everything on them is to be compared, by every gateway of the
// fleet at the same time; what a user who comes back waits for, and sends, must
// not stand behind that. So audits go out by a budget, in the order in which
// their channels were confirmed; what is asked for somebody who waits does not
// wait here, and takes the audit of its room along.
type auditing struct {
	waiting  fifo.Queue[audit]
	tokens   float64 // audits that may go now
	lastTick int64
}

// audit is a room or a user whose state is to be compared.
type audit struct {
	r   *room
	u   *user
	tok Token // of the user's read: another one has taken its place when it differs
}

// auditBurst is for how long an unused budget is kept, in milliseconds: of a small
// gateway everything is compared at once.
const auditBurst = 50

// auditLater has a user's index compared when the budget allows. Until it is read
// joined and left wait, as behind any read.
func (c *Core) auditLater(u *user) {
	u.readTok = c.nextToken()
	c.audits.waiting.Push(audit{u: u, tok: u.readTok})
}

// compare asks for a user's index: at once the first time, for which somebody
// waits.
func (c *Core) compare(u *user) {
	if u.known {
		c.auditLater(u)
	} else {
		c.readUser(u)
	}
}

// mostAudits is how much of the budget is kept.
func (c *Core) mostAudits() float64 {
	return max(1, float64(c.cfg.AuditsPerSecond)*auditBurst/1000)
}

// tickAudits lets the budget grow.
func (c *Core) tickAudits(now int64) {
	a := &c.audits
	more := float64(c.cfg.AuditsPerSecond) * float64(max(now-a.lastTick, 0)) / 1000
	a.tokens = min(a.tokens+more, c.mostAudits())
	a.lastTick = now
}

// pumpAudits sends what the budget allows.
func (c *Core) pumpAudits() {
	for a := &c.audits; a.tokens >= 1; {
		next, ok := a.waiting.Pop()
		switch {
		case !ok:
			return
		case next.r != nil:
			next.r.inAudits = false
			if !c.askRoom(next.r) {
				continue // dropped, asked for somebody meanwhile, or silent again
			}
		case next.u.readTok != next.tok:
			continue
		default:
			c.out.ReadUser(next.tok, next.u.name)
		}
		a.tokens--
	}
}
