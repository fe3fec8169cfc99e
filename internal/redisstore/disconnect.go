package redisstore

import (
	"context"

	"github.com/madang-chat/madang/internal/chat"
)

var disconnectScript = loadScript("disconnect")

var _ chat.Revoker = (*Store)(nil)

// Disconnect implements chat.Revoker. Like a membership change it is only
// answered when it is where the deployment wants its writes to be.
func (s *Store) Disconnect(ctx context.Context, user string) (beforeMs uint64, err error) {
	part := s.keys.partition(user)
	k := s.keys.user(part, user)
	c := newCall(part, disconnectScript, []string{k.rooms, k.channel}, s.publish)
	c.ack = true
	reply, err := s.do(ctx, writes, c)
	if err != nil {
		return 0, err
	}
	return parseUint(text(reply))
}
