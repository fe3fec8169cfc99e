package fakechat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/madang-chat/madang/protocol"
)

// asked is the body of a request that hands over positions.
type asked struct {
	Rooms map[string]protocol.ID `json:"rooms"`
	WaitS *int                   `json:"wait_s"`
	Conn  string                 `json:"conn"`
}

// ask reads it, as strictly as the contract is; false: the request is answered.
func ask(w http.ResponseWriter, r *http.Request, in *asked) bool {
	if r.ContentLength < 0 {
		http.Error(w, "how long?", http.StatusLengthRequired)
		return false
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil || r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, fmt.Sprint("not what this reads: ", err), http.StatusBadRequest)
		return false
	}
	_, _ = io.Copy(io.Discard, r.Body) // only then net/http looks whether the client is still there
	return true
}

// stream is GET and POST /v1/events.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	user, ok := s.receiver(w, r)
	if !ok {
		return
	}
	var in asked
	resumes := r.Method == http.MethodPost
	if resumes && !ask(w, r, &in) {
		return
	}
	// Not net/http's chunks: the body ends with the connection.
	socket, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer socket.Close()
	c := &conn{user: user, held: map[string]bool{}, out: newOutbox(), close: func() { socket.Close() }}
	c.out.push(protocol.AppendHello(nil, "c-"+user, user, 1, 25, "fake"))
	defer s.admit(c, resumes)()
	if resumes {
		given := map[string]string{}
		for id, pos := range in.Rooms {
			given[id] = pos.String()
		}
		s.resume(c, given, false)
	}
	gone := make(chan struct{})
	go func() {
		_, _ = socket.Read(make([]byte, 1)) // until the client is gone
		close(gone)
	}()
	_, err = socket.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n:\n\n"))
	for err == nil {
		select {
		case <-gone:
			return
		case <-c.out.filled:
			for _, event := range c.out.take() {
				id, _, _ := strings.Cut(messageID(event), "-")
				if id != "" {
					id = "id: " + id + "\n"
				}
				if _, err = fmt.Fprintf(socket, "%sdata: %s\n\n", id, event); err != nil {
					return
				}
			}
		}
	}
}

// messageID is a message's ID; other events have none.
func messageID(event []byte) string {
	var m struct{ Type, ID string }
	if json.Unmarshal(event, &m) != nil || m.Type != "message" {
		return ""
	}
	return m.ID
}

// poll is POST /v1/poll.
func (s *Server) poll(w http.ResponseWriter, r *http.Request) {
	user, ok := s.receiver(w, r)
	var in asked
	if !ok || !ask(w, r, &in) {
		return
	}
	if in.Conn == "" {
		s.pollers.Add(1)
	} else if in.Conn != "c-"+user {
		http.Error(w, "another's conn", http.StatusBadRequest)
		return
	}
	wait := 25
	if in.WaitS != nil {
		wait = *in.WaitS
	}
	closed := make(chan struct{})
	c := &conn{user: user, held: map[string]bool{}, out: newOutbox()}
	c.close = func() { delete(s.conns, c); close(closed) }
	next := s.beginPoll(c, in.Rooms)
	select {
	case <-c.out.filled:
	case <-time.After(time.Duration(wait) * time.Second):
	case <-closed:
		panic(http.ErrAbortHandler) // without a word
	case <-r.Context().Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	events := []json.RawMessage{}
	for _, event := range c.out.take() {
		events = append(events, event)
		var m struct {
			Type, Room string
			ID, Head   protocol.ID
		}
		if json.Unmarshal(event, &m) != nil {
			continue
		}
		switch m.Type {
		case "message":
			next[m.Room] = m.ID
		case "gap":
			next[m.Room] = m.Head
		}
	}
	for id := range next {
		if s.overstate != nil && s.overstate(user, id) {
			next[id] = s.rooms[id].head()
		}
	}
	body, _ := json.Marshal(map[string]any{"events": events, "rooms": next, "rooms_rev": 1, "conn": "c-" + user})
	if s.keepNot {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = w.Write(body) // a client that is gone polls again
}

// beginPoll collects what was missed and, in the same step, lets the poll have
// what comes. It returns where every room of the user is.
func (s *Server) beginPoll(c *conn, given map[string]protocol.ID) (next map[string]protocol.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = map[string]protocol.ID{}
	for id, rm := range s.rooms {
		if !slices.Contains(rm.members, c.user) {
			continue
		}
		from, known := given[id]
		if !known {
			next[id] = rm.head()
			continue
		}
		next[id] = from
		s.catchUp(c, id, from)
	}
	s.conns[c] = true
	return next
}

func (r *room) head() protocol.ID {
	if n := len(r.entries); n > 0 {
		return r.entries[n-1].id
	}
	return protocol.ID{}
}

// aside is what a client says over HTTP, about a connection that is known by the
// ID that it was told.
func (s *Server) aside(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, err := userOf(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		var in struct{ Conn, Room, ID string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || kind != "read" && in.Conn != "c-"+user {
			http.Error(w, fmt.Sprintf("%+v: %v", in, err), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heard[kind]++
		w.WriteHeader(http.StatusNoContent)
	}
}
