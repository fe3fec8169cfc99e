package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

func TestTwoPeopleInARoom(t *testing.T) { onEveryStore(t, twoPeopleInARoom) }

func twoPeopleInARoom(t *testing.T, w *world) {
	alice, bob := w.as("alice"), w.as("bob")

	made := alice.post("/v1/rooms", `{"id":"lounge","name":"거실","members":["bob","bob","alice"]}`).want(201)
	made.wantField("id", "lounge").wantField("name", "거실").wantField("head", "0-0").wantField("n", "0").
		wantField("member_count", "2").wantField("role", "owner")
	if made.header.Get("Location") != "/v1/rooms/lounge" {
		t.Errorf("Location %q", made.header.Get("Location"))
	}
	bob.get("/v1/rooms/lounge").want(200).wantField("role", "member")

	first := alice.sends("lounge", "hi").want(201)
	first.wantField("type", "message").wantField("room", "lounge").wantField("prev", "0-0").wantField("n", "1").
		wantField("from", "alice").wantField("body.type", "text").wantField("body.text", "hi").wantField("durability", "accepted")
	if len(first.field("key")) != 26 {
		t.Errorf("key %q is not a ULID", first.field("key"))
	}
	if at, err := time.Parse(time.RFC3339Nano, first.field("sent_at")); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("sent_at %q", first.field("sent_at"))
	}
	second := bob.sends("lounge", "hello").want(201).wantField("prev", first.field("id")).wantField("n", "2")

	bob.get("/v1/rooms/lounge/messages").want(200).wantField("messages.#", "2").wantField("more", "false").
		wantField("messages.0.id", second.field("id")).wantField("messages.1.id", first.field("id"))

	alice.get("/v1/rooms").want(200).wantField("rooms.0.unread", "1").wantField("rooms.0.read", first.field("id")).wantField("rooms.0.read_n", "1")
	alice.get("/v1/rooms/lounge/members").want(200).
		wantField("members.0.user", "alice").wantField("members.0.read", first.field("id")).wantField("members.0.delivered", first.field("id")).
		wantField("members.1.user", "bob").wantField("members.1.read", second.field("id"))
	alice.post("/v1/rooms/lounge/read", `{"id":"`+second.field("id")+`"}`).want(204)
	alice.get("/v1/rooms").want(200).wantField("rooms.0.unread", "0").wantField("rooms.0.read", second.field("id")).wantField("rooms.0.read_n", "2")

	alice.put("/v1/rooms/lounge/members/carol", "").want(200).wantField("user", "carol").wantField("role", "member")
	alice.put("/v1/rooms/lounge/members/carol", `{"role":"admin"}`).want(200).wantField("role", "admin")
	alice.put("/v1/rooms/lounge/members/carol", "").want(200).wantField("role", "admin") // and carol stays it
	members := bob.get("/v1/rooms/lounge/members").want(200).wantField("members.#", "3")
	for i := range 3 {
		member := fmt.Sprint("members.", i, ".")
		want := map[string]string{"alice": "owner", "bob": "member", "carol": "admin"}[members.field(member+"user")]
		members.wantField(member+"role", want)
	}
	alice.delete("/v1/rooms/lounge/members/bob").want(204)
	bob.get("/v1/rooms/lounge/messages").wantCode(403, "forbidden")
}

func TestRoomWithoutIDGetsOne(t *testing.T) { onEveryStore(t, roomWithoutIDGetsOne) }

func roomWithoutIDGetsOne(t *testing.T, w *world) {
	id := w.as("alice").post("/v1/rooms", `{}`).want(201).field("id")
	if len(id) != 26 || !protocol.ValidRoom(id) {
		t.Fatalf("id %q", id)
	}
	w.as("alice").get("/v1/rooms/" + id).want(200)
}

func TestIdempotentSends(t *testing.T) { onEveryStore(t, idempotentSends) }

