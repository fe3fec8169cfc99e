package redisstore

import (
	"context"
	"math"
	"strconv"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

const (
	// lastID is the end of every log.
	lastID = "+"
	// pageBytes bounds what is read of a log at a time, but for two messages. It
	// holds 200 messages of 5 KB; more would let whoever reads long ones in many
	// requests at once fill Redis and the reader.
	pageBytes = 1 << 20
)

// History implements chat.Store.
func (s *Store) History(ctx context.Context, by chat.Actor, room string, after, before *protocol.ID, limit int) (msgs []chat.Message, more bool, err error) {
	if !protocol.ValidRoom(room) {
		return nil, false, chat.ErrNoRoom
	}
	command, first, last := "XREVRANGE", lastID, "-"
	switch {
	case after != nil:
		command, first, last = "XRANGE", beyond(*after), lastID
		if before != nil && !before.IsZero() {
			last = "(" + before.String()
		}
	case before != nil && !before.IsZero():
		first = "(" + before.String()
	}
	// One more than asked for tells whether there are more.
	reply, err := s.do(ctx, reads, s.newLogCall(room, actor(by), command, first, last, limit+1))
	if err != nil {
		return nil, false, err
	}
	page, err := parseLog(reply, limit)
	return page.Entries, page.More, err
}

// beyond is where what follows an ID begins. Redis refuses a start beyond the greatest;
// no message has that.
func beyond(id protocol.ID) string {
	if id == (protocol.ID{Ms: math.MaxUint64, Seq: math.MaxUint64}) {
		return id.String()
	}
	return "(" + id.String()
}

// actor is whom scripts check: nobody for a server key.
func actor(by chat.Actor) string {
	if by.Server {
		return ""
	}
	return by.User
}

func (s *Store) newLogCall(room, user, command, first, last string, count int) *call {
	part := s.keys.partition(room)
	k := s.keys.room(part, room)
	return newCall(part, logScript, []string{k.room, k.members, k.log}, user, command, first, last, count, pageBytes)
}

// parseLog reads log.lua's answer, of which limit entries are wanted.
func parseLog(reply any, limit int) (page chat.LogPage, err error) {
	v, err := list("log", reply, 5)
	if err != nil {
		return page, err
	}
	page.Exists = true
	if page.Head, err = protocol.ParseID(text(v[0])); err != nil {
		return page, errReply("log", reply)
	}
	if page.N, err = parseUint(text(v[1])); err != nil {
		return page, errReply("log", reply)
	}
	if page.Version, err = parseUint(text(v[4])); err != nil {
		return page, errReply("log", reply)
	}
	entries, _ := v[2].([]any)
	page.More = v[3] == int64(1)
	if len(entries) > limit {
		entries, page.More = entries[:limit], true
	}
	page.Entries = make([]chat.Message, len(entries))
	for i, e := range entries {
		if page.Entries[i], err = parseEntry(e); err != nil {
			return page, err
		}
	}
	return page, nil
}

// parseEntry reads {id, {"p", prev, "n", n, "t", tail}}, as send.lua wrote it.
func parseEntry(e any) (m chat.Message, err error) {
	pair, err := list("log entry", e, 2)
	if err != nil {
		return m, err
	}
	f, err := list("log entry", pair[1], 6)
	if err != nil {
		return m, err
	}
	var err1, err2, err3 error
	m.ID, err1 = protocol.ParseID(text(pair[0]))
	m.Prev, err2 = protocol.ParseID(text(f[1]))
	m.N, err3 = parseUint(text(f[3]))
	if err1 != nil || err2 != nil || err3 != nil {
		return m, errReply("log entry", e)
	}
	m.Tail = []byte(text(f[5]))
	return m, nil
}

func parseUint(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }
