package loop_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/protocol"
)

// polls sends a poll and returns what the hub is told of it.
func (g *gateway) polls(r *raw, user, body string, header ...string) edge.ConnID {
	g.t.Helper()
	r.sends(request("POST", "/v1/poll", user, body, header...))
	return g.polled(user)
}

func (g *gateway) polled(user string) edge.ConnID {
	g.t.Helper()
	ev := g.hub.take(g.t, "poll of "+user, func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == user })
	if ev.Via != edge.LongPoll || !ev.Resume {
		g.t.Fatalf("opened with %+v", ev)
	}
	g.hub.of(g.t, ev.Conn, edge.EvPositions)
	return ev.Conn
}

// polledAt is what the hub tells a poll first.
func polledAt(user string, rev uint64, positions ...string) *edge.Frame {
	return edge.NewFrame(64, func(b []byte) []byte {
		b = edge.AppendPolled(b, "conn-"+user, user, rev)
		for _, p := range positions {
			room, at, _ := strings.Cut(p, " ")
			id, err := protocol.ParseID(at)
			if err != nil {
				panic(err)
			}
			b = edge.AppendPosition(b, room, id)
		}
		return append(b, '}', '}')
	})
}

var resumedFrame = frame(`{"type":"resumed","rooms_rev":18}`)

// pollAnswer is what a poll is answered.
type pollAnswer struct {
	Events   []json.RawMessage `json:"events"`
	Rooms    map[string]string `json:"rooms"`
	RoomsRev uint64            `json:"rooms_rev"`
	Conn     string            `json:"conn"`
}

func (r *raw) wantAnswer(rooms map[string]string, rev uint64, events ...string) *http.Response {
	r.t.Helper()
	resp, body := r.answer()
	var a pollAnswer
	if err := json.Unmarshal([]byte(body), &a); err != nil || resp.StatusCode != 200 {
		r.t.Fatalf("got %d %s, %v", resp.StatusCode, body, err)
	}
	if a.Events == nil || a.Conn == "" || int64(len(body)) != resp.ContentLength || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
		r.t.Errorf("got %v %s", resp.Header, body)
	}
	if fmt.Sprint(a.Rooms) != fmt.Sprint(rooms) || a.RoomsRev != rev || len(a.Events) != len(events) {
		r.t.Fatalf("got %s, want rooms %v, rev %d and %d events", body, rooms, rev, len(events))
	}
	for i := range events {
		if string(a.Events[i]) != events[i] {
			r.t.Fatalf("event %d is %s, want %s", i, a.Events[i], events[i])
		}
	}
	return resp
}

func json1(f *edge.Frame) string { return string(f.JSON()) }

// What an answer says can be sent back, however many rooms a user may have and
// whatever they are called.
func TestAPollOfAllTheRoomsThatAUserMayHave(t *testing.T) {
	const rooms = 10_000
	g := start(t, nil)
	positions := make([]string, rooms)
	for i := range positions {
		positions[i] = fmt.Sprintf("%0*d %d-%d", protocol.MaxRoomLen, i, uint64(1<<64-1), uint64(1<<64-1))
	}
	r := g.dialRaw()
	body := "{}"
	for range 2 {
		id := g.polls(r, "alice", body)
		g.post(unicast(id, polledAt("alice", 17, positions...), message(1), resumedFrame)...)
		resp, text := r.answer()
		var a pollAnswer
		if err := json.Unmarshal([]byte(text), &a); err != nil || resp.StatusCode != 200 || len(a.Rooms) != rooms+1 {
			t.Fatalf("got %d, %d rooms, %v", resp.StatusCode, len(a.Rooms), err)
		}
		_, text, _ = strings.Cut(text, `"rooms":`)
		text, _, _ = strings.Cut(text, "}")
		body = `{"wait_s":25,"rooms":` + text + "}}"
	}
	r.sends(request("POST", "/v1/events", "alice", strings.Replace(body, `"wait_s":25,`, "", 1)))
	if ev := g.hub.take(t, "positions", func(ev edge.Event) bool { return ev.Kind == edge.EvPositions }); len(ev.Positions) != rooms+1 {
		t.Errorf("%d positions came", len(ev.Positions))
	}
}

