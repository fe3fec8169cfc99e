package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// Transport is how a user receives.
type Transport int

// Transports.
const (
	WebSocket Transport = iota
	Events              // server-sent events, read by hand
	Polls               // one long poll after the other
)

// Transports are all of them.
var Transports = []Transport{WebSocket, Events, Polls}

func (t Transport) String() string { return [...]string{"websocket", "events", "polls"}[t] }

// Via makes the user receive over a transport.
func Via(t Transport) UserOption { return func(u *User) { u.via = t } }

// link is what a user receives on.
type link interface{ CloseNow() error }

// stream is a response that is read, or one after the other.
type stream struct{ cancel context.CancelFunc }

func (s *stream) CloseNow() error { s.cancel(); return nil }

// receives sends a request to the user's gateway. Its body is JSON unless it is
// empty.
func (u *User) receives(ctx context.Context, rt http.RoundTripper, method, path string, body []byte, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+u.gatewayAddr()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return rt.RoundTrip(req)
}

// Streams opens server-sent events: with positions when resuming, or with what
// header says.
func (u *User) streams(resume bool, header ...string) error {
	ctx, cancel := context.WithCancel(context.Background())
	method, body := http.MethodGet, []byte(nil)
	if resume {
		method = http.MethodPost
		body, _ = json.Marshal(map[string]any{"rooms": u.Positions()})
	}
	resp, err := u.receives(ctx, &http.Transport{DisableKeepAlives: true}, method, "/v1/events", body, header...)
	if err == nil && resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		err = fmt.Errorf("%d %s", resp.StatusCode, text)
	}
	if err != nil {
		cancel()
		return err
	}
	s := &stream{cancel}
	u.attached(s)
	go func() {
		u.ended(s, u.readStream(resp.Body))
		cancel()
	}()
	return nil
}

func (u *User) attached(l link) {
	u.mu.Lock()
	u.conn, u.end = l, nil
	u.mu.Unlock()
}

func (u *User) ended(l link, why error) {
	u.mu.Lock()
	if u.conn == l {
		u.conn, u.end = nil, why
	}
	u.signal()
	u.mu.Unlock()
}

// readStream reads as the standard has it, as far as there is anything to read here.
func (u *User) readStream(body io.ReadCloser) error {
	defer body.Close()
	r := bufio.NewReader(body)
	var data, id string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			data += value
		case "id":
			id = value
		case "retry":
			// a number, for a browser
		case "":
			if line != "\n" {
				continue // a comment
			}
			events, err := parseFrame([]byte(data))
			if err != nil {
				return err
			}
			u.mu.Lock()
			if id != "" {
				u.lastEventID = id
			}
			for _, e := range events {
				u.arrived(e)
			}
			u.signal()
			u.mu.Unlock()
			data = ""
		default:
			return fmt.Errorf("line %q", line)
		}
	}
}

// ResumesByTime is what a browser's EventSource does when its connection is gone:
// it asks for what came since the last time that it was told.
func (u *User) ResumesByTime() error {
	return u.streams(false, "Last-Event-ID", u.LastEventID())
}

// LastEventID is the last time that the user was told (Via(Events)).
func (u *User) LastEventID() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lastEventID
}

// Answer is what a poll is answered.
type Answer struct {
	Events   []json.RawMessage `json:"events"`
	Rooms    map[string]string `json:"rooms"`
	RoomsRev uint64            `json:"rooms_rev"`
	Conn     string            `json:"conn"`
}

// Poll sends one poll, as a client that has not polled before, and leaves its answer
// to the caller.
func (u *User) Poll(ctx context.Context, rooms map[string]string, waitS int) (a Answer, err error) {
	return u.poll(ctx, "", rooms, waitS)
}

// poll sends one of a client whose last answer named a connection.
func (u *User) poll(ctx context.Context, conn string, rooms map[string]string, waitS int) (a Answer, err error) {
	in := map[string]any{"rooms": rooms, "wait_s": waitS}
	if conn != "" {
		in["conn"] = conn
	}
	body, err := json.Marshal(in)
	if err != nil {
		return a, err
	}
	resp, err := u.receives(ctx, u.polls, http.MethodPost, "/v1/poll", body)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%d %s", resp.StatusCode, text)
	}
	return a, json.Unmarshal(text, &a)
}

