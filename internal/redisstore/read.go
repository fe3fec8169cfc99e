package redisstore

import (
	"context"
	"errors"
	"strconv"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// ReadUsers implements chat.Feed.
func (s *Store) ReadUsers(ctx context.Context, users []string) ([]chat.UserState, []error) {
	return readAll(ctx, s, users, func(user string) *call {
		part := s.keys.partition(user)
		return newCommand(part, "hgetall", s.keys.user(part, user).rooms)
	}, func(_ string, reply any) (chat.UserState, error) {
		x, err := parseIndex(reply)
		return chat.UserState{Rev: x.rev, Rooms: x.rooms, Disconnected: x.disconnected}, err
	})
}

// ReadRooms implements chat.Feed. A room that does not exist is a state, not an
// error.
func (s *Store) ReadRooms(ctx context.Context, qs []chat.RoomQuery) ([]chat.RoomState, []error) {
	return readAll(ctx, s, qs, func(q chat.RoomQuery) *call {
		part := s.keys.partition(q.Room)
		k := s.keys.room(part, q.Room)
		args := make([]any, len(q.Users))
		for i := range q.Users {
			args[i] = &q.Users[i]
		}
		return newCall(part, membersScript, []string{k.room, k.members}, args...)
	}, func(q chat.RoomQuery, reply any) (st chat.RoomState, err error) {
		st.Member = make([]bool, len(q.Users))
		if reply == nil {
			return st, nil
		}
		v, err := list("members", reply, 3+len(q.Users))
		if err != nil {
			return st, err
		}
		st.Exists = true
		var err1, err2, err3 error
		st.Head, err1 = protocol.ParseID(text(v[0]))
		st.N, err2 = parseUint(text(v[1]))
		st.Version, err3 = parseUint(text(v[2]))
		for i := range q.Users {
			st.Member[i] = text(v[3+i]) != ""
		}
		return st, errors.Join(err1, err2, err3)
	})
}

// ReadLogs implements chat.Feed. A room that does not exist is a page, not an
// error.
func (s *Store) ReadLogs(ctx context.Context, qs []chat.LogQuery) ([]chat.LogPage, []error) {
	return readAll(ctx, s, qs, func(q chat.LogQuery) *call {
		return s.newLogCall(q.Room, "", "XRANGE", q.From.String(), lastID, q.Limit+1)
	}, func(q chat.LogQuery, reply any) (chat.LogPage, error) {
		if reply == nil {
			return chat.LogPage{}, nil
		}
		return parseLog(reply, q.Limit)
	})
}

// readAll makes a call of each query and a state of each answer. A room that is
// not there answers nil.
func readAll[Q, S any](ctx context.Context, s *Store, qs []Q, ask func(Q) *call, parse func(Q, any) (S, error)) (states []S, errs []error) {
	calls := make([]*call, len(qs))
	for i, q := range qs {
		calls[i] = ask(q)
	}
	s.doAll(ctx, reads, calls)
	states = make([]S, len(qs))
	for i, c := range calls {
		reply, err := c.result()
		if err == nil || errors.Is(err, chat.ErrNoRoom) {
			if err != nil {
				reply = nil
			}
			states[i], err = parse(qs[i], reply)
		}
		if err != nil {
			if errs == nil {
				errs = make([]error, len(qs))
			}
			errs[i] = err
		}
	}
	return states, errs
}

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }
