package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
)

func TestCredentials(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	good := tokenOf(t, "alice")
	expired, err := auth.Mint(secret, "alice", time.Minute, auth.MintOptions{Now: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := auth.Mint([]byte(strings.Repeat("x", 32)), "alice", time.Hour, auth.MintOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// {"alg":"none"} . {"sub":"alice","exp":9999999999} .
	const unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0."
	for name, tt := range map[string]struct{ header, code string }{
		"none":          {"", "unauthorized"},
		"empty":         {"Bearer ", "unauthorized"},
		"no scheme":     {good, "unauthorized"},
		"basic":         {"Basic YTpi", "unauthorized"},
		"expired":       {"Bearer " + expired, "token_expired"},
		"forged":        {"Bearer " + forged, "unauthorized"},
		"alg none":      {"Bearer " + unsigned, "unauthorized"},
		"garbage":       {"Bearer x.y.z", "unauthorized"},
		"huge":          {"Bearer " + strings.Repeat("a.", 6000), "unauthorized"},
		"half a key":    {"Bearer " + serverKey[:30], "unauthorized"},
		"two in one":    {"Bearer " + good + ", Bearer " + good, "unauthorized"},
		"doubled blank": {"Bearer  " + good, "unauthorized"},
	} {
		p := w.nobody()
		if tt.header != "" {
			p = p.with("Authorization", tt.header)
		}
		for _, a := range []*answer{p.get("/v1/rooms"), p.sends("r", "x"), p.get("/v1/rooms/r")} {
			if a.wantCode(401, tt.code); len(tt.header) > 20 && strings.Contains(a.body, tt.header[10:20]) {
				t.Errorf("%s: the answer repeats the token: %s", name, a.body)
			}
		}
	}
	w.nobody().with("Authorization", "Bearer "+good).with("Authorization", "Bearer "+good).get("/v1/rooms").wantCode(401, "unauthorized")
	w.nobody().with("Authorization", "bearer "+good).get("/v1/rooms").want(200)
	w.nobody().get("/v1/rooms?token="+good).wantCode(401, "unauthorized")
	w.nobody().with("Cookie", "token="+good).get("/v1/rooms").wantCode(401, "unauthorized")
}

func TestWhoMay(t *testing.T) { onEveryStore(t, whoMay) }

func whoMay(t *testing.T, w *world) {
	w.as("alice").post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
	out := w.as("eve")
	for _, room := range []struct {
		id, code string
		status   int
	}{{"r", "forbidden", 403}, {"nowhere", "room_not_found", 404}} {
		path := "/v1/rooms/" + room.id
		for _, a := range []*answer{
			out.get(path), out.get(path + "/members"), out.get(path + "/messages"), out.sends(room.id, "x"),
			out.post(path+"/read", `{"id":"1-1"}`), out.put(path+"/members/eve", ""), out.delete(path + "/members/bob"), out.delete(path + "/members/eve"),
		} {
			a.wantCode(room.status, room.code)
		}
	}
	w.as("bob").put("/v1/rooms/r/members/eve", "").wantCode(403, "forbidden")
	w.as("bob").post("/v1/rooms/r/read", `{"id":"99-1"}`).wantCode(400, "invalid")
	w.as("eve").post("/v1/rooms", `{"id":"r"}`).wantCode(409, "room_exists")
}

func TestBadBodies(t *testing.T) {
	store := newMemory()
	w := newWorld(t, store, nil)
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	deep := strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)
	for _, tt := range []struct {
		name, body string
		status     int
		code, says string
	}{
		{"empty", "", 400, "malformed", ""},
		{"blanks", "  \n ", 400, "malformed", ""},
		{"many blanks", strings.Repeat(" ", 100), 400, "malformed", ""},
		{"not JSON", "hello", 400, "malformed", "object"},
		{"half", `{"text":"hi"`, 400, "malformed", "JSON"},
		{"null", `null`, 400, "malformed", "object"},
		{"null behind blanks", strings.Repeat(" \t\r\n", 5) + `null`, 400, "malformed", "object"},
		{"a list", `[{"text":"hi"}]`, 400, "malformed", "object"},
		{"a string", `"hi"`, 400, "malformed", "object"},
		{"trailing", `{"text":"hi"} x`, 400, "malformed", ""},
		{"two objects", `{"text":"hi"}{"text":"hi"}`, 400, "malformed", ""},
		{"comment", `{"text":"hi"/**/}`, 400, "malformed", ""},
		{"BOM", "\ufeff" + `{"text":"hi"}`, 400, "malformed", ""},
		{"single quotes", `{'text':'hi'}`, 400, "malformed", ""},
		{"NaN", `{"text":NaN}`, 400, "malformed", ""},
		{"unknown field", `{"text":"hi","colour":"red"}`, 400, "malformed", `unknown field "colour"`},
		{"unknown field, case", `{"Text":"hi"}`, 400, "malformed", `unknown field "Text"`},
		{"__proto__", `{"text":"hi","__proto__":{}}`, 400, "malformed", `"__proto__"`},
		{"from", `{"text":"hi","from":"bob"}`, 400, "malformed", `"from"`},
		{"unknown field, long", `{"text":"hi","` + strings.Repeat("x", 5000) + `":1}`, 400, "malformed", "unknown"},
		{"repeated field", `{"text":"hi","text":"ho"}`, 400, "malformed", `repeated field "text"`},
		{"repeated by escape", `{"text":"hi","\u0074ext":"ho"}`, 400, "malformed", `repeated`},
		{"repeated in meta", `{"text":"hi","meta":{"a":1,"a":2}}`, 400, "malformed", `repeated`},
		{"text number", `{"text":1}`, 400, "malformed", `wrong type of "text"`},
		{"text huge number", `{"text":1e999}`, 400, "malformed", `wrong type of "text"`},
		{"text object", `{"text":{"a":"b"}}`, 400, "malformed", `wrong type`},
		{"attachments string", `{"attachments":"a"}`, 400, "malformed", `wrong type`},
		{"attachments of numbers", `{"attachments":[1]}`, 400, "malformed", `attachments`},
		{"invalid UTF-8", "{\"text\":\"\xff\"}", 400, "malformed", "UTF-8"},
		{"overlong UTF-8", "{\"text\":\"\xc0\xaf\"}", 400, "malformed", ""},
		{"UTF-8 surrogate", "{\"text\":\"\xed\xa0\x80\"}", 400, "malformed", ""},
		{"invalid UTF-8 in meta", "{\"text\":\"a\",\"meta\":{\"a\":\"\xff\"}}", 400, "malformed", ""},
		{"lone surrogate", `{"text":"\ud800"}`, 400, "malformed", ""},
		{"lone low surrogate", `{"text":"\udc00x"}`, 400, "malformed", ""},
		{"surrogates reversed", `{"text":"\udc00\ud800"}`, 400, "malformed", ""},
		{"lone surrogate in meta", `{"text":"a","meta":{"a":"\ud800"}}`, 400, "malformed", ""},
		{"raw control character", "{\"text\":\"a\x01\"}", 400, "malformed", ""},
		{"raw NUL", "{\"text\":\"a\x00\"}", 400, "malformed", ""},
		{"deep lists", `{"meta":` + strings.Repeat("[", 20_000), 400, "malformed", ""},
		{"deep objects", strings.Repeat(`{"a":`, 10_000), 400, "malformed", ""},
		{"deep meta", `{"text":"a","meta":` + deep + `}`, 400, "invalid", "nested"},
		{"100,000 deep", strings.Repeat("[", 100_000), 413, "too_large", ""},
		{"too large", `{"text":"` + strings.Repeat("x", 64<<10) + `"}`, 413, "too_large", "65536"},
		{"no text", `{}`, 400, "invalid", "text"},
		{"empty text", `{"type":"text","text":""}`, 400, "invalid", "text"},
		{"null text", `{"text":null}`, 400, "invalid", "text"},
		{"text and meta only", `{"type":"text","meta":{"a":1}}`, 400, "invalid", "text"},
		{"own type, nothing in it", `{"type":"card"}`, 400, "invalid", "meta"},
		{"8,001 characters", `{"text":"` + strings.Repeat("가", 8001) + `"}`, 400, "invalid", "8000"},
		{"type with capitals", `{"type":"Text","text":"a"}`, 400, "invalid", "type"},
		{"type too long", `{"type":"` + strings.Repeat("x", 33) + `","text":"a"}`, 400, "invalid", "type"},
		{"type with quote", `{"type":"a\"b","text":"a"}`, 400, "invalid", "type"},
		{"reply_to nothing", `{"text":"a","reply_to":"x"}`, 400, "invalid", "reply_to"},
		{"reply_to zero", `{"text":"a","reply_to":"0-0"}`, 400, "invalid", "reply_to"},
		{"reply_to of two spellings", `{"text":"a","reply_to":"01-1"}`, 400, "invalid", "reply_to"},
		{"reply_to too large", `{"text":"a","reply_to":"18446744073709551616-0"}`, 400, "invalid", "reply_to"},
		{"meta list", `{"text":"a","meta":[1]}`, 400, "invalid", "meta"},
		{"meta string", `{"text":"a","meta":"x"}`, 400, "invalid", "meta"},
		{"meta too large", `{"text":"a","meta":{"x":"` + strings.Repeat("x", 4100) + `"}}`, 400, "invalid", "meta"},
		{"meta with 1e999", `{"text":"a","meta":{"x":[1e999]}}`, 400, "invalid", "float64"},
		{"meta with -1e999", `{"text":"a","meta":{"x":-1E+999}}`, 400, "invalid", "float64"},
		{"11 attachments", `{"attachments":["a","a","a","a","a","a","a","a","a","a","a"]}`, 400, "invalid", "10"},
		{"attachment with a path", `{"attachments":["../../etc/passwd"]}`, 400, "invalid", "attachment"},
		{"attachment empty", `{"attachments":[""]}`, 400, "invalid", "attachment"},
		{"attachment too long", `{"attachments":["` + strings.Repeat("a", 65) + `"]}`, 400, "invalid", "attachment"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := alice.post("/v1/rooms/r/messages", tt.body).wantCode(tt.status, tt.code)
			if !strings.Contains(a.field("detail"), tt.says) || len(a.body) > 500 {
				t.Errorf("says %s", a.body)
			}
		})
	}
	if len(store.sends) != 0 {
		t.Fatalf("%d of them reached the Store", len(store.sends))
	}
	for body, status := range map[string]int{
		`{"id":""}`: 201, `{"id":"a b"}`: 400, `{"id":"{x}"}`: 400, `{"id":"a:b"}`: 400, `{"id":"a*"}`: 400, `{"id":"a\r\nb"}`: 400,
		`{"id":"` + strings.Repeat("a", 65) + `"}`: 400, `{"name":"a\u0000"}`: 400, `{"name":"` + strings.Repeat("가", 201) + `"}`: 400,
		`{"members":[""]}`: 400, `{"members":["a\nb"]}`: 400, `{"members":"bob"}`: 400, `{"members":[null]}`: 400, `{"owner":"bob"}`: 400,
		`{"members":["` + strings.Repeat("a", 129) + `"]}`: 400, `{"members":[` + strings.Repeat(`"a",`, 1000) + `"a"]}`: 400,
	} {
		alice.post("/v1/rooms", body).want(status)
	}
	for _, body := range []string{`{"role":"king"}`, `{"role":1}`, `{"role":"member","x":1}`, `[]`, `null`, strings.Repeat(" ", 17) + `null`, `{"role":"Owner"}`} {
		alice.put("/v1/rooms/r/members/bob", body).want(400)
	}
	for _, body := range []string{"", `{}`, `{"id":"x"}`, `{"id":"0-0"}`, `{"id":5}`, `{"id":"1-1","n":1}`} {
		alice.post("/v1/rooms/r/read", body).want(400)
	}
}

func TestBadPathsAndQueries(t *testing.T) {
	store := newMemory()
	w := newWorld(t, store, nil)
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	calls := store.calls
	for _, path := range []string{
		"/v1/rooms/%7Bx%7D", "/v1/rooms/a:b", "/v1/rooms/*", "/v1/rooms/a%0D%0Ab", "/v1/rooms/" + strings.Repeat("x", 65), "/v1/rooms/a%2Fb",
		"/v1/rooms/a%00", "/v1/rooms/%ff", "/v1/rooms/a%20b/messages", "/v1/rooms/r%2e%2e%2f/messages",
		"/v1/rooms/r/messages?limit=0", "/v1/rooms/r/messages?limit=201", "/v1/rooms/r/messages?limit=-1", "/v1/rooms/r/messages?limit=x",
		"/v1/rooms/r/messages?limit=", "/v1/rooms/r/messages?limit=1&limit=2", "/v1/rooms/r/messages?limit=1e2", "/v1/rooms/r/messages?limit=99999999999999999999",
		"/v1/rooms/r/messages?before=1-1&after=1-1", "/v1/rooms/r/messages?before=0-0", "/v1/rooms/r/messages?before=1", "/v1/rooms/r/messages?before=-1-1",
		"/v1/rooms/r/messages?after=", "/v1/rooms/r/messages?after=$", "/v1/rooms/r/messages?after=%2B", "/v1/rooms/r/messages?befor=1-1",
		"/v1/rooms/r/messages?after=1-1;limit=2", "/v1/rooms/r/messages?%zz",
		"/v1/rooms?limit=1000", "/v1/rooms?cursor=a%20b", "/v1/rooms/r/members?cursor=" + strings.Repeat("x", 600), "/v1/rooms/r/members?limit=1001",
	} {
		alice.get(path).want(400)
	}
	for _, path := range []string{"/v1/rooms/r/members/%00", "/v1/rooms/r/members/a%0Ab", "/v1/rooms/r/members/%ff", "/v1/rooms/r/members/" + strings.Repeat("x", 129), "/v1/rooms/r/members/%C2%85"} {
		alice.put(path, "").wantCode(400, "invalid")
		alice.delete(path).wantCode(400, "invalid")
	}
	for _, key := range []string{"", "a\x01", "é", strings.Repeat("k", 129)} {
		alice.with("Idempotency-Key", key).sends("r", "x").wantCode(400, "invalid")
	}
	alice.with("Idempotency-Key", "a").with("Idempotency-Key", "b").sends("r", "x").wantCode(400, "invalid")
	if store.calls != calls {
		t.Fatalf("%d of them reached the Store", store.calls-calls)
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v2/rooms", "/v1/rooms/", "/v1/rooms/r/", "//v1/rooms", "/v1/rooms/r/members/a/b", "/v1/rooms/../../etc/passwd", "/v1/nothing", "/debug/pprof/", "/metrics"} {
		alice.get(path).wantCode(404, "not_found")
		w.nobody().get(path).wantCode(404, "not_found")
	}
	for method, path := range map[string]string{"PATCH": "/v1/rooms", "DELETE": "/v1/rooms/r", "PUT": "/v1/rooms/r/messages", "POST": "/docs", "TRACE": "/v1/rooms", "HEAD": "/v1/focus"} {
		if a := alice.do(method, path, "").wantCode(405, "method_not_allowed"); a.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", method, path)
		}
	}
}

