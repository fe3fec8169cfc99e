package loop

import "github.com/madang-chat/madang/gateway/edge"

const (
	// lateAfterMs is the lateness from which a room is reported. A loop that
	// writes to 5,000 sockets in a turn needs half of it.
	lateAfterMs = 50
	// lateEveryMs is how often late rooms are reported.
	lateEveryMs = 100
)

// lateness is kept with an item that is a room's: when half of the sockets that
// are to get it have taken it, the room as a whole has it. A few slow readers
// make no room late.
type lateness struct {
	heardMs int64
	room    edge.RoomNum
	half    int32 // references left when half of the sockets have taken it
	events  int32 // messages in the item; 0: not tracked, or taken
}

// lateRooms is what there is to report.
type lateRooms struct {
	rooms    map[edge.RoomNum]roomLate
	tracked  int // items that are on their way
	reported int64
}

type roomLate struct{ lateMs, took int32 }

func (r *lateRooms) busy() bool { return r.tracked > 0 || len(r.rooms) > 0 }

// track begins to watch an item that was queued for a room's members.
func (l *loop) track(i uint32, num edge.RoomNum, s *frameSet) {
	it := &l.out.items[i]
	if s.first == nil || s.first.HeardMs == 0 || it.refs == 0 {
		return
	}
	it.late = lateness{heardMs: s.first.HeardMs, room: num, half: it.refs / 2, events: int32(s.lasting)}
	l.late.tracked++
}

// took notes that half of a room's sockets have taken an item.
func (l *loop) took(t *lateness) {
	l.late.tracked--
	l.noteLate(t, edge.NowMs(), t.events)
	t.events = 0
}

func (l *loop) noteLate(t *lateness, now int64, took int32) {
	late := int32(now - t.heardMs)
	if late < lateAfterMs {
		return
	}
	r := l.late.rooms[t.room]
	r.lateMs = max(r.lateMs, late)
	r.took += took
	l.late.rooms[t.room] = r
}

// reportLate tells the hub which rooms are late, those included whose sockets
// take nothing at all.
func (l *loop) reportLate() {
	if !l.late.busy() {
		return
	}
	now := edge.NowMs()
	if now-l.late.reported < lateEveryMs {
		return
	}
	l.late.reported = now
	if l.late.tracked > 0 {
		for i := range l.out.items {
			if t := &l.out.items[i].late; t.events > 0 {
				l.noteLate(t, now, 0)
			}
		}
	}
	for num, r := range l.late.rooms {
		l.report(edge.Event{Kind: edge.EvLate, RoomNum: num, LateMs: r.lateMs, Took: r.took})
	}
	clear(l.late.rooms)
}
