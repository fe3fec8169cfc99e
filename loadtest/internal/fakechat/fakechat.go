// Package fakechat is a small server of the wire for the load tester's own tests:
// rooms, sends, history, hello, messages, resume, gap, over WebSocket, event stream
// and polls, in memory and in one process, on net/http and an independent WebSocket
// library. It can be told to misbehave, so
// that tests see whether the tester notices.
package fakechat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/madang-chat/madang/protocol"
)

// Secret signs the users' tokens.
var Secret = []byte("a secret of thirty-two bytes or more")

// Fault decides, per delivery of the n-th message of a room to a user, what goes
// over the wire: the event not at all (0), once (1), or several times.
type Fault func(user, room string, n uint64) int

// Server is one API and gateway. Its knobs may be set before clients come.
type Server struct {
	Misdeliver Fault
	// Swap holds the n-th message of a room back until after the next one.
	Swap func(user, room string, n uint64) bool
	HTTP *httptest.Server

	mu        sync.Mutex
	rooms     map[string]*room
	conns     map[*conn]bool
	answer    func(w http.ResponseWriter, r *http.Request) bool
	refuse    int
	trimmed   uint64
	overstate func(user, room string) bool
	keepNot   bool
	heard     map[string]int // frames of clients, by type
	pollers   atomic.Int64

	takesFiles bool
	files      map[string]int // sizes of uploaded files, by ID
	attached   map[string]int // messages that name them
}

type room struct {
	members []string
	entries []entry
	keys    map[string]int
}

type entry struct {
	id, prev protocol.ID
	n        uint64
	tail     []byte
}

type conn struct {
	user  string
	held  map[string]bool // rooms not yet resumed
	out   *outbox
	late  []byte
	close func()
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{rooms: map[string]*room{}, conns: map[*conn]bool{}, heard: map[string]int{}, files: map[string]int{}, attached: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/rooms", s.createRoom)
	mux.HandleFunc("PUT /v1/rooms/{room}/members/{user}", s.putMember)
	mux.HandleFunc("POST /v1/rooms/{room}/messages", s.send)
	mux.HandleFunc("GET /v1/rooms/{room}/messages", s.history)
	mux.HandleFunc("GET /v1/rooms/{room}", s.getRoom)
	mux.HandleFunc("POST /v1/attachments", s.upload)
	mux.HandleFunc("GET /v1/ws", s.socket)
	mux.HandleFunc("/v1/events", s.stream)
	mux.HandleFunc("POST /v1/poll", s.poll)
	mux.HandleFunc("POST /v1/focus", s.aside("focus"))
	mux.HandleFunc("POST /v1/typing", s.aside("typing"))
	mux.HandleFunc("POST /v1/rooms/{room}/read", s.aside("read"))
	s.HTTP = httptest.NewServer(mux)
	t.Cleanup(func() { s.DropAll(); s.HTTP.Close() })
	return s
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort {
	return netip.MustParseAddrPort(strings.TrimPrefix(s.HTTP.URL, "http://"))
}

// Conns is how many sockets there are.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Heard is how many frames of a type clients sent, or requests to a path of /v1.
func (s *Server) Heard(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard[kind]
}

// TakeFiles lets people upload from now on; before, there is no such route.
func (s *Server) TakeFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takesFiles = true
}

// Files are the sizes of the files that were uploaded, and how many messages
// named each.
func (s *Server) Files() (sizes, named map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.files), maps.Clone(s.attached)
}

// RoomSizes are the numbers of members, the largest first.
func (s *Server) RoomSizes() (sizes []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rooms {
		members := map[string]bool{} // whoever made the room is named twice
		for _, m := range r.members {
			members[m] = true
		}
		sizes = append(sizes, len(members))
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	return sizes
}

// DropAll closes every socket without a word.
func (s *Server) DropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.close()
	}
}

// Answer lets f take over sends: it returns true when it has answered.
func (s *Server) Answer(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// RefuseSockets answers upgrades with a status.
func (s *Server) RefuseSockets(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = status
}

// Trim makes it a gap when a client resumes from before the n-th message of a room.
func (s *Server) Trim(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trimmed = n
}

// Overstate makes polls' answers name a room's head as the position to go on from,
// whatever was delivered.
func (s *Server) Overstate(to func(user, room string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overstate = to
}

// Pollers counts the polls that named no connection: as many clients poll.
func (s *Server) Pollers() int { return int(s.pollers.Load()) }

// Messages counts what is in the logs of all rooms.
func (s *Server) Messages() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rooms {
		n += len(r.entries)
	}
	return n
}

// KeepNot closes the connection after each answer to a poll.
func (s *Server) KeepNot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepNot = true
}

// Create makes a room.
func (s *Server) Create(id string, members ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rooms[id] = &room{members: members, keys: map[string]int{}}
}

// Post appends a message and delivers it, returning its ID.
func (s *Server) Post(id, from, key string) protocol.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.append(id, from, key, "x").id
}