// The hub learns who polls, and what of what only it has was in the answer: the rest
// is for the next poll.
func TestWhatAPollSaysOfItsClient(t *testing.T) {
	g := start(t, nil)
	whisper := func(id edge.ConnID, text string) edge.Cmd {
		return edge.Cmd{Kind: edge.CmdUnicast, Shed: true, Conn: id, Room: edge.NoRoom, Frame: frame(text)}
	}
	opened := func(r *raw) edge.ConnID {
		r.sends(request("POST", "/v1/poll", "alice", `{"conn":"gw.1"}`))
		ev := g.hub.kind(t, edge.EvOpened)
		if ev.Known != "gw.1" {
			t.Errorf("opened with %+v", ev)
		}
		return ev.Conn
	}
	r := g.dialRaw()
	id := opened(r)
	g.Post(int(id.Loop()), append(unicast(id, polledAt("alice", 17), message(1), resumedFrame), whisper(id, `{"type":"typing"}`)))
	r.wantAnswer(map[string]string{"r": "1-0"}, 18, json1(message(1)), `{"type":"typing"}`)
	if ev := g.hub.of(t, id, edge.EvClosed); ev.Whispers != 1 {
		t.Errorf("answered with one, the hub is told %d", ev.Whispers)
	}
	id = opened(r)
	g.post(whisper(id, `{"type":"typing"}`))
	r.Close() // nobody gets it
	if ev := g.hub.of(t, id, edge.EvClosed); ev.Whispers != 0 {
		t.Errorf("not answered, the hub is told %d", ev.Whispers)
	}
}

// A poll is answered as soon as it has what was missed and there is something; the
// next one comes on the same socket, as a connection of its own.
func TestAPollIsAnsweredWithWhatThereIs(t *testing.T) {
	g := start(t, nil)
	r := g.dialRaw()
	var before edge.ConnID
	for i := range 3 {
		id := g.polls(r, "alice", `{"rooms":{"r":"1-0"},"wait_s":25}`)
		if id == before {
			t.Fatal("two polls are one connection")
		}
		// What is still said to the last one is not for this one.
		g.post(append(unicast(before, message(99)), edge.Cmd{Kind: edge.CmdAttach, Conn: before, Room: 9})...)
		g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: 9, Frame: message(99)})
		before = id
		g.post(unicast(id, polledAt("alice", 17, "r 1-0", "q 7-0"))...)
		switch i {
		case 0: // what was missed comes first; all of one turn is in one answer
			g.Post(int(id.Loop()), append(unicast(id, message(2), message(3)), unicast(id, resumedFrame)...))
			r.wantAnswer(map[string]string{"r": "3-0", "q": "7-0"}, 18, json1(message(2)), json1(message(3)))
		case 1: // nothing was missed; then something happens
			g.post(unicast(id, resumedFrame)...)
			g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: 3}, edge.Cmd{Kind: edge.CmdBroadcast, Room: 3, Frame: message(2)})
			r.wantAnswer(map[string]string{"r": "2-0", "q": "7-0"}, 18, json1(message(2)))
		case 2: // gaps, joins and leaves move positions, too
			gap := `{"type":"gap","room":"q","after":"7-0","head":"9-0"}`
			joined := `{"type":"joined","room":"n","user":"alice","head":"4-0","rooms_rev":19}`
			left := `{"type":"left","room":"r","user":"alice","rooms_rev":20}`
			other := `{"type":"joined","room":"q","user":"bob","head":"1-0"}`
			own := `{"type":"joined","room":"q","user":"alice","head":"1-0"}` // the room's: messages before it may wait
			g.Post(int(id.Loop()), unicast(id, resumedFrame, frame(gap), frame(joined), frame(left), frame(other), frame(own)))
			r.wantAnswer(map[string]string{"q": "9-0", "n": "4-0"}, 20, gap, joined, left, other, own)
		}
		g.hub.of(t, id, edge.EvClosed)
		if st := g.Stats(); g.Open() != 1 || st.Accepted != 1 {
			t.Fatalf("open %d, %+v", g.Open(), st)
		}
	}
	g.eventually("counted", func() bool {
		st := g.Stats()
		return st.Polls == 3 && st.Upgrades[loop.UpgradeOK] == 1 && st.OpenBy[edge.LongPoll] == 1
	})
	r.Close()
	g.eventually("gone", func() bool { st := g.Stats(); return g.Open() == 0 && st.Open == 0 && st.OpenBy[edge.LongPoll] == 0 })
}

