package hub

import (
	"context"
	"errors"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/live"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// alive is the hub's part in presence and the other live events: it drives
// gateway/live and carries out what that decides. Requests wait in queues by
// kind, and what waits together goes together; batches are under way on
// goroutines of their own, at most liveBatches at a time, apart from follow's
// reads: nothing live delays a catch-up.
//
// All of it is the hub's goroutine's.
type alive struct {
	h       *Hub
	core    *live.Core
	seats   chat.Seats
	markers chat.Markers
	fleet   *fleet
	pollers *pollers
	id      string // the gateway's ID in the seats that are written now

	inflight int
	takes    []chat.Seat
	leaves   []chat.Seat
	counts   []seatCount
	watches  []string
	finds    []markerAsk
	marks    []markerAsk
	events   []chat.LiveEvent

	incarnation uint64 // of takes, leaves and counts
	shed        uint64 // events left out because Redis did not keep up
}

type seatCount struct{ partition, expected int }

type markerAsk struct {
	kind chat.MarkerKind
	m    chat.Marker
}

const (
	// liveBatches bounds the batches under way.
	liveBatches = 4
	// maxEvents bounds the events that wait to be published: a second's worth,
	// after which typing is of no interest any more.
	maxEvents = 2048
)

// LiveStats is what the hub has done for live events.
type LiveStats struct {
	live.Stats
	EventsShed uint64 // typing and the like, left out because Redis did not keep up
	Fleet      FleetStats
}

func newAlive(h *Hub, o Options) *alive {
	a := &alive{h: h, seats: o.Seats, markers: o.Markers}
	cfg := o.Live
	cfg.Links, cfg.LinkOf = o.Feed.Links(), o.Feed.LinkOf
	cfg.PartitionOf = o.Feed.PartitionOf
	cfg.Partitions = o.Seats.Partitions()
	cfg.ConnPrefix = o.Follow.ConnPrefix
	a.pollers = newPollers(h.core, cfg)
	a.core = live.New(cfg, a.pollers, a)
	a.fleet = newFleet(h, o)
	a.id = a.fleet.id
	return a
}

// Out of gateway/live.

func (a *alive) Subscribe(link int, gen uint64, ch chat.Channel) { a.h.out.Subscribe(link, gen, ch) }
func (a *alive) Unsubscribe(link int, gen uint64, ch chat.Channel) {
	a.h.out.Unsubscribe(link, gen, ch)
}

func (a *alive) TakeSeat(incarnation uint64, s chat.Seat) {
	a.incarnation = incarnation
	a.takes = append(a.takes, s)
}

func (a *alive) LeaveSeat(incarnation uint64, s chat.Seat) {
	a.incarnation = incarnation
	a.leaves = append(a.leaves, s)
}

func (a *alive) CountSeats(incarnation uint64, partition, expected int) {
	a.incarnation = incarnation
	a.counts = append(a.counts, seatCount{partition, expected})
}

func (a *alive) ReadPresence(user string) { a.watches = append(a.watches, user) }

func (a *alive) FindMessage(kind chat.MarkerKind, m chat.Marker) {
	a.finds = append(a.finds, markerAsk{kind, m})
}

func (a *alive) AdvanceMarker(kind chat.MarkerKind, m chat.Marker) {
	a.marks = append(a.marks, markerAsk{kind, m})
}

func (a *alive) Publish(room string, event []byte) {
	if len(a.events) >= maxEvents {
		a.shed++
		return
	}
	a.events = append(a.events, chat.LiveEvent{Room: room, Event: event})
}

func (a *alive) Whisper(conn edge.ConnID, f *edge.Frame) {
	conn, now := a.pollers.reach(conn, f)
	if !now {
		return
	}
	a.h.out.toConn(conn, edge.Cmd{Kind: edge.CmdUnicast, Shed: true, Room: edge.NoRoom, Frame: f})
}

func (a *alive) Refuse(conn edge.ConnID, code protocol.ErrorCode, detail string) {
	f := edge.NewFrame(96, func(b []byte) []byte { return protocol.AppendError(b, code, detail) })
	if a.pollers.is(conn) {
		a.Whisper(conn, f)
		return
	}
	a.h.out.Unicast(conn, f)
}

// Inputs, as the hub gets them.

func (a *alive) handleEvent(now int64, ev *edge.Event) {
	switch ev.Kind {
	case edge.EvOpened:
		if ev.Via == edge.LongPoll {
			a.pollers.opened(ev)
		}
		a.core.Opened(now, ev.User)
	case edge.EvClosed: // before follow forgets whose it was
		if a.pollClosed(now, ev) {
			break
		}
		if user, _ := a.h.core.Connection(ev.Conn); user != "" {
			a.core.Closed(now, ev.Conn, user)
		}
	case edge.EvFocus, edge.EvTyping, edge.EvRead, edge.EvDelivered, edge.EvWatch:
		a.core.Said(now, *ev)
	}
}

// handleLink takes what is for live, and says whether that was all of it.
func (a *alive) handleLink(now int64, in *linkInput) (taken bool) {
	link := int(in.link)
	switch in.kind {
	case linkUp:
		a.core.LinkUp(link, in.gen)
	case linkDown:
		a.core.LinkDown(link, in.gen)
	case linkCanary:
		a.core.Canary(now, link, in.gen, int(in.partition), in.epoch)
	case linkConfirmed:
		if in.ch.Kind == chat.PresenceChannel {
			a.core.Confirmed(now, link, in.gen, in.ch.Name)
			return true
		}
	case linkEvent:
		switch {
		case in.ch.Kind == chat.PresenceChannel:
			a.core.Changed(link, in.gen, in.ch.Name, in.payload)
			return true
		case !live.IsLive(in.payload):
		case in.ch.Kind == chat.RoomChannel:
			a.core.RoomEvent(now, in.ch.Name, in.payload)
			return true
		case in.ch.Kind == chat.UserChannel:
			a.core.UserEvent(now, in.ch.Name, in.payload)
			return true
		}
	}
	return false
}

// reborn goes on under a new ID.
func (a *alive) reborn(now int64, id string) {
	a.h.log.Warn("declared dead by the fleet: going on under a new ID", "was", a.id, "id", id)
	a.id = id
	a.takes, a.leaves, a.counts = nil, nil, nil
	a.core.Reborn(now)
}

// dispatch starts as many batches as may be under way. What changes for others
// goes first.
func (a *alive) dispatch(now int64) {
	a.endPollers(now)
	a.core.Flush(now)
	const n = readBatch
	for a.inflight < liveBatches {
		switch {
		case len(a.takes) > 0:
			a.writeSeats(take(&a.takes, n), false)
		case len(a.leaves) > 0:
			a.writeSeats(take(&a.leaves, n), true)
		case len(a.events) > 0:
			a.publish(take(&a.events, n))
		case len(a.watches) > 0:
			a.readPresence(take(&a.watches, n))
		case len(a.marks) > 0:
			a.advanceMarkers(takeKind(&a.marks, n))
		case len(a.finds) > 0:
			a.findMessages(take(&a.finds, n))
		case len(a.counts) > 0:
			a.countSeats(take(&a.counts, 16))
		default:
			return
		}
	}
}

// takeKind cuts off the first of asks that are of one kind.
func takeKind(from *[]markerAsk, n int) []markerAsk {
	asks, i := *from, 1
	for i < len(asks) && i < n && asks[i].kind == asks[0].kind {
		i++
	}
	return take(from, i)
}

// do runs a batch on a goroutine of its own; then hears of it on the hub's.
func (a *alive) do(batch func(ctx context.Context), then func(now int64)) {
	a.inflight++
	h := a.h
	h.readers.Go(func() {
		ctx, cancel := context.WithTimeout(h.ctx, h.opts.ReadTimeout)
		defer cancel()
		batch(ctx)
		h.mu.Lock()
		h.arrived()
		h.in.calls = append(h.in.calls, func(now int64) {
			a.inflight--
			then(now)
		})
		h.mu.Unlock()
		h.poke()
	})
}

// errNoLease keeps seats from being written by a gateway that the fleet may have
// given up.
var errNoLease = errors.New("the lease is not renewed")

func (a *alive) writeSeats(seats []chat.Seat, leaving bool) {
	id, incarnation := a.id, a.incarnation
	var errs []error
	a.do(func(ctx context.Context) {
		switch {
		case !a.fleet.mayWrite():
			errs = repeat(errNoLease, len(seats))
		case leaving:
			errs = a.seats.LeaveSeats(ctx, id, seats)
		default:
			errs = a.seats.TakeSeats(ctx, id, seats)
		}
	}, func(now int64) {
		for i := range seats {
			err := at(errs, i)
			if errors.Is(err, chat.ErrDeclaredDead) {
				a.fleet.refused(id)
			}
			a.core.SeatDone(now, incarnation, seats[i].User, leaving, err)
		}
	})
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (a *alive) countSeats(counts []seatCount) {
	id, incarnation := a.id, a.incarnation
	held := make([][]string, len(counts))
	a.do(func(ctx context.Context) {
		for i, c := range counts {
			held[i], _ = a.seats.HeldSeats(ctx, id, c.partition, c.expected)
		}
	}, func(int64) {
		for i, c := range counts {
			a.core.SeatsHeld(incarnation, c.partition, held[i])
		}
	})
}

func (a *alive) readPresence(users []string) {
	var ps []chat.UserPresence
	var errs []error
	a.do(func(ctx context.Context) {
		ps, errs = a.seats.ReadPresence(ctx, users)
	}, func(now int64) {
		for i, u := range users {
			a.core.PresenceRead(now, u, at(ps, i), at(errs, i))
		}
	})
}

func (a *alive) publish(events []chat.LiveEvent) {
	var errs []error
	a.do(func(ctx context.Context) {
		errs = a.markers.PublishLive(ctx, events)
	}, func(int64) {
		for _, err := range errs {
			if err != nil {
				a.shed++
			}
		}
	})
}

func (a *alive) advanceMarkers(asks []markerAsk) {
	kind := asks[0].kind
	ms := make([]chat.Marker, len(asks))
	for i := range asks {
		ms[i] = asks[i].m
	}
	members := a.core.ReceiptMembers()
	var rs []chat.MarkerResult
	var errs []error
	a.do(func(ctx context.Context) {
		rs, errs = a.markers.AdvanceMarkers(ctx, kind, ms, members)
	}, func(now int64) {
		for i, m := range ms {
			a.core.MarkerDone(now, kind, m, at(rs, i), at(errs, i))
		}
	})
}

// findMessages looks positions up in the logs: the entry itself gives its ordinal.
func (a *alive) findMessages(asks []markerAsk) {
	qs := make([]chat.LogQuery, len(asks))
	for i := range asks {
		qs[i] = chat.LogQuery{Room: asks[i].m.Room, From: asks[i].m.ID, Limit: 1}
	}
	var pages []chat.LogPage
	var errs []error
	a.do(func(ctx context.Context) {
		pages, errs = a.h.feed.ReadLogs(ctx, qs)
	}, func(now int64) {
		for i, q := range asks {
			pg := at(pages, i)
			n, found := uint64(0), false
			switch {
			case len(pg.Entries) > 0 && pg.Entries[0].ID == q.m.ID:
				n, found = pg.Entries[0].N, true
			case pg.Exists && pg.Head == q.m.ID: // it may have aged out
				n, found = pg.N, true
			}
			a.core.MessageFound(now, q.kind, q.m, n, found, at(errs, i))
		}
	})
}

func (a *alive) stats() LiveStats {
	return LiveStats{Stats: a.core.Stats(), EventsShed: a.shed}
}

var _ live.Out = (*alive)(nil)
