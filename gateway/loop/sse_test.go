package loop_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/protocol"
)

// stream is a client of server-sent events: blocks of lines, as they come.
type stream struct {
	t    testing.TB
	id   edge.ConnID
	resp *http.Response
	r    *bufio.Reader
}

// streams opens events. header are pairs; a body makes it a POST.
func (g *gateway) streams(user, query, body string, header ...string) *stream {
	g.t.Helper()
	return g.streamsVia(http.DefaultTransport, "http", user, query, body, header...)
}

func (g *gateway) streamsVia(rt http.RoundTripper, scheme, user, query, body string, header ...string) *stream {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g.t.Cleanup(cancel)
	method, content := http.MethodGet, io.Reader(nil)
	if body != "" {
		method, content = http.MethodPost, strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+g.Addr().String()+"/v1/events"+query, content)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+user)
	if body != "" {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		g.t.Fatalf("got %d: %s", resp.StatusCode, b)
	}
	name, _, _ := strings.Cut(user, ".")
	ev := g.hub.take(g.t, "opening of "+name, func(ev edge.Event) bool { return ev.Kind == edge.EvOpened && ev.User == name })
	if ev.Via != edge.SSE {
		g.t.Fatalf("opened via %d", ev.Via)
	}
	return &stream{t: g.t, id: ev.Conn, resp: resp, r: bufio.NewReader(resp.Body)}
}

// block reads up to the next empty line.
func (s *stream) block() string {
	s.t.Helper()
	var block strings.Builder
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			s.t.Fatalf("reading: %v after %q", err, block.String())
		}
		if line == "\n" {
			return strings.TrimSuffix(block.String(), "\n")
		}
		block.WriteString(line)
	}
}

func (s *stream) want(blocks ...string) {
	s.t.Helper()
	for _, want := range blocks {
		if got := s.block(); got != want {
			s.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// wantEnd checks that nothing more comes.
func (s *stream) wantEnd() {
	s.t.Helper()
	if rest, err := io.ReadAll(s.r); len(rest) > 0 || err != nil {
		s.t.Fatalf("got %q, %v; want the end", rest, err)
	}
}

// timed is an event that says a time.
func timed(text string, ms uint64) *edge.Frame {
	f := frame(text)
	f.Time = ms
	return f
}

// said is a message that says its time.
func said(n uint64) *edge.Frame {
	f := message(n)
	f.Time = n
	return f
}

func unicast(id edge.ConnID, frames ...*edge.Frame) []edge.Cmd {
	var cmds []edge.Cmd
	for _, f := range frames {
		cmds = append(cmds, edge.Cmd{Kind: edge.CmdUnicast, Conn: id, Room: edge.NoRoom, Frame: f})
	}
	return cmds
}

func TestEventsAreStreamed(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Loops = 1 })
	alice := g.streams("alice", "", "")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
		"Access-Control-Allow-Origin": "",
	} {
		if got := alice.resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !alice.resp.Close || alice.resp.ContentLength != -1 || len(alice.resp.TransferEncoding) != 0 {
		t.Error("the body does not end with the connection")
	}
	bob := g.dial("bob")
	g.post(unicast(alice.id, timed(`{"type":"hello"}`, 7))...)
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: alice.id, Room: 3}, edge.Cmd{Kind: edge.CmdAttach, Conn: bob.id, Room: 3})
	one, two := said(11), said(12)
	g.Post(0, []edge.Cmd{ // in one turn
		{Kind: edge.CmdBroadcast, Room: 3, Frame: one},
		{Kind: edge.CmdBroadcast, Room: 3, Frame: frame(`{"type":"typing"}`), Shed: true},
		{Kind: edge.CmdBroadcast, Room: 3, Frame: two},
	})
	alice.want("id: 7\ndata: {\"type\":\"hello\"}",
		"id: 11\ndata: "+string(one.JSON()), `data: {"type":"typing"}`, "id: 12\ndata: "+string(two.JSON()))
	bob.want(string(one.JSON()), `{"type":"typing"}`, string(two.JSON()))
	if st := g.Stats(); st.OpenBy != [3]int64{1, 1, 0} || st.Open != 2 {
		t.Errorf("open: %v", st.OpenBy)
	}
}

