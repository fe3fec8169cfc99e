package loop

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// Long poll: a request waits for events, and its answer is made of them and of the
// positions to ask from next. To the hub every poll is a connection of its own: it
// begins like one that resumes and ends with the answer, and what came too late for
// it comes with the next. Between polls only the socket stays.
//
// Events are kept as the frames that others get, not as bytes; nothing is written
// before the answer. It is made at the end of a turn (answerPolls), because it ends
// the connection, and events are handed out in walks over a room.

const (
	// lateCatchUpTicks is how long an answer waits for the rest of what was missed
	// when some of it is there: a partition that does not answer delays nobody.
	lateCatchUpTicks = 1000 / tickMs
	// onTheWayTicks is how long a poll that does not want to wait does so when there
	// is nothing: what was just acknowledged may still be on its way from Redis.
	onTheWayTicks = 100 / tickMs
	// startTicks is how long a poll may take to start, however short its wait, and
	// hello to come: it has a deadline of five seconds (follow.Config.HelloMs).
	startTicks = 6000 / tickMs
	// idleTicks is how long a socket is kept for the next poll.
	idleTicks = 30_000 / tickMs
)

var (
	errPollRate    = &refusal{status: 429, outcome: UpgradeRate, code: protocol.ErrRateLimited, detail: "too many polls", header: "Retry-After: 1\r\n"}
	errNotFollowed = &refusal{status: 503, outcome: UpgradeUnavailable, code: protocol.ErrUnavailable, detail: "the user's rooms can't be reached now"}
)

// waiting is a poll that is not answered yet.
type waiting struct {
	frames []*edge.Frame
	bytes  int
	start  *edge.Frame // edge.Polled; nil: not told yet
	end    *edge.Frame // `resumed`; nil: something is still owed
	endAt  int         // how many of frames came before it
	full   bool        // what comes is for the next poll
	closes bool        // the client sends no other request
	since  uint32      // tick it began at
	wait   uint32      // ticks; 0: it only asks what there is
	origin []byte      // whose pages may read the answer; nil: nobody's
	// whispers are those of frames that are nowhere but here; told those that are in
	// an answer.
	whispers, told int32
}

// openPoll begins to wait.
func (l *loop) openPoll(slot uint32, c *conn, req *request, claims auth.Claims, ask session.Ask) *refusal {
	if bad := l.sit(c, &claims); bad != nil {
		return bad
	}
	c.form = collected
	if !c.has(flagSeated) {
		l.stats.Upgrades[UpgradeOK]++
		l.seated(c)
	}
	// One that asks again before it has taken its answers is not given more of them.
	if !c.session.Allow(l.nowMs, &l.g.opts.Session) || c.qbytes > l.queueBytes {
		return errPollRate
	}
	w := &waiting{since: l.tick, closes: req.closes, wait: ticksOf(ask.Wait), origin: bytes.Clone(l.g.readableBy(req))}
	l.polls[slot] = w
	l.stats.Polls++
	c.deadline = l.tick + w.wait
	if w.wait == 0 {
		c.deadline += startTicks
	}
	l.opened(slot, c, claims, edge.Event{Resume: true, Known: ask.Conn})
	l.positions(slot, c, ask.Positions)
	return nil
}

// collectWhisper takes an event that only the hub has, and counts it if it is taken.
func (l *loop) collectWhisper(slot uint32, c *conn, f *edge.Frame) {
	w := l.polls[slot]
	had := len(w.frames)
	l.collect(slot, c, f)
	w.whispers += int32(len(w.frames) - had)
}

// collect takes an event for a poll.
func (l *loop) collect(slot uint32, c *conn, f *edge.Frame) {
	w := l.polls[slot]
	switch {
	case w.full:
		return
	case !f.ID.IsZero():
	case w.start == nil && edge.IsPolled(f.JSON()):
		w.start = f
		return
	case protocol.IsResumed(f.JSON()):
		w.end, w.endAt = f, len(w.frames)
		switch {
		case len(w.frames) > 0:
			l.answerInTurn(slot, c, w)
		case w.wait == 0:
			c.deadline = l.tick + onTheWayTicks
			l.schedule(slot, c, c.deadline)
		}
		return
	}
	size := len(f.JSON()) + 1
	if w.bytes+size > int(l.queueBytes) && len(w.frames) > 0 {
		w.full = true
		l.answerSoon(slot, c)
		return
	}
	w.frames = append(w.frames, f)
	w.bytes += size
	l.stats.Deliveries++
	switch {
	case w.end != nil:
		l.answerInTurn(slot, c, w)
	case len(w.frames) == 1 && c.deadline > l.tick+lateCatchUpTicks:
		c.deadline = l.tick + lateCatchUpTicks
		l.schedule(slot, c, c.deadline)
	}
}

