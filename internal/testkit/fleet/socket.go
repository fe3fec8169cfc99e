package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// Dial opens a socket as browsers do, with the token in a subprotocol, and leaves
// it to the caller. query is "" or begins with a question mark.
func (u *User) Dial(query string) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, "ws://"+u.gatewayAddr()+"/v1/ws"+query, &websocket.DialOptions{
		Subprotocols: []string{"madang.v1", "bearer." + u.Token},
	})
	if err == nil {
		conn.SetReadLimit(1 << 20)
	}
	return conn, res, err
}

// Connects opens the user's socket and returns when hello has come.
func (u *User) Connects() {
	u.tb.Helper()
	if err := u.connect(""); err != nil {
		u.tb.Fatalf("%s connects: %v", u.Name, err)
	}
	u.wait("hello", func() bool { return u.take("hello") != nil })
}

// ConnectQuietly opens the user's socket and leaves its hello to WantEvent.
func (u *User) ConnectQuietly() error { return u.connect("") }

// How a user comes back.
type How bool

// Ways to come back.
const (
	Resuming How = true  // with ?resume and the positions
	Afresh   How = false // as a new connection
)

// Reconnects closes the socket and opens another, to the i-th gateway when one is
// given. Resuming, it returns when resumed has come, otherwise with hello.
func (u *User) Reconnects(how How, gateway ...int) {
	u.tb.Helper()
	u.Disconnects()
	for _, g := range gateway {
		u.MovesTo(g)
	}
	if how == Afresh {
		u.Connects()
		return
	}
	if err := u.Resume(); err != nil {
		u.tb.Fatalf("%s resumes: %v", u.Name, err)
	}
	u.wait("resumed", func() bool { return u.take("resumed") != nil })
}

// Resume opens a socket with ?resume and sends the positions.
func (u *User) Resume() error {
	switch u.via {
	case Events:
		return u.streams(true)
	case Polls:
		return u.startPolls(true)
	}
	if err := u.connect("?resume"); err != nil {
		return err
	}
	return u.Say(map[string]any{"type": "resume", "rooms": u.Positions()})
}

func (u *User) connect(query string) error {
	switch u.via {
	case Events:
		return u.streams(false)
	case Polls:
		return u.startPolls(false)
	}
	conn, _, err := u.Dial(query)
	if err != nil {
		return err
	}
	u.attached(conn)
	go u.read(conn)
	return nil
}

// read takes what comes until the socket ends.
func (u *User) read(conn *websocket.Conn) {
	for {
		_, frame, err := conn.Read(context.Background())
		var events []Event
		if err == nil {
			events, err = parseFrame(frame)
		}
		u.mu.Lock()
		for _, e := range events {
			u.arrived(e)
		}
		if err != nil && u.conn == link(conn) {
			u.conn, u.end = nil, err
		}
		u.signal()
		u.mu.Unlock()
		if err != nil {
			_ = conn.CloseNow()
			return
		}
	}
}

// arrived sorts one event; mu is held.
func (u *User) arrived(e Event) {
	if e.Type != "message" {
		u.queue = append(u.queue, e)
		return
	}
	last := u.positions[e.Room]
	if last != "" && !Newer(e.ID, last) {
		u.duplicates++
		return
	}
	if log := u.logs[e.Room]; len(log) > 0 && e.Prev != log[len(log)-1].ID {
		u.problems = append(u.problems, fmt.Sprintf("room %s: %s says that %s is before it, but %s was", e.Room, e.ID, e.Prev, log[len(log)-1].ID))
	}
	u.positions[e.Room] = e.ID
	if u.keep {
		u.logs[e.Room] = append(u.logs[e.Room], e)
	} else {
		u.queue = append(u.queue, e)
	}
}

// signal wakes who waits; mu is held.
func (u *User) signal() {
	close(u.changed)
	u.changed = make(chan struct{})
}

// Say writes something up the socket.
func (u *User) Say(what any) error {
	u.mu.Lock()
	conn, _ := u.conn.(*websocket.Conn)
	u.mu.Unlock()
	if conn == nil {
		return fmt.Errorf("%s has no socket", u.Name)
	}
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, b)
}

