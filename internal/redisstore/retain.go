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

// observeLog reads "100 0 0 9916": what was trimmed, by what, and what is left.
func (s *Store) observeLog(counts string) {
	if counts == "" {
		return
	}
	for i, n := range strings.Fields(counts) {
		n, err := strconv.Atoi(n)
		switch {
		case err != nil:
		case i < len(trimmedBy):
			if f := s.opt.Observer.Trimmed; f != nil && n > 0 {
				f(trimmedBy[i], n)
			}
		default:
			if f := s.opt.Observer.LogLength; f != nil {
				f(n)
			}
		}
	}
}
