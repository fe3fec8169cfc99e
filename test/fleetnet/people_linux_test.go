package fleetnet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// person is a member of one room with a socket through the balancer. It comes
// back by itself, with its position, whatever ends the socket.
type person struct {
	site  *site
	name  string
	room  string
	addr  string // where it connects from
	token string

	mu       sync.Mutex
	ids      []string // guarded by mu: messages in the order they came
	last     string
	problems []string

	connected  atomic.Bool
	reconnects atomic.Int64
}

func (s *site) person(name, room string, i int) *person {
	s.t.Helper()
	token, err := auth.Mint([]byte(s.secret), name, time.Hour, auth.MintOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	span := clientAddrs[1] - clientAddrs[0] + 1
	return &person{site: s, name: name, room: room, addr: fmt.Sprint(subnet, clientAddrs[0]+i%span), token: token}
}

// dial opens a socket as the person.
func (p *person) dial(ctx context.Context, query string) (*websocket.Conn, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return p.site.clients.dial(ctx, p.addr, addr)
	}}}
	conn, _, err := websocket.Dial(ctx, "ws://"+p.site.gatewayAddr+"/v1/ws"+query, &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{"madang.v1", "bearer." + p.token},
	})
	return conn, err
}

// live holds a socket until ctx ends.
func (p *person) live(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			p.reconnects.Add(1)
		}
		wait := p.once(ctx, !first)
		p.connected.Store(false)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// once holds one socket until it ends, and says when to come back.
func (p *person) once(ctx context.Context, resume bool) time.Duration {
	const soon = 200 * time.Millisecond
	query := ""
	if resume {
		query = "?resume"
	}
	dialCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := p.dial(dialCtx, query)
	if err != nil {
		return soon
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	if resume {
		p.mu.Lock()
		positions, _ := json.Marshal(map[string]any{"type": "resume", "rooms": map[string]string{p.room: p.position()}})
		p.mu.Unlock()
		if err := conn.Write(ctx, websocket.MessageText, positions); err != nil {
			return soon
		}
	}
	// What a client's SDK does: say something now and then, so that a dead path
	// shows as unanswered data.
	pinger, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for {
			select {
			case <-pinger.Done():
				return
			case <-time.After(time.Second):
				_ = conn.Write(pinger, websocket.MessageText, []byte(`{"type":"ping"}`))
			}
		}
	}()
	wait := soon
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			return wait
		}
		for line := range bytes.SplitSeq(frame, []byte("\n")) {
			var e struct {
				Type, Room, ID, Prev, Reason string
				RetryInMs                    int `json:"retry_in_ms"`
			}
			if len(line) == 0 {
				continue
			}
			if err := json.Unmarshal(line, &e); err != nil {
				p.problem("not JSON: %q", line)
				continue
			}
			switch e.Type {
			case "hello":
				p.connected.Store(true)
			case "message":
				p.took(e.Room, e.ID, e.Prev)
			case "gap":
				p.problem("a gap was told: %s", line)
			case "bye":
				wait = time.Duration(e.RetryInMs) * time.Millisecond
			}
		}
	}
}

// position is where the person is in its room; mu is held.
func (p *person) position() string {
	if p.last == "" {
		return "0-0"
	}
	return p.last
}

func (p *person) took(room, id, prev string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if room != p.room {
		p.problems = append(p.problems, "a message of "+room)
		return
	}
	if p.last != "" && !fleet.Newer(id, p.last) {
		return // seen: at least once on the wire
	}
	if prev != p.position() {
		p.problems = append(p.problems, fmt.Sprintf("%s comes after %s, and %s was before it", id, p.position(), prev))
	}
	p.last = id
	p.ids = append(p.ids, id)
}

func (p *person) problem(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// post sends to the API through the balancer.
func (p *person) post(path string, body any, header ...string) (status int, answer []byte, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(http.MethodPost, p.site.apiURL+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := p.site.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// traffic is senders who write down what was acknowledged.
type traffic struct {
	t      *testing.T
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	acked  map[string][]string // by room, in the order of the log
	failed []string
}

// talk lets each sender send every pause until stop.
func talk(t *testing.T, senders []*person, pause time.Duration) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{t: t, cancel: cancel, acked: map[string][]string{}}
	for _, p := range senders {
		tr.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				status, answer, err := p.post("/v1/rooms/"+p.room+"/messages", map[string]any{"type": "text", "text": fmt.Sprint(i)},
					"Idempotency-Key", fmt.Sprintf("%s-%d", p.name, i))
				var m struct{ ID string }
				if err == nil && (status == http.StatusCreated || status == http.StatusOK) {
					err = json.Unmarshal(answer, &m)
				} else if err == nil {
					err = fmt.Errorf("%d %s", status, answer)
				}
				tr.mu.Lock()
				if err != nil {
					tr.failed = append(tr.failed, fmt.Sprintf("%s %s #%d: %v", time.Now().Format("05.000"), p.name, i, err))
				} else {
					tr.acked[p.room] = append(tr.acked[p.room], m.ID)
				}
				tr.mu.Unlock()
				time.Sleep(pause)
			}
		})
	}
	t.Cleanup(func() { cancel(); tr.wg.Wait() })
	return tr
}

// stop ends the sending.
func (tr *traffic) stop() {
	tr.cancel()
	tr.wg.Wait()
}

// number is how many sends were acknowledged.
func (tr *traffic) number() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, ids := range tr.acked {
		n += len(ids)
	}
	return n
}

// judge wants every acknowledged message at every member, in order.
func (tr *traffic) judge(people []*person) {
	tr.t.Helper()
	for _, p := range people {
		want := tr.acked[p.room]
		if len(want) == 0 {
			continue
		}
		lastWanted := want[0]
		for _, id := range want {
			if fleet.Newer(id, lastWanted) {
				lastWanted = id
			}
		}
		fleet.Await(tr.t, p.name+" has the last message of "+p.room, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.last != "" && !fleet.Newer(lastWanted, p.last)
		}, func() string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return fmt.Sprintf("it has %s of %s; connected %v", p.last, lastWanted, p.connected.Load())
		})
		p.mu.Lock()
		got := map[string]bool{}
		for _, id := range p.ids {
			got[id] = true
		}
		missing := 0
		for _, id := range want {
			if !got[id] {
				missing++
			}
		}
		if missing > 0 {
			tr.t.Errorf("%s misses %d of %d acknowledged messages", p.name, missing, len(want))
		}
		for _, problem := range p.problems {
			tr.t.Errorf("%s: %s", p.name, problem)
		}
		p.mu.Unlock()
	}
}
