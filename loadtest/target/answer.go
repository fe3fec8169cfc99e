package target

import (
	"bytes"

	"github.com/madang-chat/madang/loadtest/ledger"
)

// Answer is what a poll brought, in the bytes that it came in: events and
// positions are taken off it one by one, so that reading it allocates nothing.
type Answer struct {
	Conn []byte // the connection's ID, where the answer has one

	events []byte // the inside of an array
	rooms  []byte // the inside of an object
}

// parseAnswer reads the object {"events":[…],"rooms":{…},"conn":"…",…}. It is
// not for judging JSON: what it returns from something else is nonsense within
// the bounds of the body.
func parseAnswer(body []byte) (a Answer, ok bool) {
	inside, rest, ok := cutValue(body)
	if !ok || inside[0] != '{' || len(skipSpace(rest)) > 0 {
		return a, false
	}
	members := inside[1 : len(inside)-1]
	seen := false
	for {
		name, value, rest, ok := cutMember(members)
		if !ok {
			return a, seen && len(skipSpace(members)) == 0
		}
		members = rest
		switch string(name) {
		case "events":
			if value[0] != '[' {
				return a, false
			}
			a.events, seen = value[1:len(value)-1], true
		case "rooms":
			if value[0] != '{' {
				return a, false
			}
			a.rooms = value[1 : len(value)-1]
		case "conn":
			if value[0] != '"' {
				return a, false
			}
			a.Conn = value[1 : len(value)-1]
		}
	}
}

// NextEvent takes the first event off the answer; nil when there is none left.
func (a *Answer) NextEvent() []byte {
	event, rest, ok := cutValue(a.events)
	if !ok {
		a.events = nil
		return nil
	}
	a.events = skipComma(rest)
	return event
}

// NextRoom takes the first room off the positions to poll with next. What is no
// position is passed over: the room then has none.
func (a *Answer) NextRoom() (room []byte, pos ledger.Pos, ok bool) {
	for {
		name, value, rest, ok := cutMember(a.rooms)
		if !ok {
			a.rooms = nil
			return nil, 0, false
		}
		a.rooms = rest
		if len(value) < 2 || value[0] != '"' {
			continue
		}
		if pos, ok := parsePos(value[1 : len(value)-1]); ok {
			return name, pos, true
		}
	}
}

// cutMember takes the first member off the inside of an object; the name is as it
// is written.
func cutMember(b []byte) (name, value, rest []byte, ok bool) {
	name, rest, ok = cutValue(b)
	if !ok || name[0] != '"' {
		return nil, nil, nil, false
	}
	rest = skipSpace(rest)
	if len(rest) == 0 || rest[0] != ':' {
		return nil, nil, nil, false
	}
	value, rest, ok = cutValue(rest[1:])
	if !ok {
		return nil, nil, nil, false
	}
	return name[1 : len(name)-1], value, skipComma(rest), true
}

// cutValue takes the first JSON value off b: what it is made of is looked at only
// as far as finding its end asks for.
func cutValue(b []byte) (value, rest []byte, ok bool) {
	b = skipSpace(b)
	if len(b) == 0 {
		return nil, nil, false
	}
	switch b[0] {
	case '"':
		end := endOfString(b)
		if end < 0 {
			return nil, nil, false
		}
		return b[:end], b[end:], true
	case '{', '[':
		for depth, i := 0, 0; i < len(b); {
			switch b[i] {
			case '"':
				end := endOfString(b[i:])
				if end < 0 {
					return nil, nil, false
				}
				i += end
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return b[:i+1], b[i+1:], true
				}
			}
			i++
		}
		return nil, nil, false
	case '}', ']', ',', ':':
		return nil, nil, false
	}
	end := 0
	for end < len(b) && bytes.IndexByte([]byte(",:{}[]\" \t\r\n"), b[end]) < 0 {
		end++
	}
	return b[:end], b[end:], true
}

// endOfString is the length of the string that b begins with; -1 when it has no
// end.
func endOfString(b []byte) int {
	for i := 1; i < len(b); {
		quote := bytes.IndexByte(b[i:], '"')
		if quote < 0 {
			return -1
		}
		end := i + quote
		escapes := 0
		for end-1-escapes > 0 && b[end-1-escapes] == '\\' {
			escapes++
		}
		if i = end + 1; escapes%2 == 0 {
			return i
		}
	}
	return -1
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// skipComma skips what separates two values.
func skipComma(b []byte) []byte {
	if b = skipSpace(b); len(b) > 0 && b[0] == ',' {
		return b[1:]
	}
	return b
}
