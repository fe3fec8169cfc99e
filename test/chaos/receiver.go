package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/loadtest/target"
	"github.com/madang-chat/madang/protocol"
)

// What a client of ours does about a connection that says nothing.
const (
	pingEvery = 2 * time.Second
	deafAfter = 6 * time.Second
	// Reconnects are spread by full jitter below a bound that doubles.
	backoffFirst, backoffMost = 200 * time.Millisecond, 2 * time.Second
)

// receiver is a user with a socket: it resumes with its positions on whichever
// gateway is ready, obeys bye, pages history after a gap, and filters by
// position, as DESIGN asks of clients. It also answers for who the user is.
type receiver struct {
	w           *world
	name, token string
	readers     map[string]ledger.ReaderID // by room
	listens     bool                       // is in a busy room: silence means something

	// Guarded by world.mu.
	positions map[string]ledger.Pos          // the last message of each room
	has       map[string]map[ledger.Pos]bool // the client's store: what it has of each room
	paging    map[string]ledger.Pos          // rooms with a gap that is being paged, up to this head
	resumed   bool                           // the present connection has caught up
	heard     time.Time                      // when the last message came
	connects  int
	gaps      map[string]int // told, by room
	// had is what the client had of a room when paging began: what the socket has
	// brought since is on the near side of the hole, of which another gap, told
	// meanwhile, may be the end.
	had     map[string]map[ledger.Pos]bool
	conn    *websocket.Conn
	gateway *node // of conn
}

func newReceiver(w *world, name, token string) *receiver {
	return &receiver{
		w: w, name: name, token: token, readers: map[string]ledger.ReaderID{},
		positions: map[string]ledger.Pos{}, paging: map[string]ledger.Pos{}, gaps: map[string]int{}, had: map[string]map[ledger.Pos]bool{},
		has: map[string]map[ledger.Pos]bool{},
	}
}

func (r *receiver) joins(room string, id ledger.ReaderID) {
	r.readers[room], r.has[room], r.positions[room] = id, map[ledger.Pos]bool{0: true}, 0
}

// run keeps a connection until ctx ends.
func (r *receiver) run(ctx context.Context) {
	backoff := backoffFirst
	var left *node
	for ctx.Err() == nil {
		order := balance(r.w.gateways)
		gateway := order[0]
		if gateway == left && order[1].ready.Load() {
			gateway = order[1]
		}
		wait, worked := r.session(ctx, gateway)
		left = gateway
		if worked {
			backoff = backoffFirst
		}
		if wait == 0 {
			wait = rand.N(backoff)
			backoff = min(2*backoff, backoffMost)
		}
		sleep(ctx, wait)
	}
}

// session is one connection, from the upgrade to its end.
func (r *receiver) session(ctx context.Context, gateway *node) (wait time.Duration, worked bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialing, dialed := context.WithTimeout(ctx, 5*time.Second)
	conn, _, err := websocket.Dial(dialing, "ws://"+gateway.front.Addr()+"/v1/ws?resume", &websocket.DialOptions{
		HTTPClient: r.w.http, Subprotocols: []string{protocol.Subprotocol, "bearer." + r.token},
	})
	dialed()
	if err != nil {
		return 0, false
	}
	defer conn.CloseNow()
	conn.SetReadLimit(4 << 20)
	if err := conn.Write(ctx, websocket.MessageText, target.Madang{}.AppendResume(nil, r.resume(conn, gateway), false)); err != nil {
		return 0, false
	}
	defer r.gone()

	heard := make(chan struct{}, 1)
	go r.watch(ctx, conn, heard)
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			if code := websocket.CloseStatus(err); code == websocket.StatusPolicyViolation {
				r.w.violate("%s was closed by %s: %v", r.name, gateway.name, err)
			}
			return wait, worked
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		for len(frame) > 0 {
			var ev target.Event
			ev, frame = target.Madang{}.Next(frame)
			switch ev.Kind {
			case target.Bye:
				wait = time.Duration(ev.RetryMs)*time.Millisecond + time.Millisecond
			case target.Error:
				r.w.violate("%s got an error from %s: %s", r.name, gateway.name, ev.Code)
			case target.Resumed:
				worked = true
			}
			r.take(ev)
		}
		if wait > 0 { // bye: what is queued has come, the gateway closes
			sleep(ctx, min(wait, 50*time.Millisecond))
		}
	}
}

// watch pings, and ends a connection on which nothing comes back.
func (r *receiver) watch(ctx context.Context, conn *websocket.Conn, heard <-chan struct{}) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
			last = time.Now()
		case <-ticker.C:
			if time.Since(last) > deafAfter {
				_ = conn.CloseNow()
				return
			}
			writing, written := context.WithTimeout(ctx, pingEvery)
			_ = conn.Write(writing, websocket.MessageText, []byte(`{"type":"ping"}`))
			written()
		}
	}
}

