package crew

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
	asks   chan pageAsk
	client *http.Client
}

type pageAsk struct {
	user        int
	room        uint32
	after, head ledger.Pos
}

func newPager(c Common) *pager {
	return &pager{common: c, asks: make(chan pageAsk, 100_000), client: &http.Client{Timeout: 10 * time.Second}}
}

// ask is called by the loop. A gap that finds the queue full stays unpaged, and
// is counted as lost: nothing is hidden by it.
func (p *pager) ask(user int, room uint32, after, head ledger.Pos) {
	select {
	case p.asks <- pageAsk{user, room, after, head}:
	default:
	}
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
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-p.asks:
			for try := 0; try < 10 && ctx.Err() == nil; try++ {
				if p.page(ctx, s, c, m, a) == nil {
					break
				}
				time.Sleep(200 * time.Millisecond << min(try, 4))
			}
		}
	}
}

// page reads from a client's position up to the gap's head.
func (p *pager) page(ctx context.Context, s *swarm.Swarm, c *crowd.Crowd, m *mint.Minter, a pageAsk) error {
	after := a.after
	for {
		entries, more, err := p.fetch(ctx, c.Room(int(a.room)), string(m.Append(nil, c.User(a.user))), after)
		if err != nil {
			return err
		}
		for i, e := range entries {
			if e.Pos > a.head { // what follows comes by the socket
				entries, more = entries[:i], false
				break
			}
		}
		if len(entries) == 0 {
			more = false
		} else {
			after = entries[len(entries)-1].Pos
		}
		s.Paged(a.user, a.room, entries, a.head, more)
		if !more {
			return nil
		}
	}
}

func (p *pager) fetch(ctx context.Context, room, token string, after ledger.Pos) (entries []swarm.Paged, more bool, err error) {
	url := fmt.Sprintf("http://%s/v1/rooms/%s/messages?after=%s&limit=100", p.common.APIs[0], room, after.ID())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, false, err
	}
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
