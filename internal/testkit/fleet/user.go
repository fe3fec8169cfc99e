package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/auth"
)

// transport is shared by all users: connections to an API are reused, and there
// are enough of them for a test that sends with many goroutines.
var transport = &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 10 * time.Second}

// User is somebody with a token, and at most one socket at a time. What comes
// down the socket is read at once and kept, in order, until a scenario asks.
// Messages that are not newer than the position of their room are dropped and
// counted, as clients have to do.
type User struct {
	Name  string
	Token string

	tb      testing.TB
	fleet   *Fleet
	api     int
	gateway int // guarded by mu
	via     Transport
	polls   *http.Transport // its own: polls on one socket
	fence   bool            // the room that WantNothing uses exists

	mu          sync.Mutex
	changed     chan struct{} // guarded by mu: closed and replaced with each change
	conn        link
	end         error              // guarded by mu: why the last socket ended
	queue       []Event            // guarded by mu: not asked for yet
	logs        map[string][]Event // guarded by mu: all messages, by room
	positions   map[string]string  // guarded by mu
	keep        bool
	duplicates  int
	polled      map[string]string // guarded by mu: the positions of the last answer
	lastEventID string            // guarded by mu
	problems    []string          // guarded by mu: breaks of the contract seen while reading
}

// UserOption changes a user.
type UserOption func(*User)

// OnAPI makes the user send through the i-th API.
func OnAPI(i int) UserOption { return func(u *User) { u.api = i } }

// OnGateway makes the user connect to the i-th gateway.
func OnGateway(i int) UserOption { return func(u *User) { u.gateway = i } }

// KeepingLogs makes the user keep every message for Log, instead of queueing it
// for WantMessage.
func KeepingLogs() UserOption { return func(u *User) { u.keep = true } }

// User is a new user with a token. Nothing is connected yet.
func (f *Fleet) User(name string, options ...UserOption) *User {
	f.TB.Helper()
	token, err := auth.Mint([]byte(f.Secret), name, time.Hour, auth.MintOptions{})
	if err != nil {
		f.TB.Fatal(err)
	}
	u := &User{
		Name: name, Token: token, tb: f.TB, fleet: f,
		changed: make(chan struct{}), logs: map[string][]Event{}, positions: map[string]string{},
	}
	for _, o := range options {
		o(u)
	}
	f.TB.Cleanup(func() {
		u.Disconnects()
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, p := range u.problems {
			f.TB.Errorf("%s: %s", u.Name, p)
		}
	})
	return u
}

// ---- over HTTP ----

// Response is an answer of the API.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Decode reads the body into v.
func (r Response) Decode(tb testing.TB, v any) {
	tb.Helper()
	if err := json.Unmarshal(r.Body, v); err != nil {
		tb.Fatalf("%d %s: %v", r.Status, r.Body, err)
	}
}

// Requests sends one request to the user's API; body is JSON, or anything that
// becomes JSON. An API that can't be reached is an error.
func (u *User) Requests(method, path string, body any, header ...string) (Response, error) {
	return u.requestTo(u.api, method, path, body, header...)
}

