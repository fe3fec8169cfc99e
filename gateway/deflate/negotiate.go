package deflate

import (
	"bytes"
	"strconv"
)

// Params is what was agreed on with a client. The zero Params: nothing was.
type Params struct {
	// WindowBits is the size of the client's window: no repetition we send may be
	// further away than 2^WindowBits bytes. 0: messages are not compressed.
	WindowBits uint8
	// told says that the client asked for that size and has to be told.
	told bool
}

// Agreed says whether messages may be compressed.
func (p Params) Agreed() bool { return p.WindowBits != 0 }

// AppendAnswer appends the value of the answer's Sec-WebSocket-Extensions. Both
// sides do without context takeover, whatever was offered: RFC 7692 §7.1.1 lets
// the server say so.
func (p Params) AppendAnswer(dst []byte) []byte {
	dst = append(dst, "permessage-deflate; server_no_context_takeover; client_no_context_takeover"...)
	if p.told {
		dst = append(dst, "; server_max_window_bits="...)
		dst = strconv.AppendUint(dst, uint64(p.WindowBits), 10)
	}
	return dst
}

// Choose reads the value of a Sec-WebSocket-Extensions header: a list of offers
// in the client's order. It returns the first that can be honoured; those with
// unknown, repeated or senseless parameters are declined (RFC 7692 §7.1). Not ok
// means that the header is malformed. It is linear in the header's length.
func Choose(header []byte) (chosen Params, ok bool) {
	s := scanner{rest: header}
	for {
		s.space()
		switch {
		case len(s.rest) == 0:
			return chosen, true
		case s.take(','): // RFC 9110 §5.6.1.2: empty elements are ignored
			continue
		}
		offer, usable, ok := readOffer(&s)
		if !ok {
			return Params{}, false
		}
		if usable && !chosen.Agreed() {
			chosen = offer
		}
	}
}

// The parameters of permessage-deflate.
type params uint8

const (
	serverNoTakeover params = 1 << iota
	clientNoTakeover
	serverWindow
	clientWindow
)

// readOffer reads up to the end of an offer.
func readOffer(s *scanner) (offer Params, usable, ok bool) {
	name := s.token()
	if len(name) == 0 {
		return offer, false, false
	}
	offer.WindowBits = MaxWindowBits
	usable = string(name) == "permessage-deflate"
	var seen params
	for {
		s.space()
		switch {
		case len(s.rest) == 0 || s.rest[0] == ',':
			return offer, usable, true
		case !s.take(';'):
			return offer, false, false
		}
		s.space()
		param := s.token()
		if len(param) == 0 {
			return offer, false, false
		}
		var value []byte
		s.space()
		hasValue := s.take('=')
		if hasValue {
			s.space()
			if value, ok = s.value(); !ok {
				return offer, false, false
			}
		}
		if usable {
			usable = offer.apply(param, value, hasValue, &seen)
		}
	}
}

// apply takes a parameter into account, or says that the offer must be declined.
func (p *Params) apply(param, value []byte, hasValue bool, seen *params) bool {
	var is params
	valid := !hasValue
	switch string(param) {
	case "server_no_context_takeover":
		is = serverNoTakeover
	case "client_no_context_takeover":
		is = clientNoTakeover
	case "server_max_window_bits":
		is = serverWindow
		p.WindowBits, valid = windowBits(value)
		p.told = true
	case "client_max_window_bits":
		is = clientWindow
		if hasValue {
			_, valid = windowBits(value) // whatever it is: the inflater's window is the largest
		}
	}
	if is == 0 || !valid || *seen&is != 0 {
		return false
	}
	*seen |= is
	return true
}

// windowBits reads a number from 8 to 15, without leading zeros.
func windowBits(value []byte) (uint8, bool) {
	switch {
	case len(value) == 1 && value[0] >= '8' && value[0] <= '9':
		return value[0] - '0', true
	case len(value) == 2 && value[0] == '1' && value[1] >= '0' && value[1] <= '5':
		return 10 + value[1] - '0', true
	}
	return 0, false
}

// scanner reads a header's value from the left.
type scanner struct{ rest []byte }

func (s *scanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t') {
		s.rest = s.rest[1:]
	}
}

func (s *scanner) take(c byte) bool {
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) token() []byte {
	n := 0
	for n < len(s.rest) && isTokenChar(s.rest[n]) {
		n++
	}
	token := s.rest[:n]
	s.rest = s.rest[n:]
	return token
}

// value reads a token, or a quoted one (RFC 6455 §9.1: what is quoted must be a
// token too).
func (s *scanner) value() ([]byte, bool) {
	if !s.take('"') {
		t := s.token()
		return t, len(t) > 0
	}
	t := s.token()
	return t, len(t) > 0 && s.take('"')
}

func isTokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}