func (s *Server) append(id, from, key, text string) entry {
	r := s.rooms[id]
	if at, known := r.keys[from+"\x00"+key]; known {
		return r.entries[at]
	}
	e := entry{n: uint64(len(r.entries) + 1), id: protocol.ID{Ms: uint64(time.Now().UnixMilli())}}
	if len(r.entries) > 0 {
		e.prev = r.entries[len(r.entries)-1].id
		if !e.prev.Less(e.id) {
			e.id = protocol.ID{Ms: e.prev.Ms, Seq: e.prev.Seq + 1}
		}
	}
	e.tail = fmt.Appendf(nil, `"from":%q,"sent_at":"2026-01-01T00:00:00.000Z","body":{"type":"text","text":%q},"key":%q}`, from, text, key)
	r.keys[from+"\x00"+key] = len(r.entries)
	r.entries = append(r.entries, e)
	for c := range s.conns {
		if slices.Contains(r.members, c.user) && !c.held[id] {
			s.deliver(c, id, e)
		}
	}
	return e
}

func (s *Server) deliver(c *conn, room string, e entry) {
	event := protocol.AppendMessage(nil, room, e.id, e.prev, e.n, e.tail)
	times := 1
	if s.Misdeliver != nil {
		times = s.Misdeliver(c.user, room, e.n)
	}
	if s.Swap != nil && s.Swap(c.user, room, e.n) {
		c.late = event
		return
	}
	for range times {
		c.out.push(event)
	}
	if c.late != nil {
		c.out.push(c.late)
		c.late = nil
	}
}

func userOf(r *http.Request) (string, error) {
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), &claims,
		func(*jwt.Token) (any, error) { return Secret, nil }, jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	return claims.Subject, err
}

// receiver is the user who wants to receive; false: the request is answered.
func (s *Server) receiver(w http.ResponseWriter, r *http.Request) (user string, ok bool) {
	s.mu.Lock()
	refuse := s.refuse
	s.heard[strings.TrimPrefix(r.URL.Path, "/v1/")]++
	s.mu.Unlock()
	if refuse != 0 {
		w.WriteHeader(refuse)
		return "", false
	}
	user, err := userOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return "", false
	}
	return user, true
}

func (s *Server) socket(w http.ResponseWriter, r *http.Request) {
	user, ok := s.receiver(w, r)
	if !ok {
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{protocol.Subprotocol}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	c := &conn{user: user, held: map[string]bool{}, out: newOutbox(), close: func() { ws.CloseNow() }}
	c.out.push(protocol.AppendHello(nil, "c1", user, 1, 25, "fake"))
	defer s.admit(c, r.URL.Query().Has("resume"))()
	gone := make(chan struct{})
	go func() { s.hear(ws, r, c); close(gone) }()
	for {
		select {
		case <-gone:
			return
		case <-c.out.filled:
			events := c.out.take() // what waits together goes together
			if len(events) > 0 && ws.Write(r.Context(), websocket.MessageText, bytes.Join(events, []byte("\n"))) != nil {
				return
			}
		}
	}
}

// admit lets a connection have what comes from now on, or, if it resumes, once it
// has; the function that is returned undoes it.
func (s *Server) admit(c *conn, resumes bool) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if resumes {
		for id := range s.rooms {
			c.held[id] = true
		}
	}
	s.conns[c] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}
}

// hear reads what a client says; it ends with the socket.
func (s *Server) hear(ws *websocket.Conn, r *http.Request, c *conn) {
	defer c.close()
	ws.SetReadLimit(1 << 20)
	for {
		_, b, err := ws.Read(r.Context())
		if err != nil {
			return
		}
		var up struct {
			Type  string            `json:"type"`
			Rooms map[string]string `json:"rooms"`
			More  bool              `json:"more"`
		}
		if err := json.Unmarshal(b, &up); err != nil {
			return
		}
		s.mu.Lock()
		s.heard[up.Type]++
		s.mu.Unlock()
		switch up.Type {
		case "ping":
			c.out.push([]byte(protocol.Pong))
		case "resume":
			s.resume(c, up.Rooms, up.More)
		}
	}
}

func (s *Server) resume(c *conn, rooms map[string]string, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, position := range rooms {
		after, err := protocol.ParseID(position)
		r := s.rooms[id]
		if err != nil || r == nil {
			continue
		}
		c.held[id] = false
		s.catchUp(c, id, after)
	}
	if !more {
		c.held = map[string]bool{}
		c.out.push(protocol.AppendResumed(nil, 1))
	}
}

// catchUp delivers what follows a position, or tells that it is gone.
func (s *Server) catchUp(c *conn, id string, after protocol.ID) {
	r := s.rooms[id]
	for _, e := range r.entries {
		if !after.Less(e.id) {
			continue
		}
		if e.n <= s.trimmed {
			c.out.push(protocol.AppendGap(nil, id, after, r.entries[len(r.entries)-1].id))
			return
		}
		s.deliver(c, id, e)
	}
}
