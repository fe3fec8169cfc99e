package crew

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/loadtest/swarm"
	"github.com/madang-chat/madang/protocol"
)

// pager reads history over HTTP for clients that were told of a gap, as a client
// would. It is rare, so it is one ordinary HTTP client beside the loop.
type pager struct {
	common Common
	client *http.Client
	wake   chan struct{}

	api int // whose turn it is; run's alone

	mu    sync.Mutex // guards asks and queue
	asks  map[reading]span
	queue []reading // keys of asks, in the order they were asked for
}

// reading is one client's view of one room.
type reading struct {
	user int
	room uint32
}

// span is what a client has to page: everything after, up to head.
type span struct{ after, head ledger.Pos }

func newPager(c Common) *pager {
	return &pager{common: c, client: &http.Client{Timeout: 10 * time.Second}, wake: make(chan struct{}, 1), asks: make(map[reading]span)}
}

// ask is called by the loop. A gap that is told while an earlier one waits widens
// it: a client reads what it misses once, up to the head that it was told last.
func (p *pager) ask(user int, room uint32, after, head ledger.Pos) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := reading{user, room}
	s, waits := p.asks[r]
	if !waits {
		s.after = after
		p.queue = append(p.queue, r)
	}
	s.head = head
	p.asks[r] = s
	select {
	case p.wake <- struct{}{}:
	default: // it is awake
	}
}

// next takes the first that waits.
func (p *pager) next() (r reading, s span, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return r, s, false
	}
	r, p.queue = p.queue[0], p.queue[1:]
	s = p.asks[r]
	delete(p.asks, r)
	return r, s, true
}

func (p *pager) run(ctx context.Context, s *swarm.Swarm) {
	c, err := crowd.New(p.common.Shape)
	if err != nil || len(p.common.APIs) == 0 {
		return
	}
	m, err := mint.New(p.common.Secret, p.common.Claims)
	if err != nil {
		return
	}
	for ctx.Err() == nil {
		r, gap, ok := p.next()
		if !ok {
			select {
			case <-ctx.Done():
			case <-p.wake:
			}
			continue
		}
		// A client would try for ever; the run waits for it as long as its drain
		// allows, and says what was not read then.
		for try := 0; ctx.Err() == nil && p.page(ctx, s, c, m, r, gap) != nil; try++ {
			p.api++ // as a balancer would send it elsewhere
			time.Sleep(200 * time.Millisecond << min(try, 4))
		}
	}
}

// page reads from a client's position up to the gap's head.
func (p *pager) page(ctx context.Context, s *swarm.Swarm, c *crowd.Crowd, m *mint.Minter, r reading, gap span) error {
	after := gap.after
	for {
		entries, more, err := p.fetch(ctx, c.Room(int(r.room)), string(m.Append(nil, c.User(r.user))), after)
		if err != nil {
			return err
		}
		for i, e := range entries {
			if e.Pos > gap.head { // what follows comes by the socket
				entries, more = entries[:i], false
				break
			}
		}
		if len(entries) == 0 {
			more = false
		} else {
			after = entries[len(entries)-1].Pos
		}
		s.Paged(r.user, r.room, entries, gap.head, more)
		if !more {
			return nil
		}
	}
}

func (p *pager) fetch(ctx context.Context, room, token string, after ledger.Pos) (entries []swarm.Paged, more bool, err error) {
	url := fmt.Sprintf("http://%s/v1/rooms/%s/messages?after=%s&limit=100", p.common.APIs[p.api%len(p.common.APIs)], room, after.ID())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, false, err
	}
	req.Host = p.common.Host // empty: the address
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := p.client.Do(req)
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return nil, false, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, false, fmt.Errorf("history: %s", res.Status)
	}
	var page struct {
		Messages []struct {
			ID  protocol.ID `json:"id"`
			Key string      `json:"key"`
		} `json:"messages"`
		More bool `json:"more"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, false, fmt.Errorf("history: %w", err)
	}
	for _, msg := range page.Messages {
		pos, ok := ledger.Pack(msg.ID)
		if !ok {
			return nil, false, fmt.Errorf("history: an ID out of range: %s", msg.ID)
		}
		_, send, _ := stamp.Parse([]byte(msg.Key))
		entries = append(entries, swarm.Paged{Pos: pos, Send: send})
	}
	return entries, page.More, nil
}