func TestMediaTypes(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	for kind, status := range map[string]int{
		"application/json": 201, "application/json; charset=utf-8": 201, "Application/JSON;charset=UTF-8": 201,
		"application/json; charset=latin1": 415, "text/plain": 415, "": 415, "application/x-www-form-urlencoded": 415,
		"multipart/form-data; boundary=x": 415, "application/json;;": 415, "application/jsonx": 415, "application/problem+json": 415,
	} {
		a := alice.with("Content-Type", kind).sends("r", "x").want(status)
		if status == 415 {
			a.wantCode(415, "unsupported_media_type")
		}
	}
	alice.with("Content-Encoding", "gzip").sends("r", "x").wantCode(415, "unsupported_media_type")
	alice.with("Content-Encoding", "identity").sends("r", "x").want(201)
}

func TestStoreFailures(t *testing.T) {
	store := newMemory()
	var logged strings.Builder
	w := newWorld(t, store, func(o *api.Options) { o.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	for err, want := range map[error]struct {
		status int
		code   string
	}{
		chat.ErrUnavailable:      {503, "unavailable"},
		context.DeadlineExceeded: {503, "unavailable"},
		chat.ErrNotReplicated:    {503, "not_replicated"},
		chat.ErrStorageFull:      {507, "storage_full"},
		chat.ErrRoomFull:         {409, "room_full"},
		chat.ErrTooMany:          {409, "too_many_rooms"},
		chat.ErrNotAllowed:       {403, "forbidden"},
		errors.New("WRONGTYPE at 10.0.0.7 secret-detail"): {500, "internal"},
	} {
		store.fail = fmt.Errorf("sending: %w", err)
		logged.Reset()
		for _, a := range []*answer{alice.sends("r", "x"), alice.put("/v1/rooms/r/members/b", ""), alice.post("/v1/rooms", `{}`)} {
			a.wantCode(want.status, want.code)
			if strings.Contains(a.body, "secret-detail") || strings.Contains(a.body, "sending") {
				t.Errorf("tells what is ours: %s", a.body)
			}
			if ours := want.status >= 500; ours != strings.Contains(logged.String(), a.header.Get("X-Request-Id")) {
				t.Errorf("%v: log %s", err, logged.String())
			}
		}
	}
}

func TestStoreThatHangsIsGivenUp(t *testing.T) {
	store := newMemory()
	w := newWorld(t, store, func(o *api.Options) { o.Limits.StoreTimeout = 200 * time.Millisecond })
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	store.gate = make(chan struct{})
	w.as("alice").sends("r", "x").wantCode(503, "unavailable")
}

// explosive panics when it is asked for a room.
type explosive struct{ *memory }

func (explosive) Room(context.Context, chat.Actor, string) (chat.Room, chat.Role, error) {
	panic("secret-detail")
}

func TestPanicBecomesInternal(t *testing.T) {
	var logged strings.Builder
	w := newWorld(t, explosive{newMemory()}, func(o *api.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		o.Extra = []api.Extra{{Method: "GET", Path: "/half", Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte("half"))
			panic("later")
		})}}
	})
	a := w.as("alice").get("/v1/rooms/r").wantCode(500, "internal")
	if strings.Contains(a.body, "secret-detail") || !strings.Contains(logged.String(), "secret-detail") || !strings.Contains(logged.String(), a.field("request_id")) {
		t.Errorf("answer %s, log %s", a.body, logged.String())
	}
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("half an answer ended with %v instead of a closed connection", p)
		}
	}()
	w.nobody().get("/half")
}