func TestAPollEndsWhenItsTimeIsUp(t *testing.T) {
	t.Parallel() // it waits, mostly
	g := start(t, nil)
	r := g.dialRaw()
	id := g.polls(r, "alice", `{"rooms":{},"wait_s":1}`)
	began := time.Now()
	g.post(unicast(id, polledAt("alice", 17, "r 1-0"), resumedFrame)...)
	r.wantAnswer(map[string]string{"r": "1-0"}, 18)
	if took := time.Since(began); took < 800*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	g.hub.of(t, id, edge.EvClosed)

	// 0 asks what there is.
	id = g.polls(r, "alice", `{"wait_s":0}`)
	g.post(unicast(id, polledAt("alice", 17, "r 1-0"))...)
	g.post(unicast(id, message(2), resumedFrame)...)
	r.wantAnswer(map[string]string{"r": "2-0"}, 18, json1(message(2)))
	id = g.polls(r, "alice", `{"wait_s":0}`)
	g.post(unicast(id, polledAt("alice", 17, "r 1-0"), resumedFrame)...)
	r.wantAnswer(map[string]string{"r": "1-0"}, 18)

	// A partition that does not answer keeps what is there from nobody.
	id = g.polls(r, "alice", `{"wait_s":60}`)
	g.post(unicast(id, polledAt("alice", 17, "r 1-0", "away 0-0"), message(2))...)
	r.wantAnswer(map[string]string{"r": "2-0", "away": "0-0"}, 17, json1(message(2)))
}

// What does not fit comes with the next poll: positions say from where.
func TestAPollIsBounded(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops, o.QueueBytes = 1, 10_000 })
	r := g.dialRaw()
	id := g.polls(r, "alice", `{"rooms":{}}`)
	g.post(unicast(id, polledAt("alice", 17, "r 0-0"))...)
	cmds := append(unicast(id, large(1), large(2), large(3), large(4)), edge.Cmd{Kind: edge.CmdMark, Conn: id})
	cmds = append(cmds, unicast(id, message(5), frame(`{"type":"left","room":"r","user":"alice","rooms_rev":19}`), resumedFrame)...)
	g.Post(0, cmds)
	r.wantAnswer(map[string]string{"r": "3-0"}, 17, json1(large(1)), json1(large(2)), json1(large(3)))
	g.hub.of(t, id, edge.EvDrained) // the hub is not kept waiting meanwhile
	g.hub.of(t, id, edge.EvClosed)

	// One event alone is never too large.
	id = g.polls(r, "alice", `{"rooms":{}}`)
	huge := edge.NewFrame(20_000, func(b []byte) []byte {
		return protocol.AppendMessage(b, "r", protocol.ID{Ms: 4}, protocol.ID{Ms: 3}, 4, []byte(`"from":"`+strings.Repeat("x", 19_000)+`"}`))
	})
	huge.ID = protocol.ID{Ms: 4}
	g.post(unicast(id, polledAt("alice", 17, "r 3-0"), resumedFrame, huge)...)
	r.wantAnswer(map[string]string{"r": "4-0"}, 18, json1(huge))
}

func TestAClientThatGoesAwayWhileItsPollWaits(t *testing.T) {
	g := start(t, nil)
	r := g.dialRaw()
	id := g.polls(r, "alice", `{}`)
	r.Close()
	g.hub.of(t, id, edge.EvClosed)
	g.eventually("nothing is left", func() bool { return g.Open() == 0 && g.Stats().Closed[loop.ClosedByClient] == 1 })
}

