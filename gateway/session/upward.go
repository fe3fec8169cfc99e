package session

import (
	"unicode/utf8"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/protocol"
)

// maxWatched bounds the users of one `watch`: a client shows a screenful.
const maxWatched = 500

type kind uint8

const (
	kindNone kind = iota
	kindPing
	kindResume
	kindFocus
	kindTyping
	kindRead
	kindDelivered
	kindWatch
	kindAuth
)

func (k kind) event() edge.EventKind {
	return [...]edge.EventKind{
		kindFocus: edge.EvFocus, kindTyping: edge.EvTyping, kindRead: edge.EvRead,
		kindDelivered: edge.EvDelivered, kindWatch: edge.EvWatch,
	}[k]
}

func kindOf(name []byte) kind {
	switch string(name) { // does not allocate
	case "ping":
		return kindPing
	case "resume":
		return kindResume
	case "focus":
		return kindFocus
	case "typing":
		return kindTyping
	case "read":
		return kindRead
	case "delivered":
		return kindDelivered
	case "watch":
		return kindWatch
	case "auth":
		return kindAuth
	}
	return kindNone
}

// field is a set of members of an upward message.
type field uint8

const (
	fieldType field = 1 << iota
	fieldRoom
	fieldID
	fieldRooms
	fieldMore
	fieldUsers
	fieldToken
)

func fieldOf(name []byte) field {
	switch string(name) {
	case "type":
		return fieldType
	case "room":
		return fieldRoom
	case "id":
		return fieldID
	case "rooms":
		return fieldRooms
	case "more":
		return fieldMore
	case "users":
		return fieldUsers
	case "token":
		return fieldToken
	}
	return 0
}

// fieldsOf says which fields a message must have and may have besides.
func fieldsOf(k kind) (must, may field) {
	switch k {
	case kindPing:
		return fieldType, 0
	case kindResume:
		return fieldType | fieldRooms, fieldMore
	case kindFocus, kindTyping:
		return fieldType | fieldRoom, 0
	case kindRead, kindDelivered:
		return fieldType | fieldRoom | fieldID, 0
	case kindWatch:
		return fieldType | fieldUsers, 0
	case kindAuth:
		return fieldType | fieldToken, 0
	}
	return 0, 0
}

// upward is a message from a client. Its strings are copies; token is not.
type upward struct {
	kind      kind
	room      string // "" for null
	id        protocol.ID
	positions map[string]protocol.ID
	more      bool
	users     []string
	token     []byte
}

// badUpward says what is wrong with a message. All are made once.
type badUpward struct {
	code   protocol.ErrorCode
	detail string
	stays  bool // well formed, but not allowed
}

var (
	errNotJSON   = &badUpward{code: protocol.ErrMalformed, detail: "not a JSON object"}
	errNoType    = &badUpward{code: protocol.ErrMalformed, detail: "type is missing or unknown"}
	errField     = &badUpward{code: protocol.ErrMalformed, detail: "unknown field"}
	errDuplicate = &badUpward{code: protocol.ErrMalformed, detail: "a field comes twice"}
	errFieldSet  = &badUpward{code: protocol.ErrMalformed, detail: "a field is missing or does not belong to this type"}
	errFieldType = &badUpward{code: protocol.ErrMalformed, detail: "a field has the wrong type"}
	errID        = &badUpward{code: protocol.ErrMalformed, detail: protocol.ErrBadID.Error()}

	errRoom    = &badUpward{code: protocol.ErrInvalid, detail: "not a room ID", stays: true}
	errUser    = &badUpward{code: protocol.ErrInvalid, detail: "not a user name", stays: true}
	errWatched = &badUpward{code: protocol.ErrInvalid, detail: "too many users to watch", stays: true}
)

