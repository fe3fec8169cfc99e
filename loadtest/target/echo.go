package target

import (
	"strconv"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/protocol"
)

// Echo speaks to any WebSocket server that sends back what it is sent: the floor
// under every figure, with no rooms, log or HTTP behind it. Each client is alone
// in its room and sends on its own socket (Echoer); what comes back is judged as a
// delivery.
type Echo struct {
	Path string // of the upgrade; default: /
}

// Echoer is a dialect whose clients send on their own sockets, and not over HTTP.
type Echoer interface {
	// AppendEcho appends the payload of a text frame that comes back as it is.
	AppendEcho(dst []byte, room string, pos ledger.Pos, key, text []byte) []byte
}

// Name implements Dialect.
func (Echo) Name() string { return "ws-echo" }

// AppendUpgrade implements Dialect.
func (e Echo) AppendUpgrade(dst []byte, o Opening) []byte {
	dst = append(dst, "GET "...)
	if e.Path == "" {
		dst = append(dst, '/')
	}
	dst = append(dst, e.Path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, o.Host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(dst, o.Key...)
	return append(dst, "\r\n\r\n"...)
}

// helloEcho comes back when the server echoes: only then is the client live.
const helloEcho = `{"hello":1}`

// AppendGreeting implements Dialect.
func (Echo) AppendGreeting(dst []byte, _ Opening, _ []string) []byte {
	return append(dst, helloEcho...)
}

// AppendResume implements Dialect: an echo keeps nothing.
func (Echo) AppendResume(dst []byte, _ []Position, _ bool) []byte { return dst }

// AppendPing implements Dialect.
func (Echo) AppendPing(dst []byte) []byte { return append(dst, `{"pong":1}`...) }

// AppendPong implements Dialect: there are only WebSocket pings.
func (Echo) AppendPong(dst []byte) []byte { return dst }

// AppendChatter implements Dialect: not spoken.
func (Echo) AppendChatter(dst []byte, _ Chatter, _ string, _ ledger.Pos) []byte { return dst }

// AppendEcho implements Echoer.
func (Echo) AppendEcho(dst []byte, room string, pos ledger.Pos, key, text []byte) []byte {
	dst = append(dst, `{"room":"`...)
	dst = append(dst, room...)
	dst = append(dst, `","n":`...)
	dst = strconv.AppendUint(dst, pos.ID().Ms, 10)
	dst = append(dst, `,"text":"`...)
	dst = append(dst, text...)
	dst = append(dst, `",`...)
	dst = append(dst, keyField...)
	dst = append(dst, key...)
	return append(dst, `"}`...)
}

// Next implements Dialect. A frame is one event.
func (Echo) Next(payload []byte) (ev Event, rest []byte) {
	switch string(payload) {
	case helloEcho:
		return Event{Kind: Hello}, nil
	case `{"pong":1}`:
		return Event{Kind: Pong}, nil
	}
	due, send, ok := stamp.Parse(keyOf(payload))
	n := numberField(payload, `"n":`)
	if !ok || n < 1 {
		return ev, nil
	}
	ev = Event{Kind: Message, Room: textField(payload, `"room":"`), Due: due, Send: send}
	ev.Pos, ev.Prev = EchoPos(uint64(n)), EchoPos(uint64(n)-1)
	return ev, nil
}

// EchoPos is the position of the n-th message of an echo's room, from 1.
func EchoPos(n uint64) ledger.Pos {
	pos, _ := ledger.Pack(protocol.ID{Ms: n}) // no run sends as many as would not fit
	return pos
}

// AppendSend implements Dialect: not spoken.
func (Echo) AppendSend(dst []byte, _ Send) []byte { return dst }

// Acked implements Dialect.
func (Echo) Acked([]byte) (ledger.Pos, bool) { return 0, false }
