package protocol

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// Subprotocol is the WebSocket subprotocol of this contract.
const Subprotocol = "madang.v1"

// BearerPrefix is how a browser hands over its token: as a second subprotocol,
// which is never echoed.
const BearerPrefix = "bearer."

// AppendMessage appends the message event: the part the log does not store
// literally, then the tail.
func AppendMessage(dst []byte, room string, id, prev ID, n uint64, tail []byte) []byte {
	dst = append(dst, `{"type":"message","room":"`...)
	dst = append(dst, room...) // ValidRoom: needs no escaping
	dst = append(dst, `","id":"`...)
	dst = id.AppendTo(dst)
	dst = append(dst, `","prev":"`...)
	dst = prev.AppendTo(dst)
	dst = append(dst, `","n":`...)
	dst = strconv.AppendUint(dst, n, 10)
	dst = append(dst, ',')
	return append(dst, tail...)
}

// MessageHead is the part of a message event that a gateway must understand.
type MessageHead struct {
	ID, Prev ID
	N        uint64
}

// ParseMessageHead reads the head of a message event that AppendMessage, or the
// send script, wrote for this room. ok is false when event is anything else.
func ParseMessageHead(event []byte, room string) (h MessageHead, ok bool) {
	rest, ok := bytes.CutPrefix(event, []byte(`{"type":"message","room":"`))
	if !ok || len(rest) < len(room) || string(rest[:len(room)]) != room {
		return h, false
	}
	rest = rest[len(room):]
	if rest, ok = bytes.CutPrefix(rest, []byte(`","id":"`)); !ok {
		return h, false
	}
	if h.ID, rest, ok = cutID(rest); !ok {
		return h, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"prev":"`)); !ok {
		return h, false
	}
	if h.Prev, rest, ok = cutID(rest); !ok {
		return h, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"n":`)); !ok {
		return h, false
	}
	end := bytes.IndexByte(rest[:min(len(rest), 21)], ',')
	if end < 0 {
		return h, false
	}
	h.N, ok = parseUint(rest[:end])
	return h, ok
}

// MessageRoom is the room of a message event that AppendMessage, or the send
// script, wrote; "" of anything else.
func MessageRoom(event []byte) string {
	rest, ok := bytes.CutPrefix(event, []byte(`{"type":"message","room":"`))
	if !ok {
		return ""
	}
	room, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(room)
}

// TypeOf is the type of an event as this package writes it, "" of anything else.
func TypeOf(event []byte) string {
	rest, ok := bytes.CutPrefix(event, []byte(`{"type":"`))
	if !ok {
		return ""
	}
	kind, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(kind)
}

// IsResumed says whether an event is the one that ends a catch-up.
func IsResumed(event []byte) bool { return bytes.HasPrefix(event, []byte(`{"type":"resumed",`)) }

func cutID(b []byte) (id ID, rest []byte, ok bool) {
	end := bytes.IndexByte(b[:min(len(b), MaxIDLen+1)], '"')
	if end < 0 {
		return id, nil, false
	}
	id, err := ParseID(b[:end])
	return id, b[end+1:], err == nil
}

// AppendHello appends the first event of a connection.
func AppendHello(dst []byte, conn, user string, roomsRev uint64, heartbeatSeconds int, version string) []byte {
	dst = append(dst, `{"type":"hello","conn":`...)
	dst = AppendString(dst, conn)
	dst = append(dst, `,"user":`...)
	dst = AppendString(dst, user)
	dst = append(dst, `,"rooms_rev":`...)
	dst = strconv.AppendUint(dst, roomsRev, 10)
	dst = append(dst, `,"heartbeat_s":`...)
	dst = strconv.AppendInt(dst, int64(heartbeatSeconds), 10)
	dst = append(dst, `,"version":`...)
	dst = AppendString(dst, version)
	return append(dst, '}')
}

// AppendResumed appends the event that ends a resume or a slow reader's catch-up.
func AppendResumed(dst []byte, roomsRev uint64) []byte {
	dst = append(dst, `{"type":"resumed","rooms_rev":`...)
	dst = strconv.AppendUint(dst, roomsRev, 10)
	return append(dst, '}')
}

// AppendGap appends the event that says: what follows after is not in the log
// any more (or is too much to push); page it over HTTP. Everything after head is
// delivered.
func AppendGap(dst []byte, room string, after, head ID) []byte {
	dst = append(dst, `{"type":"gap","room":`...)
	dst = AppendString(dst, room)
	dst = append(dst, `,"after":"`...)
	dst = after.AppendTo(dst)
	dst = append(dst, `","head":"`...)
	dst = head.AppendTo(dst)
	return append(dst, `"}`...)
}

// AppendJoined appends a `joined` event; roomsRev 0 is left out (it is told only
// to the user concerned).
func AppendJoined(dst []byte, room, user string, head ID, roomsRev uint64) []byte {
	dst = append(dst, `{"type":"joined","room":`...)
	dst = AppendString(dst, room)
	dst = append(dst, `,"user":`...)
	dst = AppendString(dst, user)
	dst = append(dst, `,"head":"`...)
	dst = head.AppendTo(dst)
	dst = append(dst, '"')
	return appendRev(dst, roomsRev)
}

// AppendLeft appends a `left` event; see AppendJoined for roomsRev.
func AppendLeft(dst []byte, room, user string, roomsRev uint64) []byte {
	dst = append(dst, `{"type":"left","room":`...)
	dst = AppendString(dst, room)
	dst = append(dst, `,"user":`...)
	dst = AppendString(dst, user)
	return appendRev(dst, roomsRev)
}

// AppendRead appends a `read` event: user has read room up to id.
func AppendRead(dst []byte, room, user string, id ID) []byte {
	dst = append(dst, `{"type":"read","room":`...)
	dst = AppendString(dst, room)
	dst = append(dst, `,"user":`...)
	dst = AppendString(dst, user)
	dst = append(dst, `,"id":"`...)
	dst = id.AppendTo(dst)
	return append(dst, `"}`...)
}

func appendRev(dst []byte, rev uint64) []byte {
	if rev != 0 {
		dst = append(dst, `,"rooms_rev":`...)
		dst = strconv.AppendUint(dst, rev, 10)
	}
	return append(dst, '}')
}

// ByeReason says why a gateway asks a client to leave.
type ByeReason string

// Reasons of a `bye`.
const (
	ByeDrain        ByeReason = "drain"
	ByeRebalance    ByeReason = "rebalance"
	ByeShed         ByeReason = "shed"
	ByeTokenExpired ByeReason = "token_expired"
	ByeSlow         ByeReason = "slow"
	ByeRevoked      ByeReason = "revoked"
)

// AppendBye appends a `bye`; retryInMs is when to come back, in milliseconds.
func AppendBye(dst []byte, reason ByeReason, retryInMs int) []byte {
	dst = append(dst, `{"type":"bye","reason":`...)
	dst = AppendString(dst, string(reason))
	dst = append(dst, `,"retry_in_ms":`...)
	dst = strconv.AppendInt(dst, int64(retryInMs), 10)
	return append(dst, '}')
}

// AppendError appends an `error` event.
func AppendError(dst []byte, code ErrorCode, detail string) []byte {
	dst = append(dst, `{"type":"error","code":`...)
	dst = AppendString(dst, string(code))
	dst = append(dst, `,"detail":`...)
	dst = AppendString(dst, detail)
	return append(dst, '}')
}

// Pong is the answer to a client's `ping`.
const Pong = `{"type":"pong"}`

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string (RFC 8259 §7). Invalid UTF-8 becomes
// U+FFFD. '<', '>', '&' and U+2028/9 stay as they are: the bytes that were sent
// are the bytes that are received.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			start = i
			continue
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