// pollDue: a poll has waited as long as it wanted to.
func (l *loop) pollDue(slot uint32, c *conn) {
	if w := l.polls[slot]; w.start == nil && l.tick < w.since+startTicks {
		c.deadline = w.since + startTicks
		return
	}
	l.answerPoll(slot, c)
}

// answerInTurn has a poll answered that has something. In a busy room that would be
// at once, and the next poll as well: as often as a client may poll, and then it
// would be refused. So once half of its burst is used up, the answer waits, and what
// comes meanwhile goes along.
func (l *loop) answerInTurn(slot uint32, c *conn, w *waiting) {
	if w.wait == 0 || !c.session.Hurried(l.nowMs, &l.g.opts.Session) {
		l.answerSoon(slot, c)
		return
	}
	if due := l.tick + 2*l.pollTicks; c.deadline > due {
		c.deadline = due
		l.schedule(slot, c, due)
	}
}

// answerSoon has a poll answered at the end of the turn.
func (l *loop) answerSoon(slot uint32, c *conn) {
	if !c.has(flagAnswer) {
		c.set(flagAnswer)
		l.answers = append(l.answers, slot)
	}
}

// answerPolls answers those that have what they waited for.
func (l *loop) answerPolls() {
	for len(l.answers) > 0 {
		slot := l.answers[len(l.answers)-1]
		l.answers = l.answers[:len(l.answers)-1]
		l.at.slot = slot
		if c := l.conns.at(slot); c.has(flagAnswer) {
			l.answerPoll(slot, c)
		}
	}
	l.at.slot = 0
}

// answerPoll answers a poll with what there is, and waits for the next request.
func (l *loop) answerPoll(slot uint32, c *conn) {
	l.settle(c)
	w := l.polls[slot]
	if w.start == nil {
		l.endPoll(slot, c, ClosedByHub, appendRefusal(l.pool.Get(768+len(w.origin)), spread(errNotFollowed), w.origin))
		return
	}
	if w.closes {
		l.endPoll(slot, c, ClosedByClient, l.pollAnswer(w, "close"))
		return
	}
	l.enqueueOwn(slot, c, l.pollAnswer(w, "keep-alive"))
	l.stopReceiving(slot, c)
	c.phase, c.expires = phaseIdle, 0
	c.set(flagReused)
	c.deadline = l.tick + idleTicks
	l.schedule(slot, c, c.deadline)
	l.takeAhead(slot, c)
}

// takesAnswer: a poll's answer is being written, and its client still takes some of
// it. It is all that it gets: were it cut, it would ask for the same again.
func (l *loop) takesAnswer(c *conn) bool {
	if c.form != collected || !c.unwritten() || l.tick >= c.lastRead+l.slowTicks {
		return false
	}
	c.deadline = c.lastRead + l.slowTicks
	return true
}

// byePoll answers a poll with what there is, and a `bye`.
func (l *loop) byePoll(slot uint32, c *conn, why CloseReason, reason protocol.ByeReason) {
	l.settle(c)
	w := l.polls[slot]
	if w.start == nil { // there are no positions to go on from: it asks again with those it has
		bad := l.full()
		if reason == protocol.ByeRevoked || reason == protocol.ByeTokenExpired {
			bad = errOldToken
		}
		l.endPoll(slot, c, why, appendRefusal(l.pool.Get(768+len(w.origin)), bad, w.origin))
		return
	}
	retryInMs := l.retryInMs(why)
	w.frames = append(w.frames, edge.NewFrame(64, func(b []byte) []byte { return protocol.AppendBye(b, reason, retryInMs) }))
	l.endPoll(slot, c, why, l.pollAnswer(w, "close"))
}

// endPoll writes the last answer of a connection.
func (l *loop) endPoll(slot uint32, c *conn, why CloseReason, answer []byte) {
	l.enqueueOwn(slot, c, answer)
	l.leave(slot, c, why)
	l.dropCarry(slot, c)
	l.startClosing(slot, c)
}

