package session_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/protocol"
)

// talk is a conversation with one session, on a clock of its own.
type talk struct {
	s      session.Session
	now    int64
	limits session.Limits
}

func begin(resume bool) *talk {
	c := &talk{limits: session.DefaultLimits}
	c.s.Open(resume)
	return c
}

func (c *talk) says(text string) session.Verdict {
	c.now += 1000 // never too fast, unless a test wants it
	return c.s.Receive(wsframe.Item{Op: wsframe.Text, Payload: []byte(text)}, c.now, &c.limits)
}

// wants sums a verdict up in a line.
func summary(v session.Verdict) string {
	switch v.Do {
	case session.Ignore:
		return "ignore"
	case session.Post:
		e := v.Event
		s := map[edge.EventKind]string{edge.EvPositions: "positions", edge.EvFocus: "focus", edge.EvTyping: "typing",
			edge.EvRead: "read", edge.EvDelivered: "delivered", edge.EvWatch: "watch"}[e.Kind]
		if s == "" {
			return fmt.Sprintf("event of kind %d", e.Kind)
		}
		if e.Room != "" {
			s += " " + e.Room
		}
		if !e.ID.IsZero() {
			s += " " + e.ID.String()
		}
		if e.Positions != nil {
			b, _ := json.Marshal(e.Positions)
			s += " " + string(b)
		}
		if e.More {
			s += " more"
		}
		if e.Users != nil {
			s += fmt.Sprintf(" %q", e.Users)
		}
		return s
	case session.Pong:
		return "pong"
	case session.WSPong:
		return "ws pong " + string(v.Payload)
	case session.Renew:
		return "renew " + string(v.Token)
	case session.Refuse:
		return "refuse " + string(v.Code)
	case session.Kick:
		return fmt.Sprintf("kick %s %d", v.Code, v.Close)
	case session.Fail:
		return fmt.Sprintf("fail %d", v.Close)
	case session.PeerLeft:
		return fmt.Sprintf("left %d", v.Close)
	case session.Echo:
		return "echo " + string(v.Payload)
	}
	return fmt.Sprintf("action %d", v.Do)
}

func TestMessages(t *testing.T) {
	const malformed = "kick malformed 1008"
	deep := strings.Repeat(`{"type":`, 2000)
	for text, want := range map[string]string{
		`{"type":"ping"}`:                                        "pong",
		" {\t\"type\" :\r\n\"ping\" } ":                          "pong",
		`{"type":"p\u0069ng"}`:                                   "pong",
		`{"type":"focus","room":"r1"}`:                           "focus r1",
		`{"room":"r1","type":"focus"}`:                           "focus r1",
		`{"type":"focus","room":null}`:                           "focus",
		`{"type":"typing","room":"r\u0031"}`:                     "typing r1",
		`{"type":"read","room":"r1","id":"12-3"}`:                "read r1 12-3",
		`{"type":"delivered","room":"r1","id":"12-3"}`:           "delivered r1 12-3",
		`{"type":"watch","users":["bob","ann"]}`:                 `watch ["bob" "ann"]`,
		`{"type":"watch","users":[]}`:                            `watch []`,
		`{"type":"watch","users":["\ud55c\uad6d \ud83d\ude00"]}`: `watch ["한국 😀"]`,
		`{"type":"auth","token":"a.b.c"}`:                        "renew a.b.c",

		// Well formed, but not allowed: stays.
		`{"type":"focus","room":"a b"}`:                                     "refuse invalid",
		`{"type":"focus","room":""}`:                                        "refuse invalid",
		`{"type":"typing","room":"` + strings.Repeat("r", 65) + `"}`:        "refuse invalid",
		`{"type":"typing","room":"{x}:*"}`:                                  "refuse invalid",
		`{"type":"typing","room":"r\r\n"}`:                                  "refuse invalid",
		`{"type":"watch","users":["a\u0000b"]}`:                             "refuse invalid",
		`{"type":"watch","users":["` + strings.Repeat(`a","`, 500) + `b"]}`: "refuse invalid",
		`{"type":"resume","rooms":{}}`:                                      "refuse invalid", // not asked for

		// Malformed or unknown.
		``:                                         malformed,
		`null`:                                     malformed,
		`[]`:                                       malformed,
		`{}`:                                       malformed,
		`{"type":"ping"`:                           malformed,
		`{"type":"ping",}`:                         malformed,
		`{"type":"ping"} x`:                        malformed,
		`{"type":"ping"}{"type":"ping"}`:           malformed,
		`{"type":"ping","type":"ping"}`:            malformed,
		`{"type":"ping","x":1}`:                    malformed,
		`{"type":"ping","room":"r1"}`:              malformed,
		`{"type":"Ping"}`:                          malformed,
		`{"TYPE":"ping"}`:                          malformed,
		`{"type":"message","room":"r1"}`:           malformed,
		`{"type":1}`:                               malformed,
		`{"type":null}`:                            malformed,
		`{"type":["ping"]}`:                        malformed,
		`{"__proto__":{},"type":"ping"}`:           malformed,
		`{"type":"focus"}`:                         malformed,
		`{"type":"focus","room":1}`:                malformed,
		`{"type":"focus","room":1e999}`:            malformed,
		`{"type":"focus","room":"\ud800"}`:         malformed,
		`{"type":"focus","room":"\udc00\ud800"}`:   malformed,
		`{"type":"focus","room":"\ud800\u0041"}`:   malformed,
		`{"type":"focus","room":"\x41"}`:           malformed,
		`{"type":"focus","room":"\u00g0"}`:         malformed,
		"{\"type\":\"focus\",\"room\":\"a\nb\"}":   malformed,
		"{\"type\":\"focus\",\"room\":\"a\x00b\"}": malformed,
		`{"type":"typing","room":null}`:            malformed,
		`{"type":"read","room":null,"id":"1-1"}`:   malformed,
		`{"type":"read","room":"r1"}`:              malformed,
		`{"type":"read","room":"r1","id":"x"}`:     malformed,
		`{"type":"read","room":"r1","id":"1"}`:     malformed,
		`{"type":"read","room":"r1","id":"99999999999999999999-0"}`: malformed,
		`{"type":"read","room":"r1","id":5}`:                        malformed,
		`{"type":"watch","users":"bob"}`:                            malformed,
		`{"type":"watch","users":["bob",]}`:                         malformed,
		`{"type":"watch","users":[1]}`:                              malformed,
		`{"type":"auth"}`:                                           malformed,
		`{"type":"auth","token":null}`:                              malformed,
		`{"type":"resume","rooms":[]}`:                              malformed,
		`{"type":"resume","rooms":{"r1":1}}`:                        malformed,
		`{"type":"resume","rooms":{"r1":"1-1","r1":"2-1"}}`:         malformed,
		`{"type":"resume","rooms":{},"more":1}`:                     malformed,
		`{"type":"resume"}`:                                         malformed,
		deep:                                                        malformed,
		strings.Repeat("[", 10_000):                                 malformed,
	} {
		if got := summary(begin(false).says(text)); got != want {
			t.Errorf("%.80s: got %s, want %s", text, got, want)
		}
	}
}

func TestResumeInFrames(t *testing.T) {
	c := begin(true)
	if !c.s.AwaitsPositions() {
		t.Fatal("does not wait for positions")
	}
	for _, step := range []struct{ says, want string }{
		{`{"type":"focus","room":"r1"}`, "focus r1"}, // other messages may come first
		{`{"type":"resume","rooms":{"r1":"5-0","r2":"0-0"},"more":true}`, `positions {"r1":"5-0","r2":"0-0"} more`},
		{`{"type":"resume","rooms":{"bad room":"1-1","r3":"7-1"},"more":false}`, `positions {"r3":"7-1"}`},
		{`{"type":"resume","rooms":{}}`, "refuse invalid"},
	} {
		if got := summary(c.says(step.says)); got != step.want {
			t.Fatalf("%s: got %s, want %s", step.says, got, step.want)
		}
	}
	if c.s.AwaitsPositions() {
		t.Error("still waits")
	}
}