// parseUpward reads a message. It is strict: an unknown, repeated or misplaced
// field is an error, so that a client's mistake shows while it is being written.
// Nothing in it recurses, and only what a message keeps is allocated.
func parseUpward(text []byte) (upward, *badUpward) {
	var (
		msg     upward
		seen    field
		later   *badUpward // not allowed, if the rest is well formed
		r       = reader{text: text}
		scratch [128]byte
	)
	if !r.take('{') {
		return msg, errNotJSON
	}
	for first := true; ; first = false {
		if first && r.take('}') {
			break
		}
		name, ok := r.string(scratch[:0])
		if !ok || !r.take(':') {
			return msg, errNotJSON
		}
		f := fieldOf(name)
		switch {
		case f == 0:
			return msg, errField
		case seen&f != 0:
			return msg, errDuplicate
		}
		seen |= f
		if bad := msg.readField(&r, f, scratch[:0]); bad != nil {
			if !bad.stays {
				return msg, bad
			}
			later = bad
		}
		if r.take('}') {
			break
		}
		if !r.take(',') {
			return msg, errNotJSON
		}
	}
	if !r.atEnd() {
		return msg, errNotJSON
	}
	if msg.kind == kindNone {
		return msg, errNoType
	}
	must, may := fieldsOf(msg.kind)
	if seen&must != must || seen&^(must|may) != 0 {
		return msg, errFieldSet
	}
	if later == nil && msg.room == "" && seen&fieldRoom != 0 && msg.kind != kindFocus {
		return msg, errFieldType // null is for focus only
	}
	return msg, later
}

// readField reads one field's value.
func (m *upward) readField(r *reader, f field, scratch []byte) *badUpward {
	switch f {
	case fieldType:
		name, ok := r.string(scratch)
		if !ok {
			return errFieldType
		}
		if m.kind = kindOf(name); m.kind == kindNone {
			return errNoType
		}
	case fieldRoom:
		if r.literal("null") {
			return nil
		}
		room, ok := r.string(scratch)
		if !ok {
			return errFieldType
		}
		if !protocol.ValidRoom(room) {
			return errRoom
		}
		m.room = string(room)
	case fieldID:
		text, ok := r.string(scratch)
		if !ok {
			return errFieldType
		}
		var err error
		if m.id, err = protocol.ParseID(text); err != nil {
			return errID
		}
	case fieldMore:
		switch {
		case r.literal("true"):
			m.more = true
		case r.literal("false"):
		default:
			return errFieldType
		}
	case fieldToken:
		token, ok := r.string(nil)
		if !ok {
			return errFieldType
		}
		m.token = token
	case fieldRooms:
		return m.readPositions(r, scratch)
	case fieldUsers:
		return m.readUsers(r, scratch)
	}
	return nil
}

// readPositions reads {"room":"id", …}. A room that can't be one is left out: it
// is a room the user is not in.
func (m *upward) readPositions(r *reader, scratch []byte) *badUpward {
	if !r.take('{') {
		return errFieldType
	}
	m.positions = make(map[string]protocol.ID)
	if r.take('}') {
		return nil
	}
	for {
		name, ok := r.string(scratch)
		if !ok || !r.take(':') {
			return errNotJSON
		}
		room := ""
		if protocol.ValidRoom(name) {
			room = string(name)
		}
		text, ok := r.string(scratch)
		if !ok {
			return errFieldType
		}
		id, err := protocol.ParseID(text)
		if err != nil {
			return errID
		}
		if room != "" {
			if _, twice := m.positions[room]; twice {
				return errDuplicate
			}
			m.positions[room] = id
		}
		if r.take('}') {
			return nil
		}
		if !r.take(',') {
			return errNotJSON
		}
	}
}

func (m *upward) readUsers(r *reader, scratch []byte) *badUpward {
	if !r.take('[') {
		return errFieldType
	}
	m.users = []string{}
	if r.take(']') {
		return nil
	}
	var later *badUpward
	for {
		name, ok := r.string(scratch)
		if !ok {
			return errFieldType
		}
		if len(m.users) == maxWatched {
			later = errWatched
		} else if user := string(name); protocol.ValidUser(user) {
			m.users = append(m.users, user)
		} else if later == nil {
			later = errUser
		}
		if r.take(']') {
			return later
		}
		if !r.take(',') {
			return errNotJSON
		}
	}
}

