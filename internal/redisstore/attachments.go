package redisstore

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

var (
	quotaScript    = loadScript("quota")
	giveBackScript = loadScript("giveback")
	announceScript = loadScript("announce")
	uploadScript   = loadScript("upload")
	attachScript   = loadScript("attach")
	dueScript      = loadScript("due")
)

const (
	// maxAttachmentRooms is how many rooms an attachment may be sent to. Who asks
	// for it is looked up in all of them, until one has it as a member.
	maxAttachmentRooms = 100
	// bytesLater is how much later than what is known of an attachment its bytes
	// go: longer than any upload takes to be kept, and than a download that was
	// allowed takes to begin.
	bytesLater = time.Hour
)

var _ chat.Attachments = (*Store)(nil)

// AnnounceUpload implements chat.Attachments.
func (s *Store) AnnounceUpload(ctx context.Context, by chat.Actor, id string, most int64, q chat.Quota, pending time.Duration) error {
	part := s.keys.partition(id)
	announce := newCall(part, announceScript, []string{s.keys.attachmentsDue(part)}, id, (pending + bytesLater).Milliseconds())
	announce.ack = true
	// The quota first: who is refused leaves nothing, however often they ask.
	taken := q.Bytes > 0 && !by.Server
	if taken {
		part := s.keys.partition(by.User)
		reply, err := s.do(ctx, writes, newCall(part, quotaScript, []string{s.keys.user(part, by.User).uploads()}, most, q.Bytes, q.In.Milliseconds()))
		if err != nil {
			return err
		}
		if again, _ := reply.(int64); again > 0 {
			return &chat.QuotaError{Again: time.Duration(again) * time.Millisecond}
		}
	}
	_, err := s.do(ctx, writes, announce)
	if err != nil && taken { // nothing will be uploaded
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.CommandTimeout)
		defer cancel()
		_ = s.GiveBack(ctx, by, most)
	}
	return err
}

// GiveBack implements chat.Attachments.
func (s *Store) GiveBack(ctx context.Context, by chat.Actor, bytes int64) error {
	if by.Server || bytes <= 0 {
		return nil
	}
	part := s.keys.partition(by.User)
	c := newCall(part, giveBackScript, []string{s.keys.user(part, by.User).uploads()}, bytes)
	c.once = true // twice would be a quota without a limit
	_, err := s.do(ctx, writes, c)
	return err
}

// KeepUpload implements chat.Attachments.
func (s *Store) KeepUpload(ctx context.Context, a chat.Attachment, pending time.Duration) error {
	part := s.keys.partition(a.ID)
	c := newCall(part, uploadScript, []string{s.keys.attachment(part, a.ID), s.keys.attachmentsDue(part)},
		a.ID, pending.Milliseconds(), bytesLater.Milliseconds(),
		"by", a.By, "name", a.Name, "size", a.Size, "type", a.ContentType, "sha256", a.SHA256, "rooms", 0)
	c.ack = true
	_, err := s.do(ctx, writes, c)
	return err
}

// Attachment implements chat.Attachments.
func (s *Store) Attachment(ctx context.Context, by chat.Actor, id string) (chat.Attachment, error) {
	reply, err := s.do(ctx, reads, s.newAttachmentCall(id))
	if err != nil {
		return chat.Attachment{}, err
	}
	a, err := parseAttachment(id, reply)
	if err != nil {
		return chat.Attachment{}, err
	}
	return a.Attachment, s.checkVisible(ctx, by, a)
}

func (s *Store) newAttachmentCall(id string) *call {
	part := s.keys.partition(id)
	return newCommand(part, "hgetall", s.keys.attachment(part, id))
}

// storedAttachment is an attachment and where it was sent to.
type storedAttachment struct {
	chat.Attachment
	rooms []string
}

// parseAttachment reads an attachment's hash.
func parseAttachment(id string, reply any) (a storedAttachment, err error) {
	pairs, _ := reply.([]any)
	if len(pairs) == 0 {
		return a, chat.ErrNoAttachment
	}
	a.ID = id
	for i := 0; i+1 < len(pairs); i += 2 {
		value := text(pairs[i+1])
		switch field := text(pairs[i]); field {
		case "by":
			a.By = value
		case "name":
			a.Name = value
		case "size":
			if a.Size, err = strconv.ParseInt(value, 10, 64); err != nil {
				return a, errReply("attachment", reply)
			}
		case "type":
			a.ContentType = value
		case "sha256":
			a.SHA256 = value
		default:
			if room, ok := strings.CutPrefix(field, "r:"); ok {
				a.rooms = append(a.rooms, room)
			}
		}
	}
	return a, nil
}