// Requests that do not wait for the answer before are served in order, as far as
// they are small.
func TestPipelinedPolls(t *testing.T) {
	g := start(t, nil)
	r := g.dialRaw()
	one := request("POST", "/v1/poll", "alice", `{"rooms":{"r":"1-0"}}`)
	r.sends(one + one)
	for i := range uint64(2) {
		id := g.polled("alice")
		g.post(unicast(id, polledAt("alice", 17, "r 1-0"), resumedFrame, message(2+i))...)
		r.wantAnswer(map[string]string{"r": fmt.Sprintf("%d-0", 2+i)}, 18, json1(message(2+i)))
		g.hub.of(t, id, edge.EvClosed)
	}
	// One that comes while the other waits, in two pieces.
	id := g.polls(r, "alice", `{}`)
	r.sends(one[:20])
	g.eventually("the piece is held", func() bool { return g.Stats().HeldBytes > 0 })
	g.post(unicast(id, polledAt("alice", 17, "r 1-0"), resumedFrame, message(2))...)
	r.wantAnswer(map[string]string{"r": "2-0"}, 18, json1(message(2)))
	r.sends(one[20:])
	id = g.polled("alice")
	// Too much of it ends the connection with this answer.
	r.sends(strings.Repeat("x", 9000))
	g.post(unicast(id, polledAt("alice", 17, "r 1-0"))...)
	if resp := r.wantAnswerOrUnavailable(); !resp.Close {
		t.Error("the connection is kept")
	}
}

// wantAnswerOrUnavailable: whether a poll had started when it was ended is chance.
func (r *raw) wantAnswerOrUnavailable() *http.Response {
	r.t.Helper()
	resp, body := r.answer()
	if resp.StatusCode != 200 && resp.StatusCode != 503 {
		r.t.Fatalf("got %d %s", resp.StatusCode, body)
	}
	return resp
}

func TestPollsThatAreRefused(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Origins = []string{"https://chat.example"} })
	for name, tc := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"no body":          {"", 411, "malformed"},
		"not JSON":         {`[]`, 400, "malformed"},
		"cut":              {`{"rooms":{"r":"1-0"}`, 400, "malformed"},
		"unknown field":    {`{"room":{}}`, 400, "malformed"},
		"negative wait":    {`{"wait_s":-1}`, 400, "invalid"},
		"long wait":        {`{"wait_s":61}`, 400, "invalid"},
		"very long wait":   {`{"wait_s":99999999999999999999}`, 400, "invalid"},
		"wait as text":     {`{"wait_s":"1"}`, 400, "invalid"},
		"half a second":    {`{"wait_s":0.5}`, 400, "invalid"},
		"wait twice":       {`{"wait_s":1,"wait_s":1}`, 400, "malformed"},
		"a null for rooms": {`{"rooms":null}`, 400, "malformed"},
		"a room twice":     {`{"rooms":{"r":"1-0","r":"1-0"}}`, 400, "malformed"},
		"deep":             {strings.Repeat(`{"rooms":`, 5000), 400, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := g.dialRaw()
			text := request("POST", "/v1/poll", "u", tc.body, "Origin", "https://chat.example")
			if tc.body == "" {
				text = strings.Replace(text, "Content-Length: 0\r\n", "", 1)
			}
			r.sends(text)
			resp, body := r.answer()
			if resp.StatusCode != tc.status || !strings.Contains(body, `"code":"`+tc.code+`"`) {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			if resp.Header.Get("Access-Control-Allow-Origin") != "https://chat.example" || !resp.Close {
				t.Errorf("got %v", resp.Header)
			}
		})
	}
	if n := g.hub.count(edge.EvOpened); n != 0 {
		t.Errorf("%d were opened", n)
	}
}

// Polling in a tight loop is what a flood of frames is on a socket.
func TestPollsAreRateLimited(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Session = session.DefaultLimits
		o.Session.FrameBurst, o.Session.FramesPerSecond = 5, 1
	})
	r := g.dialRaw()
	for range 20 {
		r.sends(request("POST", "/v1/poll", "alice", `{"wait_s":0}`))
		ev := g.hub.take(t, "a poll, or its refusal", func(ev edge.Event) bool { return ev.Kind == edge.EvOpened || g.Stats().Upgrades[loop.UpgradeRate] > 0 })
		if ev.Kind != edge.EvOpened {
			break
		}
		g.hub.of(t, ev.Conn, edge.EvPositions)
		g.post(unicast(ev.Conn, polledAt("alice", 17), resumedFrame, frame(`{"type":"x"}`))...)
		if resp, _ := r.answer(); resp.StatusCode != 200 {
			t.Fatalf("it was opened, and answered %d", resp.StatusCode)
		}
	}
	if resp, body := r.answer(); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("got %d %s", resp.StatusCode, body)
	}
}

func TestHowWaitingPollsEnd(t *testing.T) {
	t.Parallel() // it waits, mostly
	for reason, end := range map[string]func(g *gateway, id edge.ConnID){
		"drain": func(g *gateway, _ edge.ConnID) {
			go func() { ctx, cancel := timeout(5 * time.Second); defer cancel(); _ = g.Drain(ctx, time.Millisecond) }()
		},
		"rebalance": func(g *gateway, _ edge.ConnID) {
			g.eventually("it counts", func() bool { return g.Stats().Open == 1 })
			g.Shed(1, protocol.ByeRebalance)
		},
		"revoked": func(g *gateway, id edge.ConnID) {
			g.post(edge.Cmd{Kind: edge.CmdClose, Conn: id, Code: protocol.CloseTokenExpired})
		},
	} {
		t.Run(reason, func(t *testing.T) {
			g := start(t, nil)
			r := g.dialRaw()
			id := g.polls(r, "alice", `{}`)
			// Something has come, and something may still be owed.
			g.Post(int(id.Loop()), unicast(id, polledAt("alice", 17, "r 1-0"), message(2)))
			g.eventually("it is there", func() bool { return g.Stats().Deliveries == 1 })
			end(g, id)
			resp, body := r.answer()
			var a pollAnswer
			if err := json.Unmarshal([]byte(body), &a); err != nil || len(a.Events) != 2 || a.Rooms["r"] != "2-0" || !resp.Close ||
				!strings.Contains(string(a.Events[1]), fmt.Sprintf(`{"type":"bye","reason":%q,"retry_in_ms":`, reason)) {
				t.Fatalf("got %s, %v", body, err)
			}
			g.hub.of(t, id, edge.EvClosed)
			if _, err := r.r.ReadByte(); err != io.EOF {
				t.Errorf("after the answer: %v", err)
			}
			g.eventually("nothing is left", func() bool { return g.Open() == 0 && g.Stats().Open == 0 })
		})
	}
	t.Run("with the next, while it drains", func(t *testing.T) {
		g := start(t, nil)
		r := g.dialRaw()
		id := g.polls(r, "alice", `{"wait_s":0}`)
		g.post(unicast(id, polledAt("alice", 17), resumedFrame)...)
		r.wantAnswer(map[string]string{}, 18)
		g.hub.of(t, id, edge.EvClosed)
		ctx, cancel := timeout(20 * time.Second)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- g.Drain(ctx, 10*time.Second) }()
		g.eventually("it takes nobody", func() bool {
			c, err := net.Dial("tcp", g.Addr().String())
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		r.sends(request("POST", "/v1/poll", "alice", `{"wait_s":0}`))
		if resp, body := r.answer(); resp.StatusCode != 503 {
			t.Fatalf("got %d %s", resp.StatusCode, body)
		}
		r.Close()
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		if n := g.Stats().Upgrades[loop.UpgradeUnavailable]; n != 0 {
			t.Errorf("%d clients were turned away: that is an alert", n)
		}
	})
	t.Run("between two polls", func(t *testing.T) {
		g := start(t, nil)
		r := g.dialRaw()
		id := g.polls(r, "alice", `{"wait_s":0}`)
		g.post(unicast(id, polledAt("alice", 17), resumedFrame)...)
		r.wantAnswer(map[string]string{}, 18)
		g.hub.of(t, id, edge.EvClosed)
		ctx, cancel := timeout(5 * time.Second)
		defer cancel()
		if err := g.Drain(ctx, time.Millisecond); err != nil || g.Open() != 0 {
			t.Fatalf("%v, %d are left", err, g.Open())
		}
		if _, err := r.r.ReadByte(); err != io.EOF {
			t.Errorf("got %v", err)
		}
		if n := g.hub.count(edge.EvClosed); n != 0 {
			t.Errorf("it was closed twice")
		}
	})
	t.Run("token_expired", func(t *testing.T) {
		g := start(t, nil)
		r := g.dialRaw()
		r.sends(request("POST", "/v1/poll", "alice.1", `{}`))
		resp, body := r.answer()
		if !resp.Close {
			t.Errorf("got %d %s", resp.StatusCode, body)
		}
	})
	t.Run("before it has started", func(t *testing.T) {
		g := start(t, nil)
		r := g.dialRaw()
		g.polls(r, "alice", `{"wait_s":0}`)
		resp, body := r.answer() // after hello's deadline
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("got %d %s", resp.StatusCode, body)
		}
	})
}

