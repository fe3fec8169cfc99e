package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/protocol"
)

const (
	// attemptTimeout is how long a client waits for an answer before it asks
	// another API: longer than an API may take (--redis-timeout and the replicas').
	attemptTimeout = 5 * time.Second
	// retryMost bounds the pause between attempts.
	retryMost = time.Second
)

// send sends to the busy rooms, at a pace, until ctx ends.
func (w *world) send(ctx context.Context, rng *rand.Rand, pace time.Duration) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	last := map[int]ledger.Pos{} // by room
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			room := rng.IntN(w.busy)
			pos, ok := w.sendOne(rng, room)
			if ok && pos <= last[room] && !w.mayLose() {
				w.violate("%s: a send became %s, the same sender's before it %s", w.rooms[room], pos.ID(), last[room].ID())
			}
			last[room] = pos
		}
	}
}

// whisper sends one message at a time to the quiet rooms until ctx ends: what is
// missed there shows by no later message.
func (w *world) whisper(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		for room := w.busy; room < len(w.rooms); room++ {
			sleep(ctx, rand.N(100*time.Millisecond))
			w.sendOne(rng, room)
		}
		sleep(ctx, time.Second)
	}
}

// sendOne sends a message as one of the room's members and returns when it is
// acknowledged; false: that was given up.
func (w *world) sendOne(rng *rand.Rand, room int) (ledger.Pos, bool) {
	w.mu.Lock()
	w.sends++
	number := w.sends
	w.unsettled++
	w.mu.Unlock()
	pos, ok := w.insist(room, w.user(pick(rng, w.members[room])), number)
	if ok {
		w.mu.Lock()
		w.unsettled--
		w.acks = append(w.acks, ledger.Ack{Room: uint32(room), Send: number, Pos: pos})
		w.last[room] = max(w.last[room], pos)
		w.mu.Unlock()
	}
	return pos, ok
}

// insist sends one message until it is acknowledged.
func (w *world) insist(room int, as *receiver, number ledger.Send) (pos ledger.Pos, ok bool) {
	due := time.Since(w.start)
	key := string(stamp.Append(nil, int64(due), number))
	body := fmt.Sprintf(`{"type":"text","text":"message %d"}`, number)
	pause := 20 * time.Millisecond
	for w.settle.Err() == nil {
		began := time.Now()
		status, answer, err := w.viaBalancer(w.settle, as, http.MethodPost, "/v1/rooms/"+w.rooms[room]+"/messages", body, key)
		took := time.Since(began)
		var sent struct {
			ID         protocol.ID
			Durability string
		}
		outcome := ""
		switch {
		case w.settle.Err() != nil:
			return 0, false
		case err != nil:
			outcome = "no answer"
		case status == http.StatusCreated, status == http.StatusOK:
			if err := json.Unmarshal(answer, &sent); err != nil {
				w.violate("send %d: %d %s: %v", number, status, answer, err)
				return 0, false
			}
			if w.opt.ack > 0 && sent.Durability != "replicated" {
				w.violate("send %d was acknowledged as %q, with --min-replicas-ack %d", number, sent.Durability, w.opt.ack)
			}
		case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, status == http.StatusInsufficientStorage:
			outcome = fmt.Sprint(status)
		default:
			w.violate("send %d to %s: %d %s", number, w.rooms[room], status, answer)
			return 0, false
		}
		w.mu.Lock()
		w.window.slowest = max(w.window.slowest, took)
		if outcome != "" {
			w.window.failed[outcome]++
		}
		w.mu.Unlock()
		if outcome == "" {
			if pos, ok = ledger.Pack(sent.ID); !ok {
				w.violate("send %d got the ID %s", number, sent.ID)
			}
			return pos, ok
		}
		sleep(w.settle, rand.N(pause)+pause/2)
		pause = min(2*pause, retryMost)
	}
	return 0, false
}
