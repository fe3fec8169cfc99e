package loop

import (
	"slices"

	"github.com/madang-chat/madang/internal/auth"
)

// A key that its issuer withdraws takes its connections along. Each remembers in two
// bytes which key signed its token (auth.KeyTag.Short), and nobody keeps a list of
// them: a loop walks once over all that it has. Who passes that walk can't be missed
// by it: what is verified after it began is verified with the keys that are left, and
// what was verified before is in some slot when the walk comes by.

const (
	// withdrawCloses is how many connections a turn closes, and withdrawLooks at how
	// many it looks: some milliseconds' worth, so that others are served in between.
	// A hundred thousand connections are closed within seconds.
	withdrawCloses = 256
	withdrawLooks  = 8192
)

// CloseKeys closes the connections whose tokens were signed with keys that are no
// longer good: `bye` with reason revoked, and close 4001. It is called after the
// verifier knows that they are not, and returns at once.
func (g *Group) CloseKeys(keys []auth.KeyTag) {
	short := make([]uint16, len(keys))
	for i, k := range keys {
		short[i] = k.Short()
	}
	for _, l := range g.loops {
		l.call(func() { l.withdraw(short) })
	}
}

// withdraw begins the walk, anew if it is under way.
func (l *loop) withdraw(keys []uint16) {
	l.withdrawn = append(l.withdrawn, keys...)
	l.withdrawAt = 1
}

// closeWithdrawn goes on with the walk.
func (l *loop) closeWithdrawn() {
	closed := 0
	for end := l.withdrawAt + withdrawLooks; l.withdrawAt < end && closed < withdrawCloses; {
		slot := l.withdrawAt
		if slot >= l.conns.used {
			l.withdrawn, l.withdrawAt = nil, 0
			break
		}
		l.withdrawAt++ // before, so that no slot is tried for ever
		l.at.slot = slot
		if l.closeIfWithdrawn(slot, l.conns.at(slot)) {
			closed++
		}
	}
	l.at.slot = 0
}

func (l *loop) closeIfWithdrawn(slot uint32, c *conn) bool {
	switch c.phase {
	case phaseOpen:
		if c.key != 0 && slices.Contains(l.withdrawn, c.key) {
			l.closeBye(slot, c, ClosedKeyWithdrawn)
			return true
		}
	case phaseBody:
		if key := l.carries[slot].claims.Key.Short(); key != 0 && slices.Contains(l.withdrawn, key) {
			l.refuse(slot, c, errBadToken)
			return true
		}
	case phaseTicket: // it may stand for such a token, and have been looked at before
		l.refuse(slot, c, spread(errTicketLate))
		return true
	}
	return false
}