func idempotentSends(t *testing.T, w *world) {
	w.as("alice").post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
	alice := w.as("alice").with("Idempotency-Key", "k 1~")

	first := alice.post("/v1/rooms/r/messages", `{"type":"text","text":"hi","meta":{"a":1}}`).want(201).wantField("key", "k 1~")
	if first.header.Get("Idempotent-Replayed") != "" {
		t.Error("the first is called a replay")
	}
	// The same body in other words.
	again := alice.post("/v1/rooms/r/messages", ` {"meta":{ "a" : 1 },"text":"\u0068i","attachments":[]}`).want(200)
	if again.header.Get("Idempotent-Replayed") != "true" || again.body != first.body {
		t.Errorf("replay %v\n%s\n%s", again.header, again.body, first.body)
	}
	for _, other := range []string{`{"text":"ho"}`, `{"text":"hi"}`, `{"text":"hi","meta":{"a":1.0}}`, `{"text":"hi","meta":{"a":1},"type":"x"}`, `{"text":"hi","meta":{"a":1},"reply_to":"1-1"}`} {
		alice.post("/v1/rooms/r/messages", other).wantCode(409, "idempotency_key_reuse")
	}
	// Keys are the sender's own; and without one every request is a new message.
	w.as("bob").with("Idempotency-Key", "k 1~").sends("r", "hi").want(201)
	w.as("bob").sends("r", "hi").want(201)
	w.as("bob").sends("r", "hi").want(201)
	w.as("bob").get("/v1/rooms/r/messages").wantField("messages.#", "4")
}

func TestTextIsKeptToTheByte(t *testing.T) { onEveryStore(t, textIsKeptToTheByte) }

func textIsKeptToTheByte(t *testing.T, w *world) {
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	for _, text := range []string{
		"<script>alert(1)</script> & \u2028\u2029", "NUL \x00 BEL \a ESC \x1b DEL \x7f", "tab\tnew\nline\r\n", `quote " back \ slash /`,
		"😀 👨‍👩‍👧 한국어 \u202e rtl", strings.Repeat("가", 8000), "\ufeff\ufffd\U0010ffff", "__proto__",
	} {
		got := alice.sends("r", text).want(201)
		got.wantField("body.text", text)
		if strings.ContainsAny(got.body, "\n\r") {
			t.Errorf("a line break in the event would split its frame: %q", got.body)
		}
		alice.get("/v1/rooms/r/messages?limit=1").wantField("messages.0.body.text", text)
	}
	// meta keeps what no decoder would: the spelling of numbers, escapes, order.
	meta := `{"z":1E+300,"a":[1.10,-0,1e-999,12345678901234567890123],"\u0061b":"\u003c\n","__proto__":{"x":null}}`
	got := alice.post("/v1/rooms/r/messages", `{"type":"app.card_1","meta": `+strings.NewReplacer(`,"`, " ,\n\t\"").Replace(meta)+`}`).want(201)
	if !strings.Contains(got.body, `"meta":`+meta+`}`) {
		t.Errorf("meta changed: %s", got.body)
	}
	full := `{"type":"text","text":"t","reply_to":"5-10","meta":{}}`
	got = alice.post("/v1/rooms/r/messages", full).want(201)
	if !strings.Contains(got.body, `"body":`+full+`,`) {
		t.Errorf("body changed: %s", got.body)
	}
}

func TestHistoryPages(t *testing.T) { onEveryStore(t, historyPages) }

func historyPages(t *testing.T, w *world) {
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	var ids []string
	for range 5 {
		ids = append(ids, alice.sends("r", "x").want(201).field("id"))
	}
	for query, want := range map[string]string{
		"":                          "4 3 2 1 0 false",
		"?limit=2":                  "4 3 true",
		"?before=" + ids[3]:         "2 1 0 false",
		"?limit=2&before=" + ids[3]: "2 1 true",
		"?before=" + ids[0]:         "false",
		"?after=" + ids[2]:          "3 4 false",
		"?after=0-0&limit=3":        "0 1 2 true",
		"?after=" + ids[4]:          "false",
		"?after=99999999999999-0":   "false", // from the future
		"?before=18446744073709551615-18446744073709551615&limit=1": "4 true",
	} {
		a := alice.get("/v1/rooms/r/messages" + query).want(200)
		var got []string
		for i := range a.count("messages") {
			for j, id := range ids {
				if a.field("messages."+string(rune('0'+i))+".id") == id {
					got = append(got, string(rune('0'+j)))
				}
			}
		}
		if s := strings.Join(append(got, a.field("more")), " "); s != want {
			t.Errorf("%s: %s, want %s", query, s, want)
		}
	}
}

