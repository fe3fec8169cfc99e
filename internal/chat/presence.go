package chat

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/madang-chat/madang/protocol"
)

// ErrDeclaredDead: the fleet has given this gateway up and announced its users as
// gone. It takes a new ID and writes everything again (DELIVERY P1).
var ErrDeclaredDead = errors.New("the gateway was declared dead")

// Lease is a gateway's sign of life, as it stands in Redis.
type Lease struct {
	Gateway string // its ID, new at each start
	Counter uint64 // moves with every renewal; 0 when there is no lease any more
	Addr    string // where clients reach it, for operators
	Conns   int
	Leaving bool  // its clients are being asked to go
	AgeMs   int64 // since it was written, by Redis's clock; not written
}

// Seat is what a gateway says of a user who is connected to it. It stands in the
// user's presence hash under the gateway's ID.
type Seat struct {
	User  string
	Conns int
	Focus []string // rooms that are being looked at
	// Seq grows with each change of the seat, so that a late write can't undo a
	// later one.
	Seq uint64
}

// UserPresence is a user's presence hash, in one read.
type UserPresence struct {
	Seats    map[string]Seat // by gateway; empty: offline
	LastSeen int64           // when the user went offline last (Unix ms); 0 for never
}

// Seats is the gateways' side of presence. A user is announced online when the
// first seat is taken and offline when the last one is left, each in the step
// that does it, so that nobody announces twice and nothing is announced that is
// not so. Which gateways are alive is decided by Leases, never by a TTL: a dead
// gateway's seats are left for it (SweepSeats).
//
// Methods that take several things answer in as few round trips as there are
// Redis nodes; errs has an error for each (nil errs: none failed).
type Seats interface {
	// Partitions is how many partitions users are in.
	Partitions() int

	// RenewLease writes a gateway's lease; ErrDeclaredDead when it is too late.
	RenewLease(ctx context.Context, l Lease) error
	// Leases returns all gateways that were not yet declared dead and swept.
	Leases(ctx context.Context) ([]Lease, error)
	// DeclareDead ends a gateway whose lease still is as seen. It answers whether
	// the gateway is dead now.
	DeclareDead(ctx context.Context, seen Lease) (dead bool, err error)
	// SweepSeats leaves all seats of a dead gateway and forgets it. Several may do
	// it at once; each user is announced by one of them. swept counts those.
	SweepSeats(ctx context.Context, gateway string) (swept int, err error)

	// TakeSeats writes seats, new ones and old ones alike, and puts their expiry
	// off. ErrDeclaredDead: nothing was written.
	TakeSeats(ctx context.Context, gateway string, seats []Seat) (errs []error)
	// LeaveSeats removes seats, unless they were taken again with a newer Seq.
	LeaveSeats(ctx context.Context, gateway string, seats []Seat) (errs []error)
	// HeldSeats returns whose seats a gateway holds in a partition, if they are
	// more than expected, else nil.
	HeldSeats(ctx context.Context, gateway string, partition, expected int) (users []string, err error)

	ReadPresence(ctx context.Context, users []string) (ps []UserPresence, errs []error)
}

// Marker is how far a user has read a room, or how far it has reached one of the
// user's devices.
type Marker struct {
	User, Room string
	ID         protocol.ID
	N          uint64 // the message's ordinal
	Quiet      bool   // no receipt: the room is known to be too large for it
}

// MarkerKind tells the two markers apart.
type MarkerKind uint8

// Kinds of markers.
const (
	ReadMarker MarkerKind = iota
	DeliveredMarker
)

// MarkerResult is what became of a marker.
type MarkerResult uint8

// Results of AdvanceMarkers.
const (
	MarkerMoved    MarkerResult = iota // written, and told
	MarkerBehind                       // it was there or further, or the user has left: nothing was done
	MarkerTooLarge                     // no receipt: the room has too many members; a delivered marker was not kept either
)

// LiveEvent is an ephemeral event for the members of a room.
type LiveEvent struct {
	Room  string
	Event []byte
}

