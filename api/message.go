package api

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/madang-chat/madang/protocol"
)

// Bounds of a message's body beyond Limits.
const (
	maxTypeLen       = 32
	maxMetaBytes     = 4 << 10 // compacted
	maxMetaDepth     = 32      // receivers parse it, often recursively
	maxAttachments   = 10
	maxAttachmentLen = 64
)

// message is what a client sends.
type message struct {
	Type        string         `json:"type"`
	Text        string         `json:"text"`
	Attachments []string       `json:"attachments"`
	ReplyTo     string         `json:"reply_to"`
	Meta        jsontext.Value `json:"meta"`
}

// parseMessage decodes and checks a body. What it returns encodes to valid JSON
// without a newline, which would split the event's frame.
func parseMessage(body []byte, maxTextChars int) (m message, err error) {
	if err := decodeObject(body, &m); err != nil {
		return message{}, err
	}
	return m, m.check(maxTextChars)
}

func (m *message) check(maxTextChars int) error {
	if m.Type == "" {
		m.Type = "text"
	}
	if !validType(m.Type) {
		return invalid("type must be 1-32 characters of a-z 0-9 . _")
	}
	if len(m.Text) > maxTextChars && utf8.RuneCountInString(m.Text) > maxTextChars {
		return invalid("text may have " + strconv.Itoa(maxTextChars) + " characters")
	}
	if len(m.Attachments) > maxAttachments {
		return invalid("there may be " + strconv.Itoa(maxAttachments) + " attachments")
	}
	for _, id := range m.Attachments {
		if !validAttachment(id) {
			return invalid("an attachment is an ID of 1-64 characters of A-Z a-z 0-9")
		}
	}
	if m.ReplyTo != "" {
		if id, err := protocol.ParseID(m.ReplyTo); err != nil || id.IsZero() {
			return invalid("reply_to must be the ID of a message")
		}
	}
	if err := m.checkMeta(); err != nil {
		return err
	}
	switch {
	case m.Text != "" || len(m.Attachments) > 0:
	case m.Type == "text":
		return invalid("a message of type text needs a text or an attachment")
	case m.Meta == nil:
		return invalid("a message needs a text, an attachment or meta")
	}
	return nil
}

func (m *message) checkMeta() error {
	if m.Meta == nil || m.Meta.Kind() == 'n' {
		m.Meta = nil
		return nil
	}
	if m.Meta.Kind() != '{' {
		return invalid("meta must be a JSON object")
	}
	var depth int
	var huge bool
	m.Meta, depth, huge = compact(m.Meta[:0], m.Meta)
	if len(m.Meta) > maxMetaBytes {
		return invalid("meta may have " + strconv.Itoa(maxMetaBytes) + " bytes, blanks not counted")
	}
	if depth > maxMetaDepth {
		return invalid("meta may be nested " + strconv.Itoa(maxMetaDepth) + " deep")
	}
	if huge {
		return invalid("meta has a number beyond float64")
	}
	return nil
}

// compact appends valid JSON without the blanks between tokens, and says how deep
// it is nested and whether it has a number that float64 can't hold: many
// receivers' parsers would refuse the whole message. Everything else stays byte
// for byte: digits, escapes, the order of names. dst may be src[:0].
func compact(dst, src []byte) (out []byte, depth int, huge bool) {
	open := 0
	for i := 0; i < len(src); {
		end := i + 1
		switch c := src[i]; {
		case c == '"':
			for src[end] != '"' {
				if src[end] == '\\' {
					end++
				}
				end++
			}
			end++
		case c == '-' || '0' <= c && c <= '9':
			for end < len(src) && strings.IndexByte("0123456789.eE+-", src[end]) >= 0 {
				end++
			}
			_, err := strconv.ParseFloat(string(src[i:end]), 64)
			huge = huge || err != nil
		case c == '{' || c == '[':
			open++
			depth = max(depth, open)
		case c == '}' || c == ']':
			open--
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i = end
			continue
		}
		dst = append(dst, src[i:end]...)
		i = end
	}
	return dst, depth, huge
}

func validType(s string) bool {
	if len(s) > maxTypeLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

func validAttachment(s string) bool {
	if len(s) == 0 || len(s) > maxAttachmentLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		default:
			return false
		}
	}
	return true
}

// appendBody appends the body in its one canonical form: fixed order, nothing
// that is empty.
func (m *message) appendBody(dst []byte) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, m.Type...) // validType: needs no escaping
	dst = append(dst, '"')
	if m.Text != "" {
		dst = append(dst, `,"text":`...)
		dst = protocol.AppendString(dst, m.Text)
	}
	for i, id := range m.Attachments {
		if i == 0 {
			dst = append(dst, `,"attachments":["`...)
		} else {
			dst = append(dst, `,"`...)
		}
		dst = append(dst, id...) // validAttachment
		dst = append(dst, '"')
		if i == len(m.Attachments)-1 {
			dst = append(dst, ']')
		}
	}
	if m.ReplyTo != "" {
		dst = append(dst, `,"reply_to":"`...)
		dst = append(dst, m.ReplyTo...) // an ID
		dst = append(dst, '"')
	}
	if m.Meta != nil {
		dst = append(dst, `,"meta":`...)
		dst = append(dst, m.Meta...)
	}
	return append(dst, '}')
}

// appendTail appends the event from `"from":` to its end (see package protocol)
// and returns the hash that tells whether two bodies are the same.
func (m *message) appendTail(dst []byte, from string, at time.Time, key string) (tail []byte, hash string) {
	dst = append(dst, `"from":`...)
	dst = protocol.AppendString(dst, from)
	dst = append(dst, `,"sent_at":"`...)
	dst = at.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, `","body":`...)
	begin := len(dst)
	dst = m.appendBody(dst)
	hash = hashOf(dst[begin:])
	dst = append(dst, `,"key":`...)
	dst = protocol.AppendString(dst, key)
	return append(dst, '}'), hash
}

// hashOf is a SHA-256 cut to 144 bits, 24 characters: it is kept in Redis with
// every idempotency key, and a collision would harm only who made it.
func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.RawURLEncoding.EncodeToString(sum[:18])
}