func TestPagesOfRoomsAndMembers(t *testing.T) { onEveryStore(t, pagesOfRoomsAndMembers) }

func pagesOfRoomsAndMembers(t *testing.T, w *world) {
	alice := w.as("alice")
	for _, id := range []string{"a", "b", "c"} {
		alice.post("/v1/rooms", `{"id":"`+id+`","members":["u1","u2","한 글"]}`).want(201)
	}
	p := alice.get("/v1/rooms?limit=2").want(200).wantField("rooms.#", "2").wantField("next", "b")
	alice.get("/v1/rooms?limit=2&cursor="+p.field("next")).want(200).wantField("rooms.#", "1").wantField("rooms.0.id", "c").wantField("next", "")
	p = alice.get("/v1/rooms/a/members?limit=3").want(200).wantField("members.#", "3")
	alice.get("/v1/rooms/a/members?limit=3&cursor="+p.field("next")).want(200).wantField("members.0.user", "한 글").wantField("next", "")
	for _, cursor := range []string{"x", "after:", "%00", "*", "scan:x", "scan:-1", "scan:99999999999999999999"} {
		alice.get("/v1/rooms/a/members?cursor="+cursor).wantCode(400, "invalid")
	}
	for _, cursor := range []string{"*", "%00", "a:b"} {
		alice.get("/v1/rooms?cursor="+cursor).wantCode(400, "invalid")
	}
	w.as("stranger").get("/v1/rooms").want(200).wantField("rooms", "[]")
}

func TestUserNamesInPaths(t *testing.T) { onEveryStore(t, userNamesInPaths) }

func userNamesInPaths(t *testing.T, w *world) {
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r~1"}`).want(201)
	for path, name := range map[string]string{
		"a+b":                 "a+b",
		"a%2Bb":               "a+b",
		"a%2Fb":               "a/b",
		"a+b%2Fc":             "a+b/c", // '+' stays a plus next to an escape
		"a%20b":               "a b",
		"%ED%95%9C":           "한",
		"x%25y":               "x%y",
		"..%2F..%2Fmembers":   "../../members",
		"auth0|1%3A%7B%7D%2A": "auth0|1:{}*",
	} {
		alice.put("/v1/rooms/r~1/members/"+path, "").wantField("user", name)
		alice.delete("/v1/rooms/r%7E1/members/" + path).want(204)
		alice.delete("/v1/rooms/r~1/members/"+path).wantCode(404, "not_found")
	}
}

func TestServerKeys(t *testing.T) { onEveryStore(t, serverKeys) }

func serverKeys(t *testing.T, w *world) {
	w.server("").post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201).wantField("role", "").wantField("member_count", "1")
	w.server("bo%62").sends("r", "as bob").want(201).wantField("from", "bob")
	w.server("%ED%95%9C").sends("r", "as one who is no member").want(201).wantField("from", "한")
	w.server("").get("/v1/rooms/r/messages").want(200).wantField("messages.#", "2")
	w.server("").get("/v1/rooms/r/members").want(200)
	w.server("").put("/v1/rooms/r/members/carol", `{"role":"owner"}`).want(200)
	w.server("carol").get("/v1/rooms").want(200).wantField("rooms.0.role", "owner")

	w.server("").sends("r", "as nobody").wantCode(400, "invalid")
	w.server("").get("/v1/rooms").wantCode(400, "invalid")
	w.server("").post("/v1/rooms/r/read", `{"id":"1-1"}`).wantCode(400, "invalid")
	w.server("%zz").get("/v1/rooms").wantCode(400, "invalid")
	w.server("a%0Ab").get("/v1/rooms").wantCode(400, "invalid")
	w.server("a").with("Madang-User", "b").get("/v1/rooms").wantCode(400, "invalid")
	w.as("bob").with("Madang-User", "carol").get("/v1/rooms").wantCode(403, "forbidden")
}