// Markers is the gateways' side of what passes between members besides messages.
type Markers interface {
	// AdvanceMarkers moves markers forward and tells of those that moved: the
	// user's own connections of a read marker, and the room of both, when it has
	// at most receiptMembers members. Delivered markers are kept only in such
	// rooms.
	AdvanceMarkers(ctx context.Context, kind MarkerKind, ms []Marker, receiptMembers int) (rs []MarkerResult, errs []error)
	// PublishLive publishes events on rooms' channels.
	PublishLive(ctx context.Context, evs []LiveEvent) (errs []error)
}

// Command is what a client says over HTTP instead of on its socket. It travels on
// the user's channel to the gateway that has the connection.
type Command struct {
	Conn  string // as hello gave it
	Do    CommandKind
	Room  string      // "" for none
	ID    protocol.ID // CommandDelivered
	Users []string    // CommandWatch: all of them
}

// CommandKind is what a Command asks for.
type CommandKind string

// Kinds of commands.
const (
	CommandFocus     CommandKind = "focus"
	CommandTyping    CommandKind = "typing"
	CommandDelivered CommandKind = "delivered"
	CommandWatch     CommandKind = "watch"
)

// ErrNoConn: no gateway has a connection of the user.
var ErrNoConn = errors.New("no such connection")

// Ticket lets a browser open a socket without its token in the URL.
type Ticket struct {
	User     string `json:"u"`
	Server   bool   `json:"s,omitempty"`
	IssuedAt int64  `json:"i,omitempty"` // of the token it stands for, or, where that does not tell, its own; Unix seconds
	Expires  int64  `json:"e"`           // likewise
	Key      uint64 `json:"k,omitempty"` // what signed the token (auth.KeyTag)
}

// ErrNoTicket: never issued, used already, or expired.
var ErrNoTicket = errors.New("no such ticket")

// Live is the senders' side: what the HTTP API needs of presence and sockets.
type Live interface {
	// Lookup tells users' presence, judged by the gateways' leases.
	Lookup(ctx context.Context, users []string) ([]Presence, error)
	// Command reaches the user's connections; ErrNoConn when nobody listens.
	Command(ctx context.Context, user string, c Command) error
	// IssueTicket makes a ticket that RedeemTicket takes once, for a while. Without
	// IssuedAt it is issued now, by the clock that disconnections of its user go by.
	IssueTicket(ctx context.Context, t Ticket, ttl time.Duration) (id string, err error)
	RedeemTicket(ctx context.Context, id string) (Ticket, error)
}

// Revoker ends what users hold.
type Revoker interface {
	// Disconnect closes the user's connections on all gateways, and has tokens and
	// tickets that were issued before the returned time (Unix ms) refused there
	// from now on, and by whoever follows Revocations.
	Disconnect(ctx context.Context, user string) (beforeMs uint64, err error)
	// Revocations tells who was disconnected since a time, oldest first, in portions:
	// a full one ends with a time to go on from, inclusive. Nobody is in it twice,
	// and nobody ever leaves.
	Revocations(ctx context.Context, sinceMs uint64) (list []Revocation, full bool, err error)
}

// Revocation says that what was issued to a user before a time is no good.
type Revocation struct {
	User     string
	BeforeMs uint64 // Unix ms, by Redis's clock
}

// Presence is whether a user is online, as others may know it.
type Presence struct {
	User     string
	Online   bool
	LastSeen int64    // Unix ms; 0 for never, or while online
	Focus    []string // rooms that are being looked at
}

// PresenceChange is what a PresenceChannel carries.
type PresenceChange struct {
	Online   bool
	LastSeen int64 // Unix ms, when offline
}

// ParsePresenceChange reads "1" (online) or "0 <last seen>".
func ParsePresenceChange(payload []byte) (c PresenceChange, ok bool) {
	if string(payload) == "1" {
		return PresenceChange{Online: true}, true
	}
	if len(payload) < 3 || payload[0] != '0' || payload[1] != ' ' {
		return c, false
	}
	ms, err := strconv.ParseInt(string(payload[2:]), 10, 64)
	return PresenceChange{LastSeen: ms}, err == nil
}
