package redisstore

import (
	"context"

	"github.com/madang-chat/madang/internal/chat"
)

var (
	disconnectScript = loadScript("disconnect")
	revokedScript    = loadScript("revoked")
)

// revokedPortion is how many disconnections one call reads. More holds Redis up
// for others, about 1 ms for a thousand.
const revokedPortion = 1000

var _ chat.Revoker = (*Store)(nil)

// Disconnect implements chat.Revoker. Like a membership change it is only
// answered when it is where the deployment wants its writes to be.
func (s *Store) Disconnect(ctx context.Context, user string) (beforeMs uint64, err error) {
	part := s.keys.partition(user)
	k := s.keys.user(part, user)
	c := newCall(part, disconnectScript, []string{k.rooms, k.channel}, s.publish, s.keys.database)
	c.ack = true
	reply, err := s.do(ctx, writes, c)
	if err != nil {
		return 0, err
	}
	if beforeMs, err = parseUint(text(reply)); err != nil {
		return 0, err
	}
	// The user's own mark is where gateways look, the list is for APIs: theirs are
	// another partition's keys, so that it takes two steps. Who is told of an error
	// disconnects again.
	part, key := s.keys.revoked()
	add := newCommand(part, "zadd", key, "gt", beforeMs, user)
	add.ack = true
	if _, err := s.do(ctx, writes, add); err != nil {
		return 0, err
	}
	return beforeMs, nil
}

// Revocations implements chat.Revoker.
func (s *Store) Revocations(ctx context.Context, sinceMs uint64) (revoked []chat.Revocation, full bool, err error) {
	part, key := s.keys.revoked()
	reply, err := s.do(ctx, reads, newCall(part, revokedScript, []string{key}, sinceMs, revokedPortion))
	if err != nil {
		return nil, false, err
	}
	pairs, err := list("revoked", reply, 0)
	if err != nil {
		return nil, false, err
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		at, err := parseUint(text(pairs[i+1]))
		if err != nil {
			return nil, false, errReply("revoked", reply)
		}
		revoked = append(revoked, chat.Revocation{User: text(pairs[i]), BeforeMs: at})
	}
	return revoked, len(revoked) == revokedPortion, nil
}