// Until everything older has come, no event says a time: who came back with it would
// never get the rest.
func TestTimesStandStillWhileSomethingOlderIsOwed(t *testing.T) {
	g := start(t, nil)
	plain := func(f *edge.Frame) string { return "data: " + string(f.JSON()) }
	const resumed = `{"type":"resumed","rooms_rev":3}`
	const its = "id: 1700000000000\n" // it has everything older than that, as it said
	for alice, id := range map[*stream]string{
		g.streams("a1", "", "", "Last-Event-ID", "1700000000000"): its,
		g.streams("a2", "?last_event_id=1700000000000", ""):       its,
		g.streams("a3", "", `{"rooms":{"r":"5-0"}}`):              "",
	} {
		g.post(unicast(alice.id, timed(`{"type":"hello"}`, 7), message(1), said(2), timed(resumed, 9), said(10))...)
		alice.want(id+`data: {"type":"hello"}`, plain(message(1)), plain(said(2)), "id: 9\ndata: "+resumed)
		// One from the log, though nobody said so before: it catches up again.
		alice.want(plain(said(10)))
		g.post(unicast(alice.id, timed(resumed, 11))...)
		g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: alice.id, Room: 3}, edge.Cmd{Kind: edge.CmdBroadcast, Room: 3, Frame: said(12)}, edge.Cmd{Kind: edge.CmdDropRoom, Room: 3})
		alice.want("id: 11\ndata: "+resumed, "id: 12\n"+plain(said(12)))
	}
}

func TestHowEventsBegin(t *testing.T) {
	g := start(t, nil)
	for name, tc := range map[string]struct {
		query, body string
		header      []string
		resume      bool
		since       uint64
		positions   map[string]protocol.ID
	}{
		"plain":                {},
		"empty Last-Event-ID":  {header: []string{"Last-Event-ID", ""}},
		"Last-Event-ID":        {header: []string{"Last-Event-ID", "1700000000123"}, since: 1700000000123},
		"Last-Event-ID 0":      {header: []string{"Last-Event-ID", "0"}, since: 1}, // everything, not nothing
		"0 in the URL":         {query: "?last_event_id=0", since: 1},
		"in the URL":           {query: "?last_event_id=5", since: 5},
		"the header is newer":  {query: "?last_event_id=5", header: []string{"Last-Event-ID", "6"}, since: 6},
		"positions":            {body: `{"rooms":{"a":"1-0","b":"2-3"}}`, resume: true, positions: map[string]protocol.ID{"a": {Ms: 1}, "b": {Ms: 2, Seq: 3}}},
		"no positions":         {body: `{"rooms":{}}`, resume: true, positions: map[string]protocol.ID{}},
		"positions, not times": {query: "?last_event_id=5", body: `{"rooms":{}}`, resume: true, positions: map[string]protocol.ID{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := g.dialRaw()
			r.sends(request(http.MethodGet, "/v1/events"+tc.query, "u", tc.body, tc.header...))
			ev := g.hub.kind(t, edge.EvOpened)
			if ev.Resume != tc.resume || ev.Since != tc.since || ev.Via != edge.SSE {
				t.Errorf("opened with %+v", ev)
			}
			if tc.positions != nil {
				at := g.hub.of(t, ev.Conn, edge.EvPositions)
				if fmt.Sprint(at.Positions) != fmt.Sprint(tc.positions) || at.More {
					t.Errorf("positions are %v", at.Positions)
				}
			}
			r.Close()
			g.hub.of(t, ev.Conn, edge.EvClosed)
		})
	}
}