// pollWaitS is how long a poll waits: short, because a room that the user was added
// to between two polls shows only in an answer.
const pollWaitS = 2

// startPolls polls until it is disconnected: from the positions when resuming, or
// from the heads as the first poll finds them. What it polls from next are the
// positions of the last answer.
func (u *User) startPolls(resume bool) error {
	ctx, cancel := context.WithCancel(context.Background())
	u.polls = &http.Transport{}
	at := map[string]string{}
	if resume {
		at = u.Positions()
	}
	first, err := u.Poll(ctx, at, 0)
	if err != nil {
		cancel()
		return err
	}
	s := &stream{cancel}
	u.attached(s)
	u.take1(first)
	// Over WebSocket these come by themselves.
	u.mu.Lock()
	kind := "hello"
	if resume {
		kind = "resumed"
	}
	u.queue = append(u.queue, Event{Type: kind, Conn: first.Conn, RoomsRev: first.RoomsRev})
	u.signal()
	u.mu.Unlock()
	go func() {
		defer cancel()
		conn, at := first.Conn, first.Rooms
		for {
			a, err := u.poll(ctx, conn, at, pollWaitS)
			if err != nil {
				u.ended(s, err)
				return
			}
			conn, at = a.Conn, a.Rooms
			if bye := u.take1(a); bye != "" {
				u.ended(s, errors.New("bye: "+bye))
				return
			}
		}
	}()
	return nil
}

// take1 takes in an answer, and returns the reason of a `bye` in it.
func (u *User) take1(a Answer) (bye string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, raw := range a.Events {
		e := Event{Raw: raw}
		if err := json.Unmarshal(raw, &e); err != nil {
			u.problems = append(u.problems, err.Error())
			continue
		}
		if e.Type == "bye" {
			bye = e.Reason
		}
		u.arrived(e)
	}
	for room, at := range u.positions {
		if is, ok := a.Rooms[room]; ok && Newer(at, is) {
			u.problems = append(u.problems, fmt.Sprintf("room %s: the answer's position is %s, though %s has come", room, is, at))
		}
	}
	for room, at := range a.Rooms {
		if _, had := u.polled[room]; !had && u.polled != nil && !u.told(a, "joined", room) {
			u.arrived(Event{Type: "joined", Room: room, User: u.Name, Head: at, RoomsRev: a.RoomsRev})
		}
	}
	for room := range u.polled {
		if _, has := a.Rooms[room]; !has && !u.told(a, "left", room) {
			u.arrived(Event{Type: "left", Room: room, User: u.Name, RoomsRev: a.RoomsRev})
		}
	}
	u.polled = maps.Clone(a.Rooms)
	u.signal()
	return bye
}

// told says whether an answer tells that the user joined or left a room. What
// happens between two polls only its rooms and their revision do.
func (u *User) told(a Answer, kind, room string) bool {
	for _, raw := range a.Events {
		var e Event
		if json.Unmarshal(raw, &e) == nil && e.Type == kind && e.Room == room && e.User == u.Name {
			return true
		}
	}
	return false
}

// Polled are the positions of the last answer.
func (u *User) Polled() map[string]string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.polled)
}

func (u *User) gatewayAddr() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.fleet.Gateways[u.gateway].Addr
}

// MovesTo has the user connect to another gateway from now on.
func (u *User) MovesTo(gateway int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.gateway = gateway
}

// StaysConnected comes back whenever the user's connection is gone, to whichever
// gateway takes it, until stop is called, which waits for the last attempt.
func (u *User) StaysConnected(byTime bool) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for try := 0; ; {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond): // as a client waits before it comes back
			}
			if u.Connected() {
				continue
			}
			try++
			u.MovesTo(try % len(u.fleet.Gateways))
			if byTime && u.LastEventID() != "" {
				_ = u.ResumesByTime()
			} else {
				_ = u.Resume()
			}
		}
	}()
	return func() { close(done); <-ended }
}
