// Package edge is what the two halves of a gateway say to each other: the event
// loops, which own sockets and know nothing of rooms' histories, and the hub,
// which owns what the gateway follows and never touches a socket.
//
// Both sides post batches and never wait: a loop posts Events to the hub at the
// end of its turn, the hub posts Cmds to a loop at the end of its own. What one
// side posts arrives in the order it was posted. That order is what makes
// catching up seamless: the hub sends what was missed (Unicast), then Attach,
// then what is new (Broadcast).
package edge

import (
	"fmt"

	"github.com/madang-chat/madang/protocol"
)

// ConnID identifies a connection of this process: loop, slot in the loop's
// table, and the slot's generation. The kernel reuses descriptors and loops
// reuse slots; a ConnID is never used twice.
type ConnID uint64

// MakeConnID composes an ID: 8 bits of loop, 24 of slot, 32 of generation.
func MakeConnID(loop, slot, gen uint32) ConnID {
	return ConnID(uint64(loop)<<56 | uint64(slot&(1<<24-1))<<32 | uint64(gen))
}

// Loop is the number of the loop that owns the connection.
func (c ConnID) Loop() uint32 { return uint32(c >> 56) }

// Slot is the connection's place in its loop's table.
func (c ConnID) Slot() uint32 { return uint32(c>>32) & (1<<24 - 1) }

// Gen is the slot's generation.
func (c ConnID) Gen() uint32 { return uint32(c) }

// String returns the ID as clients see it, unique within the gateway.
func (c ConnID) String() string { return fmt.Sprintf("%016x", uint64(c)) }

// RoomNum is the hub's number for a followed room. A number is reused only
// after CmdDropRoom was posted for it.
type RoomNum uint32

// NoRoom is the RoomNum of frames that belong to no room.
const NoRoom = ^RoomNum(0)

// Transport is how a client receives.
type Transport uint8

// Transports.
const (
	WebSocket Transport = iota
	SSE                 // server-sent events: a response that does not end
	LongPoll            // a response per wait; each is a connection of its own
)

// EventKind says what happened on a connection.
type EventKind uint8

// What a loop tells the hub.
const (
	EvOpened    EventKind = iota + 1 // there, and authenticated: Via, User, Resume, Since, IssuedAt
	EvClosed                         // gone; nothing more comes from this ConnID
	EvPositions                      // a `resume` frame: Positions, More
	EvFocus                          // Room ("" for none)
	EvTyping                         // Room
	EvRead                           // Room, ID
	EvDelivered                      // Room, ID
	EvWatch                          // Users: the whole new set
	EvLagged                         // the socket did not keep up: since Lag, nothing of those rooms was queued; the queue has drained now
	EvDrained                        // all that was queued when CmdMark was handled has been written
	EvRenewed                        // it has another token now: IssuedAt
	EvHot                            // how a busy room fares: RoomNum, LateMs, Events, Members; no connection
)

// Event is one thing that happened on a connection.
type Event struct {
	Kind      EventKind
	Conn      ConnID
	Via       Transport // EvOpened
	Resume    bool      // EvOpened: positions follow
	Since     uint64    // EvOpened: it has everything up to this Redis time (Unix ms); 0: it does not say
	More      bool      // EvPositions: another frame follows
	User      string    // EvOpened
	Known     string    // EvOpened of a long poll: who it is, as the answer before said
	Whispers  int32     // EvClosed of a long poll: how many of those it was sent (Cmd.Shed) are in its answer
	IssuedAt  int64     // EvOpened, EvRenewed: the token's `iat`, Unix seconds; 0 when it has none
	Room      string
	ID        protocol.ID
	Positions map[string]protocol.ID // EvPositions
	Users     []string
	RoomNum   RoomNum                 // EvHot
	LateMs    int32                   // EvHot: how far behind half of its connections are
	Events    int32                   // EvHot: events of the room since the last report
	Members   int32                   // EvHot: connections that got each of them
	Lag       map[RoomNum]protocol.ID // EvLagged: per room, the ID before the first event that was left out
}

// CmdKind says what a loop is to do.
type CmdKind uint8

// What the hub tells a loop. A command for a ConnID that is no more is ignored.
const (
	CmdUnicast   CmdKind = iota + 1 // queue Frame for Conn
	CmdAttach                       // Conn gets Room's broadcasts from here on (and is no longer lagging there)
	CmdDetach                       // Conn gets them no more, and what was left out of Room for it is forgotten
	CmdBroadcast                    // queue Frame for every connection attached to Room
	CmdDropRoom                     // Room's number is free: forget it
	CmdMark                         // post EvDrained once everything queued so far for Conn is written
	CmdClose                        // Conn: write what is queued, then close with Code
)

// Cmd is one instruction to a loop.
type Cmd struct {
	Kind  CmdKind
	Shed  bool // CmdBroadcast, CmdUnicast: ephemeral, dropped rather than queued for a socket that is behind
	Code  protocol.CloseCode
	Room  RoomNum
	Conn  ConnID
	Frame *Frame
}

// Hub takes what loops report. Post must not block and takes ownership of the
// batch's contents, not of the slice.
type Hub interface {
	Post(batch []Event)
}

// Loops takes what the hub decides. Post must not block and copies the batch.
type Loops interface {
	Count() int
	Post(loop int, batch []Cmd)
}
