package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/madang-chat/madang/internal/chat"
)

var _ chat.Live = (*Store)(nil)

// maxTicketLen bounds what is looked up: ours have 26 characters.
const maxTicketLen = 64

// IssueTicket implements chat.Live.
func (s *Store) IssueTicket(ctx context.Context, t chat.Ticket, ttl time.Duration) (string, error) {
	if t.IssuedAt == 0 {
		reply, err := s.do(ctx, reads, newCommand(s.keys.partition(t.User), "time"))
		if err != nil {
			return "", err
		}
		now, err := list("time", reply, 2)
		if err != nil {
			return "", err
		}
		if t.IssuedAt, err = strconv.ParseInt(text(now[0]), 10, 64); err != nil {
			return "", errReply("time", reply)
		}
	}
	value, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("ticket: %w", err)
	}
	id := rand.Text()
	part := s.keys.partition(id)
	_, err = s.do(ctx, writes, newCommand(part, "set", s.keys.ticket(part, id), value, "px", ttl.Milliseconds()))
	return id, err
}

// RedeemTicket implements chat.Live. An answer that is lost takes the ticket with
// it: it is taken at most once.
func (s *Store) RedeemTicket(ctx context.Context, id string) (t chat.Ticket, err error) {
	if id == "" || len(id) > maxTicketLen {
		return t, chat.ErrNoTicket
	}
	part := s.keys.partition(id)
	c := newCommand(part, "getdel", s.keys.ticket(part, id))
	c.once = true
	reply, err := s.do(ctx, writes, c)
	if err != nil {
		return t, err
	}
	if reply == nil {
		return t, chat.ErrNoTicket
	}
	if err := json.Unmarshal([]byte(text(reply)), &t); err != nil {
		return t, fmt.Errorf("ticket: %w", err)
	}
	return t, nil
}

// command is a chat.Command on a user's channel.
type command struct {
	Type  string           `json:"type"` // "do"
	Do    chat.CommandKind `json:"do"`
	Conn  string           `json:"conn"`
	Room  string           `json:"room,omitempty"`
	ID    string           `json:"id,omitempty"`
	Users []string         `json:"users,omitempty"`
}

// Command implements chat.Live. The user's channel brings it to all gateways that
// have the user; the one that has the connection obeys.
func (s *Store) Command(ctx context.Context, user string, c chat.Command) error {
	do := command{Type: "do", Do: c.Do, Conn: c.Conn, Room: c.Room, Users: c.Users}
	if !c.ID.IsZero() {
		do.ID = c.ID.String()
	}
	payload, err := json.Marshal(do)
	if err != nil {
		return fmt.Errorf("command: %w", err)
	}
	part := s.keys.partition(user)
	reply, err := s.do(ctx, writes, newCommand(part, s.publish, s.keys.channel(chat.Channel{Kind: chat.UserChannel, Name: user}), payload))
	if err != nil {
		return err
	}
	if n, _ := reply.(int64); n == 0 {
		return chat.ErrNoConn
	}
	return nil
}