// A socket that polled may be used for something else, and by somebody else: a
// proxy's is.
func TestASocketThatPolledMayDoSomethingElse(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.MaxPerUser = 1 })
	r := g.dialRaw()
	for _, user := range []string{"alice", "alice", "bob", "alice"} {
		id := g.polls(r, user, `{}`)
		g.post(unicast(id, polledAt(user, 17), resumedFrame, frame(`{"type":"x"}`))...)
		r.wantAnswer(map[string]string{}, 18, `{"type":"x"}`)
		g.hub.of(t, id, edge.EvClosed)
	}
	g.eventually("one counts", func() bool { return g.Stats().OpenBy == [3]int64{0, 0, 1} })
	r.sends(goodHead + "Authorization: Bearer alice\r\n\r\n")
	if resp, body := r.answer(); resp.StatusCode != 101 {
		t.Fatalf("got %d %s", resp.StatusCode, body)
	}
	ev := g.hub.kind(t, edge.EvOpened)
	g.eventually("it counts as what it is", func() bool { return g.Stats().OpenBy == [3]int64{1, 0, 0} && g.Open() == 1 })
	g.post(unicast(ev.Conn, frame(`{"type":"y"}`))...)
	head := make([]byte, 2+len(`{"type":"y"}`))
	if _, err := io.ReadFull(r.r, head); err != nil || string(head[2:]) != `{"type":"y"}` {
		t.Fatalf("got %q, %v", head, err)
	}
}

// Memory that is short keeps newcomers out, and nobody who is in: on a socket that
// polls, the next poll is none.
func TestPollsGoOnWhileNewcomersAreRefused(t *testing.T) {
	g := start(t, nil)
	r := g.dialRaw()
	for range 2 {
		id := g.polls(r, "alice", `{}`)
		g.post(unicast(id, polledAt("alice", 17), resumedFrame, frame(`{"type":"x"}`))...)
		r.wantAnswer(map[string]string{}, 18, `{"type":"x"}`)
		g.Refuse(true)
	}
	other := g.dialRaw()
	other.sends(request("POST", "/v1/poll", "alice", `{}`))
	if resp, body := other.answer(); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a newcomer got %d %s", resp.StatusCode, body)
	}
}

