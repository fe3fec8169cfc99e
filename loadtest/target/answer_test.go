package target

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/protocol"
)

var answers = []string{
	`{"events":[],"rooms":{},"rooms_rev":0,"conn":"c"}`,
	`{"events":[{"type":"message","body":{"text":"a \"}]\\"}},{"type":"gap"}],"rooms":{"r1":"1-0","r.2":"1732281234567-12"},"rooms_rev":3,"conn":"c-1"}`,
	" {\n \"rooms\" : { \"r\" : \"0-0\" } , \"more\" : [1, {\"a\": null}], \"events\" : [ true , \"x\\\\\" , -1.5e3 ] }\n",
	`{"events":[`, `{"events":[]`, `{"events":"x"}`, `{"rooms":{"r":"1-0"}}`, `[]`, `{}`, `{"events":[],"rooms":{"r":"x","s":7,"t":"2-0"}}`,
	`{"events":[],"rooms":{"r":"1-0"`, `{"events":[]}{}`, `{"events":[]"rooms"}`, `{"events":{},"events":[]}`, `"`, `\`, `{"a\"b":1,"events":[]}`,
}

func TestAnAnswerIsTakenApart(t *testing.T) {
	a, ok := parseAnswer([]byte(answers[1]))
	if !ok || string(a.Conn) != "c-1" {
		t.Fatalf("%v, connection %q", ok, a.Conn)
	}
	for _, want := range []string{`{"type":"message","body":{"text":"a \"}]\\"}}`, `{"type":"gap"}`, ""} {
		if got := a.NextEvent(); string(got) != want {
			t.Errorf("event %q in place of %q", got, want)
		}
	}
	for _, want := range []struct {
		room string
		id   protocol.ID
	}{{"r1", protocol.ID{Ms: 1}}, {"r.2", protocol.ID{Ms: 1732281234567, Seq: 12}}} {
		room, pos, ok := a.NextRoom()
		if !ok || string(room) != want.room || pos.ID() != want.id {
			t.Errorf("%q is at %v, %v; want %+v", room, pos.ID(), ok, want)
		}
	}
	if _, _, ok := a.NextRoom(); ok {
		t.Error("a third room")
	}
}

// FuzzAnswer compares with the standard library what it takes for an answer, and
// wants no more than bounds kept of what it does not.
func FuzzAnswer(f *testing.F) {
	for _, text := range answers {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, ok := parseAnswer(body)
		var events [][]byte
		for e := a.NextEvent(); e != nil; e = a.NextEvent() {
			events = append(events, e)
		}
		rooms := map[string]ledger.Pos{}
		for room, pos, more := a.NextRoom(); more; room, pos, more = a.NextRoom() {
			rooms[string(room)] = pos
		}
		var want struct {
			Events *[]json.RawMessage
			Rooms  map[string]json.RawMessage
		}
		if plain(body) && json.Unmarshal(body, &want) == nil {
			if ok != (want.Events != nil) {
				t.Fatalf("taken for an answer: %v; events %v", ok, want.Events)
			}
		}
		if !ok || !plain(body) || want.Events == nil {
			return
		}
		if len(events) != len(*want.Events) {
			t.Fatalf("%d events, want %d", len(events), len(*want.Events))
		}
		for i, e := range events {
			if !bytes.Equal(e, (*want.Events)[i]) {
				t.Fatalf("event %q, want %q", e, (*want.Events)[i])
			}
		}
		for room, value := range want.Rooms {
			var text string
			pos, known := ledger.Pos(0), false
			if json.Unmarshal(value, &text) == nil && !bytes.ContainsRune(value, '\\') {
				pos, known = parsePos([]byte(text))
			}
			if got, has := rooms[room]; has != known || got != pos {
				t.Fatalf("room %q at %v, %v; want %v, %v", room, got, has, pos, known)
			}
		}
	})
}

// plain says whether a body is text, an object whose members are each named once, and
// without escapes or another case: where the standard library takes more for the
// same than this does, there is nothing to compare.
func plain(body []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(body))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') || !json.Valid(body) || !utf8.Valid(body) {
		return false
	}
	return onceEach(dec) && !bytes.Contains(body, []byte(`\u`))
}

func onceEach(dec *json.Decoder) bool {
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		folded := string(bytes.ToLower([]byte(name)))
		if err != nil || !ok || seen[folded] || (folded == "events" || folded == "rooms") && folded != name {
			return false
		}
		seen[folded] = true
		var value json.RawMessage
		if dec.Decode(&value) != nil || string(value) == "null" {
			return false
		}
		if name == "rooms" && value[0] == '{' {
			inner := json.NewDecoder(bytes.NewReader(value))
			if _, err := inner.Token(); err != nil || !onceEach(inner) {
				return false
			}
		}
		if name == "conn" && value[0] != '"' {
			return false
		}
	}
	return true
}

func TestRequestsSayHowLongTheyAre(t *testing.T) {
	o := Opening{Host: "h:1", Token: []byte("jwt"), Resume: true}
	positions := []Position{{"r1", 0}, {"r2", 1 << 20}}
	for name, c := range map[string]struct{ got, want string }{
		"a stream": {
			string(Madang{}.AppendStream(nil, Opening{Host: "h:1", Token: []byte("jwt")}, nil)),
			"GET /v1/events HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer jwt\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n",
		},
		"a stream that goes on": {
			string(Madang{}.AppendStream(nil, o, positions)),
			"POST /v1/events HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer jwt\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n" +
				"Content-Type: application/json\r\nContent-Length: 33\r\n\r\n" + `{"rooms":{"r1":"0-0","r2":"1-0"}}`,
		},
		"a poll": {
			string(Madang{}.AppendPoll([]byte("x"), o, "", positions[:1], 25)),
			"xPOST /v1/poll HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer jwt\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n" +
				`{"rooms":{"r1":"0-0"},"wait_s":25}`,
		},
		"a poll after an answer": {
			string(Madang{}.AppendPoll(nil, o, "c1", nil, 0)),
			"POST /v1/poll HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer jwt\r\nContent-Type: application/json\r\nContent-Length: 35\r\n\r\n" +
				`{"rooms":{},"wait_s":0,"conn":"c1"}`,
		},
		"typing":                       {string(Madang{}.AppendAside(nil, o, "c1", Typing, "r1", 0)), "POST /v1/typing HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer jwt\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n" + `{"conn":"c1","room":"r1"}`},
		"reading":                      {string(Madang{}.AppendAside(nil, o, "c1", Read, "r1", 1<<20)), "POST /v1/rooms/r1/read HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer jwt\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n" + `{"id":"1-0"}`},
		"reading nothing":              {string(Madang{}.AppendAside(nil, o, "c1", Read, "r1", 0)), ""},
		"typing before the connection": {string(Madang{}.AppendAside(nil, o, "", Typing, "r1", 0)), ""},
	} {
		if c.got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, c.got, c.want)
		}
	}
}