// checkVisible lets who uploaded attachments, server keys, and members of a room
// that each was sent to pass. Rooms are looked at as they are now: who left one
// sees no more of it.
func (s *Store) checkVisible(ctx context.Context, by chat.Actor, all ...storedAttachment) error {
	var calls []*call
	asked := map[string]*call{} // by room
	for _, a := range all {
		if by.Server || a.By == by.User {
			continue
		}
		for _, room := range a.rooms {
			if asked[room] == nil {
				part := s.keys.partition(room)
				asked[room] = newCommand(part, "hexists", s.keys.room(part, room).members, by.User)
				calls = append(calls, asked[room])
			}
		}
	}
	if len(calls) > 0 {
		s.doAll(ctx, reads, calls)
	}
	member := make(map[string]bool, len(asked))
	var failed error
	for room, c := range asked {
		reply, err := c.result()
		if err != nil {
			failed = err // of use only if no other room says yes
		}
		member[room] = reply == int64(1)
	}
	for _, a := range all {
		if by.Server || a.By == by.User || slices.ContainsFunc(a.rooms, func(room string) bool { return member[room] }) {
			continue
		}
		if failed != nil {
			return failed
		}
		return chat.ErrAttachmentHidden
	}
	return nil
}

// Attach implements chat.Attachments. It looks first and writes then, so that one
// that may not be sent keeps none of the others.
func (s *Store) Attach(ctx context.Context, by chat.Actor, room string, ids []string, kept time.Duration) error {
	if !protocol.ValidRoom(room) {
		return chat.ErrNoRoom
	}
	part := s.keys.partition(room)
	k := s.keys.room(part, room)
	members := newCall(part, membersScript, []string{k.room, k.members}, by.User)
	calls := []*call{members}
	for _, id := range ids {
		calls = append(calls, s.newAttachmentCall(id))
	}
	s.doAll(ctx, reads, calls)
	reply, err := members.result()
	if err != nil {
		return err
	}
	v, err := list("members", reply, 4)
	if err != nil {
		return err
	}
	if text(v[3]) == "" && !by.Server {
		return chat.ErrNotMember
	}
	all := make([]storedAttachment, len(ids))
	for i, c := range calls[1:] {
		reply, err := c.result()
		if err != nil {
			return err
		}
		if all[i], err = parseAttachment(ids[i], reply); err != nil {
			return err
		}
	}
	if err := s.checkVisible(ctx, by, all...); err != nil {
		return err
	}

	calls = calls[:0]
	for _, id := range ids {
		part := s.keys.partition(id)
		c := newCall(part, attachScript, []string{s.keys.attachment(part, id), s.keys.attachmentsDue(part)},
			id, room, kept.Milliseconds(), bytesLater.Milliseconds(), maxAttachmentRooms)
		c.ack = true
		calls = append(calls, c)
	}
	s.doAll(ctx, writes, calls)
	for _, c := range calls {
		if _, err := c.result(); err != nil {
			return err
		}
	}
	return nil
}

// DueAttachments implements chat.Attachments.
func (s *Store) DueAttachments(ctx context.Context, every time.Duration, limit int) (ids []string, err error) {
	if mine, err := s.turnToSweepAttachments(ctx, every); !mine {
		return nil, err
	}
	calls := make([]*call, s.opt.Partitions)
	for part := range calls {
		calls[part] = newCall(part, dueScript, []string{s.keys.attachmentsDue(part)}, limit)
	}
	s.doAll(ctx, reads, calls)
	for _, c := range calls {
		reply, callErr := c.result()
		if callErr != nil {
			err = callErr
			continue
		}
		due, _ := reply.([]any)
		for _, id := range due {
			ids = append(ids, text(id))
		}
	}
	// Nobody can ask for what is due, as it expired an hour before; should Redis
	// think otherwise, its word goes.
	gone := make([]*call, len(ids))
	for i, id := range ids {
		part := s.keys.partition(id)
		gone[i] = newCommand(part, "exists", s.keys.attachment(part, id))
	}
	s.doAll(ctx, reads, gone)
	kept := ids[:0]
	for i, c := range gone {
		if reply, callErr := c.result(); callErr == nil && reply == int64(0) {
			kept = append(kept, ids[i])
		}
	}
	return kept, err
}

// turnToSweepAttachments gives the turn to one process of all that ask within a
// time.
func (s *Store) turnToSweepAttachments(ctx context.Context, every time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CommandTimeout)
	defer cancel()
	taken, err := s.nodes.client().SetNX(ctx, attachmentSweeperKey, s.id, every).Result()
	return taken, forCaller(err)
}

// ForgetAttachments implements chat.Attachments.
func (s *Store) ForgetAttachments(ctx context.Context, ids []string) error {
	calls := make([]*call, len(ids))
	for i, id := range ids {
		part := s.keys.partition(id)
		calls[i] = newCommand(part, "zrem", s.keys.attachmentsDue(part), id)
	}
	s.doAll(ctx, writes, calls)
	for _, c := range calls {
		if _, err := c.result(); err != nil {
			return err
		}
	}
	return nil
}