// request makes a request of bytes; a body makes it a POST.
func request(method, target, user, body string, header ...string) string {
	if body != "" {
		method = http.MethodPost
	}
	text := method + " " + target + " HTTP/1.1\r\nHost: h\r\n"
	if user != "" {
		text += "Authorization: Bearer " + user + "\r\n"
	}
	if method == http.MethodPost {
		text += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	for i := 0; i < len(header); i += 2 {
		text += header[i] + ": " + header[i+1] + "\r\n"
	}
	return text + "\r\n" + body
}

// Refusals are problems that a page may read, if its origin is allowed.
func TestRequestsForEventsThatAreRefused(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Origins = []string{"https://chat.example"} })
	const good = `{"rooms":{"r":"5-0"}}`
	noType := strings.ReplaceAll(request("POST", "/v1/events", "u", good), "Content-Type: application/json\r\n", "")
	noLength := strings.ReplaceAll(request("POST", "/v1/events", "u", good), "Content-Length", "X-Length")
	for name, tc := range map[string]struct {
		text   string
		status int
		code   string
		allow  string
	}{
		"another path":          {request("GET", "/v1/event", "u", ""), 404, "not_found", ""},
		"PATCH":                 {request("PATCH", "/v1/events", "u", ""), 405, "method_not_allowed", "GET, POST, OPTIONS"},
		"PUT":                   {request("PUT", "/v1/events", "u", ""), 405, "method_not_allowed", "GET, POST, OPTIONS"},
		"POST to the socket":    {request("POST", "/v1/ws", "u", good), 400, "malformed", ""}, // as whatever is no upgrade
		"PUT to the socket":     {request("PUT", "/v1/ws", "u", ""), 400, "malformed", ""},
		"OPTIONS of the socket": {request("OPTIONS", "/v1/ws", "u", ""), 400, "malformed", ""},
		"GET of a poll":         {request("GET", "/v1/poll", "u", ""), 405, "method_not_allowed", "POST, OPTIONS"},
		"no token":              {request("GET", "/v1/events", "", ""), 401, "unauthorized", ""},
		"another scheme":        {strings.Replace(request("GET", "/v1/events", "u", ""), "Bearer", "Basic", 1), 401, "unauthorized", ""},
		"bad token":             {request("GET", "/v1/events", "bad", ""), 401, "unauthorized", ""},
		"server key":            {request("GET", "/v1/events", "server", ""), 403, "forbidden", ""},
		"foreign origin":        {request("GET", "/v1/events", "u", "", "Origin", "https://evil.example"), 403, "forbidden", ""},
		"token in the query":    {request("GET", "/v1/events?token=x", "u", ""), 400, "malformed", ""},
		"JWT in the query":      {request("GET", "/v1/events?x=eyJhbGciOiJIUzI1NiJ9.e30.x", "u", ""), 400, "malformed", ""},
		"Last-Event-ID text":    {request("GET", "/v1/events", "u", "", "Last-Event-ID", "abc"), 400, "malformed", ""},
		"Last-Event-ID with -":  {request("GET", "/v1/events", "u", "", "Last-Event-ID", "1700000000000-0"), 400, "malformed", ""},
		"Last-Event-ID 007":     {request("GET", "/v1/events", "u", "", "Last-Event-ID", "007"), 400, "malformed", ""},
		"Last-Event-ID of 10^9": {request("GET", "/v1/events", "u", "", "Last-Event-ID", "1700000000000000000"), 400, "malformed", ""},
		"two Last-Event-IDs":    {request("GET", "/v1/events", "u", "", "Last-Event-ID", "5", "last-event-id", "5"), 400, "malformed", ""},
		"empty in the URL":      {request("GET", "/v1/events?last_event_id=", "u", ""), 400, "malformed", ""},
		"a body with GET":       {strings.Replace(request("POST", "/v1/events", "u", good), "POST", "GET", 1), 400, "malformed", ""},
		"chunked":               {strings.Replace(noLength, "X-Length", "Transfer-Encoding: chunked\r\nX-Length", 1), 411, "malformed", ""},
		"both lengths":          {request("POST", "/v1/events", "u", good, "Transfer-Encoding", "chunked"), 400, "malformed", ""},
		"two lengths":           {request("POST", "/v1/events", "u", good, "Content-Length", "21"), 400, "malformed", ""},
		"odd length":            {request("POST", "/v1/events", "u", "", "Content-Length", "+1"), 400, "malformed", ""},
		"no length":             {noLength, 411, "malformed", ""},
		"too long":              {strings.Replace(request("POST", "/v1/events", "u", good), "Content-Length: 21", "Content-Length: 1310721", 1), 413, "too_large", ""},
		"far too long":          {strings.Replace(request("POST", "/v1/events", "u", good), "Content-Length: 21", "Content-Length: 99999999999999999999", 1), 400, "malformed", ""},
		"no type":               {noType, 415, "unsupported_media_type", ""},
		"other type":            {strings.Replace(request("POST", "/v1/events", "u", good), "application/json", "text/plain", 1), 415, "unsupported_media_type", ""},
		"other expectation":     {request("POST", "/v1/events", "u", good, "Expect", "200-ok"), 417, "malformed", ""},
		"not JSON":              {request("POST", "/v1/events", "u", "rooms"), 400, "malformed", ""},
		"no rooms":              {request("POST", "/v1/events", "u", "{}"), 400, "malformed", ""},
		"unknown field":         {request("POST", "/v1/events", "u", `{"rooms":{},"x":1}`), 400, "malformed", ""},
		"a wait":                {request("POST", "/v1/events", "u", `{"rooms":{},"wait_s":1}`), 400, "malformed", ""},
		"rooms twice":           {request("POST", "/v1/events", "u", `{"rooms":{},"rooms":{}}`), 400, "malformed", ""},
		"bad position":          {request("POST", "/v1/events", "u", `{"rooms":{"r":"x"}}`), 400, "malformed", ""},
		"not UTF-8":             {request("POST", "/v1/events", "u", "{\"rooms\":{\"\xff\":\"1-0\"}}"), 400, "malformed", ""},
		"something behind":      {request("POST", "/v1/events", "u", `{"rooms":{}} x`), 400, "malformed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := g.dialRaw()
			text := tc.text
			if !strings.Contains(text, "Origin:") {
				text = strings.Replace(text, "\r\n\r\n", "\r\nOrigin: https://chat.example\r\n\r\n", 1)
			}
			r.sends(text)
			resp, body := r.answer()
			if resp.StatusCode != tc.status || !strings.Contains(body, `"code":"`+tc.code+`"`) || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			if got := resp.Header.Get("Allow"); got != tc.allow {
				t.Errorf("Allow is %q", got)
			}
			foreign := strings.Contains(text, "evil") || tc.status == 404 || strings.Contains(text, "/v1/ws")
			if got := resp.Header.Get("Access-Control-Allow-Origin"); (got == "https://chat.example") == foreign {
				t.Errorf("Access-Control-Allow-Origin is %q", got)
			}
			if got := resp.Header.Get("Access-Control-Expose-Headers"); (got == "Retry-After") == foreign {
				t.Errorf("a page may read %q", got)
			}
			if _, err := r.r.ReadByte(); err != io.EOF {
				t.Errorf("after the answer: %v", err)
			}
		})
	}
	if n := g.hub.count(edge.EvOpened); n != 0 {
		t.Errorf("%d were opened", n)
	}
}