func TestAccessLogHoldsNoSecrets(t *testing.T) {
	var logged strings.Builder
	w := newWorld(t, newMemory(), func(o *api.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	alice.get("/v1/rooms?ticket=query-secret").want(400)
	alice.with("X-Forwarded-For", "6.6.6.6").sends("r", "text-secret").want(201)
	log := logged.String()
	for _, secret := range []string{alice.token[:20], "query-secret", "text-secret", "6.6.6.6"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q: %s", secret, log)
		}
	}
	if strings.Count(log, "msg=request ") != 3 || !strings.Contains(log, "path=/v1/rooms/r/messages status=201") {
		t.Errorf("log %s", log)
	}
}

// S1: the limit does not stand before the answer to a retry.
func TestARetryIsAnsweredOverTheLimit(t *testing.T) {
	w := newWorld(t, newMemory(), func(o *api.Options) { o.Limits.SendsPerSecond, o.Limits.SendBurst = 0.5, 1 })
	alice := w.as("alice")
	w.server("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	first := alice.with("Idempotency-Key", "k").sends("r", "x").want(201)
	again := alice.with("Idempotency-Key", "k").sends("r", "x").want(200).wantField("id", first.field("id"))
	if again.header.Get("Idempotent-Replayed") != "true" {
		t.Fatal("not marked as replayed")
	}
	alice.with("Idempotency-Key", "k").sends("r", "another").wantCode(409, "idempotency_key_reuse")
	alice.with("Idempotency-Key", "new").sends("r", "x").wantCode(429, "rate_limited")
	alice.sends("r", "x").wantCode(429, "rate_limited")
}

// A room is for good: who may not send without end makes none without end.
func TestMakingRoomsIsLimitedAsSendingIs(t *testing.T) {
	w := newWorld(t, newMemory(), func(o *api.Options) { o.Limits.SendsPerSecond, o.Limits.SendBurst = 0.5, 3 })
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	alice.sends("r", "x").want(201)
	alice.post("/v1/rooms", `{}`).want(201)
	if a := alice.post("/v1/rooms", `{}`).wantCode(429, "rate_limited"); a.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	w.as("bob").post("/v1/rooms", `{}`).want(201)
	for range 4 {
		w.server("alice").post("/v1/rooms", `{}`).want(201)
	}
}

func TestSendRateIsLimited(t *testing.T) {
	store := newMemory()
	seen := &counter{}
	w := newWorld(t, store, func(o *api.Options) {
		o.Limits.SendsPerSecond, o.Limits.SendBurst = 0.5, 3
		o.Observer = seen
	})
	alice := w.as("alice")
	w.server("alice").post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
	for range 3 {
		alice.sends("r", "x").want(201)
	}
	if a := alice.sends("r", "x").wantCode(429, "rate_limited"); a.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	w.as("bob").sends("r", "x").want(201)
	alice.get("/v1/rooms/r/messages").want(200)
	for range 5 {
		w.server("alice").sends("r", "x").want(201)
	}
	if seen.sends[api.SendLimited] != 1 || seen.sends[api.SendAccepted] != 9 {
		t.Errorf("counted %v", seen.sends)
	}
}

// counter is an Observer for one goroutine.
type counter struct {
	sends    map[string]int
	requests map[string]int
}

func (c *counter) Upload(string, int64, time.Duration) {}
func (c *counter) Download(int64)                      {}

func (c *counter) Send(outcome string, took time.Duration) {
	if c.sends == nil {
		c.sends = map[string]int{}
	}
	c.sends[outcome]++
}

func (c *counter) Request(method, route string, status int, took time.Duration) {
	if c.requests == nil {
		c.requests = map[string]int{}
	}
	c.requests[fmt.Sprint(method, " ", route, " ", status)]++
}

func TestObserverSeesEverything(t *testing.T) {
	store, seen := newMemory(), &counter{}
	w := newWorld(t, explosive{store}, func(o *api.Options) { o.Observer = seen })
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`)
	alice.with("Idempotency-Key", "k").sends("r", "x")
	alice.with("Idempotency-Key", "k").sends("r", "x")
	alice.sends("r", "")
	alice.sends("nowhere", "x")
	alice.get("/v1/rooms/r")
	alice.get("/nowhere")
	w.nobody().get("/v1/rooms")
	store.fail = chat.ErrUnavailable
	alice.sends("r", "x")
	store.fail = errors.New("x")
	alice.sends("r", "x")
	for outcome, want := range map[string]int{api.SendAccepted: 1, api.SendReplayed: 1, api.SendRefused: 2, api.SendUnavailable: 1, api.SendFailed: 1} {
		if seen.sends[outcome] != want {
			t.Errorf("%s: %d, want %d", outcome, seen.sends[outcome], want)
		}
	}
	for request, want := range map[string]int{
		"POST /v1/rooms 201": 1, "POST /v1/rooms/:room/messages 201": 1, "POST /v1/rooms/:room/messages 200": 1, "POST /v1/rooms/:room/messages 400": 1,
		"GET /v1/rooms/:room 500": 1, "GET  404": 1, "GET /v1/rooms 401": 1, "POST /v1/rooms/:room/messages 503": 1,
	} {
		if seen.requests[request] != want {
			t.Errorf("%s: %d, want %d in %v", request, seen.requests[request], want, seen.requests)
		}
	}
}