func TestCORS(t *testing.T) {
	const page = "https://app.example"
	w := newWorld(t, newMemory(), func(o *api.Options) { o.Origins = []string{page} })
	a := w.as("alice").with("Origin", page).get("/v1/rooms").want(200)
	if a.header.Get("Access-Control-Allow-Origin") != page || a.header.Get("Vary") != "Origin" || a.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%v", a.header)
	}
	// Errors must be readable by the page as well.
	if a := w.nobody().with("Origin", page).get("/v1/rooms").want(401); a.header.Get("Access-Control-Allow-Origin") != page {
		t.Errorf("%v", a.header)
	}
	ask := func(origin string) *answer {
		return w.nobody().with("Origin", origin).with("Access-Control-Request-Method", "POST").do("OPTIONS", "/v1/rooms/r/messages", "")
	}
	if a := ask(page).want(204); !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Idempotency-Key, If-None-Match, If-Range, Range, Traceparent") || a.header.Get("Access-Control-Allow-Methods") == "" {
		t.Errorf("%v", a.header)
	}
	for _, origin := range []string{"null", "https://app.example.evil.com", "http://app.example", "https://app.example:444", "https://APP.example"} {
		if a := ask(origin).wantCode(403, "forbidden"); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is allowed", origin)
		}
		if a := w.as("alice").with("Origin", origin).get("/v1/rooms").want(200); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s may read", origin)
		}
	}
	// A browser writes a host in small letters, however the setting does.
	typed := newWorld(t, newMemory(), func(o *api.Options) { o.Origins = []string{"https://App.Example"} })
	if a := typed.as("alice").with("Origin", page).get("/v1/rooms").want(200); a.header.Get("Access-Control-Allow-Origin") != page {
		t.Errorf("%v", a.header)
	}
	any := newWorld(t, newMemory(), func(o *api.Options) { o.Origins = []string{"*"} })
	if a := any.as("alice").with("Origin", "https://x").get("/v1/rooms").want(200); a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v", a.header)
	}
	none := newWorld(t, newMemory(), nil)
	if a := none.as("alice").with("Origin", page).get("/v1/rooms").want(200); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", a.header)
	}
	none.nobody().with("Origin", page).with("Access-Control-Request-Method", "GET").do("OPTIONS", "/v1/rooms", "").wantCode(405, "method_not_allowed")
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	for id, kept := range map[string]bool{
		"abc-DEF_1.2": true, strings.Repeat("x", 64): true,
		strings.Repeat("x", 65): false, "a b": false, "a\"b": false, "": false, "é": false, "${jndi:x}": false,
	} {
		got := w.as("alice").with("X-Request-Id", id).get("/v1/rooms").want(200).header.Get("X-Request-Id")
		if (got == id) != kept || !kept && len(got) != 26 {
			t.Errorf("%q became %q", id, got)
		}
	}
}

// repeating is a Store whose connection breaks after each send: it asks again, and
// finds what it has stored.
type repeating struct{ *memory }

func (s repeating) Send(ctx context.Context, m chat.Send) (chat.Sent, error) {
	if sent, err := s.memory.Send(ctx, m); err != nil {
		return sent, err
	}
	return s.memory.Send(ctx, m)
}

// A client that gave no key has sent nothing before.
func TestASendWithoutAKeyIsNoReplay(t *testing.T) {
	seen := &counter{}
	w := newWorld(t, repeating{newMemory()}, func(o *api.Options) { o.Observer = seen })
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	sent := w.as("alice").sends("r", "hi").want(201)
	if is := sent.header.Get("Idempotent-Replayed"); is != "" || seen.sends[api.SendAccepted] != 1 {
		t.Errorf("replayed: %q; counted as %v", is, seen.sends)
	}
	w.as("alice").with("Idempotency-Key", "k").sends("r", "hi").want(200)
}
