package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// halfBody has come by half; the rest comes when it is let, with its end, as from a
// server's connection.
type halfBody struct {
	first, rest io.Reader
	half, let   chan struct{}
}

func (b *halfBody) Read(p []byte) (int, error) {
	if n, err := b.first.Read(p); err == nil {
		return n, nil
	}
	if b.half != nil {
		close(b.half)
		b.half = nil
		<-b.let
	}
	return b.rest.Read(p)
}

// Whoever has a token may begin as many requests as connections, and end none: their
// bodies take no more than a part of the memory, a user's no more than a part of that.
func TestBodiesThatDoNotComeWholeAreBounded(t *testing.T) {
	const half = 8 << 10
	w := newWorld(t, newMemory(), nil)
	w.api.SetBodies(8 * half) // one user's are two halves
	users := []string{"u0", "u1", "u2", "u3", "u4"}
	w.as("owner").post("/v1/rooms", `{"id":"r","members":`+jsonOf(users)+`}`).want(201)

	var waiting sync.WaitGroup
	let := make(chan struct{})
	stall := func(p *person) {
		t.Helper()
		first, rest := `{"text":"x"`+strings.Repeat(" ", half-11), `}`
		body := &halfBody{strings.NewReader(first), iotest.DataErrReader(strings.NewReader(rest)), make(chan struct{}), let}
		came := body.half
		req := httptest.NewRequest("POST", "/v1/rooms/r/messages", body)
		req.ContentLength = int64(len(first) + len(rest))
		req.Header = p.header.Clone()
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+p.token)
		waiting.Go(func() {
			rec := httptest.NewRecorder()
			w.api.Handler().ServeHTTP(rec, req)
			if rec.Code != http.StatusCreated {
				t.Errorf("one that was begun before was answered %d %s", rec.Code, rec.Body)
			}
		})
		<-came
	}
	large := strings.Repeat("x", 4<<10)
	stall(w.as("u0"))
	w.as("u0").sends("r", large).want(201)
	stall(w.as("u0"))
	w.as("u0").sends("r", large).wantCode(503, "unavailable")
	w.as("u0").sends("r", "small").want(201)
	w.as("u1").sends("r", large).want(201)
	w.server("u1").sends("r", large).want(201)
	for _, u := range users[1:3] {
		stall(w.as(u))
		stall(w.as(u))
	}
	stall(w.server("u0")) // a back end's are not one user's
	stall(w.server("u0"))
	for _, p := range []*person{w.as("u4"), w.server("u4")} {
		if got := p.sends("r", large).wantCode(503, "unavailable"); got.header.Get("Retry-After") == "" {
			t.Error("it is not told when to come back")
		}
		p.sends("r", "small").want(201)
	}
	close(let)
	waiting.Wait()
	for _, u := range users {
		w.as(u).sends("r", large).want(201)
	}
}