// A proxy that keeps the connection would take a body for the next answer.
func TestNoAnswerToHEADHasABody(t *testing.T) {
	g := start(t, nil)
	for path, want := range map[string]string{"/": "404", loop.Path: "400", loop.PathEvents: "405", loop.PathPoll: "405"} {
		r := g.dialRaw()
		r.sends(request("HEAD", path, "u", ""))
		answer, err := io.ReadAll(r.r)
		head, body, whole := strings.Cut(string(answer), "\r\n\r\n")
		if err != nil || !whole || !strings.HasPrefix(head, "HTTP/1.1 "+want) || !strings.Contains(head, "Content-Length: ") {
			t.Errorf("%s: %v, %q", path, err, answer)
		}
		if body != "" {
			t.Errorf("%s: after the head comes %q", path, body)
		}
	}
}

func TestPreflights(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Origins = []string{"https://chat.example"} })
	for _, path := range []string{"/v1/events", "/v1/poll"} {
		r := g.dialRaw()
		r.sends(request("OPTIONS", path, "", "", "Origin", "https://chat.example", "Access-Control-Request-Method", "POST"))
		resp, _ := r.answer()
		h := resp.Header
		if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://chat.example" || h.Get("Vary") != "Origin" ||
			!strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") || h.Get("Access-Control-Max-Age") == "" ||
			h.Get("Access-Control-Allow-Headers") != "Authorization, Content-Type, Last-Event-ID, Traceparent, Tracestate" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, h)
		}
		r = g.dialRaw()
		r.sends(request("OPTIONS", path, "", "", "Origin", "https://evil.example"))
		if resp, _ := r.answer(); resp.StatusCode != 403 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s, foreign: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	alice := g.streams("alice", "", "", "Origin", "https://chat.example")
	if alice.resp.Header.Get("Access-Control-Allow-Origin") != "https://chat.example" || alice.resp.Header.Get("Vary") != "Origin" {
		t.Errorf("got %v", alice.resp.Header)
	}
}