func TestOnlyAResumeMayBeLong(t *testing.T) {
	c := begin(true)
	var b strings.Builder
	b.WriteString(`{"rooms":{"r":"1-1"`)
	for i := range 1000 {
		fmt.Fprintf(&b, `,"room-number-%d":"1732281234567-%d"`, i, i)
	}
	long := b.String()
	if got := summary(c.says(long + `},"type":"ping"}`)); got != "kick malformed 1008" {
		t.Errorf("a long ping with rooms: %s", got)
	}
	if v := c.says(long + `},"type":"resume"}`); v.Do != session.Post || len(v.Event.Positions) != 1001 {
		t.Errorf("a long resume: %s", summary(v))
	}
	users := `{"type":"watch","users":["` + strings.Repeat("a", 20_000) + `"]}`
	if got := summary(c.says(users)); got != "refuse invalid" && got != "kick too_large 1009" {
		t.Errorf("a long watch: %s", got)
	}
	long = `{"type":"auth","token":"` + strings.Repeat("a", 20_000) + `"}`
	if got := summary(c.says(long)); got != "kick too_large 1009" {
		t.Errorf("a long auth: %s", got)
	}
	for head, want := range map[string]bool{
		`{"type":"resume","rooms":{"r1":`: true, ` { "rooms" : {"r`: true, `{"more":true,`: true,
		`{"type":"watch","users":[`: false, `{"users":[`: false, `{"type":`: false, ``: false, `[`: false, `{"x":1`: false,
	} {
		if got := session.LooksLikeResume([]byte(head)); got != want {
			t.Errorf("LooksLikeResume(%s) = %v", head, got)
		}
	}
}

func TestFrameRate(t *testing.T) {
	c := begin(false)
	frame := func() bool {
		v := c.s.Receive(wsframe.Item{Op: wsframe.Fragment}, c.now, &c.limits)
		return v.Do != session.Fail
	}
	passed := 0
	for frame() {
		passed++
	}
	if passed != 40 {
		t.Errorf("%d frames at once", passed)
	}
	if v := c.s.Receive(wsframe.Item{Op: wsframe.Pong}, c.now, &c.limits); summary(v) != "fail 4029" {
		t.Errorf("then %s", summary(v))
	}
	if v := c.s.Receive(wsframe.Item{Op: wsframe.Close, Payload: []byte("\x03\xe8")}, c.now, &c.limits); summary(v) != "left 1000" {
		t.Errorf("who leaves gets %s", summary(v))
	}
	passed = 0
	for range 10_000 { // ten seconds
		c.now++
		for frame() {
			passed++
		}
	}
	if passed < 199 || passed > 201 {
		t.Errorf("%d frames in ten seconds", passed)
	}
	c.limits.FramesPerSecond = 0
	for range 1000 {
		if !frame() {
			t.Fatal("limited without a limit")
		}
	}
}

// A rate is kept whatever it is: also one of more than a frame per millisecond, and one
// that does not divide a second.
func TestFrameRatesThatAreHigh(t *testing.T) {
	for _, rate := range []int{300, 700, 1500, 40_000} {
		c := begin(false)
		c.limits.FramesPerSecond = rate
		passed := 0
		for range 1000 { // a second
			c.now++
			for passed <= 2*rate && c.s.Receive(wsframe.Item{Op: wsframe.Ping}, c.now, &c.limits).Do != session.Fail {
				passed++
			}
		}
		if most := c.limits.FrameBurst + rate; passed < rate || passed > most+most/100 {
			t.Errorf("at %d a second, %d passed in one", rate, passed)
		}
	}
}

// A message in large pieces is one, and one in small pieces as many as it has: a
// resume is sent in a buffer's worth at a time by common clients.
func TestFragmentsCountWhenTheyAreSmall(t *testing.T) {
	for length, want := range map[int]string{4096: "ignore", 512: "ignore", 511: "fail 4029", 0: "fail 4029"} {
		c := begin(false)
		fragment := wsframe.Item{Op: wsframe.Fragment, Length: length}
		for range 40 {
			if got := summary(c.s.Receive(fragment, c.now, &c.limits)); got != "ignore" {
				t.Fatalf("%d bytes: %s", length, got)
			}
		}
		if got := summary(c.s.Receive(fragment, c.now, &c.limits)); got != want {
			t.Errorf("the 41st of %d bytes: %s, want %s", length, got, want)
		}
	}
}