// resume returns what the client resumes with: where it is, or, in a room whose
// hole it has not paged yet, where it was before the hole (R2).
func (r *receiver) resume(conn *websocket.Conn, gateway *node) (positions []target.Position) {
	w := r.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for room, id := range r.readers {
		pos := r.positions[room]
		if _, hole := r.paging[room]; hole {
			pos = w.book.Resume(id)
			r.positions[room] = pos
		}
		positions = append(positions, target.Position{Room: room, Pos: pos})
	}
	r.conn, r.gateway, r.resumed = conn, gateway, false
	r.connects++
	return positions
}

func (r *receiver) gone() {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.conn, r.resumed = nil, false
}

// drop cuts the client's socket, as a tunnel does.
func (r *receiver) drop() {
	r.w.mu.Lock()
	conn := r.conn
	r.w.mu.Unlock()
	if conn != nil {
		_ = conn.CloseNow()
	}
}

// take keeps account of one event.
func (r *receiver) take(ev target.Event) {
	w := r.w
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ev.Kind {
	case target.Resumed:
		r.resumed = true
	case target.Message, target.Foreign:
		room := string(ev.Room)
		id, member := r.readers[room]
		if !member {
			w.violations = append(w.violations, fmt.Sprintf("%s got a message of %s, which it is not in", r.name, room))
			return
		}
		r.has[room][ev.Pos] = true
		verdict := w.book.Arrive(id, ev.Pos, ev.Prev, ev.Send)
		r.positions[room] = max(r.positions[room], ev.Pos)
		if r.listens {
			w.window.silence = max(w.window.silence, now.Sub(later(r.heard, w.window.from)))
		}
		r.heard = now
		if verdict == ledger.New {
			// One that was sent before is the fault's before.
			if due := w.start.Add(time.Duration(ev.Due)); !due.Before(w.window.from) {
				w.window.late = max(w.window.late, now.Sub(due))
			}
		}
	case target.Gap:
		room := string(ev.Room)
		id, member := r.readers[room]
		if !member {
			return
		}
		w.book.Gap(id, ev.Prev, ev.Pos)
		r.gaps[room]++
		r.positions[room] = ev.Pos
		_, under := r.paging[room]
		r.paging[room] = ev.Pos
		if !under {
			r.had[room] = maps.Clone(r.has[room])
			go r.page(w.ctx, room, id)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// page reads a hole from history, back from where the socket goes on until it
// meets a message that the client has: after a failover the hole may begin before
// the client's position, with messages that one primary took while the other still
// took others. Then it tells the ledger.
func (r *receiver) page(ctx context.Context, room string, id ledger.ReaderID) {
	w := r.w
	w.mu.Lock()
	head := r.paging[room]
	w.mu.Unlock()
	var hole []stored
	for before, met := head+1, false; !met && ctx.Err() == nil; {
		messages, more, err := r.history(ctx, room, "before="+before.ID().String())
		gone := errors.Is(err, errNoRoom) // Redis lost everything: there is nothing to page
		if err != nil && !gone {
			sleep(ctx, rand.N(500*time.Millisecond))
			continue
		}
		w.mu.Lock()
		for _, m := range messages {
			if before = m.pos; r.had[room][m.pos] {
				met = true
				break
			}
			if !r.has[room][m.pos] {
				hole = append(hole, m)
			}
		}
		if r.paging[room] != head { // another gap, while this one was read
			head = r.paging[room]
			before, met, hole = head+1, false, nil
		} else if met = met || gone || !more; met {
			for _, m := range slices.Backward(hole) {
				w.book.Page(id, m.pos, m.send)
				r.has[room][m.pos] = true
				r.positions[room] = max(r.positions[room], m.pos)
			}
			w.book.Paged(id, head)
			delete(r.paging, room)
			delete(r.had, room)
		}
		w.mu.Unlock()
	}
}

// stored is a message as history has it.
type stored struct {
	pos, prev ledger.Pos
	n         uint64
	send      ledger.Send
}

var errNoRoom = errors.New("there is no such room")

// history reads one page, in the order that is asked for.
func (r *receiver) history(ctx context.Context, room, which string) (messages []stored, more bool, err error) {
	status, body, err := r.w.viaBalancer(ctx, r, http.MethodGet, "/v1/rooms/"+room+"/messages?limit=200&"+which, "", "")
	if err != nil {
		return nil, false, err
	}
	if status == http.StatusNotFound {
		return nil, false, errNoRoom
	}
	if status != http.StatusOK {
		return nil, false, fmt.Errorf("history of %s: %d %s", room, status, body)
	}
	var page struct {
		Messages []struct {
			ID, Prev protocol.ID
			N        uint64
			Key      string
		}
		More bool
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, false, err
	}
	for _, m := range page.Messages {
		pos, ok1 := ledger.Pack(m.ID)
		prev, ok2 := ledger.Pack(m.Prev)
		_, send, ok3 := stamp.Parse([]byte(m.Key))
		if !ok1 || !ok2 || !ok3 {
			return nil, false, fmt.Errorf("history of %s has a message that nobody sent: %s", room, m.ID)
		}
		messages = append(messages, stored{pos: pos, prev: prev, n: m.N, send: send})
	}
	return messages, page.More, nil
}
