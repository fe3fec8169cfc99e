package chat

import (
	"context"
	"time"

	"github.com/madang-chat/madang/protocol"
)

// Channel names a pub/sub channel: a room's, a user's, or that of a user's
// presence.
type Channel struct {
	Kind ChannelKind
	Name string
}

// ChannelKind tells rooms and users apart.
type ChannelKind uint8

// Kinds of channels.
const (
	RoomChannel     ChannelKind = iota
	UserChannel                 // what concerns the user's own connections
	PresenceChannel             // a user's coming and going, for whoever watches: see PresenceChange
)

// Listener hears what the links carry. It is called from the links' reading
// goroutines: calls of one link come in order and one at a time, calls of
// several links at once. It must not block; what it can't take is a break, and
// it says so by returning false from Event: the link is then re-made.
type Listener interface {
	// LinkUp: a (re-)made link carries nothing yet. The listener subscribes what
	// it follows on it. gen grows with every making.
	LinkUp(link int, gen uint64)
	// LinkDown: from here on the link may have missed events.
	LinkDown(link int, gen uint64, err error)
	// Confirmed: from here on the link carries the channel's events. Every
	// Subscribe of a channel is confirmed once, in the order they were asked for:
	// who has unsubscribed and subscribed again waits for the second.
	Confirmed(link int, gen uint64, ch Channel)
	// Event: a publication, whole, in order. payload belongs to the listener.
	Event(link int, gen uint64, ch Channel, payload []byte) bool
	// Canary came back. partition's data carries epoch: one that differs from
	// the last one means that Redis lost its data. It passed Redis at ms (Unix ms,
	// Redis's clock); what was published on the link before has come.
	Canary(link int, gen uint64, partition int, epoch string, ms uint64)
}

// UserState is a user's side of Redis, in one read.
type UserState struct {
	Rev   uint64 // rooms_rev
	Rooms []IndexedRoom
	// Disconnected is the time (ms) before which made tokens and connections of
	// the user are revoked; 0 when never.
	Disconnected uint64
}

// IndexedRoom is a room in a user's index.
type IndexedRoom struct {
	Room    string
	Version uint64      // membership version that put it there
	Head    protocol.ID // the room's head when the user joined (F3)
}

// RoomQuery asks for a room's head and whether users are members, in one read.
type RoomQuery struct {
	Room  string
	Users []string
}

// RoomState answers a RoomQuery.
type RoomState struct {
	Exists  bool
	Head    protocol.ID
	N       uint64
	Version uint64 // of the membership
	Member  []bool // as Users
}

// LogQuery asks for the entries from a position on, inclusive, so that the
// position's presence proves that nothing is missing.
type LogQuery struct {
	Room  string
	From  protocol.ID
	Limit int // entries, the one at From included
}

// LogPage answers a LogQuery, in one read: head, membership version and entries agree.
type LogPage struct {
	Exists  bool
	Head    protocol.ID
	N       uint64
	Version uint64
	Entries []Message // oldest first, the first may be the one at From
	// More: the limit cut the page, or the Feed's own bound in bytes, which leaves
	// two entries at least.
	More bool
}

// Membership names a user and a room.
type Membership struct{ Room, User string }

// Feed is the gateway's side of Redis. The Read methods answer all queries in as
// few round trips as there are Redis nodes; errs has an error per query (nil
// errs: none failed).
type Feed interface {
	// Links is how many links there are; they are numbered from 0.
	Links() int
	// LinkOf says which link carries a channel.
	LinkOf(ch Channel) int
	// PartitionOf says which partition a channel's data is in.
	PartitionOf(ch Channel) int
	// Listen starts the links. It is called once, before Subscribe.
	Listen(l Listener)
	// Subscribe and Unsubscribe ask a link, as it was made the gen-th time, to
	// carry channels; they do not block and are ignored for an older making.
	Subscribe(link int, gen uint64, chs []Channel)
	Unsubscribe(link int, gen uint64, chs []Channel)

	ReadUsers(ctx context.Context, users []string) (states []UserState, errs []error)
	ReadRooms(ctx context.Context, qs []RoomQuery) (states []RoomState, errs []error)
	ReadLogs(ctx context.Context, qs []LogQuery) (pages []LogPage, errs []error)

	// Repair makes users' indexes agree with the members of rooms, whichever way they
	// are wrong (F3). What it changes comes on the users' channels. It may be asked for
	// what is right, or about to be.
	Repair(ctx context.Context, ms []Membership) error
}

// Pacer holds back those who send to a room whose readers have fallen behind.
type Pacer interface {
	// Pace allows perSecond messages to a room for as long as the lease lasts; 0
	// lets it go. Of several gateways' paces the slowest stands.
	Pace(ctx context.Context, room string, perSecond float64, lease time.Duration) error
}
