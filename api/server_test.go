package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/api"
)

func (w *world) start() string {
	w.t.Helper()
	if err := w.api.Start("127.0.0.1:0"); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.api.Stop(context.Background()) })
	return w.api.Addr().String()
}

func TestNewStartsNothing(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	if w.api.Addr() != nil {
		t.Error("it listens")
	}
	for range 2 {
		if err := w.api.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if err := w.api.Start("127.0.0.1:0"); err == nil {
		t.Error("started after Stop")
	}
	for name, o := range map[string]api.Options{
		"nothing":     {},
		"no verifier": {Store: newMemory()},
		"bad proxies": {Store: newMemory(), Verifier: verifier(t), TrustedProxies: []string{"everyone"}},
		"bad limit":   {Store: newMemory(), Verifier: verifier(t), Limits: api.Limits{BodyBytes: -1}},
		"route twice": {Store: newMemory(), Verifier: verifier(t), Extra: []api.Extra{{Method: "GET", Path: "/docs", Handler: http.NotFoundHandler()}}},
	} {
		if _, err := api.New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestHeadIsGetWithoutTheBody: whatever GET serves, the routes of others included.
func TestHeadIsGetWithoutTheBody(t *testing.T) {
	w := newWorld(t, newMemory(), func(o *api.Options) {
		o.Extra = []api.Extra{{Method: "GET", Path: "/", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a page") })}}
	})
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	addr := w.start()
	ask := func(method, path string) (*http.Response, string) {
		req, _ := http.NewRequest(method, "http://"+addr+path, nil)
		req.Header.Set("Authorization", "Bearer "+alice.token)
		req.Header.Set("Accept-Encoding", "identity")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	for _, path := range []string{"/", "/docs", "/openapi.json", "/v1/rooms", "/v1/rooms/r", "/v1/rooms/r/members", "/v1/rooms/r/messages", "/v1/presence?user=alice", "/v1/rooms/none"} {
		get, body := ask("GET", path)
		head, nothing := ask("HEAD", path)
		if head.StatusCode != get.StatusCode || nothing != "" || body == "" || head.ContentLength != get.ContentLength || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("%s: GET %d, %d bytes; HEAD %d, %d bytes, of which came %q", path, get.StatusCode, get.ContentLength, head.StatusCode, head.ContentLength, nothing)
		}
	}
}

func TestStartTellsWhatIsWrong(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newWorld(t, newMemory(), nil)
	if err := w.api.Start(l.Addr().String()); err == nil {
		t.Fatal("started on a taken port")
	}
	w.start()
	if err := w.api.Start("127.0.0.1:0"); err == nil {
		t.Fatal("started twice")
	}
}

// waitingSend sends a message that the Store holds, and returns where its answer
// will be.
func waitingSend(t *testing.T, store *memory, addr string) chan string {
	t.Helper()
	got := make(chan string, 1)
	reached := make(chan struct{})
	store.gate = make(chan struct{})
	store.reached = reached
	req, err := http.NewRequest("POST", "http://"+addr+"/v1/rooms/r/messages", strings.NewReader(`{"text":"last words"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+tokenOf(t, "alice"))
	go func() {
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		got <- resp.Status
	}()
	<-reached
	return got
}

// Memory that is short keeps nobody out, and no connection between two requests.
func TestConnectionsAreNotKeptWhileMemoryIsShort(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	addr := w.start()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	wantKept := func(conn net.Conn, r *bufio.Reader, kept bool) {
		t.Helper()
		io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 || resp.Close == kept {
			t.Fatalf("%s, %v, to be closed: %v", resp.Status, err, resp.Close)
		}
	}
	wantKept(conn, r, true)
	wantKept(conn, r, true)
	w.api.KeepNone(true)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("a connection that waits for another request: %v, not closed", err)
	}
	for _, short := range []bool{true, false} {
		w.api.KeepNone(short)
		another, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer another.Close()
		wantKept(another, bufio.NewReader(another), !short)
	}
}

// Connections that nobody uses leave descriptors to the process itself, to reach Redis
// again for instance, and to who comes.
func TestIdleConnectionsDoNotTakeTheLastDescriptors(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	addr := w.start()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	next, err := syscall.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(next)
	few := before
	few.Cur = uint64(next+100) * 8 / 7
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	ask := func() (net.Conn, *bufio.Reader) {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal("idle connections have taken all descriptors: ", err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal("a request: ", err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return conn, r
	}
	ended := make(chan error, 1)
	first, r := ask()
	first.SetDeadline(time.Time{})
	go func() {
		_, err := r.ReadByte()
		ended <- err
	}()
	for range 100 {
		ask()
		select {
		case err := <-ended:
			if err != io.EOF {
				t.Errorf("the first connection ended with %v", err)
			}
			fd, err := syscall.Dup(2)
			if err != nil {
				t.Fatal("there is no descriptor for a connection to Redis: ", err)
			}
			syscall.Close(fd)
			ask()
			return
		default:
		}
	}
	t.Error("a hundred connections, and the first still waits for another request")
}

func TestStopFinishesWhatItAccepted(t *testing.T) {
	store := newMemory()
	w := newWorld(t, store, nil)
	addr := w.start()
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	got := waitingSend(t, store, addr)

	stopped := make(chan error, 1)
	go func() { stopped <- w.api.Stop(context.Background()) }()
	for { // until nothing new is accepted
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped (%v) before the send was answered", err)
	default:
	}
	close(store.gate)
	if status := <-got; status != "201 Created" {
		t.Fatalf("the accepted send ended with %s", status)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if err := w.api.Stop(context.Background()); err != nil {
		t.Fatalf("the second Stop: %v", err)
	}
}

func TestStopIsBounded(t *testing.T) {
	store := newMemory()
	w := newWorld(t, store, func(o *api.Options) { o.Limits.StoreTimeout = time.Minute })
	addr := w.start()
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	got := waitingSend(t, store, addr)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := w.api.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Stop: %v", err)
	}
	if status := <-got; strings.HasPrefix(status, "2") {
		t.Fatalf("a send that was cut off was answered %s", status)
	}
}

// talk writes raw bytes and returns the status line, and whether the connection
// was closed after it.
func talk(t *testing.T, addr, raw string) (status string, closed bool) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(c, raw) }()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error(), true
	}
	return resp.Status[:3], resp.Close
}

func TestRawRequests(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	addr := w.start()
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	head := "POST /v1/rooms/r/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + tokenOf(t, "alice") + "\r\n"
	for _, tt := range []struct {
		name, raw, status string
		closed            bool
	}{
		{"good", head + "Content-Length: 13\r\n\r\n" + `{"text":"hi"}`, "201", false},
		{"chunked", head + "Transfer-Encoding: chunked\r\n\r\nd\r\n" + `{"text":"hi"}` + "\r\n0\r\n\r\n", "201", false},
		{"empty chunked", head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", false},
		{"a large length is refused unread", head + "Content-Length: 1000000000\r\n\r\n", "413", true},
		{"endless chunks", head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", 30), "413", true},
		{"bad chunk", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400", true},
		{"a length over the limit, unread", head + "Content-Length: 65537\r\n\r\n", "413", true},
		{"both lengths: chunked wins", head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n" + `{"text":"hi"}` + "\r\n0\r\n\r\n", "201", false},
		{"two lengths", head + "Content-Length: 13\r\nContent-Length: 14\r\n\r\n" + `{"text":"hi"}`, "400", true},
		{"a large head", head + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431", true},
		{"no Host", "GET /v1/rooms HTTP/1.1\r\n\r\n", "400", true},
		{"asterisk", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", "404", false},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200", false},
		{"CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", "404", false},
		{"absolute URL", "GET http://y/v1/rooms HTTP/1.1\r\nHost: x\r\n\r\n", "401", false},
		{"no HTTP", "\x16\x03\x01\x02\x00\r\n\r\n", "400", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, closed := talk(t, addr, tt.raw)
			if status != tt.status || closed != tt.closed {
				t.Errorf("%s, closed %v; want %s, %v", status, closed, tt.status, tt.closed)
			}
		})
	}
}

func TestHTTPS(t *testing.T) {
	// httptest has a certificate for example.com and 127.0.0.1.
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	w := newWorld(t, newMemory(), func(o *api.Options) { o.TLS = &tls.Config{Certificates: other.TLS.Certificates} })
	addr := w.start()
	roots := x509.NewCertPool()
	roots.AddCert(other.Certificate())
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(fmt.Sprintf("https://%s/openapi.json", addr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("%s by %s", resp.Status, resp.Proto)
	}
}

// Whoever is told that a body is too large is sending it still: were the connection
// reset, the answer would be lost, and to a proxy the API would have failed.
func TestTheAnswerToABodyThatIsTooLargeIsNotCutOff(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	addr := w.start()
	for _, more := range []string{"", "Connection: close\r\n"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		const size = 200_000
		fmt.Fprintf(conn, "POST /v1/rooms HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s",
			tokenOf(t, "alice"), size, more, strings.Repeat(" ", size/2))
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 413 || !res.Close {
			t.Errorf("%s, %v, the last one: %v", res.Status, err, res.Close)
		}
		if _, err := io.WriteString(conn, strings.Repeat(" ", size/2)); err != nil {
			t.Errorf("the rest of the body: %v", err)
		}
		if _, err := r.ReadByte(); err != io.EOF { //nolint:errorlint // Readers return EOF itself
			t.Errorf("the end: %v", err)
		}
	}
}

// Nor is the answer to who is refused for another reason, where a proxy sends one request
// over a connection, as nginx does unless told.
func TestTheAnswerToABodyThatIsNotReadIsNotCutOff(t *testing.T) {
	w := newWorld(t, newMemory(), nil)
	addr := w.start()
	for _, first := range []string{"HTTP/1.0", "HTTP/1.1\r\nConnection: close"} {
		for _, size := range []int{200_000, 2_000_000} { // the latter is not waited for
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, err = fmt.Fprintf(conn, "POST /v1/rooms %s\r\nHost: h\r\nAuthorization: Bearer none\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
				first, size, strings.Repeat(" ", min(size, 400_000)))
			if err != nil {
				t.Errorf("%q, %d bytes: %v", first, size, err)
			}
			r := bufio.NewReader(conn)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("%q, %d bytes: %v", first, size, err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 401 {
				t.Errorf("%q, %d bytes: %s, %v", first, size, res.Status, err)
			}
			if _, err := r.ReadByte(); err != io.EOF { //nolint:errorlint // Readers return EOF itself
				t.Errorf("%q, %d bytes: the end: %v", first, size, err)
			}
		}
	}
}

// Over HTTP/2 a connection carries many requests, of many users where a balancer made
// it: one whose body is too large does not end it for the others.
func TestABodyThatIsTooLargeLeavesTheOthersOnItsConnection(t *testing.T) {
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	w := newWorld(t, newMemory(), func(o *api.Options) { o.TLS = &tls.Config{Certificates: other.TLS.Certificates} })
	addr := w.start()
	roots := x509.NewCertPool()
	roots.AddCert(other.Certificate())
	dials := 0
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	defer client.CloseIdleConnections()
	send := func(body string) int {
		req, err := http.NewRequest("POST", "https://"+addr+"/v1/rooms", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+tokenOf(t, "alice"))
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.ProtoMajor != 2 {
			t.Fatal(res.Proto, err)
		}
		return res.StatusCode
	}
	for range 3 {
		if status := send(`{"name":"` + strings.Repeat("x", 1<<20) + `"}`); status != 413 {
			t.Errorf("%d", status)
		}
		if status := send(`{}`); status != 201 {
			t.Errorf("%d", status)
		}
	}
	if dials != 1 {
		t.Errorf("%d connections were made", dials)
	}
}

// lateBody comes whole, after a while.
type lateBody struct {
	io.Reader
	after time.Duration
}

func (b *lateBody) Read(p []byte) (int, error) {
	time.Sleep(b.after)
	b.after = 0
	return b.Reader.Read(p)
}

// However long Redis may take, there is time to say that it did not answer.
func TestAStoreThatIsAwayIsTold(t *testing.T) {
	for _, store := range []time.Duration{0, time.Second, time.Minute} {
		w := newWorld(t, newMemory(), func(o *api.Options) { o.Limits.StoreTimeout = store })
		if read, all := w.api.Timeouts(); all < read+store+10*time.Second {
			t.Errorf("Redis has %v, a body %v, and both with the answer %v", store, read, all)
		}
	}
}

// What a client takes for its body is not the Store's time.
func TestAStoreHasItsTimeAfterASlowBody(t *testing.T) {
	const storeTimeout = 200 * time.Millisecond
	store := living(&liveMemory{conns: map[string]bool{"alice": true}})
	w := newWorld(t, store, func(o *api.Options) { o.Limits.StoreTimeout = storeTimeout })
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	id := w.as("alice").sends("r", "hi").field("id")
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/rooms", `{}`, 201},
		{"POST", "/v1/rooms/r/messages", `{"text":"hi"}`, 201},
		{"POST", "/v1/rooms/r/read", `{"id":"` + id + `"}`, 204},
		{"PUT", "/v1/rooms/r/members/bob", `{"role":"admin"}`, 200},
		{"POST", "/v1/focus", `{"conn":"c","room":"r"}`, 204},
		{"POST", "/v1/typing", `{"conn":"c","room":"r"}`, 204},
		{"POST", "/v1/delivered", `{"conn":"c","room":"r","id":"` + id + `"}`, 204},
		{"POST", "/v1/watch", `{"conn":"c","users":["bob"]}`, 204},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			req := httptest.NewRequest(tt.method, tt.path, &lateBody{strings.NewReader(tt.body), storeTimeout + 50*time.Millisecond})
			req.ContentLength = int64(len(tt.body))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+tokenOf(t, "alice"))
			rec := httptest.NewRecorder()
			w.api.Handler().ServeHTTP(rec, req)
			if rec.Code != tt.status {
				t.Errorf("%d %s; want %d", rec.Code, rec.Body, tt.status)
			}
		})
	}
}

func TestSlowClientsAreCut(t *testing.T) {
	t.Parallel() // it waits, mostly
	w := newWorld(t, newMemory(), nil)
	w.as("alice").post("/v1/rooms", `{"id":"r"}`).want(201)
	w.api.SetTimeouts(time.Second, 2*time.Second) // longer than a client may be stopped before it has said anything
	addr := w.start()
	head := "POST /v1/rooms/r/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + tokenOf(t, "alice") + "\r\n"
	for name, raw := range map[string]string{
		"half a body":    head + "Content-Length: 13\r\n\r\n" + `{"text`,
		"half a chunk":   head + "Transfer-Encoding: chunked\r\n\r\nd\r\n" + `{"text`,
		"no body at all": head + "Content-Length: 13\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if status, closed := talk(t, addr, raw); status != "408" || !closed {
				t.Errorf("%s, closed %v", status, closed)
			}
		})
	}
	for name, raw := range map[string]string{"silence": "", "half a head": head} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if status, _ := talk(t, addr, raw); status != io.ErrUnexpectedEOF.Error() {
				t.Error(status)
			}
		})
	}
}
