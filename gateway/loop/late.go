package loop

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/wsframe"
)

// How late a busy room is, is asked of its clients: a few of them, chosen by
// chance, get a WebSocket ping behind what is queued for them, and answer it when
// they have read that far. What sits in kernels' buffers on the way, megabytes if
// they like, counts too; a socket that takes bytes says nothing about it. The
// median decides, so that slow readers make no room late; of a user one connection is
// asked at a time.
//
// Who takes events can't be asked. Of it the kernel tells how far its peer has
// acknowledged: what the peer's own kernel holds unread does not count, until that is
// full. A poll is not probed: what it is given is bounded, and it asks for more itself.

const (
	// lateEveryMs is how often hot rooms are judged and reported.
	lateEveryMs = 100
	// probeEveryMs is how often a client that answered may be asked again: an
	// answer wakes it, and costs it battery.
	probeEveryMs = 250
	// hotEvents within lateEveryMs make a room hot: slower rooms can't fall behind
	// as a whole before their readers are slow one by one.
	hotEvents = 8
	// coldAfterMs without that many events, a room is hot no more.
	coldAfterMs = 1000
	// maxHot bounds the rooms that a loop probes.
	maxHot = 64
	// sampleSize is how many of a room's connections are asked. Of nine, five must
	// be late.
	sampleSize = 9
	// minSample is how many must have been asked for their median to mean the room:
	// with fewer, one phone that fell asleep would.
	minSample = 5
	// probeLostMs is when an answer is no longer waited for.
	probeLostMs = 10_000
)

// lateRooms is what a loop knows of its busy rooms.
type lateRooms struct {
	hot      map[edge.RoomNum]*hotRoom
	probed   map[uint32]*probe // by slot: pings that are out
	seq      uint32
	reported int64
}

type hotRoom struct {
	events int32 // since the last report
	hotAt  int64 // when it was hot last
	probes []*probe
	// passed are those that were not answered when most were: they do not count any
	// more. Their clients are not asked again until they have answered.
	passed []*probe
	// wayMs is what an answer takes when nothing is queued: the least that half of
	// those asked have taken since the room is hot. 0: not known.
	wayMs int64
}

// probe is a ping to one of a room's connections, or what one that takes events has
// to acknowledge.
type probe struct {
	slot, gen uint32
	seq       uint32
	events    bool
	due       uint64 // bytes acknowledged, since it was opened
	sentMs    int64
	tookMs    int64 // -1: no answer yet
}

// heat counts events of a room.
func (l *loop) heat(rm *room, num edge.RoomNum, events uint32) {
	if h := l.late.hot[num]; h != nil {
		h.events += int32(events)
		return
	}
	if l.tick-rm.heatTick >= lateEveryMs/tickMs {
		rm.heatTick, rm.heat = l.tick, 0
	}
	if rm.heat += events; rm.heat >= hotEvents && len(l.late.hot) < maxHot {
		l.late.hot[num] = &hotRoom{events: int32(rm.heat), hotAt: edge.NowMs()}
	}
}

// reportLate asks, and tells the hub how the busy rooms fare.
func (l *loop) reportLate() {
	if len(l.late.hot) == 0 {
		return
	}
	now := edge.NowMs()
	if now-l.late.reported < lateEveryMs {
		return
	}
	l.late.reported = now
	for num, h := range l.late.hot {
		rm := l.rooms.get(num)
		if h.events >= hotEvents {
			h.hotAt = now
		}
		if rm == nil || len(rm.members) == 0 || now-h.hotAt > coldAfterMs {
			l.cool(num, h)
			continue
		}
		l.prune(h, now)
		l.lookAcked(h, now)
		l.report(edge.Event{Kind: edge.EvHot, RoomNum: num, LateMs: int32(h.late(now)), Events: h.events, Members: int32(len(rm.members))})
		h.events = 0
		l.probe(rm, h, now)
	}
}

// late is the median age of what the asked connections have read, less what the
// way there and back takes.
func (h *hotRoom) late(now int64) int64 {
	if len(h.probes) < minSample {
		return 0
	}
	var took, ages [sampleSize]int64
	answered := 0
	for i, p := range h.probes {
		if ages[i] = p.tookMs; p.tookMs < 0 {
			ages[i] = now - p.sentMs
			continue
		}
		took[answered] = p.tookMs
		answered++
	}
	if answered >= minSample {
		if way := median(took[:answered]); h.wayMs == 0 || way < h.wayMs {
			h.wayMs = max(1, way)
		}
	}
	return max(0, median(ages[:len(h.probes)])-h.wayMs)
}

