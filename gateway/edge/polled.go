package edge

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/madang-chat/madang/protocol"
)

// Polled is what the hub tells a loop before anything else that a long poll gets:
// whose it is, and where it starts in every room. The loop makes the answer of it;
// no client ever sees it.
type Polled struct {
	Conn     string                 `json:"conn"`
	User     string                 `json:"user"`
	RoomsRev uint64                 `json:"rooms_rev"`
	Rooms    map[string]protocol.ID `json:"rooms"`
}

var polledHead = []byte(`{"type":"polled",`)

// AppendPolled appends one up to its rooms, which AppendPosition appends, and
// which end with "}}".
func AppendPolled(dst []byte, conn, user string, roomsRev uint64) []byte {
	dst = append(dst, polledHead...)
	dst = append(dst, `"conn":`...)
	dst = protocol.AppendString(dst, conn)
	dst = append(dst, `,"user":`...)
	dst = protocol.AppendString(dst, user)
	dst = append(dst, `,"rooms_rev":`...)
	dst = strconv.AppendUint(dst, roomsRev, 10)
	return append(dst, `,"rooms":{`...)
}

// AppendPosition appends one member of an object of positions; room needs no
// escaping (protocol.ValidRoom).
func AppendPosition(dst []byte, room string, at protocol.ID) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, room...)
	dst = append(dst, `":"`...)
	dst = at.AppendTo(dst)
	return append(dst, '"')
}

// IsPolled says whether an event is one.
func IsPolled(event []byte) bool { return bytes.HasPrefix(event, polledHead) }

// ParsePolled reads one.
func ParsePolled(event []byte) (p Polled) {
	_ = json.Unmarshal(event, &p) // AppendPolled made it
	return p
}
