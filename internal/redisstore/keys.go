package redisstore

import (
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/madang-chat/madang/internal/chat"
)

// schemaKey holds what a deployment must agree on: a hash of version and
// partitions.
const schemaKey = "madang:schema"

// sweeperKey is held by the process that sweeps the outboxes now.
const sweeperKey = "madang:sweeper"

// attachmentSweeperKey is held for a while by the process that asked last which
// attachments are due.
const attachmentSweeperKey = "madang:attachments:sweeper"

// keyspace builds every key. A key of a room or a user starts with the tag of
// its partition, "{tag}:", so that all keys of a room share a slot.
//
//	{p}:room:R                 hash    name, head, n, ver (of the membership), created, pace and keep where it has
//	                                   them; also the room's channel
//	{p}:room:R:log             stream  p (prev), n, t (tail) under the message's ID
//	{p}:room:R:members         hash    user -> role
//	{p}:room:R:sent            hash    user -> "id n": the member's own last message, which it has read
//	{p}:room:R:idem:<user>:<k> string  "id prev n hash", with a TTL
//	{p}:outbox                 stream  r, u, v, h, op, n: index writes that are still to be done
//	{p}:epoch                  string  random, made when absent
//	{p}:revoked                sorted set  user -> time (ms) of the last disconnection; partition 0 alone has
//	                                   it, for those who follow all users'
//	{p}:canary                 string  written by canaries, with a TTL
//	{p}:acked                  string  empty, written before each WAIT, with a TTL
//	{p}:gateway:G                      channel: the canaries of gateway G
//	{p}:user:U                         channel: events for the user's own connections
//	{p}:user:U:rooms           hash    rev, disc, c (rooms in it), r:<room> -> "version head",
//	                                   m:<room> (read) and d:<room> (delivered) -> "id n", seen (ms)
//	{p}:user:U:left:R          string  version of the removal from R, remembered for a day
//	{p}:user:U:uploads         string  bytes that U has uploaded lately, with a TTL
//	{p}:attachment:A           hash    by, name, size, type, sha256, rooms (how many), r:<room>; with a TTL until
//	                                   it was sent for good
//	{p}:attachments:due        sorted set  attachment -> time (ms) from which on its bytes may go
//	{p}:presence:U             hash    gateway -> "seq connections room…", with a TTL; also the channel of changes
//	{p}:gateway:G:users        set     whose presence names G; "" in it means that G was declared dead
//	{p}:ticket:T               string  a ticket, with a TTL
//	gateways                   set     the gateways that are not known to be dead
//	gateway:G                  string  G's lease: "counter connections address", or "dead"; with a TTL
//
// Channels have the names of keys, but Redis keeps them apart from its numbered
// databases: what is published in one is heard in all. In another database than
// 0, which DESIGN's names are of, the number and a colon stand before them.
type keyspace struct {
	database string         // what stands before channels' names: "", or "1:"
	tags     []string       // by partition
	byTag    map[string]int // and back
	prefix   []string       // "{tag}:"
}

func newKeyspace(partitions, database int) *keyspace {
	k := &keyspace{tags: partitionTags(partitions), byTag: make(map[string]int, partitions)}
	if database != 0 {
		k.database = strconv.Itoa(database) + ":"
	}
	k.prefix = make([]string, partitions)
	for p, tag := range k.tags {
		k.byTag[tag] = p
		k.prefix[p] = "{" + tag + "}:"
	}
	return k
}

// partition is where a room's or a user's data is. The hash is fixed for ever:
// another one would look for everything in the wrong place.
func (k *keyspace) partition(name string) int {
	return int(xxhash.Sum64String(name) % uint64(len(k.tags)))
}

// roomKeys are the keys of one room.
type roomKeys struct {
	room, members, log string
}

func (k *keyspace) room(p int, room string) roomKeys {
	members := k.prefix[p] + "room:" + room + ":members"
	base := members[:len(members)-len(":members")]
	return roomKeys{room: base, members: members, log: base + ":log"}
}