func TestATicketForAPoll(t *testing.T) {
	d := newDesk()
	g := start(t, func(o *loop.Options) { o.Redeem = d.redeem })
	r := g.dialRaw()
	text := request("POST", "/v1/poll?ticket=T1", "", `{"rooms":{"r":"1-0"}}`)
	r.sends(text[:len(text)-3])
	r.sends(text[len(text)-3:])
	id := g.polled("alice")
	g.post(unicast(id, polledAt("alice", 17, "r 1-0"), resumedFrame, message(2))...)
	r.wantAnswer(map[string]string{"r": "2-0"}, 18, json1(message(2)))
	r.sends(request("GET", "/v1/events?ticket=T2", "", ""))
	if ev := g.hub.kind(t, edge.EvOpened); ev.User != "bob" || ev.Via != edge.SSE {
		t.Errorf("got %+v", ev)
	}
	bad := g.dialRaw()
	bad.sends(request("POST", "/v1/poll?ticket=none", "", `{}`, "Origin", "http://h"))
	if resp, body := bad.answer(); resp.StatusCode != 401 || resp.Header.Get("Access-Control-Allow-Origin") != "http://h" {
		t.Errorf("got %d %s %v", resp.StatusCode, body, resp.Header)
	}
}

func TestPollsOverTLSBehindABalancer(t *testing.T) {
	g := startTLS(t, func(o *loop.Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	header := proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", "")
	r := g.dialTLS(g.config(0x0304), func(c net.Conn) net.Conn { return &prefixed{Conn: c, prefix: header} })
	for n := uint64(2); n < 5; n++ {
		id := g.polls(r, "alice", `{}`)
		g.post(unicast(id, polledAt("alice", 17), resumedFrame, large(n))...)
		r.wantAnswer(map[string]string{"r": fmt.Sprintf("%d-0", n)}, 18, json1(large(n)))
		g.hub.of(t, id, edge.EvClosed)
	}
}

// An answer is written for as long as its client takes some of it, whatever the time
// that a closing connection has.
func TestAnAnswerThatIsReadSlowly(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Loops, o.QueueBytes, o.SendBufferBytes = 1, 4<<20, 16<<10
		o.CloseTimeout, o.SlowTimeout = 200*time.Millisecond, time.Second
	})
	for _, header := range [][]string{nil, {"Connection", "close"}} {
		r := g.dialRaw()
		if err := r.Conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
		id := g.polls(r, "alice", `{}`, header...)
		cmds := unicast(id, polledAt("alice", 17), resumedFrame)
		var want []string
		for n := uint64(1); n <= 300; n++ {
			cmds = append(cmds, unicast(id, large(n))...)
			want = append(want, json1(large(n)))
		}
		g.Post(0, cmds)
		g.hub.of(t, id, edge.EvClosed)
		r.r = bufio.NewReader(slowly{r.Conn})
		r.wantAnswer(map[string]string{"r": "300-0"}, 18, want...)
	}
	// Who takes nothing is cut.
	r := g.dialRaw()
	if err := r.Conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	id := g.polls(r, "alice", `{}`, "Connection", "close")
	cmds := unicast(id, polledAt("alice", 17), resumedFrame)
	for n := uint64(1); n <= 1000; n++ {
		cmds = append(cmds, unicast(id, large(n))...)
	}
	g.Post(0, cmds)
	g.hub.of(t, id, edge.EvClosed)
	g.eventually("it is cut", func() bool { return g.Stats().Closing == 0 && g.Stats().QueuedBytes == 0 })
}

// slowly reads some kilobytes at a time.
type slowly struct{ net.Conn }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond) // what is tested: it takes longer than a closing connection has
	return s.Conn.Read(p[:min(len(p), 4<<10)])
}

// In a busy room each poll finds something at once. Its reader is not refused for
// asking again, as it should: answers come less often, and have more in them.
func TestABusyRoomsReaderIsNotRefused(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Session = session.DefaultLimits
		o.Session.FrameBurst = 6
	})
	r := g.dialRaw()
	for n := uint64(2); n < 20; n++ {
		id := g.polls(r, "alice", `{}`)
		g.post(unicast(id, polledAt("alice", 17), resumedFrame, message(n))...)
		if resp, body := r.answer(); resp.StatusCode != 200 {
			t.Fatalf("poll %d: %d %s", n, resp.StatusCode, body)
		}
		g.hub.of(t, id, edge.EvClosed)
	}
}