func TestABodyMayComeInPieces(t *testing.T) {
	g := start(t, nil)
	const body = `{"rooms":{"r":"5-0"}}`
	text := request("POST", "/v1/events", "u", body)
	for i := 1; i < len(text); i++ {
		r := g.dialRaw()
		r.sends(text[:i])
		g.eventually("the first piece is read", func() bool { return g.Stats().Heads == 1 && g.Stats().HeldBytes > 0 })
		r.sends(text[i:])
		ev := g.hub.kind(t, edge.EvOpened)
		if at := g.hub.of(t, ev.Conn, edge.EvPositions); at.Positions["r"] != (protocol.ID{Ms: 5}) {
			t.Fatalf("cut at %d: %v", i, at.Positions)
		}
		r.Close()
		g.hub.of(t, ev.Conn, edge.EvClosed)
		g.eventually("nothing is held", func() bool { return g.Stats().HeldBytes == 0 && g.Stats().Open == 0 })
	}
}

func TestABodyIsAskedForAndTimed(t *testing.T) {
	t.Parallel() // it waits, mostly
	g := start(t, func(o *loop.Options) {
		o.HeadTimeout = 2 * time.Second
		o.Origins = []string{"https://chat.example"}
	})
	const body = `{"rooms":{"r":"5-0"}}`
	head := strings.TrimSuffix(request("POST", "/v1/events", "u", body, "Expect", "100-continue", "Origin", "https://chat.example"), body)
	r := g.dialRaw()
	r.sends(head)
	if line, err := r.r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" || err != nil {
		t.Fatalf("got %q, %v", line, err)
	}
	if line, err := r.r.ReadString('\n'); line != "\r\n" || err != nil {
		t.Fatalf("got %q, %v", line, err)
	}
	r.sends(body)
	g.hub.kind(t, edge.EvPositions)

	slow := g.dialRaw()
	slow.sends(head + body[:5])
	resp, text := slow.answer()
	if resp.StatusCode != 408 || resp.Header.Get("Access-Control-Allow-Origin") != "https://chat.example" {
		t.Errorf("got %d %s", resp.StatusCode, text)
	}
}

func TestHeartbeatsOfEvents(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.Heartbeat, o.Grace = 200*time.Millisecond, time.Second })
	alice := g.streams("alice", "", "")
	alice.want(":", ":", ":", ":", ":", ":", ":", ":") // more than heartbeat and grace: nothing is expected of her
	if g.Open() != 1 {
		t.Error("she was closed")
	}
}

