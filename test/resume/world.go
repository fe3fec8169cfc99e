package main

import (
	"bytes"
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
)

// world is the rooms, and who is in them.
type world struct {
	api    string
	people *crowd.Crowd

	mu     sync.Mutex
	minter *mint.Minter // guarded by mu
	http   http.Client
}

// make makes the rooms.
func (w *world) make(ctx context.Context) error {
	return w.forRooms(ctx, func(room int) error {
		members := make([]string, w.people.Size(room))
		for k := range members {
			members[k] = w.people.User(w.people.Member(room, k))
		}
		return w.post(ctx, members[0], "/v1/rooms", "", map[string]any{"id": w.people.Room(room), "members": members[1:]})
	})
}

// speak says something in every room.
func (w *world) speak(ctx context.Context) error {
	return w.forRooms(ctx, func(room int) error {
		key := stamp.Append(nil, time.Now().UnixNano(), ledger.Send(room+1))
		return w.post(ctx, w.people.User(w.people.Member(room, 0)), "/v1/rooms/"+w.people.Room(room)+"/messages", string(key),
			map[string]string{"type": "text", "text": "something was said"})
	})
}

// forRooms does something for every room, several at a time.
func (w *world) forRooms(ctx context.Context, f func(room int) error) error {
	const workers = 16
	w.http.Transport = &http.Transport{MaxIdleConnsPerHost: workers}
	defer w.http.CloseIdleConnections()
	errs := make(chan error, workers)
	var wg sync.WaitGroup
	for first := range workers {
		wg.Go(func() {
			for room := first; room < w.people.Rooms() && ctx.Err() == nil; room += workers {
				if err := f(room); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

func (w *world) post(ctx context.Context, user, path, key string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	w.mu.Lock()
	token := w.minter.Append(nil, user)
	w.mu.Unlock()
	req.Header.Set("Authorization", "Bearer "+string(token))
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err == nil && res.StatusCode != http.StatusCreated {
		err = fmt.Errorf("POST %s: %d %s", path, res.StatusCode, answer)
	}
	return err
}