func TestControlFrames(t *testing.T) {
	c := begin(false)
	for _, step := range []struct {
		op            wsframe.Op
		payload, want string
	}{
		{wsframe.Ping, "x", "ws pong x"}, {wsframe.Pong, "x", "ignore"}, {wsframe.Fragment, "", "ignore"},
		{wsframe.Binary, "x", "fail 1003"}, {wsframe.Close, "", "left 1005"}, {wsframe.Close, "\x03\xe8", "left 1000"},
		{wsframe.Close, "\x03", "fail 1002"}, {wsframe.Close, "\x03\xe8\xff", "fail 1007"},
	} {
		v := c.s.Receive(wsframe.Item{Op: step.op, Payload: []byte(step.payload)}, c.now, &c.limits)
		if got := summary(v); got != step.want {
			t.Errorf("%d %q: got %s, want %s", step.op, step.payload, got, step.want)
		}
	}
	c.limits.Echo = true
	if got := summary(c.s.Receive(wsframe.Item{Op: wsframe.Binary, Payload: []byte("x")}, c.now, &c.limits)); got != "echo x" {
		t.Errorf("echo: %s", got)
	}
}

func TestFrequentMessagesDoNotAllocate(t *testing.T) {
	var s session.Session
	s.Open(false)
	limits := session.DefaultLimits
	limits.FramesPerSecond = 0
	for text, most := range map[string]float64{`{"type":"ping"}`: 0, `{"type":"read","room":"r1","id":"12-3"}`: 1} {
		payload := []byte(text)
		if n := testing.AllocsPerRun(100, func() { s.Receive(wsframe.Item{Op: wsframe.Text, Payload: payload}, 0, &limits) }); n > most {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

// FuzzUpward: nothing panics; what is accepted is what encoding/json reads too,
// and valid where the hub relies on it.
func FuzzUpward(f *testing.F) {
	for _, s := range []string{
		`{"type":"ping"}`, `{"type":"resume","rooms":{"r1":"1-2"},"more":true}`, `{"type":"focus","room":null}`,
		`{"type":"read","room":"r\u0031","id":"12-3"}`, `{"type":"watch","users":["bob","\ud83d\ude00"]}`, `{"type":"auth","token":"x\/y"}`,
		`{"type":"typing","room":"r1"} `, `{"type":"ping","type":"ping"}`, `{"type":`, `{"rooms":{`, `{"type":"\ud800"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		session.LooksLikeResume(text)
		if !utf8.Valid(text) {
			return // never gets here
		}
		var s session.Session
		s.Open(true)
		limits := session.DefaultLimits
		v := s.Receive(wsframe.Item{Op: wsframe.Text, Payload: append([]byte(nil), text...)}, 0, &limits)
		if v.Do == session.Kick {
			return
		}
		var std struct {
			Type, Room, ID, Token string
			Rooms                 map[string]string
			Users                 []string
			More                  bool
		}
		if err := json.Unmarshal(text, &std); err != nil {
			t.Fatalf("accepted what is not JSON: %v", err)
		}
		e := v.Event
		switch {
		case v.Do == session.Renew && string(v.Token) != std.Token:
			t.Fatalf("token %q, want %q", v.Token, std.Token)
		case v.Do != session.Post:
			return
		case e.Room != std.Room || e.More != std.More || len(e.Users) != len(std.Users):
			t.Fatalf("got %+v, want %+v", e, std)
		case e.Room != "" && !protocol.ValidRoom(e.Room):
			t.Fatalf("room %q", e.Room)
		case std.ID != "" && e.ID.String() != std.ID:
			t.Fatalf("ID %v, want %s", e.ID, std.ID)
		}
		for i, u := range e.Users {
			if u != std.Users[i] || !protocol.ValidUser(u) {
				t.Fatalf("user %q, want %q", u, std.Users[i])
			}
		}
		for room, id := range e.Positions {
			if !protocol.ValidRoom(room) || std.Rooms[room] != id.String() {
				t.Fatalf("position %s of %s, want %s", id, room, std.Rooms[room])
			}
		}
	})
}