func TestHowEventsEnd(t *testing.T) {
	bye := func(s *stream, reason string) {
		t.Helper()
		lines := strings.Split(s.block(), "\n")
		var ms int
		if len(lines) != 2 {
			t.Fatalf("got %q", lines)
		}
		if _, err := fmt.Sscanf(lines[0], "retry: %d", &ms); err != nil || lines[1] != fmt.Sprintf(`data: {"type":"bye","reason":%q,"retry_in_ms":%d}`, reason, ms) {
			t.Fatalf("got %q, want a bye for %s", lines, reason)
		}
		s.wantEnd()
	}
	for reason, end := range map[string]func(g *gateway, s *stream){
		"drain": func(g *gateway, s *stream) {
			go func() { ctx, cancel := timeout(5 * time.Second); defer cancel(); _ = g.Drain(ctx, time.Millisecond) }()
		},
		"rebalance": func(g *gateway, s *stream) {
			g.eventually("it counts", func() bool { return g.Stats().Open == 1 })
			g.Shed(1, protocol.ByeRebalance)
		},
		"revoked": func(g *gateway, s *stream) {
			g.post(edge.Cmd{Kind: edge.CmdClose, Conn: s.id, Code: protocol.CloseTokenExpired})
		},
	} {
		t.Run(reason, func(t *testing.T) {
			g := start(t, nil)
			alice := g.streams("alice", "", "")
			g.post(unicast(alice.id, frame(`{"type":"x"}`))...)
			g.eventually("it is queued", func() bool { return g.Stats().Deliveries == 1 })
			end(g, alice)
			alice.want(`data: {"type":"x"}`)
			bye(alice, reason)
			g.hub.of(t, alice.id, edge.EvClosed)
			g.eventually("nothing is left", func() bool { st := g.Stats(); return st.Open == 0 && st.OpenBy == [3]int64{} && g.Open() == 0 })
		})
	}
	t.Run("token_expired", func(t *testing.T) {
		g := start(t, nil)
		bye(g.streams("alice.1", "", ""), "token_expired")
	})
	t.Run("stop", func(t *testing.T) {
		g := start(t, nil)
		alice := g.streams("alice", "", "")
		go func() { ctx, cancel := timeout(5 * time.Second); defer cancel(); _ = g.Stop(ctx) }()
		bye(alice, "drain")
	})
}

// Streams and polls can say no goodbye. One that is ended in order is not lost to a
// network, of which too many are an alert.
func TestHowClientsEnd(t *testing.T) {
	for name, opens := range map[string]func(g *gateway, r *raw) edge.ConnID{
		"stream": func(g *gateway, r *raw) edge.ConnID {
			r.sends(request("GET", "/v1/events", "alice", ""))
			return g.hub.take(t, "a stream", func(ev edge.Event) bool { return ev.Kind == edge.EvOpened }).Conn
		},
		"poll":      func(g *gateway, r *raw) edge.ConnID { return g.polls(r, "alice", `{}`) },
		"WebSocket": nil,
	} {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reset %v", name, reset), func(t *testing.T) {
				g := start(t, nil)
				var r *raw
				var id edge.ConnID
				want := loop.ClosedPeerGone
				if opens == nil {
					r, id = g.dialWS("alice")
				} else {
					r = g.dialRaw()
					id = opens(g, r)
					if !reset {
						want = loop.ClosedByClient
					}
				}
				if reset {
					_ = r.Conn.(*net.TCPConn).SetLinger(0)
					r.Close()
				} else {
					_ = r.Conn.(*net.TCPConn).CloseWrite()
				}
				g.hub.of(t, id, edge.EvClosed)
				g.eventually("it is counted", func() bool { return g.Stats().Closed[want] == 1 })
			})
		}
	}
}

