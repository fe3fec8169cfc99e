package target

import (
	"bytes"
	"strconv"
	"unsafe"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/stamp"
	"github.com/madang-chat/madang/protocol"
)

// Madang speaks madang.v1.
type Madang struct{}

// Name implements Dialect.
func (Madang) Name() string { return "madang" }

// AppendUpgrade implements Dialect.
func (Madang) AppendUpgrade(dst []byte, o Opening) []byte {
	dst = append(dst, "GET /v1/ws"...)
	if o.Resume {
		dst = append(dst, "?resume=1"...)
	}
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, o.Host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(dst, o.Key...)
	dst = append(dst, "\r\nSec-WebSocket-Protocol: "+protocol.Subprotocol+"\r\nAuthorization: Bearer "...)
	dst = append(dst, o.Token...)
	return append(dst, "\r\n\r\n"...)
}

// AppendGreeting implements Dialect: there is none.
func (Madang) AppendGreeting(dst []byte, _ Opening, _ []string) []byte { return dst }

// AppendResume implements Dialect.
func (Madang) AppendResume(dst []byte, positions []Position, more bool) []byte {
	dst = appendRooms(append(dst, `{"type":"resume",`...), positions)
	if more {
		dst = append(dst, `,"more":true`...)
	}
	return append(dst, '}')
}

// AppendPing implements Dialect.
func (Madang) AppendPing(dst []byte) []byte { return append(dst, `{"type":"ping"}`...) }

// AppendPong implements Dialect: the server's own pings are WebSocket pings.
func (Madang) AppendPong(dst []byte) []byte { return dst }

// AppendChatter implements Dialect.
func (Madang) AppendChatter(dst []byte, what Chatter, room string, pos ledger.Pos) []byte {
	switch what {
	case Typing:
		dst = append(dst, `{"type":"typing","room":`...)
	case Focus:
		dst = append(dst, `{"type":"focus","room":`...)
	case Read:
		if pos == 0 {
			return dst // nothing to have read
		}
		dst = append(dst, `{"type":"read","id":"`...)
		dst = pos.ID().AppendTo(dst)
		dst = append(dst, `","room":`...)
	}
	dst = protocol.AppendString(dst, room)
	return append(dst, '}')
}

var messageStart = []byte(`{"type":"message","room":"`)

// Next implements Dialect.
func (Madang) Next(payload []byte) (ev Event, rest []byte) {
	event := payload
	if end := bytes.IndexByte(payload, '\n'); end >= 0 {
		event, rest = payload[:end], payload[end+1:]
	}
	if bytes.HasPrefix(event, messageStart) {
		return message(event), rest
	}
	kind := textField(event, `"type":"`)
	switch string(kind) {
	case "hello":
		ev.Kind = Hello
		ev.Conn = textField(event, `"conn":"`)
	case "resumed":
		ev.Kind = Resumed
	case "pong":
		ev.Kind = Pong
	case "bye":
		ev.Kind = Bye
		ev.Code = textField(event, `"reason":"`)
		ev.RetryMs = numberField(event, `"retry_in_ms":`)
	case "error":
		ev.Kind = Error
		ev.Code = textField(event, `"code":"`)
	case "gap":
		ev.Room = textField(event, `"room":"`)
		after, ok1 := idField(event, `"after":"`)
		head, ok2 := idField(event, `"head":"`)
		if ok1 && ok2 {
			ev.Kind, ev.Prev, ev.Pos = Gap, after, head
		}
	}
	return ev, rest
}

func message(event []byte) (ev Event) {
	room := event[len(messageStart):]
	end := bytes.IndexByte(room, '"')
	if end <= 0 {
		return ev
	}
	room = room[:end]
	// The head's parser keeps no reference to the name.
	head, ok := protocol.ParseMessageHead(event, unsafe.String(&room[0], len(room)))
	if !ok {
		return ev
	}
	pos, ok1 := ledger.Pack(head.ID)
	prev, ok2 := ledger.Pack(head.Prev)
	if !ok1 || !ok2 {
		return ev
	}
	ev = Event{Kind: Foreign, Room: room, Pos: pos, Prev: prev}
	if due, send, ok := stamp.Parse(keyOf(event)); ok {
		ev.Kind, ev.Due, ev.Send = Message, due, send
	}
	return ev
}

