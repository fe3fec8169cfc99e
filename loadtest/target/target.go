// Package target knows the protocols that the tester can speak: how a client
// opens, what it says, how events are told apart, and how a message is sent over
// HTTP. Everything else (sockets, frames, schedules, judging) is the same for all
// of them, so that figures of two targets can be compared.
//
// Dialects are stateless values: what a connection remembers is the swarm's.
package target

import (
	"fmt"

	"github.com/madang-chat/madang/loadtest/ledger"
)

// Kind says what an event means to a client.
type Kind uint8

// Kinds of events.
const (
	Other   Kind = iota // nothing the tester acts on
	Hello               // the connection delivers from here on
	Message             //
	Resumed             // what was missed has been delivered
	Gap                 // the position is not in the log: page it
	Pong                // answer to an application-level ping
	Ping                // the server wants an application-level answer
	Bye                 // the server asks the client to leave
	Error               // the server did not like what the client said
	Foreign             // a message that none of the tester's senders wrote
)

// Event is one event, as far as the tester looks into it. Slices point into the
// frame.
type Event struct {
	Kind      Kind
	Room      []byte
	Pos, Prev ledger.Pos // Message; Gap: Prev is `after`, Pos is `head`
	Due       int64      // Message: the run's time it was meant to be sent at
	Send      ledger.Send
	RetryMs   int    // Bye
	Code      []byte // Error, Bye: code or reason
	Conn      []byte // Hello: the connection's ID
}

// Opening is what a client opens with.
type Opening struct {
	Host   string
	Key    string // Sec-WebSocket-Key
	User   string
	Token  []byte // the user's JWT
	Resume bool   // the client has positions
}

// Position is where a client is in a room.
type Position struct {
	Room string
	Pos  ledger.Pos
}

// Chatter is what clients say on the socket about a room.
type Chatter uint8

// Kinds of chatter.
const (
	Typing Chatter = iota
	Focus
	Read
)

// Send is a message on its way to the server.
type Send struct {
	Host  string
	Room  string
	Token []byte
	Key   []byte // a stamp
	Text  []byte // without anything that JSON would escape
	File  string // the ID of an uploaded file; empty: none
}

// Upload is a file on its way to the server.
type Upload struct {
	Host    string
	Token   []byte
	Content []byte
}

// Uploader is a dialect whose messages can carry files.
type Uploader interface {
	// AppendUpload appends the whole HTTP request that uploads a file.
	AppendUpload(dst []byte, u Upload) []byte
	// Uploaded reads the file's ID from the body of a 2xx answer to it.
	Uploaded(body []byte) (id []byte, ok bool)
}

// Dialect is one protocol.
type Dialect interface {
	Name() string
	// AppendUpgrade appends the request that opens the socket.
	AppendUpgrade(dst []byte, o Opening) []byte
	// AppendGreeting appends what the client says right after the upgrade, as
	// the payload of one text frame; nothing where the token says it all.
	AppendGreeting(dst []byte, o Opening, rooms []string) []byte
	// AppendResume appends the payload that hands over positions; empty when
	// the protocol has none. more says that another one follows.
	AppendResume(dst []byte, positions []Position, more bool) []byte
	// AppendPing and AppendPong append a heartbeat's and its answer's payload;
	// empty when there is none.
	AppendPing(dst []byte) []byte
	AppendPong(dst []byte) []byte
	// AppendChatter appends what a client says about a room besides messages;
	// empty where the protocol has no such thing.
	AppendChatter(dst []byte, what Chatter, room string, pos ledger.Pos) []byte
	// Next takes the first event off a frame's payload.
	Next(payload []byte) (ev Event, rest []byte)

	// AppendSend appends the whole HTTP request that sends a message.
	AppendSend(dst []byte, s Send) []byte
	// Acked reads the body of a 2xx answer to it.
	Acked(body []byte) (pos ledger.Pos, ok bool)
}

// Options are what some dialects want to know.
type Options struct {
	APIKey string // centrifugo
	Path   string // ws-echo: of the upgrade
}

// ByName returns the dialect of the --target flag.
func ByName(name string, o Options) (Dialect, error) {
	switch name {
	case "", "madang":
		return Madang{}, nil
	case "centrifugo":
		return Centrifugo{APIKey: o.APIKey}, nil
	case "ws-echo":
		return Echo{Path: o.Path}, nil
	}
	return nil, fmt.Errorf("target %q is not known: give madang, centrifugo or ws-echo", name)
}
