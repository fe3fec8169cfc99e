package redisstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// sendArgs is how many arguments a send's command has.
const sendArgs = 3 + 5 + 11

// sendCall is a send on its way, in one piece of memory: its arguments point
// into it, so that they need none of their own.
type sendCall struct {
	call
	args [sendArgs]any
	keys [5]string
	send chat.Send
}

// Send implements chat.Store.
func (s *Store) Send(ctx context.Context, send chat.Send) (chat.Sent, error) {
	if !protocol.ValidRoom(send.Room) {
		return chat.Sent{}, chat.ErrNoRoom
	}
	began := time.Now()
	for {
		c := s.newSend(send)
		reply, err := s.do(ctx, writes, &c.call)
		wait, held := heldFor(reply)
		if err != nil && !held { // who is held back stored nothing that replicas could lack
			return chat.Sent{}, err
		}
		if !held {
			sent, err := s.sent(reply, send)
			sent.WentOut, sent.CameBack = c.wentOut, c.cameBack
			return sent, err
		}
		if time.Since(began)+wait > holdLimit || !s.hold(ctx, wait) {
			return chat.Sent{}, chat.ErrRoomBusy
		}
	}
}

const (
	// holdLimit is how long a sender to a room that is behind is held back before
	// it is told so. Longer slows senders more smoothly, and piles up requests.
	holdLimit = 300 * time.Millisecond
	// maxHeld is how many senders are held back at once; more are told at once.
	maxHeld = 1024
)

// heldFor reads the answer of send.lua for a room that is held back.
func heldFor(reply any) (time.Duration, bool) {
	word, ok := reply.(string)
	if !ok {
		return 0, false
	}
	ms, ok := strings.CutPrefix(word, "HOLD ")
	if !ok {
		return 0, false
	}
	n, _ := strconv.Atoi(ms)
	return time.Duration(max(n, 1)) * time.Millisecond, true
}

// hold waits, a little more than asked so that those who wait do not come back
// together. False: too many wait already, or ctx ended.
func (s *Store) hold(ctx context.Context, wait time.Duration) bool {
	defer s.held.Add(-1)
	if s.held.Add(1) > maxHeld {
		return false
	}
	timer := time.NewTimer(wait + rand.N(wait/2+time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return false
}

// Pace implements chat.Pacer.
func (s *Store) Pace(ctx context.Context, room string, perSecond float64, lease time.Duration) error {
	part := s.keys.partition(room)
	interval := 0
	if perSecond > 0 {
		interval = max(1, int(1e6/perSecond))
	}
	_, err := s.do(ctx, writes, newCall(part, paceScript, []string{s.keys.room(part, room).room},
		strconv.Itoa(interval), lease.Milliseconds(), s.id))
	return err
}

func (s *Store) newSend(send chat.Send) *sendCall {
	c := &sendCall{send: send}
	c.part, c.script, c.ack = s.keys.partition(send.Room), sendScript, true
	k := s.keys.room(c.part, send.Room)
	c.keys = [5]string{k.room, k.members, k.log, k.idem(send.By.User, send.Key), k.sent()}
	c.args = [sendArgs]any{
		sendScript.argName, sendScript.argSHA, 5,
		&c.keys[0], &c.keys[1], &c.keys[2], &c.keys[3], &c.keys[4],
		&c.send.Room, &c.send.By.User, admission(&send), &c.send.Hash, send.Tail,
		s.arg.idemTTL, s.publish, s.arg.maxLen, s.arg.maxAge, s.arg.maxBytes,
		&s.keys.database,
	}
	c.call.args = c.args[:]
	return c
}

// sent reads send.lua's answer.
func (s *Store) sent(reply any, send chat.Send) (sent chat.Sent, err error) {
	sent.Tail, sent.Durability = send.Tail, chat.Accepted
	if s.opt.MinReplicasAck > 0 {
		sent.Durability = chat.Replicated
	}
	at, ok := reply.(string)
	if !ok {
		v, err := list("send", reply, 1)
		if err != nil {
			return sent, err
		}
		at, sent.Tail, sent.Replayed = text(v[0]), nil, true
		if len(v) > 1 {
			sent.Tail = []byte(text(v[1]))
		}
	}
	id, rest, _ := strings.Cut(at, " ")
	prev, rest, _ := strings.Cut(rest, " ")
	n, trims, _ := strings.Cut(rest, " ")
	s.observeLog(trims)
	if sent.ID, err = protocol.ParseID(id); err == nil {
		if sent.Prev, err = protocol.ParseID(prev); err == nil {
			sent.N, err = parseUint(n)
		}
	}
	if err != nil {
		return sent, fmt.Errorf("%w: %w", errReply("send", reply), err)
	}
	return sent, nil
}

// admission is what send.lua demands of a sender.
func admission(send *chat.Send) any {
	switch {
	case send.ReplayOnly:
		return onlyReplay
	case send.By.Server:
		return anyone
	}
	return onlyMembers
}

var anyone, onlyMembers, onlyReplay any = "0", "1", "2"
