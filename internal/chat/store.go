package chat

import (
	"context"
	"errors"
	"time"

	"github.com/madang-chat/madang/protocol"
)

// Role is a member's role in a room.
type Role string

// Roles, strongest first. The creator of a room is its owner; owners and admins
// add and remove members.
const (
	RoleOwner  Role = "owner"
	RoleAdmin  Role = "admin"
	RoleMember Role = "member"
)

// Outcomes that a Store answers with. They are for the client; anything else
// is a failure of ours.
var (
	ErrNoRoom      = errors.New("no such room")
	ErrRoomExists  = errors.New("the room exists")
	ErrNotMember   = errors.New("not a member of the room")
	ErrNotAllowed  = errors.New("the role does not allow it")
	ErrNoMember    = errors.New("no such member")
	ErrKeyReused   = errors.New("the idempotency key was used with another body")
	ErrRoomFull    = errors.New("the room has its most members")
	ErrTooMany     = errors.New("the user has the most rooms")
	ErrRoomBusy    = errors.New("the room's readers have fallen behind")
	ErrLimited     = errors.New("the sender is over its limit, and no message was accepted with this key")
	ErrBadPosition = errors.New("the position is not in the room's log")

	// ErrUnavailable: Redis did not answer, or not in time; the outcome may be
	// either, and a retry with the same idempotency key settles it.
	ErrUnavailable = errors.New("redis does not answer")
	// ErrNotReplicated: the write is stored, but fewer replicas than asked for
	// confirmed it in time; it may still appear.
	ErrNotReplicated = errors.New("stored, but not on enough replicas in time")
	// ErrStorageFull: Redis refuses writes (maxmemory, disk).
	ErrStorageFull = errors.New("redis refuses writes: out of memory or disk")
)

// Actor is who asks. A server key may do everything, as any user.
type Actor struct {
	User   string
	Server bool
}

// Send is a message to be appended. Tail is the event's JSON from `"from":` to
// the closing brace, with key included; Hash identifies the body for the
// idempotency check.
type Send struct {
	Room string
	By   Actor
	Key  string // never empty: the API makes one when the client gave none
	Hash string
	Tail []byte
	// ReplayOnly: the sender is over its limit. A message that was accepted before
	// is answered all the same (DELIVERY S1); a new one is ErrLimited.
	ReplayOnly bool
}

// Durability names what a 201 stands on.
type Durability string

// Durabilities.
const (
	Accepted   Durability = "accepted"   // in the primary's log
	Replicated Durability = "replicated" // and on the configured number of replicas
)

// Sent is the answer to a Send.
type Sent struct {
	ID, Prev   protocol.ID
	N          uint64
	Tail       []byte // of the message that is stored: the first one's in a replay, nil when it was trimmed since
	Replayed   bool
	Durability Durability
	// WentOut and CameBack are of the round trip that brought the answer, the last
	// one if it took several; zero from a Store that makes none.
	WentOut, CameBack time.Time
}

// Message is one entry of a room's log.
type Message struct {
	ID, Prev protocol.ID
	N        uint64
	Tail     []byte
}

// Room is a room's head line.
type Room struct {
	ID      string
	Name    string
	Head    protocol.ID
	N       uint64 // ordinal of the head: how many messages the room has had
	Version uint64 // of the membership
	Created time.Time
	Members int
}

// Member is a user in a room.
type Member struct {
	User string
	Role Role
	// Marked: the room is small enough for receipts, and Read and Delivered say how
	// far the member has read it, and how far it has reached one of the member's
	// devices (what was read did); zero for nothing.
	Marked          bool
	Read, Delivered protocol.ID
}

// UserRoom is a room as one of its members sees it.
type UserRoom struct {
	Room Room
	Role Role
	// Read is the read marker, or the user's own last message where that came
	// later; zero when nothing was read. It starts at the head at the time of
	// joining: what was said before is not unread.
	Read   protocol.ID
	ReadN  uint64 // its ordinal
	Unread uint64 // Room.N - ReadN
}

// Retention is how much of a room's log is kept; what is older goes, by whole
// blocks, so that a little more is kept than said. A nil field is what the
// deployment keeps.
type Retention struct {
	Messages *int64 // at least 1
	AgeMs    *int64 // 0: any; an idle room's log goes whole, that long after its last message
	Bytes    *int64 // 0: any; an estimate of Redis's memory
}

// Retainer is a Store that keeps rooms' logs for different times.
type Retainer interface {
	Retain(ctx context.Context, room string, r Retention) error
}

// Store is the room side of Redis. All methods honour ctx's deadline and answer
// one of the errors above for what the caller did, ErrUnavailable when Redis
// does not answer.
type Store interface {
	// Send appends one message in one round trip. Idempotency is looked up
	// before membership (DELIVERY S1).
	Send(ctx context.Context, s Send) (Sent, error)
	// History returns at most limit messages after, or before, a position:
	// oldest first after one, newest first before one (a zero before means from
	// the newest), and whether there are more in that direction. Of long messages
	// it may be fewer.
	History(ctx context.Context, by Actor, room string, after, before *protocol.ID, limit int) (msgs []Message, more bool, err error)

	CreateRoom(ctx context.Context, by Actor, id, name string, members []string) (Room, error)
	Room(ctx context.Context, by Actor, room string) (Room, Role, error)
	// Members returns a page of a room's members, with their markers where the room
	// is small enough for receipts; the cursor is what the page before gave as next.
	// ErrBadPosition for one that no page gave.
	Members(ctx context.Context, by Actor, room, cursor string, limit int) (members []Member, next string, err error)
	// PutMember adds user, or changes its role; an empty role is the one it has,
	// or RoleMember. It returns the role that user has then.
	PutMember(ctx context.Context, by Actor, room, user string, role Role) (is Role, err error)
	RemoveMember(ctx context.Context, by Actor, room, user string) error
	// Rooms returns user's rooms in the order of their IDs, after the cursor.
	Rooms(ctx context.Context, user, cursor string, limit int) (rooms []UserRoom, rev uint64, next string, err error)
	// MarkRead moves user's read marker; it never goes back.
	MarkRead(ctx context.Context, user, room string, id protocol.ID) error
}