var keyField = []byte(`"key":"`)

// keyOf finds the key, which the API writes last; elsewhere it is searched for.
func keyOf(event []byte) []byte {
	if at := len(event) - len(`"}`) - stamp.Len; at >= len(keyField) && bytes.Equal(event[at-len(keyField):at], keyField) {
		return event[at : at+stamp.Len]
	}
	if at := bytes.LastIndex(event, keyField); at >= 0 {
		key := event[at+len(keyField):]
		return key[:max(0, bytes.IndexByte(key, '"'))]
	}
	return nil
}

// AppendSend implements Dialect.
func (Madang) AppendSend(dst []byte, s Send) []byte {
	dst = append(dst, "POST /v1/rooms/"...)
	dst = append(dst, s.Room...)
	dst = append(dst, "/messages HTTP/1.1\r\nHost: "...)
	dst = append(dst, s.Host...)
	dst = append(dst, "\r\nAuthorization: Bearer "...)
	dst = append(dst, s.Token...)
	dst = append(dst, "\r\nIdempotency-Key: "...)
	dst = append(dst, s.Key...)
	dst = append(dst, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	const before, after = `{"type":"text","text":"`, `"}`
	const file, end = `","attachments":["`, `"]}`
	size := len(before) + len(s.Text) + len(after)
	if s.File != "" {
		size = len(before) + len(s.Text) + len(file) + len(s.File) + len(end)
	}
	dst = strconv.AppendInt(dst, int64(size), 10)
	dst = append(dst, "\r\n\r\n"+before...)
	dst = append(dst, s.Text...)
	if s.File == "" {
		return append(dst, after...)
	}
	dst = append(dst, file...)
	dst = append(dst, s.File...)
	return append(dst, end...)
}

// AppendUpload implements Uploader.
func (Madang) AppendUpload(dst []byte, u Upload) []byte {
	const before = "--the-load-testers-boundary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"picture.png\"\r\n\r\n"
	const after = "\r\n--the-load-testers-boundary--\r\n"
	dst = append(dst, "POST /v1/attachments HTTP/1.1\r\nHost: "...)
	dst = append(dst, u.Host...)
	dst = append(dst, "\r\nAuthorization: Bearer "...)
	dst = append(dst, u.Token...)
	dst = append(dst, "\r\nContent-Type: multipart/form-data; boundary=the-load-testers-boundary\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(before)+len(u.Content)+len(after)), 10)
	dst = append(dst, "\r\n\r\n"+before...)
	dst = append(dst, u.Content...)
	return append(dst, after...)
}

// Uploaded implements Uploader.
func (Madang) Uploaded(body []byte) ([]byte, bool) {
	id := textField(body, `"id":"`)
	return id, len(id) > 0
}

// Acked implements Dialect.
func (Madang) Acked(body []byte) (ledger.Pos, bool) { return idField(body, `"id":"`) }

// textField returns the value of a field without escapes; `name` is the field
// with its quotes, colon and opening quote.
func textField(event []byte, name string) []byte {
	at := bytes.Index(event, []byte(name))
	if at < 0 {
		return nil
	}
	value := event[at+len(name):]
	return value[:max(0, bytes.IndexByte(value, '"'))]
}

func numberField(event []byte, name string) (v int) {
	at := bytes.Index(event, []byte(name))
	if at < 0 {
		return 0
	}
	for _, c := range event[at+len(name):] {
		if c < '0' || c > '9' || v > 1<<40 {
			break
		}
		v = v*10 + int(c-'0')
	}
	return v
}

func idField(event []byte, name string) (ledger.Pos, bool) {
	return parsePos(textField(event, name))
}
