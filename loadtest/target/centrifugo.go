package target

import (
	"bytes"
	"strconv"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/protocol"
)

// Centrifugo speaks the JSON protocol of Centrifugo 4 and later, as published in
// its documentation ("Client protocol", "Server API"): a client connects with its
// token and subscribes its rooms as channels; messages are published through the
// HTTP API with an API key. Channels need history and recovery switched on for
// offsets, which are taken for positions.
type Centrifugo struct {
	APIKey string
}

// Name implements Dialect.
func (Centrifugo) Name() string { return "centrifugo" }

// AppendUpgrade implements Dialect.
func (Centrifugo) AppendUpgrade(dst []byte, o Opening) []byte {
	dst = append(dst, "GET /connection/websocket HTTP/1.1\r\nHost: "...)
	dst = append(dst, o.Host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(dst, o.Key...)
	return append(dst, "\r\n\r\n"...)
}

// lastCommand is the command whose reply says that all rooms are subscribed: a
// connection's commands are answered in order.
const lastCommand = 1_000_000

// AppendGreeting implements Dialect.
func (Centrifugo) AppendGreeting(dst []byte, o Opening, rooms []string) []byte {
	id := 1
	if len(rooms) == 0 {
		id = lastCommand
	}
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendInt(dst, int64(id), 10)
	dst = append(dst, `,"connect":{"token":"`...)
	dst = append(dst, o.Token...)
	dst = append(dst, `"}}`...)
	for i, room := range rooms {
		id = i + 2
		if i == len(rooms)-1 {
			id = lastCommand
		}
		dst = append(dst, "\n"+`{"id":`...)
		dst = strconv.AppendInt(dst, int64(id), 10)
		dst = append(dst, `,"subscribe":{"channel":`...)
		dst = protocol.AppendString(dst, room)
		dst = append(dst, `}}`...)
	}
	return dst
}

// AppendResume implements Dialect: not spoken, a client comes back fresh.
func (Centrifugo) AppendResume(dst []byte, _ []Position, _ bool) []byte { return dst }

// AppendPing implements Dialect: pings come from the server.
func (Centrifugo) AppendPing(dst []byte) []byte { return dst }

// AppendPong implements Dialect.
func (Centrifugo) AppendPong(dst []byte) []byte { return append(dst, "{}"...) }

// AppendChatter implements Dialect: not spoken.
func (Centrifugo) AppendChatter(dst []byte, _ Chatter, _ string, _ ledger.Pos) []byte { return dst }

var pushStart = []byte(`{"push":`)

// Next implements Dialect.
func (Centrifugo) Next(payload []byte) (ev Event, rest []byte) {
	event := payload
	if end := bytes.IndexByte(payload, '\n'); end >= 0 {
		event, rest = payload[:end], payload[end+1:]
	}
	switch {
	case bytes.HasPrefix(event, pushStart):
		if bytes.Contains(event, []byte(`"disconnect":`)) {
			return Event{Kind: Bye, Code: textField(event, `"reason":"`)}, rest
		}
		ev.Room = textField(event, `"channel":"`)
		due, send, ok := stamp.Parse(keyOf(event))
		if !ok {
			return ev, rest
		}
		ev.Kind, ev.Due, ev.Send = Message, due, send
		offset := numberField(event, `"offset":`)
		ev.Pos, _ = ledger.Pack(protocol.ID{Ms: uint64(offset)})
		ev.Prev, _ = ledger.Pack(protocol.ID{Ms: uint64(max(1, offset)) - 1})
	case len(event) == 2: // {}
		ev.Kind = Ping
	case bytes.Contains(event, []byte(`"error":`)):
		ev.Kind = Error
		ev.Code = textField(event, `"message":"`)
	case numberField(event, `"id":`) == lastCommand:
		ev.Kind = Hello
	}
	return ev, rest
}

// AppendSend implements Dialect.
func (c Centrifugo) AppendSend(dst []byte, s Send) []byte {
	dst = append(dst, "POST /api/publish HTTP/1.1\r\nHost: "...)
	dst = append(dst, s.Host...)
	dst = append(dst, "\r\nX-API-Key: "...)
	dst = append(dst, c.APIKey...)
	dst = append(dst, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	const channel, data, key, end = `{"channel":"`, `","data":{"text":"`, `","key":"`, `"}}`
	dst = strconv.AppendInt(dst, int64(len(channel)+len(s.Room)+len(data)+len(s.Text)+len(key)+len(s.Key)+len(end)), 10)
	dst = append(dst, "\r\n\r\n"+channel...)
	dst = append(dst, s.Room...)
	dst = append(dst, data...)
	dst = append(dst, s.Text...)
	dst = append(dst, key...)
	dst = append(dst, s.Key...)
	return append(dst, end...)
}

// Acked implements Dialect.
func (Centrifugo) Acked(body []byte) (ledger.Pos, bool) {
	offset := numberField(body, `"offset":`)
	pos, ok := ledger.Pack(protocol.ID{Ms: uint64(offset)})
	return pos, ok && offset > 0
}
