package api_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/auth"
)

var secret = []byte("a secret of thirty-two bytes or more")

const serverKey = "a-server-key-of-thirty-two-bytes-or-more"

func verifier(t testing.TB) auth.Verifier {
	t.Helper()
	v, err := auth.New(auth.Options{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	v, err = auth.WithServerKeys(auth.Cached(v, 1000), []string{serverKey})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tokenOf(t testing.TB, user string) string {
	t.Helper()
	token, err := auth.Mint(secret, user, time.Hour, auth.MintOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// world is an API on some Store, and people who talk to it.
type world struct {
	t     testing.TB
	store api.Store
	api   *api.API
}

func newWorld(t testing.TB, store api.Store, change func(*api.Options)) *world {
	t.Helper()
	o := api.Options{Store: store, Verifier: verifier(t), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, store, a}
}

// person sends requests with a token.
type person struct {
	w      *world
	token  string
	header http.Header
}

func (w *world) as(user string) *person {
	return &person{w, tokenOf(w.t, user), http.Header{}}
}

// server is the team's own back end; acting may be empty.
func (w *world) server(acting string) *person {
	p := &person{w, serverKey, http.Header{}}
	if acting != "" {
		p.header.Set("Madang-User", acting)
	}
	return p
}

func (w *world) nobody() *person { return &person{w, "", http.Header{}} }

// with adds a header to all further requests.
func (p person) with(name, value string) *person {
	p.header = p.header.Clone()
	p.header.Add(name, value)
	return &p
}

func (p *person) get(path string) *answer        { return p.do("GET", path, "") }
func (p *person) post(path, body string) *answer { return p.do("POST", path, body) }
func (p *person) put(path, body string) *answer  { return p.do("PUT", path, body) }
func (p *person) delete(path string) *answer     { return p.do("DELETE", path, "") }
func (p *person) sends(room, text string) *answer {
	return p.post("/v1/rooms/"+room+"/messages", jsonOf(map[string]string{"text": text}))
}
func (p *person) do(method, path, body string) *answer {
	p.w.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, path, r)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range p.header {
		req.Header[k] = v
	}
	if p.token != "" && req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	rec := httptest.NewRecorder()
	p.w.api.Handler().ServeHTTP(rec, req)
	a := &answer{t: p.w.t, request: method + " " + path, status: rec.Code, header: rec.Header(), body: rec.Body.String()}
	a.checkAlways()
	checkAgainstSpec(a, method, req.URL.EscapedPath())
	return a
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// answer is what came back.
type answer struct {
	t       testing.TB
	request string
	status  int
	header  http.Header
	body    string
}

// checkAlways holds for each and every answer.
func (a *answer) checkAlways() {
	a.t.Helper()
	if a.header.Get("X-Request-Id") == "" || a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") == "" {
		a.t.Errorf("%s: headers %v", a.request, a.header)
	}
	if a.status < 400 {
		return
	}
	var p struct {
		Type, Title, Detail, Code string
		Status                    int
		RequestID                 string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		a.t.Fatalf("%s: %d is not a problem: %s (%v)", a.request, a.status, a.body, err)
	}
	if p.Status != a.status || p.Type != "urn:madang:problem:"+p.Code || p.Code == "" || p.Title == "" || p.Detail == "" || p.RequestID != a.header.Get("X-Request-Id") {
		a.t.Errorf("%s: %d: %s", a.request, a.status, a.body)
	}
	if (a.status == 401) != (a.header.Get("WWW-Authenticate") != "") {
		a.t.Errorf("%s: %d with WWW-Authenticate %q", a.request, a.status, a.header.Get("WWW-Authenticate"))
	}
	if wants := a.status == 503 || a.status == 507 || a.status == 429; wants != (a.header.Get("Retry-After") != "") {
		a.t.Errorf("%s: %d with Retry-After %q", a.request, a.status, a.header.Get("Retry-After"))
	}
}

func (a *answer) want(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: %d %s; want %d", a.request, a.status, a.body, status)
	}
	return a
}

func (a *answer) wantCode(status int, code string) *answer {
	a.t.Helper()
	if a.want(status); a.field("code") != code {
		a.t.Fatalf("%s: %s; want code %s", a.request, a.body, code)
	}
	return a
}

// field is a value of the answer, by path ("messages.0.id"), as text.
func (a *answer) field(path string) string {
	a.t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("%s: %v in %s", a.request, err, a.body)
	}
	for _, step := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			i := int(step[0] - '0')
			if step == "#" {
				v = json.Number(jsonOf(len(x)))
			} else if i < len(x) {
				v = x[i]
			} else {
				v = nil
			}
		default:
			v = nil
		}
	}
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	}
	return jsonOf(v)
}

func (a *answer) wantField(path, want string) *answer {
	a.t.Helper()
	if got := a.field(path); got != want {
		a.t.Errorf("%s: %s is %q, want %q, in %s", a.request, path, got, want, a.body)
	}
	return a
}

// count is the length of a list in the answer.
func (a *answer) count(path string) (n int) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.field(path+".#")), &n); err != nil {
		a.t.Fatal(err)
	}
	return n
}
