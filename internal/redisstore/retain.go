package redisstore

import (
	"context"
	"strconv"
	"strings"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

var retainScript = loadScript("retain")

var _ chat.Retainer = (*Store)(nil)

// Retain implements chat.Retainer.
func (s *Store) Retain(ctx context.Context, room string, r chat.Retention) error {
	if !protocol.ValidRoom(room) {
		return chat.ErrNoRoom
	}
	field := func(v *int64) string {
		if v == nil {
			return "-"
		}
		return strconv.FormatInt(*v, 10)
	}
	keep := field(r.Messages) + " " + field(r.AgeMs) + " " + field(r.Bytes)
	if r == (chat.Retention{}) {
		keep = ""
	}
	age := s.opt.MaxAge.Milliseconds()
	if r.AgeMs != nil {
		age = *r.AgeMs
	}
	part := s.keys.partition(room)
	k := s.keys.room(part, room)
	c := newCall(part, retainScript, []string{k.room, k.log}, keep, age)
	c.ack = true
	_, err := s.do(ctx, writes, c)
	return err
}

// trimmedBy are the reasons for which a log is trimmed, in the order in which
// send.lua counts.
var trimmedBy = [...]string{"count", "age", "bytes"}

// observeTrims reads "100 0 0".
func (s *Store) observeTrims(counts string) {
	f := s.opt.Observer.Trimmed
	if f == nil || counts == "" {
		return
	}
	for i, n := range strings.Fields(counts) {
		if n, err := strconv.Atoi(n); err == nil && n > 0 && i < len(trimmedBy) {
			f(trimmedBy[i], n)
		}
	}
}