// wakeIdle takes the first bytes of a socket's next request.
func (l *loop) wakeIdle(slot uint32, c *conn, p []byte) {
	c.phase = phaseHead
	l.heads++
	l.headsChanged()
	c.deadline = l.tick + l.headTicks
	l.schedule(slot, c, c.deadline)
	l.receivedHead(slot, c, p)
}

// receivedAhead takes what a client sends while its poll waits: its next request,
// which is served after this one.
func (l *loop) receivedAhead(slot uint32, c *conn, p []byte) {
	if !c.has(flagCarry) {
		l.carry(slot, c)
	}
	k := l.carries[slot]
	if len(k.head)+len(p) > l.g.opts.MaxHeadBytes {
		l.polls[slot].closes = true // RFC 9112 §9.6: what is behind the answer that closes is not served
		l.dropCarry(slot, c)
		l.answerSoon(slot, c)
		return
	}
	k.head = l.pool.Append(k.head, p)
}

// keepAhead leaves in a carry what is behind a request.
func (l *loop) keepAhead(slot uint32, c *conn, k *carry, whole int) {
	if len(k.head) == whole {
		l.dropCarry(slot, c)
		return
	}
	k.head = k.head[:copy(k.head, k.head[whole:])]
	l.freeBody(k)
}

// takeAhead goes on with what was received ahead.
func (l *loop) takeAhead(slot uint32, c *conn) {
	if !c.has(flagCarry) {
		return
	}
	k := l.carries[slot]
	rest := l.readBuf[:copy(l.readBuf, k.head)]
	l.dropCarry(slot, c)
	if len(rest) > 0 {
		l.wakeIdle(slot, c, rest)
	}
}

// pollAnswer makes the answer: the events in order, and the positions after them.
func (l *loop) pollAnswer(w *waiting, connection string) []byte {
	w.told = w.whispers
	at := edge.ParsePolled(w.start.JSON())
	size := 64 + len(at.Conn) + w.bytes
	for i, f := range w.frames {
		if w.end != nil && i == w.endAt {
			w.move(&at, w.end)
		}
		w.move(&at, f)
	}
	if w.end != nil && w.endAt == len(w.frames) {
		w.move(&at, w.end)
	}
	for room := range at.Rooms {
		size += len(room) + protocol.MaxIDLen + 6
	}
	body := append(l.pool.Get(size), `{"events":[`...)
	for i, f := range w.frames {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, f.JSON()...)
	}
	body = append(body, `],"rooms":{`...)
	for _, room := range slices.Sorted(maps.Keys(at.Rooms)) {
		body = edge.AppendPosition(body, room, at.Rooms[room])
	}
	body = append(body, `},"rooms_rev":`...)
	body = strconv.AppendUint(body, at.RoomsRev, 10)
	body = append(body, `,"conn":`...)
	body = protocol.AppendString(body, at.Conn)
	body = append(body, '}', '\n')

	head := append(l.scratch[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nConnection: "...)
	head = append(head, connection...)
	head = append(head, "\r\n"...)
	head = appendCORS(head, w.origin)
	head = append(head, "Content-Length: "...)
	head = strconv.AppendInt(head, int64(len(body)), 10)
	head = append(head, "\r\n\r\n"...)
	l.scratch = head
	answer := append(append(l.pool.Get(len(head)+len(body)), head...), body...)
	l.pool.Put(body)
	return answer
}

// move takes an event into the positions.
func (w *waiting) move(at *edge.Polled, f *edge.Frame) {
	if !f.ID.IsZero() {
		at.Rooms[protocol.MessageRoom(f.JSON())] = f.ID
		return
	}
	var ev struct {
		Type     string      `json:"type"`
		Room     string      `json:"room"`
		User     string      `json:"user"`
		Head     protocol.ID `json:"head"`
		RoomsRev uint64      `json:"rooms_rev"`
	}
	switch protocol.TypeOf(f.JSON()) {
	case "gap", "joined", "left", "resumed":
	default:
		return // it moves nothing
	}
	if json.Unmarshal(f.JSON(), &ev) != nil {
		return
	}
	own := ev.User == at.User
	switch {
	// A joined without a revision is the room's, for the others: messages that it
	// comes behind may still wait.
	case ev.Type == "gap", ev.Type == "joined" && own && ev.RoomsRev != 0:
		at.Rooms[ev.Room] = ev.Head
	case ev.Type == "left" && own:
		delete(at.Rooms, ev.Room)
	}
	if ev.RoomsRev != 0 && (own || ev.Type == "resumed") {
		at.RoomsRev = ev.RoomsRev
	}
}
