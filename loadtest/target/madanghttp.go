package target

import (
	"strconv"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/protocol"
)

// AppendStream implements OverHTTP.
func (Madang) AppendStream(dst []byte, o Opening, positions []Position) []byte {
	const path, accept = "/v1/events", "Accept: text/event-stream\r\nCache-Control: no-cache\r\n"
	if !o.Resume {
		dst = appendHead(dst, "GET ", path, o)
		return append(dst, accept+"\r\n"...)
	}
	return appendPost(dst, path, o, accept, func(dst []byte) []byte {
		return append(appendRooms(append(dst, '{'), positions), '}')
	})
}

// AppendPoll implements OverHTTP.
func (Madang) AppendPoll(dst []byte, o Opening, conn string, positions []Position, waitSeconds int) []byte {
	return appendPost(dst, "/v1/poll", o, "", func(dst []byte) []byte {
		dst = append(appendRooms(append(dst, '{'), positions), `,"wait_s":`...)
		dst = strconv.AppendInt(dst, int64(waitSeconds), 10)
		if conn != "" {
			dst = protocol.AppendString(append(dst, `,"conn":`...), conn)
		}
		return append(dst, '}')
	})
}

// Polled implements OverHTTP.
func (Madang) Polled(body []byte) (Answer, bool) { return parseAnswer(body) }

// AppendAside implements OverHTTP.
func (Madang) AppendAside(dst []byte, o Opening, conn string, what Chatter, room string, pos ledger.Pos) []byte {
	path := "/v1/typing"
	switch what {
	case Focus:
		path = "/v1/focus"
	case Read:
		if pos == 0 {
			return dst // nothing to have read
		}
		return appendPost(dst, "/v1/rooms/"+room+"/read", o, "", func(dst []byte) []byte {
			return append(pos.ID().AppendTo(append(dst, `{"id":"`...)), `"}`...)
		})
	}
	if conn == "" {
		return dst
	}
	return appendPost(dst, path, o, "", func(dst []byte) []byte {
		dst = protocol.AppendString(append(dst, `{"conn":`...), conn)
		dst = protocol.AppendString(append(dst, `,"room":`...), room)
		return append(dst, '}')
	})
}

func appendHead(dst []byte, method, path string, o Opening) []byte {
	dst = append(dst, method...)
	dst = append(dst, path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, o.Host...)
	dst = append(dst, "\r\nAuthorization: Bearer "...)
	dst = append(dst, o.Token...)
	return append(dst, "\r\n"...)
}

// appendPost appends a request with the JSON that body appends: twice, since its
// length stands before it.
func appendPost(dst []byte, path string, o Opening, fields string, body func([]byte) []byte) []byte {
	length := len(body(dst)) - len(dst)
	dst = appendHead(dst, "POST ", path, o)
	dst = append(dst, fields...)
	dst = append(dst, "Content-Type: application/json\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(length), 10)
	return body(append(dst, "\r\n\r\n"...))
}

// appendRooms appends the member that hands over positions.
func appendRooms(dst []byte, positions []Position) []byte {
	dst = append(dst, `"rooms":{`...)
	for i, p := range positions {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = protocol.AppendString(dst, p.Room)
		dst = append(dst, `:"`...)
		dst = p.Pos.ID().AppendTo(dst)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

func parsePos(text []byte) (ledger.Pos, bool) {
	id, err := protocol.ParseID(text)
	if err != nil {
		return 0, false
	}
	return ledger.Pack(id)
}
