package protocol

import (
	"strconv"
	"time"
)

// AppendTyping appends a `typing` event, which ends by itself after untilMs.
func AppendTyping(dst []byte, room, user string, untilMs int64) []byte {
	dst = append(dst, `{"type":"typing","room":`...)
	dst = AppendString(dst, room)
	dst = append(dst, `,"user":`...)
	dst = AppendString(dst, user)
	dst = append(dst, `,"until_ms":`...)
	dst = strconv.AppendInt(dst, untilMs, 10)
	return append(dst, '}')
}

// AppendDelivered appends a `delivered` event: room up to id has reached one of
// user's devices.
func AppendDelivered(dst []byte, room, user string, id ID) []byte {
	dst = append(dst, `{"type":"delivered","room":`...)
	dst = AppendString(dst, room)
	dst = append(dst, `,"user":`...)
	dst = AppendString(dst, user)
	dst = append(dst, `,"id":"`...)
	dst = id.AppendTo(dst)
	return append(dst, `"}`...)
}

// AppendPresence appends a `presence` event. lastSeen is told of users who are
// offline and were seen.
func AppendPresence(dst []byte, user string, online bool, lastSeen time.Time) []byte {
	dst = append(dst, `{"type":"presence","user":`...)
	dst = AppendString(dst, user)
	if online {
		return append(dst, `,"status":"online"}`...)
	}
	dst = append(dst, `,"status":"offline"`...)
	if !lastSeen.IsZero() {
		dst = append(dst, `,"last_seen":"`...)
		dst = lastSeen.UTC().AppendFormat(dst, TimeFormat)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// TimeFormat is how times are told: RFC 3339, in UTC, to the millisecond.
const TimeFormat = "2006-01-02T15:04:05.000Z"