// mostAnswered says whether the median is of those who have answered.
func (h *hotRoom) mostAnswered() bool {
	answered := 0
	for _, p := range h.probes {
		if p.tookMs >= 0 {
			answered++
		}
	}
	return 2*answered > len(h.probes)
}

// median sorts; of an even number it is the lower one.
func median(of []int64) int64 {
	slices.Sort(of)
	return of[(len(of)-1)/2]
}

// prune forgets whom it is pointless to wait for: a connection that is closing
// reads nothing and says nothing of its room.
func (l *loop) prune(h *hotRoom, now int64) {
	pointless := func(p *probe) bool {
		c := l.conns.get(p.slot, p.gen)
		return c == nil || c.phase != phaseOpen || now-p.sentMs >= probeLostMs
	}
	h.probes = l.forgetProbes(h.probes, pointless)
	h.passed = l.forgetProbes(h.passed, func(p *probe) bool { return p.tookMs >= 0 || pointless(p) })
}

// lookAcked finds out what was acknowledged of events. It is looked at so seldom that it
// may have taken that much less.
func (l *loop) lookAcked(h *hotRoom, now int64) {
	for _, p := range slices.Concat(h.probes, h.passed) {
		if !p.events || p.tookMs >= 0 {
			continue
		}
		if acked, _, ok := sysAcked(int(l.conns.at(p.slot).fd)); ok && acked >= p.due {
			p.tookMs = max(0, now-p.sentMs-lateEveryMs)
		}
	}
}

// probe replaces the probes of a while ago by new ones, when they have told what they
// can: those that were answered and, once most were, the others, as long as there are
// enough to ask instead. Did these stay, who answers nothing would gather among those
// asked, however few of the room they are.
func (l *loop) probe(rm *room, h *hotRoom, now int64) {
	most := h.mostAnswered()
	h.probes = slices.DeleteFunc(h.probes, func(p *probe) bool {
		switch {
		case now-p.sentMs < probeEveryMs:
			return false
		case p.tookMs >= 0:
			l.forgetProbe(p)
			return true
		case most && len(rm.members)-len(h.passed) > sampleSize:
			h.passed = append(h.passed, p)
			return true
		}
		return false
	})
	for range sampleSize - len(h.probes) {
		slot := rm.members[rand.IntN(len(rm.members))]
		c := l.conns.at(slot)
		if l.late.probed[slot] != nil || c.phase != phaseOpen || c.form == collected || l.isAsked(h, c.user) {
			continue
		}
		l.late.seq++
		p := &probe{slot: slot, gen: c.gen, seq: l.late.seq, sentMs: now, tookMs: -1}
		if p.events = c.form.transport() == edge.SSE; p.events {
			acked, sent, ok := sysAcked(int(c.fd))
			if !ok {
				continue
			}
			p.due = acked + sent + uint64(c.qbytes)
		}
		l.late.probed[slot] = p
		h.probes = append(h.probes, p)
		if p.events {
			continue
		}
		var payload [4]byte
		binary.BigEndian.PutUint32(payload[:], p.seq)
		l.enqueueOwn(slot, c, wsframe.AppendControl(l.pool.Get(8), wsframe.Ping, payload[:]))
	}
}

// isAsked says whether one of a user's connections is asked already: whoever has many
// is one reader all the same, and may want the room to be called late.
func (l *loop) isAsked(h *hotRoom, user uint32) bool {
	return slices.ContainsFunc(h.probes, func(p *probe) bool { return l.conns.at(p.slot).user == user })
}

// forgetProbes forgets some of probes.
func (l *loop) forgetProbes(probes []*probe, some func(*probe) bool) []*probe {
	return slices.DeleteFunc(probes, func(p *probe) bool {
		if !some(p) {
			return false
		}
		l.forgetProbe(p)
		return true
	})
}

func (l *loop) forgetProbe(p *probe) {
	if l.late.probed[p.slot] == p {
		delete(l.late.probed, p.slot)
	}
}

func (l *loop) cool(num edge.RoomNum, h *hotRoom) {
	for _, p := range slices.Concat(h.probes, h.passed) {
		l.forgetProbe(p)
	}
	delete(l.late.hot, num)
}

// ponged takes a pong, and says whether it was asked for: each of our pings has one,
// which does not count against what the client may say. A client that says a lot
// in a busy room would else be closed for our questions.
func (l *loop) ponged(slot uint32, c *conn, payload []byte) (asked bool) {
	if len(payload) == 0 && c.has(flagPongOwed) {
		c.clear(flagPongOwed)
		return true
	}
	p := l.late.probed[slot]
	if p == nil || p.gen != c.gen || len(payload) != 4 || binary.BigEndian.Uint32(payload) != p.seq || p.tookMs >= 0 {
		return false
	}
	p.tookMs = edge.NowMs() - p.sentMs
	return true
}