func (u *User) requestTo(api int, method, path string, body any, header ...string) (Response, error) {
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(b)
	case []byte:
		content = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			u.tb.Errorf("BUG in the test: %v", err)
			return Response{}, err
		}
		content = bytes.NewReader(encoded)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+u.fleet.APIs[api].Addr+path, content)
	if err != nil {
		return Response{}, err
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return Response{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return Response{res.StatusCode, res.Header, b}, err
}

// must is Requests with a status that must come.
func (u *User) must(want int, method, path string, body any, header ...string) Response {
	u.tb.Helper()
	res, err := u.Requests(method, path, body, header...)
	if err != nil {
		u.tb.Fatalf("%s: %s %s: %v", u.Name, method, path, err)
	}
	if res.Status != want {
		u.tb.Fatalf("%s: %s %s: %d %s, want %d", u.Name, method, path, res.Status, res.Body, want)
	}
	return res
}

// CreatesRoom makes a room with members besides the user.
func (u *User) CreatesRoom(id string, members ...string) {
	u.tb.Helper()
	u.must(http.StatusCreated, http.MethodPost, "/v1/rooms", map[string]any{"id": id, "name": id, "members": members})
}

// Adds makes somebody a member of a room.
func (u *User) Adds(room, user string) {
	u.tb.Helper()
	res, err := u.Requests(http.MethodPut, memberPath(room, user), map[string]any{})
	if err != nil || res.Status/100 != 2 {
		u.tb.Fatalf("%s adds %s to %s: %d %s %v", u.Name, user, room, res.Status, res.Body, err)
	}
}

// Removes takes somebody out of a room: oneself, to leave.
func (u *User) Removes(room, user string) {
	u.tb.Helper()
	res, err := u.Requests(http.MethodDelete, memberPath(room, user), nil)
	if err != nil || res.Status/100 != 2 {
		u.tb.Fatalf("%s removes %s from %s: %d %s %v", u.Name, user, room, res.Status, res.Body, err)
	}
}

func memberPath(room, user string) string {
	return "/v1/rooms/" + url.PathEscape(room) + "/members/" + url.PathEscape(user)
}

func messagesPath(room string) string { return "/v1/rooms/" + url.PathEscape(room) + "/messages" }

// Sends sends a text, which must be accepted, and returns the message.
func (u *User) Sends(room, text string) Event {
	u.tb.Helper()
	var m Event
	u.must(http.StatusCreated, http.MethodPost, messagesPath(room), text1(text)).Decode(u.tb, &m)
	return m
}

// Uploads makes an attachment and returns its ID.
func (u *User) Uploads(name, content string) (id string) {
	u.tb.Helper()
	var a struct{ ID string }
	u.must(http.StatusCreated, http.MethodPost, "/v1/attachments", formOf(name, content), "Content-Type", "multipart/form-data; boundary=b").Decode(u.tb, &a)
	return a.ID
}

// TryUpload uploads a file once.
func (u *User) TryUpload(name, content string) (Response, error) {
	return u.Requests(http.MethodPost, "/v1/attachments", formOf(name, content), "Content-Type", "multipart/form-data; boundary=b")
}

func formOf(name, content string) string {
	return "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name + "\"\r\n\r\n" + content + "\r\n--b--\r\n"
}

// Attaches sends a message that has files and no text.
func (u *User) Attaches(room string, ids ...string) Event {
	u.tb.Helper()
	var m Event
	u.must(http.StatusCreated, http.MethodPost, messagesPath(room), map[string]any{"attachments": ids}).Decode(u.tb, &m)
	return m
}

func text1(s string) map[string]string { return map[string]string{"type": "text", "text": s} }

// TrySend sends a text once, with a key, through the user's API.
func (u *User) TrySend(room, text, key string) (Response, error) {
	return u.Requests(http.MethodPost, messagesPath(room), text1(text), "Idempotency-Key", key)
}

// Insists sends a text with a key until an API, any of them, has acknowledged it,
// as clients do.
func (u *User) Insists(room, text, key string) (m Event, err error) {
	for deadline, try := time.Now().Add(timeout), u.api; time.Now().Before(deadline); try++ {
		var res Response
		res, err = u.requestTo(try%len(u.fleet.APIs), http.MethodPost, messagesPath(room), text1(text), "Idempotency-Key", key)
		switch {
		case err == nil && (res.Status == http.StatusCreated || res.Status == http.StatusOK):
			return m, json.Unmarshal(res.Body, &m)
		case err == nil && res.Status != http.StatusTooManyRequests && res.Status < 500:
			return m, fmt.Errorf("%s sends to %s: %d %s", u.Name, room, res.Status, res.Body)
		case err == nil:
			err = fmt.Errorf("%d %s", res.Status, res.Body)
		}
		time.Sleep(50 * time.Millisecond) // between retries, as a client waits
	}
	return m, fmt.Errorf("%s sends to %s: nobody acknowledges: %w", u.Name, room, err)
}

// History pages all of a room's messages after an ID, oldest first.
func (u *User) History(room, after string) []Event {
	u.tb.Helper()
	if after == "" {
		after = "0-0"
	}
	var all []Event
	for {
		var page struct {
			Messages []Event
			More     bool
		}
		u.must(http.StatusOK, http.MethodGet, messagesPath(room)+"?limit=200&after="+after, nil).Decode(u.tb, &page)
		all = append(all, page.Messages...)
		if !page.More || len(page.Messages) == 0 {
			return all
		}
		after = page.Messages[len(page.Messages)-1].ID
	}
}

// Positions are the last message the user has of each room.
func (u *User) Positions() map[string]string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.positions)
}