func (r roomKeys) sent() string { return r.room + ":sent" }

func (r roomKeys) idem(user, key string) string {
	return r.room + ":idem:" + escape(user) + ":" + key
}

// userKeys are the keys of one user. The channel is named as scripts are given
// it, without the database.
type userKeys struct {
	channel, rooms string
}

func (k *keyspace) user(p int, user string) userKeys {
	rooms := k.prefix[p] + "user:" + escape(user) + ":rooms"
	return userKeys{channel: rooms[:len(rooms)-len(":rooms")], rooms: rooms}
}

func (u userKeys) left(room string) string { return u.channel + ":left:" + room }

func (u userKeys) uploads() string { return u.channel + ":uploads" }

func (k *keyspace) attachment(p int, id string) string {
	return k.prefix[p] + "attachment:" + escape(id)
}
func (k *keyspace) attachmentsDue(p int) string { return k.prefix[p] + "attachments:due" }

func (k *keyspace) outbox(p int) string { return k.prefix[p] + "outbox" }
func (k *keyspace) epoch(p int) string  { return k.prefix[p] + "epoch" }
func (k *keyspace) canary(p int) string { return k.prefix[p] + "canary" }
func (k *keyspace) acked(p int) string  { return k.prefix[p] + "acked" }

// revoked is one list for all users, in one place: who follows it asks one node.
func (k *keyspace) revoked() (part int, key string) { return 0, k.prefix[0] + "revoked" }

func (k *keyspace) gateway(p int, id string) string {
	return k.prefix[p] + "gateway:" + escape(id)
}

// gatewaysKey and lease are the fleet's, in no partition.
const gatewaysKey = "gateways"

func (k *keyspace) lease(id string) string { return "gateway:" + escape(id) }

func (k *keyspace) presence(p int, user string) string {
	return k.prefix[p] + "presence:" + escape(user)
}

func (k *keyspace) seated(p int, gateway string) string { return k.gateway(p, gateway) + ":users" }
func (k *keyspace) ticket(p int, id string) string      { return k.prefix[p] + "ticket:" + escape(id) }

// channel is the pub/sub channel of a room, a user or a user's presence.
func (k *keyspace) channel(ch chat.Channel) string {
	p := k.partition(ch.Name)
	switch ch.Kind {
	case chat.UserChannel:
		return k.database + k.user(p, ch.Name).channel
	case chat.PresenceChannel:
		return k.database + k.presence(p, ch.Name)
	}
	return k.database + k.prefix[p] + "room:" + ch.Name
}

// parseChannel is the way back. The name shares the memory of the channel when
// nothing in it was escaped.
func (k *keyspace) parseChannel(channel string) (ch chat.Channel, ok bool) {
	_, rest, ok := strings.Cut(channel, "}:")
	if !ok {
		return ch, false
	}
	if room, ok := strings.CutPrefix(rest, "room:"); ok {
		return chat.Channel{Kind: chat.RoomChannel, Name: room}, true
	}
	if user, ok := strings.CutPrefix(rest, "user:"); ok {
		return chat.Channel{Kind: chat.UserChannel, Name: unescape(user)}, true
	}
	if user, ok := strings.CutPrefix(rest, "presence:"); ok {
		return chat.Channel{Kind: chat.PresenceChannel, Name: unescape(user)}, true
	}
	return ch, false
}

const hexDigits = "0123456789ABCDEF"

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '~' || c == '-'
}

// escape makes any name safe inside a key: everything outside [A-Za-z0-9._~-]
// becomes %XX, so that no name can add a part to a key or a hash tag.
func escape(name string) string {
	extra := 0
	for i := 0; i < len(name); i++ {
		if !plain(name[i]) {
			extra += 2
		}
	}
	if extra == 0 {
		return name
	}
	b := make([]byte, 0, len(name)+extra)
	for i := 0; i < len(name); i++ {
		if c := name[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

// unescape undoes escape.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			b = append(b, byte(strings.IndexByte(hexDigits, s[i+1])<<4|strings.IndexByte(hexDigits, s[i+2])))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}
