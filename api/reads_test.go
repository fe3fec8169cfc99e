package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// slowClient takes nothing of its answer until it is let.
type slowClient struct {
	*httptest.ResponseRecorder
	begun, let chan struct{}
}

func (c *slowClient) Write(b []byte) (int, error) {
	close(c.begun)
	<-c.let
	return c.ResponseRecorder.Write(b)
}

// Whoever asks for much and takes nothing makes the process hold no more than it
// is set to, and a user no more than a part of that.
func TestAnswersThatNobodyTakesAreBounded(t *testing.T) {
	const all = 16 << 10 // one user's are 2 KiB of it
	w := newWorld(t, newMemory(), func(o *api.Options) { o.Limits.AnswerBytes = all })
	users := []string{"u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"}
	w.as("owner").post("/v1/rooms", `{"id":"r","members":`+jsonOf(users)+`}`).want(201)
	w.as("owner").sends("r", strings.Repeat("x", 2<<10)).want(201)

	var waiting sync.WaitGroup
	let := make(chan struct{})
	stall := func(p *person) {
		t.Helper()
		req := httptest.NewRequest("GET", "/v1/rooms/r/messages", nil)
		req.Header.Set("Authorization", "Bearer "+p.token)
		c := &slowClient{httptest.NewRecorder(), make(chan struct{}), let}
		waiting.Go(func() { w.api.Handler().ServeHTTP(c, req) })
		<-c.begun
	}
	stall(w.as("u0"))
	for _, path := range []string{"/v1/rooms/r/messages", "/v1/rooms", "/v1/rooms/r/members"} {
		w.as("u0").get(path).wantCode(429, "rate_limited")
		w.as("u1").get(path).want(200)
	}
	for _, u := range users[1:7] {
		stall(w.as(u))
	}
	stall(w.server("")) // a back end's are not one user's
	w.as("u8").get("/v1/rooms/r/messages").wantCode(503, "unavailable")
	w.server("").get("/v1/rooms/r/messages").wantCode(503, "unavailable")
	w.as("u8").sends("r", "hi").want(201)
	w.as("u8").get("/v1/rooms/r").want(200)
	close(let)
	waiting.Wait()
	for _, u := range users {
		w.as(u).get("/v1/rooms/r/messages").want(200)
	}
}

// stuck is a Store whose history comes when it is let.
type stuck struct {
	*memory
	asked chan string // by whom; "" for a server key
	let   chan struct{}
	now   atomic.Int32
}

const turns, userTurns = 64, 8

func (s *stuck) History(ctx context.Context, by chat.Actor, room string, after, before *protocol.ID, limit int) ([]chat.Message, bool, error) {
	if s.now.Add(1) > turns {
		panic("more reads at once than there are turns")
	}
	defer s.now.Add(-1)
	s.asked <- by.User
	<-s.let
	return s.memory.History(ctx, by, room, after, before, limit)
}

// waitsInVain is somebody whose turn does not come in a time.
func (w *world) waitsInVain(user string, patience time.Duration) {
	w.t.Helper()
	impatient, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	req := httptest.NewRequestWithContext(impatient, "GET", "/v1/rooms/r/messages", nil)
	req.Header.Set("Authorization", "Bearer "+tokenOf(w.t, user))
	rec := httptest.NewRecorder()
	w.api.Handler().ServeHTTP(rec, req)
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		w.t.Errorf("one whose turn did not come: %d %s", rec.Code, rec.Body)
	}
}

// Reads of Redis wait for each other beyond a number, those of one user sooner, and are
// told when their time is over.
func TestReadsTakeTurns(t *testing.T) {
	s := &stuck{memory: newMemory(), asked: make(chan string, 1000), let: make(chan struct{})}
	w := newWorld(t, s, func(o *api.Options) { o.Limits.StoreTimeout = 20 * time.Second })
	users := []string{"u1", "u2", "u3", "u4", "u5", "u6"}
	w.as("alice").post("/v1/rooms", `{"id":"r","members":`+jsonOf(users)+`}`).want(201)
	answers := make(chan int, 2*turns)
	for range turns { // most of them wait, and nobody else for them
		go func() { answers <- w.as("alice").get("/v1/rooms/r/messages").status }()
	}
	for range userTurns {
		<-s.asked
	}
	for range userTurns {
		for _, u := range users {
			go func() { answers <- w.as(u).get("/v1/rooms/r/messages").status }()
		}
		go func() { answers <- w.server("").get("/v1/rooms/r/messages").status }()
	}
	for range turns - userTurns {
		if by := <-s.asked; by == "alice" {
			t.Fatal("one user reads more at once than an eighth")
		}
	}
	w.waitsInVain("carol", 10*time.Millisecond)
	close(s.let)
	for range 2*turns - userTurns {
		if status := <-answers; status != 200 {
			t.Errorf("a read was answered %d", status)
		}
	}
}

// Whoever waits for a turn may find that there is too much by then.
func TestAnswersAreBoundedForWhoHasWaited(t *testing.T) {
	const all, waiting = 16 << 10, 56
	s := &stuck{memory: newMemory(), asked: make(chan string, 1000), let: make(chan struct{})}
	w := newWorld(t, s, func(o *api.Options) { o.Limits.AnswerBytes, o.Limits.StoreTimeout = all, 20*time.Second })
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	w.as("alice").sends("r", strings.Repeat("x", all/8)).want(201)
	var answered sync.WaitGroup
	taken := make(chan struct{})
	ask := func() *slowClient {
		req := httptest.NewRequest("GET", "/v1/rooms/r/messages", nil)
		req.Header.Set("Authorization", "Bearer "+tokenOf(t, "alice"))
		c := &slowClient{httptest.NewRecorder(), make(chan struct{}), taken}
		answered.Go(func() { w.api.Handler().ServeHTTP(c, req) })
		return c
	}
	clients := make([]*slowClient, userTurns+waiting)
	for i := range clients {
		clients[i] = ask()
	}
	for range userTurns {
		<-s.asked
	}
	w.waitsInVain("alice", 100*time.Millisecond) // and so do the others by now
	close(s.let)
	statuses := map[int]int{}
	for _, c := range clients {
		<-c.begun
		statuses[c.Code]++
	}
	if statuses[200] != userTurns || statuses[429] != waiting {
		t.Errorf("answers, none of which is taken: %v", statuses)
	}
	close(taken)
	answered.Wait()
	w.as("alice").get("/v1/rooms/r/messages").want(200)
}