func TestLimitsHoldForEvents(t *testing.T) {
	g := start(t, func(o *loop.Options) { o.MaxPerUser, o.MaxConns = 2, 3 })
	refused := func(user string, status int) {
		t.Helper()
		r := g.dialRaw()
		r.sends(request("GET", "/v1/events", user, ""))
		if resp, body := r.answer(); resp.StatusCode != status || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("got %d %s %v, want %d", resp.StatusCode, body, resp.Header, status)
		}
	}
	g.streams("alice", "", "")
	g.dial("alice")
	refused("alice", 429)
	bob := g.streams("bob", "", "")
	refused("carol", 503)
	bob.resp.Body.Close()
	g.hub.of(t, bob.id, edge.EvClosed)
	g.eventually("there is room", func() bool { return g.Open() == 2 })
	g.streams("carol", "", "")
	g.Refuse(true)
	refused("dave", 503)
}

// A client that says more than nothing is not listened to, and one that does not
// stop is cut.
func TestWhatIsSaidBehindARequestForEventsIsIgnored(t *testing.T) {
	g := start(t, nil)
	r := g.dialRaw()
	r.sends(request("GET", "/v1/events", "u", "") + "GET /v1/events HTTP/1.1\r\nHost: h\r\n\r\n")
	ev := g.hub.kind(t, edge.EvOpened)
	g.post(unicast(ev.Conn, frame(`{"type":"x"}`))...)
	resp, err := http.ReadResponse(r.r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
	s := &stream{t: t, r: bufio.NewReader(resp.Body)}
	s.want(`data: {"type":"x"}`)
	go func() { // what counts is how often something is read, however much it is: until it is closed
		for {
			if _, err := r.Conn.Write([]byte("noise\r\n")); err != nil {
				return
			}
		}
	}()
	g.hub.of(t, ev.Conn, edge.EvClosed)
	g.eventually("it is counted as what it was", func() bool { return g.Stats().Closed[loop.ClosedRateLimit] == 1 })
}

// A reader of events that does not keep up is left out, told from where, and says
// no time until it was caught up.
func TestASlowReaderOfEvents(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Loops, o.QueueBytes, o.SendBufferBytes, o.SlowTimeout = 1, 64<<10, 16<<10, time.Minute
	})
	r, id := g.slowReader("slow")
	blocks := r.blocksUntil(resumedAt99)
	from := g.hub.kind(t, edge.EvLagged).Lag[1].Ms
	missed := large(from + 1)
	missed.Time = from + 1
	g.post(unicast(id, missed)...)
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: 1})
	g.post(unicast(id, timed(`{"type":"resumed","rooms_rev":1}`, 99))...)
	select {
	case all := <-blocks:
		if len(all) != int(from)+2 || all[from] != "data: "+string(missed.JSON()) {
			t.Fatalf("%d came, %d were queued; what was missed came as %q", len(all), from, all[len(all)-2])
		}
		for i, block := range all[:from] {
			if n := uint64(i + 1); block != fmt.Sprintf("id: %d\ndata: %s", n, large(n).JSON()) {
				t.Fatalf("%d came as %q", n, block)
			}
		}
	case <-time.After(patience):
		t.Fatal("it was not caught up")
	}
}

const resumedAt99 = "id: 99\ndata: {\"type\":\"resumed\",\"rooms_rev\":1}"

// slowReader opens events, reads none of them, and is left out in room 1: the kernel
// takes less for it than the queue does, so that it stays behind.
func (g *gateway) slowReader(user string) (*raw, edge.ConnID) {
	g.t.Helper()
	small := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
	}}
	conn, err := small.DialContext(context.Background(), "tcp", g.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	r := &raw{Conn: conn, t: g.t, r: bufio.NewReader(conn)}
	r.sends(request("GET", "/v1/events", user, ""))
	ev := g.hub.kind(g.t, edge.EvOpened)
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: ev.Conn, Room: 1}, edge.Cmd{Kind: edge.CmdAttach, Conn: ev.Conn, Room: 2})
	last := uint64(0)
	for g.Stats().Behind == 0 {
		for range 50 {
			last++
			f := large(last)
			f.Time = last
			g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: 1, Frame: f})
		}
		time.Sleep(time.Millisecond)
	}
	return r, ev.Conn
}

