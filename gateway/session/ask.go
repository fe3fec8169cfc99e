package session

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/madang-chat/madang/protocol"
)

const (
	// defaultWait and maxWait are how long a long poll waits: below what proxies and
	// browsers give an answer.
	defaultWait = 25 * time.Second
	maxWait     = 60 * time.Second
)

// maxConnBytes bounds a connection's ID; ours have 25.
const maxConnBytes = 64

// Ask is the body of a request that receives: what a `resume` says, and how long to
// wait.
type Ask struct {
	Positions map[string]protocol.ID // never nil
	Wait      time.Duration          // of a long poll
	Conn      string                 // of a long poll: who it is, as the answer before said; "" when it is the first
}

// BadAsk says what is wrong with a body.
type BadAsk struct {
	Code   protocol.ErrorCode
	Detail string
}

var (
	errNotUTF8  = &BadAsk{protocol.ErrMalformed, "not UTF-8"}
	errWait     = &BadAsk{protocol.ErrInvalid, "wait_s is not a whole number from 0 to 60"}
	errConn     = &BadAsk{protocol.ErrInvalid, "conn is not what an answer said"}
	errNoRooms  = &BadAsk{protocol.ErrMalformed, "rooms is missing"}
	errAskField = &BadAsk{protocol.ErrMalformed, "unknown field"}
)

// ParseAsk reads a body, as strictly as a message on a socket; poll: that of a long
// poll, in which everything may be left out.
func ParseAsk(body []byte, poll bool) (Ask, *BadAsk) {
	ask := Ask{Positions: map[string]protocol.ID{}, Wait: defaultWait}
	if !utf8.Valid(body) {
		return ask, errNotUTF8
	}
	var (
		scratch           [128]byte
		rooms, wait, conn bool
		r                 = reader{text: body}
	)
	asBad := func(bad *badUpward) *BadAsk { return &BadAsk{bad.code, bad.detail} }
	if !r.take('{') {
		return ask, asBad(errNotJSON)
	}
	for first := true; !first || !r.take('}'); first = false {
		name, ok := r.string(scratch[:0])
		if !ok || !r.take(':') {
			return ask, asBad(errNotJSON)
		}
		switch {
		case string(name) == "rooms" && !rooms:
			rooms = true
			var m upward
			if bad := m.readPositions(&r, scratch[:0]); bad != nil {
				return ask, asBad(bad)
			}
			ask.Positions = m.positions
		case string(name) == "wait_s" && poll && !wait:
			wait = true
			seconds, ok := r.digits()
			if !ok || time.Duration(seconds)*time.Second > maxWait {
				return ask, errWait
			}
			ask.Wait = time.Duration(seconds) * time.Second
		case string(name) == "conn" && poll && !conn:
			conn = true
			id, ok := r.string(scratch[:0])
			if !ok {
				return ask, asBad(errFieldType)
			}
			if len(id) > maxConnBytes {
				return ask, errConn
			}
			ask.Conn = string(id)
		case string(name) == "rooms", (string(name) == "wait_s" || string(name) == "conn") && poll:
			return ask, asBad(errDuplicate)
		default:
			return ask, errAskField
		}
		if r.take('}') {
			break
		}
		if !r.take(',') {
			return ask, asBad(errNotJSON)
		}
	}
	switch {
	case !r.atEnd():
		return ask, asBad(errNotJSON)
	case !rooms && !poll:
		return ask, errNoRooms
	}
	return ask, nil
}

// digits reads a small number without sign, leading zeros, fraction or exponent.
func (r *reader) digits() (n int, ok bool) {
	r.space()
	start := r.pos
	for r.pos < len(r.text) && r.text[r.pos] >= '0' && r.text[r.pos] <= '9' && r.pos-start < 4 {
		n = n*10 + int(r.text[r.pos]-'0')
		r.pos++
	}
	digits := r.pos - start
	if r.pos < len(r.text) && strings.IndexByte(".eE", r.text[r.pos]) >= 0 {
		return 0, false
	}
	return n, digits > 0 && digits < 4 && (digits == 1 || r.text[start] != '0')
}
