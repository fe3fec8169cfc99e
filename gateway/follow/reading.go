package follow

import "github.com/madang-chat/madang/protocol"

// reading is what a room needs while something of it is read, or is to be. Most
// rooms read nothing most of the time: they share one that is empty, and get one of
// their own from wake, which has to come before anything is put in it.
type reading struct {
	checks  []*membership // to be asked about
	asked   []*membership // being asked about
	askTok  Token
	askAll  bool        // with it everybody is asked about whom the room is followed for
	askHead protocol.ID // head when the question was sent (L3)

	pend      []pending // behind a read, in order
	pendBytes int
	pendOver  bool // some were dropped: the log is read on
	pendKnown int  // how many of them had come when Redis was asked: the answer has them, or they are lost

	logTok  Token
	logFrom protocol.ID
	logHead protocol.ID // head when the log was asked for (L3)
	// logChecked: everybody was asked about because members changed unheard of before what
	// was read; the log is read again.
	logChecked bool
	parked     []*pull
	failing    bool // the last answer was none
}

func (w *reading) done() bool {
	return w.askTok == 0 && w.logTok == 0 && !w.pendOver &&
		len(w.checks)+len(w.asked)+len(w.pend)+len(w.parked) == 0
}

// mostReadings is how many are kept to be used again.
const mostReadings = 256

// wake gives a room a reading of its own.
func (c *Core) wake(r *room) {
	if r.reading != c.atRest {
		return
	}
	if n := len(c.readings); n > 0 {
		r.reading, c.readings[n-1] = c.readings[n-1], nil
		c.readings = c.readings[:n-1]
	} else {
		r.reading = new(reading)
	}
}

// rest takes it back when nothing is read any more.
func (c *Core) rest(r *room) {
	if r.reading == c.atRest || !r.done() {
		return
	}
	if !r.dropped && len(c.readings) < mostReadings {
		*r.reading = reading{}
		c.readings = append(c.readings, r.reading)
	}
	r.reading = c.atRest
}