// blocksUntil begins to read a response, up to a block.
func (r *raw) blocksUntil(last string) chan []string {
	r.t.Helper()
	resp, err := http.ReadResponse(r.r, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	s := &stream{t: r.t, r: bufio.NewReader(resp.Body)}
	blocks := make(chan []string, 1)
	go func() {
		var all []string
		for len(all) == 0 || all[len(all)-1] != last {
			all = append(all, s.block())
		}
		blocks <- all
	}()
	return blocks
}

// Nothing is left to be caught up in when the room that was left out is gone; but
// that it is over the hub has to say all the same.
func TestASlowReaderOfEventsWhoseRoomIsGone(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Loops, o.QueueBytes, o.SendBufferBytes, o.SlowTimeout = 1, 64<<10, 16<<10, time.Minute
	})
	r, id := g.slowReader("slow")
	g.post(edge.Cmd{Kind: edge.CmdDetach, Conn: id, Room: 1})
	g.eventually("it is in one room", func() bool { return g.Stats().Attachments == 1 })
	blocks := r.blocksUntil(resumedAt99)
	if lag := g.hub.of(t, id, edge.EvLagged).Lag; len(lag) != 0 {
		t.Errorf("left out: %v", lag)
	}
	g.post(unicast(id, timed(`{"type":"resumed","rooms_rev":1}`, 99))...)
	<-blocks
}

// A resumed that was on its way ends only what was owed before.
func TestASlowReaderOfEventsIsToldNoTimeByAnEarlierResumed(t *testing.T) {
	g := start(t, func(o *loop.Options) {
		o.Loops, o.QueueBytes, o.SendBufferBytes, o.SlowTimeout = 1, 64<<10, 16<<10, time.Minute
	})
	r, id := g.slowReader("slow")
	g.post(unicast(id, timed(`{"type":"resumed","rooms_rev":1}`, 98))...)
	blocks := r.blocksUntil(resumedAt99)
	g.hub.of(t, id, edge.EvLagged)
	g.post(edge.Cmd{Kind: edge.CmdBroadcast, Room: 2, Frame: said(5000)})
	g.post(edge.Cmd{Kind: edge.CmdAttach, Conn: id, Room: 1})
	g.post(unicast(id, timed(`{"type":"resumed","rooms_rev":1}`, 99))...)
	all := <-blocks
	want := []string{`data: {"type":"resumed","rooms_rev":1}`, "data: " + string(said(5000).JSON()), resumedAt99}
	if got := all[len(all)-3:]; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// large is a message of some length.
func large(n uint64) *edge.Frame {
	f := edge.NewFrame(4000, func(dst []byte) []byte {
		return protocol.AppendMessage(dst, "r", protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}, n, []byte(`"from":"`+strings.Repeat("x", 3000)+`"}`))
	})
	f.ID, f.Prev = protocol.ID{Ms: n}, protocol.ID{Ms: n - 1}
	return f
}

func TestEventsOverTLSBehindABalancer(t *testing.T) {
	g := startTLS(t, func(o *loop.Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			header := proxyV2(1, "192.0.2.1:5000", "198.51.100.1:443", "")
			r := g.dialTLS(g.config(version), func(c net.Conn) net.Conn { return &prefixed{Conn: c, prefix: header} })
			text := request("POST", "/v1/events", "alice", `{"rooms":{"r":"5-0"}}`)
			r.sends(text[:len(text)-5]) // two records
			r.sends(text[len(text)-5:])
			ev := g.hub.kind(t, edge.EvOpened)
			f := large(6)
			g.post(unicast(ev.Conn, f)...)
			g.post(edge.Cmd{Kind: edge.CmdClose, Conn: ev.Conn, Code: protocol.CloseTokenExpired})
			resp, err := http.ReadResponse(r.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			s := &stream{t: t, r: bufio.NewReader(resp.Body)}
			s.want("data: " + string(f.JSON()))
			if end := s.block(); !strings.Contains(end, `"revoked"`) {
				t.Fatalf("got %q", end)
			}
			s.wantEnd()
		})
	}
}