// LooksLikeResume says whether a message that begins with head may be a resume:
// its first field is type "resume", or one that only a resume has. It decides
// which messages may be longer than MaxMessageBytes before they are kept.
func LooksLikeResume(head []byte) bool {
	var scratch [16]byte
	r := reader{text: head}
	if !r.take('{') {
		return false
	}
	name, ok := r.string(scratch[:0])
	if !ok || !r.take(':') {
		return false
	}
	switch fieldOf(name) {
	case fieldRooms, fieldMore:
		return true
	case fieldType:
		value, ok := r.string(scratch[:0])
		return ok && kindOf(value) == kindResume
	}
	return false
}

// reader reads the few shapes of JSON that upward messages have.
type reader struct {
	text []byte
	pos  int
}

func (r *reader) space() {
	for r.pos < len(r.text) {
		switch r.text[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

func (r *reader) atEnd() bool {
	r.space()
	return r.pos == len(r.text)
}

// take consumes c if it is next, white space aside.
func (r *reader) take(c byte) bool {
	r.space()
	if r.pos < len(r.text) && r.text[r.pos] == c {
		r.pos++
		return true
	}
	return false
}

func (r *reader) literal(s string) bool {
	r.space()
	if len(r.text)-r.pos >= len(s) && string(r.text[r.pos:r.pos+len(s)]) == s {
		r.pos += len(s)
		return true
	}
	return false
}

// string reads a JSON string. Without escapes it is a part of the text, else it
// is appended to scratch. The text is known to be UTF-8; lone surrogates are
// refused, because no string can hold them.
func (r *reader) string(scratch []byte) ([]byte, bool) {
	if !r.take('"') {
		return nil, false
	}
	start := r.pos
	for r.pos < len(r.text) {
		switch c := r.text[r.pos]; {
		case c == '"':
			s := r.text[start:r.pos:r.pos]
			r.pos++
			return s, true
		case c == '\\':
			return r.escaped(append(scratch, r.text[start:r.pos]...))
		case c < 0x20:
			return nil, false
		}
		r.pos++
	}
	return nil, false
}

// escaped goes on with a string from its first escape.
func (r *reader) escaped(out []byte) ([]byte, bool) {
	for r.pos < len(r.text) {
		c := r.text[r.pos]
		r.pos++
		switch {
		case c == '"':
			return out, true
		case c < 0x20:
			return nil, false
		case c != '\\':
			out = append(out, c)
			continue
		}
		if r.pos == len(r.text) {
			return nil, false
		}
		c = r.text[r.pos]
		r.pos++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			char, ok := r.unicode()
			if !ok {
				return nil, false
			}
			out = utf8.AppendRune(out, char)
		default:
			return nil, false
		}
	}
	return nil, false
}

// unicode reads what follows `\u`: four digits, and the second half of a pair.
func (r *reader) unicode() (rune, bool) {
	char, ok := r.hex4()
	if !ok || char >= 0xDC00 && char <= 0xDFFF {
		return 0, false
	}
	if char < 0xD800 || char > 0xDBFF {
		return char, true
	}
	if len(r.text)-r.pos < 6 || r.text[r.pos] != '\\' || r.text[r.pos+1] != 'u' {
		return 0, false
	}
	r.pos += 2
	low, ok := r.hex4()
	if !ok || low < 0xDC00 || low > 0xDFFF {
		return 0, false
	}
	return (char-0xD800)<<10 + (low - 0xDC00) + 0x10000, true
}

func (r *reader) hex4() (rune, bool) {
	if len(r.text)-r.pos < 4 {
		return 0, false
	}
	var v rune
	for _, c := range r.text[r.pos : r.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	r.pos += 4
	return v, true
}
