package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/protocol"
)

// Limits of one request that makes a room (api: 1,000 members, 64 KiB).
const (
	membersPerRequest = 1000
	setupConcurrency  = 16
	setupTries        = 8
)

// reach checks that somebody listens at every address, so that a wrong one is
// one sentence and not ten thousand failures.
func reach(ctx context.Context, flag string, addrs []netip.AddrPort) error {
	for _, a := range addrs {
		d := net.Dialer{Timeout: 5 * time.Second}
		conn, err := d.DialContext(ctx, "tcp", a.String())
		if err != nil {
			return fmt.Errorf("--%s %s: nobody can be reached there: is it running, and is this its address? (%w)", flag, a, err)
		}
		conn.Close()
	}
	return nil
}

// setup makes the rooms, each by its first member.
type setup struct {
	apis   []netip.AddrPort
	host   string
	crowd  *crowd.Crowd
	secret []byte
	claims mint.Claims
	client *http.Client
	done   atomic.Int64

	mu    sync.Mutex // guards bases
	bases map[uint32]ledger.Pos
}

// rooms makes all rooms. progress is told how many there are.
func (s *setup) rooms(ctx context.Context, progress func(done int)) error {
	return s.each(ctx, progress, s.room)
}

// heads reads where all rooms are: only what comes after is owed to new clients.
func (s *setup) heads(ctx context.Context) error {
	return s.each(ctx, func(int) {}, func(ctx context.Context, m *mint.Minter, room int) error {
		return s.existing(ctx, string(m.Append(nil, s.crowd.User(s.crowd.Member(room, 0)))), room)
	})
}

// each does something for every room, several at a time.
func (s *setup) each(ctx context.Context, progress func(done int), do func(ctx context.Context, m *mint.Minter, room int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.client = &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: setupConcurrency, MaxConnsPerHost: setupConcurrency},
	}
	defer s.client.CloseIdleConnections()
	next := make(chan int)
	var workers sync.WaitGroup
	for range setupConcurrency {
		workers.Go(func() {
			m, err := mint.New(s.secret, s.claims)
			if err != nil {
				cancel(err)
				return
			}
			for room := range next {
				if err := do(ctx, m, room); err != nil {
					cancel(err)
					return
				}
				s.done.Add(1)
			}
		})
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for room := 0; room < s.crowd.Rooms() && ctx.Err() == nil; {
		select {
		case next <- room:
			room++
		case <-ticker.C:
			progress(int(s.done.Load()))
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

func (s *setup) room(ctx context.Context, m *mint.Minter, room int) error {
	size := s.crowd.Size(room)
	owner := string(m.Append(nil, s.crowd.User(s.crowd.Member(room, 0))))
	in := struct {
		ID      string   `json:"id"`
		Members []string `json:"members"`
	}{ID: s.crowd.Room(room)}
	for k := range min(size, membersPerRequest) {
		in.Members = append(in.Members, s.crowd.User(s.crowd.Member(room, k)))
	}
	status, _, err := s.call(ctx, http.MethodPost, "/v1/rooms", owner, in)
	switch {
	case err != nil:
		return err
	case status == http.StatusConflict: // of an earlier run with the same prefix
		return s.existing(ctx, owner, room)
	case status != http.StatusCreated:
		return fmt.Errorf("making room %s: the API answered %d", in.ID, status)
	}
	for k := membersPerRequest; k < size; k++ {
		path := "/v1/rooms/" + in.ID + "/members/" + s.crowd.User(s.crowd.Member(room, k))
		status, _, err := s.call(ctx, http.MethodPut, path, owner, map[string]string{})
		if err != nil {
			return err
		}
		if status/100 != 2 {
			return fmt.Errorf("adding a member to room %s: the API answered %d", in.ID, status)
		}
	}
	return nil
}

// existing reads a room's head: only what comes after it is owed.
func (s *setup) existing(ctx context.Context, token string, room int) error {
	status, body, err := s.call(ctx, http.MethodGet, "/v1/rooms/"+s.crowd.Room(room), token, nil)
	if err != nil {
		return err
	}
	var out struct {
		Head protocol.ID `json:"head"`
	}
	if err := json.Unmarshal(body, &out); status != http.StatusOK || err != nil {
		return fmt.Errorf("room %s exists, and its head can't be read (%d): use another --prefix", s.crowd.Room(room), status)
	}
	pos, ok := ledger.Pack(out.Head)
	if !ok {
		return fmt.Errorf("room %s has a head out of range: %s", s.crowd.Room(room), out.Head)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bases[uint32(room)] = pos
	return nil
}

var errWrongSecret = errors.New("the API does not accept our tokens (401): give the secret that the servers run with (--jwt-secret or --jwt-secret-file), and --jwt-issuer and --jwt-audience if they check them")

// call sends a request and tries again while the server asks for it.
func (s *setup) call(ctx context.Context, method, path, token string, in any) (status int, body []byte, err error) {
	var payload []byte
	if in != nil {
		if payload, err = json.Marshal(in); err != nil {
			return 0, nil, err
		}
	}
	for try := 1; ; try++ {
		var wait time.Duration
		status, body, wait, err = s.once(ctx, method, path, token, payload)
		if err == nil && status == http.StatusUnauthorized {
			return status, body, errWrongSecret
		}
		again := err != nil || status == http.StatusTooManyRequests || status >= 500
		if !again || ctx.Err() != nil {
			return status, body, err
		}
		if try == setupTries {
			if err != nil {
				return 0, nil, fmt.Errorf("%s %s: no answer after %d attempts: %w", method, path, try, err)
			}
			return status, body, fmt.Errorf("%s %s: the API answered %d, %d times: %s", method, path, status, try, bytes.TrimSpace(body))
		}
		select {
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		case <-time.After(max(wait, 50*time.Millisecond<<try)):
		}
	}
}

func (s *setup) once(ctx context.Context, method, path, token string, payload []byte) (status int, body []byte, wait time.Duration, err error) {
	api := s.apis[int(s.done.Load())%len(s.apis)]
	req, err := http.NewRequestWithContext(ctx, method, "http://"+api.String()+path, bytes.NewReader(payload))
	if err != nil {
		return 0, nil, 0, err
	}
	if s.host != "" {
		req.Host = s.host
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return 0, nil, 0, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil {
		wait = min(time.Duration(seconds)*time.Second, 30*time.Second)
	}
	return res.StatusCode, body, wait, err
}