// Disconnects closes the socket without a word, as a phone in a tunnel does.
func (u *User) Disconnects() {
	u.mu.Lock()
	conn := u.conn
	u.conn = nil
	u.mu.Unlock()
	if conn != nil {
		_ = conn.CloseNow()
	}
}

// Connected says whether the user has a socket.
func (u *User) Connected() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.conn != nil
}

// WantClosed waits until the socket was closed, with this code.
func (u *User) WantClosed(code int) {
	u.tb.Helper()
	var end error
	u.wait(fmt.Sprintf("close %d", code), func() bool { end = u.end; return u.conn == nil })
	if got := websocket.CloseStatus(end); int(got) != code {
		u.tb.Fatalf("%s: the socket ended with %v, want close code %d", u.Name, end, code)
	}
}

// wait waits for a condition, which is asked with mu held.
func (u *User) wait(what string, holds func() bool) {
	u.tb.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		u.mu.Lock()
		if holds() {
			u.mu.Unlock()
			return
		}
		changed := u.changed
		u.mu.Unlock()
		select {
		case <-changed:
		case <-deadline.C:
			u.mu.Lock()
			defer u.mu.Unlock()
			u.tb.Fatalf("%s waited %v in vain for %s; the socket's end: %v; what came instead: %s", u.Name, timeout, what, u.end, describe(u.queue))
		}
	}
}

// take removes the first event of a type from the queue; mu is held.
func (u *User) take(kind string) *Event {
	for i, e := range u.queue {
		if e.Type == kind {
			u.queue = append(u.queue[:i:i], u.queue[i+1:]...)
			return &e
		}
	}
	return nil
}

// WantMessage waits for the next message, which must be this one. Other kinds of
// events are left for WantEvent.
func (u *User) WantMessage(room, text string) Event {
	u.tb.Helper()
	m := u.WantEvent("message")
	if m.Room != room || m.Body.Text != text {
		u.tb.Fatalf("%s got %q in %s, want %q in %s", u.Name, m.Body.Text, m.Room, text, room)
	}
	return m
}

// WantEvent waits for the next event of a kind.
func (u *User) WantEvent(kind string) Event {
	u.tb.Helper()
	var e *Event
	u.wait(kind, func() bool { e = u.take(kind); return e != nil })
	return *e
}

// Queued are the events of a kind that came and were not asked for yet.
func (u *User) Queued(kind string) (events []Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.queue {
		if e.Type == kind {
			events = append(events, e)
		}
	}
	return events
}

// WantNothing checks that no message came. It waits for a message to a room of
// the user's own, sent now: what was on its way before has come by then.
func (u *User) WantNothing() {
	u.tb.Helper()
	room := "fence-" + u.Name
	if !u.fence {
		u.fence = true
		u.CreatesRoom(room)
		u.wait("joined its own room", func() bool {
			for _, e := range u.queue {
				if e.Type == "joined" && e.Room == room {
					return true
				}
			}
			return false
		})
	}
	sent := u.Sends(room, "fence")
	u.wait("its own message", func() bool {
		for i, e := range u.queue {
			if e.ID == sent.ID && e.Room == room {
				u.queue = append(u.queue[:i:i], u.queue[i+1:]...)
				return true
			}
		}
		return false
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.queue {
		if e.Type == "message" {
			u.tb.Errorf("%s got %s, want nothing", u.Name, e.Raw)
		}
	}
}

// Log is every message of a room so far, in the order it came (KeepingLogs).
func (u *User) Log(room string) []Event {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Event(nil), u.logs[room]...)
}

// WantLog waits until the user has n messages of a room.
func (u *User) WantLog(room string, n int) []Event {
	u.tb.Helper()
	u.wait(fmt.Sprintf("%d messages of %s", n, room), func() bool { return len(u.logs[room]) >= n })
	return u.Log(room)
}

// Duplicates is how many messages came that were not new.
func (u *User) Duplicates() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.duplicates
}

func describe(events []Event) string {
	if len(events) == 0 {
		return "nothing"
	}
	s := ""
	for _, e := range events[max(0, len(events)-10):] {
		s += "\n\t" + string(e.Raw)
	}
	return s
}
