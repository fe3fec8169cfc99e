package loop

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

const okHead = "GET /v1/ws HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer t.o.k\r\n\r\n"

// with returns the good head after a replacement, which must change it.
func with(t testing.TB, pairs ...string) string {
	t.Helper()
	head := strings.NewReplacer(pairs...).Replace(okHead)
	if head == okHead {
		t.Fatalf("%q changes nothing", pairs)
	}
	return head
}

func TestRequestsThatAreRefused(t *testing.T) {
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	const end = "Bearer t.o.k\r\n"
	for name, tc := range map[string]struct {
		head string
		want *refusal
	}{
		"POST":                      {with(t, "GET", "POST"), errMethodWS},
		"lower-case method":         {with(t, "GET", "get"), errRequestLine},
		"HTTP/1.0":                  {with(t, "HTTP/1.1", "HTTP/1.0"), errRequestLine},
		"HTTP/2.0":                  {with(t, "HTTP/1.1", "HTTP/2.0"), errRequestLine},
		"HTTP/0.9":                  {with(t, " HTTP/1.1", ""), errRequestLine},
		"space in the target":       {with(t, "/v1/ws", "/v1/ws x"), errRequestLine},
		"two spaces":                {with(t, "GET /", "GET  /"), errRequestLine},
		"another path":              {with(t, "/v1/ws", "/v1/wss"), errNotFound},
		"root":                      {with(t, "/v1/ws", "/"), errNotFound},
		"dot segments":              {with(t, "/v1/ws", "/v1/../v1/ws"), errNotFound},
		"a URL of another path":     {with(t, "/v1/ws", "http://chat.example/v1/wss"), errNotFound},
		"a URL without a path":      {with(t, "/v1/ws", "http://chat.example"), errNotFound},
		"… but with a query":        {with(t, "/v1/ws", "http://chat.example?/v1/ws"), errNotFound},
		"a URL of another scheme":   {with(t, "/v1/ws", "ftp://chat.example/v1/ws"), errNotFound},
		"a URL without a host":      {with(t, "/v1/ws", "http:///v1/ws"), errURL},
		"… but with a port":         {with(t, "/v1/ws", "http://:80/v1/ws"), errURL},
		"a user in the URL":         {with(t, "/v1/ws", "http://chat.example@other/v1/ws"), errURL},
		"an odd host in the URL":    {with(t, "/v1/ws", "http://chat%2eexample/v1/ws"), errURL},
		"an odd port in the URL":    {with(t, "/v1/ws", "http://chat.example:http/v1/ws"), errURL},
		"two ports in the URL":      {with(t, "/v1/ws", "http://chat.example:80:80/v1/ws"), errURL},
		"half brackets in the URL":  {with(t, "/v1/ws", "http://[::1/v1/ws"), errURL},
		"no address in brackets":    {with(t, "/v1/ws", "http://[chat.example]/v1/ws"), errURL},
		"something behind brackets": {with(t, "/v1/ws", "http://[::1]x/v1/ws"), errURL},
		"a URL and no Host":         {with(t, "/v1/ws", "http://chat.example/v1/ws", "Host: chat.example\r\n", ""), errHost},
		"a URL and two Hosts":       {with(t, "/v1/ws", "http://chat.example/v1/ws", end, end+"Host: chat.example\r\n"), errHost},
		"a URL and an odd Host":     {with(t, "/v1/ws", "http://chat.example/v1/ws", "Host: chat.example", "Host: x@y"), errHost},
		"a token in a URL's query":  {with(t, "/v1/ws", "http://chat.example/v1/ws?token=x"), errTokenInQuery},
		"bare LF":                   {with(t, "websocket\r\n", "websocket\n"), errLineEnd},
		"bare CR":                   {with(t, "websocket\r\n", "websocket\rX: y\r\n"), errLineEnd},
		"NUL":                       {with(t, "chat.example", "chat\x00example"), errLineEnd},
		"control character":         {with(t, "Connection: Upgrade", "Connection: Upgrade\x01"), errHeaderLine},
		"folded line":               {with(t, "Authorization: Bearer", "X: y\r\n z\r\nAuthorization: Bearer"), errHeaderLine},
		"space before the colon":    {with(t, "Host:", "Host :"), errHeaderLine},
		"no colon":                  {with(t, "Host: chat.example", "Host"), errHeaderLine},
		"no name":                   {with(t, "Host:", ":"), errHeaderLine},
		"no Host":                   {with(t, "Host: chat.example\r\n", ""), errHost},
		"empty Host":                {with(t, "chat.example", ""), errHost},
		"two Hosts":                 {with(t, end, end+"Host: other\r\n"), errHost},
		"a path in Host":            {with(t, "chat.example", "chat.example/x"), errHost},
		"no Upgrade":                {with(t, "Upgrade: websocket\r\n", ""), errUpgrade},
		"other Upgrade":             {with(t, "websocket\r\n", "h2c\r\n"), errUpgrade},
		"two Upgrades":              {with(t, end, end+"Upgrade: websocket\r\n"), errUpgrade},
		"no Connection":             {with(t, "Connection: Upgrade\r\n", ""), errConnection},
		"other Connection":          {with(t, "Connection: Upgrade", "Connection: keep-alive"), errConnection},
		"no Key":                    {with(t, key, ""), errKey},
		"two Keys":                  {with(t, key, key+key), errKey},
		"short Key":                 {with(t, "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), errKey},
		"Key of 17 bytes":           {with(t, "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSE="), errKey},
		"Key not base64":            {with(t, "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q=="), errKey},
		"Key with bits left over":   {with(t, "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="), errKey},
		"no Version":                {with(t, "Sec-WebSocket-Version: 13\r\n", ""), errVersionCount},
		"two Versions":              {with(t, end, end+"Sec-WebSocket-Version: 13\r\n"), errVersionCount},
		"Version 8":                 {with(t, ": 13", ": 8"), errVersion},
		"Version 13, 8":             {with(t, ": 13", ": 13, 8"), errVersion},
		"Content-Length":            {with(t, end, end+"Content-Length: 5\r\n"), errBody},
		"Transfer-Encoding":         {with(t, end, end+"Transfer-Encoding: chunked\r\n"), errBody},
		"both lengths":              {with(t, end, end+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), errBody},
		"two Origins":               {with(t, end, end+"Origin: http://a\r\nOrigin: http://b\r\n"), errOriginCount},
		"malformed protocols":       {with(t, end, end+"Sec-WebSocket-Protocol: a b\r\n"), errProtocols},
		"empty protocols":           {with(t, end, end+"Sec-WebSocket-Protocol: ,\r\n"), errProtocols},
		"token in the query":        {with(t, "/v1/ws", "/v1/ws?token=x"), errTokenInQuery},
		"access_token in the query": {with(t, "/v1/ws", "/v1/ws?resume&access_token=x"), errTokenInQuery},
		"a JWT under another name":  {with(t, "/v1/ws", "/v1/ws?x=eyJhbGciOiJIUzI1NiJ9.e30.x"), errTokenInQuery},
		"odd resume":                {with(t, "/v1/ws", "/v1/ws?resume=maybe"), errQuery},
	} {
		if _, bad := parseRequest([]byte(tc.head), false); bad != tc.want {
			t.Errorf("%s: got %v, want %v", name, bad, tc.want)
		}
	}
}

func TestRequestsThatAreAccepted(t *testing.T) {
	const end = "Authorization: Bearer t.o.k\r\n"
	for name, tc := range map[string]struct {
		head   string
		resume bool
		token  string
	}{
		"plain":                   {okHead, false, "t.o.k"},
		"odd case and spaces":     {with(t, "Upgrade: websocket", "uPGRADE:WebSocket\t ", "Connection: Upgrade", "connection:  keep-alive , upgrade"), false, "t.o.k"},
		"resume":                  {with(t, "/v1/ws", "/v1/ws?resume"), true, "t.o.k"},
		"resume=1":                {with(t, "/v1/ws", "/v1/ws?a=b&resume=1"), true, "t.o.k"},
		"resume=false":            {with(t, "/v1/ws", "/v1/ws?resume=false"), false, "t.o.k"},
		"browser":                 {with(t, end, "Sec-WebSocket-Protocol: madang.v1, bearer.a.b.c\r\nOrigin: https://chat.example\r\nCookie: x=y\r\n"), false, "a.b.c"},
		"protocols in two lines":  {with(t, end, "Sec-WebSocket-Protocol: madang.v1\r\nSec-WebSocket-Protocol: bearer.a.b.c\r\n"), false, "a.b.c"},
		"no token":                {with(t, end, ""), false, ""},
		"IPv6 host":               {with(t, "chat.example", "[::1]:8081"), false, "t.o.k"},
		"two Connections":         {with(t, "Connection: Upgrade", "Connection: keep-alive, Upgrade\r\nConnection: Upgrade"), false, "t.o.k"},
		"a body of nothing":       {with(t, end, end+"Content-Length: 0\r\n"), false, "t.o.k"},
		"a whole URL":             {with(t, "/v1/ws", "http://chat.example/v1/ws"), false, "t.o.k"},
		"… and what it asks for":  {with(t, "/v1/ws", "HTTPS://other.example:8443/v1/ws?resume"), true, "t.o.k"},
		"… of an address":         {with(t, "/v1/ws", "http://[::1]:8081/v1/ws"), false, "t.o.k"},
		"… of which one names it": {with(t, "Connection: Upgrade", "connection: keep-alive\r\nConnection: Upgrade\r\nConnection:\tx-hop, y"), false, "t.o.k"},
	} {
		req, bad := parseRequest([]byte(tc.head), false)
		if bad != nil || req.resume != tc.resume || string(req.token) != tc.token {
			t.Errorf("%s: got %+v, %v", name, req, bad)
		}
		h := headReader{head: req.forUpgrader([]byte(tc.head))}
		if _, err := upgrader.Upgrade(&h); err != nil || !bytes.HasPrefix(h.out, []byte("HTTP/1.1 101 ")) {
			t.Errorf("%s: the upgrader says %v", name, err)
		}
	}
}

func TestOrigins(t *testing.T) {
	listed := []string{"https://chat.example", "http://localhost:3000"}
	for _, tc := range []struct {
		origin  string
		allowed []string
		want    bool
	}{
		{"", listed, true},
		{"https://chat.example", listed, true},
		{"HTTPS://Chat.Example", listed, true},
		{"http://localhost:3000", listed, true},
		{"http://localho\u017ft:3000", listed, false}, // ſ, which Unicode folds to s
		{"https://\u212Aelvin.example", []string{"https://kelvin.example"}, false},
		{"null", listed, false},
		{"https://chat.example.evil", listed, false},
		{"https://evilchat.example", listed, false},
		{"http://chat.example", listed, false},
		{"https://chat.example:8443", listed, false},
		{"https://chat.example/", listed, false},
		{"https://gw:8081", nil, true}, // the gateway's own host
		{"http://GW:8081", nil, true},
		{"http://gw", nil, false},
		{"http://gw:8082", nil, false},
		{"http://xgw:8081", nil, false},
		{"null", nil, false},
		{"null", []string{"*"}, true},
	} {
		req := &request{host: []byte("gw:8081")}
		if tc.origin != "" {
			req.origin = []byte(tc.origin)
		}
		if got := originAllowed(req, tc.allowed); got != tc.want {
			t.Errorf("%q in %q: %v", tc.origin, tc.allowed, got)
		}
	}
}

func TestRefusalsAreHTTP(t *testing.T) {
	for _, r := range []*refusal{errHost, errNotFound, errVersion, errHeadTooLarge, errNoToken, errOldToken, errServerKey, errOrigin, errFull} {
		b := appendRefusal(nil, r, nil)
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
		if err != nil || resp.StatusCode != r.status || !resp.Close || resp.Status[4:] == "" {
			t.Errorf("%v: %v, %q", r, err, b)
		}
	}
}

// FuzzHandshake: nothing panics, the head is not changed, and what is accepted
// is a request for net/http and for the upgrader too, with the same values.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte(okHead))
	f.Add([]byte(strings.Replace(okHead, "Authorization: Bearer t.o.k", "Sec-WebSocket-Protocol: madang.v1, bearer.a.b.c\r\nOrigin: http://x", 1)))
	f.Add([]byte(strings.Replace(okHead, "/v1/ws", "/v1/ws?resume&a=b", 1)))
	f.Add([]byte(strings.Replace(okHead, "Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade", 1)))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte(strings.Replace(okHead, "/v1/ws", "http://other.example:80/v1/ws?resume", 1)))
	f.Add([]byte(strings.Replace(okHead, "/v1/ws", "https://[::1]:8081/v1/ws", 1)))
	f.Add([]byte("GET /v1/events?last_event_id=5&ticket=x HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nLast-Event-ID: 1700000000000\r\n\r\n"))
	f.Add([]byte("POST /v1/poll HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 12\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"))
	f.Add([]byte("POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("OPTIONS /v1/poll HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("GET /v1/ws HTTP/1.1\n\n\r\n\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		end := bytes.Index(head, headEnd)
		if end < 0 {
			bareLineEnd(head)
			return
		}
		head = head[:end+4]
		before := string(head)
		req, bad := parseRequest(head, false)
		if string(head) != before {
			t.Fatal("the head was changed")
		}
		if bad != nil {
			return
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		if std.Host != string(req.host) || std.Header.Get("Origin") != string(req.origin) {
			t.Fatalf("got %+v, net/http %+v", req, std)
		}
		if req.route != routeWS {
			samePlain(t, &req, std)
			return
		}
		if std.Method != "GET" || std.URL.Path != Path {
			t.Fatalf("got %+v, net/http %+v", req, std)
		}
		if std.ContentLength != 0 || len(std.TransferEncoding) != 0 {
			t.Fatal("it has a body")
		}
		h := headReader{head: req.forUpgrader(head)}
		if _, err := upgrader.Upgrade(&h); err != nil {
			t.Fatalf("the upgrader refuses it: %v", err)
		}
	})
}

// samePlain compares a request for events or a poll with what net/http makes of it.
func samePlain(t *testing.T, req *request, std *http.Request) {
	path := map[route]string{routeEvents: PathEvents, routePoll: PathPoll}[req.route]
	methods := map[method]string{methodGET: "GET", methodPOST: "POST", methodOPTIONS: "OPTIONS"}
	if std.URL.Path != path || methods[req.method] != std.Method {
		t.Fatalf("got %+v, net/http %+v", req, std)
	}
	if len(std.TransferEncoding) != 0 || std.ContentLength != req.length {
		t.Fatalf("the body has %d bytes, for net/http %d, %v", req.length, std.ContentLength, std.TransferEncoding)
	}
	if req.closes != std.Close {
		t.Fatalf("it closes: %v, for net/http %v", req.closes, std.Close)
	}
	if req.since > mostSince {
		t.Fatalf("since %d", req.since)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	head := []byte(okHead)
	b.ReportAllocs()
	for b.Loop() {
		if _, bad := parseRequest(head, false); bad != nil {
			b.Fatal(bad)
		}
	}
}
