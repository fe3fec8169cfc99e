package loop

import (
	"unicode/utf8"

	"github.com/madang-chat/madang/gateway/deflate"
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/session"
	"github.com/madang-chat/madang/gateway/wsframe"
)

// Messages are compressed without context takeover: a message's bytes are then
// the same for everybody, so it is compressed once per gateway, and a connection
// that negotiated it costs no memory at all.

// form is how a connection takes its events.
type form uint8

const (
	plain       form = iota // WebSocket
	compressed              // WebSocket, with permessage-deflate
	events                  // SSE, with the time that a client comes back with
	eventsStill             // SSE, without: something older is owed to it
	collected               // long poll: nothing is written before the answer
	forms
)

func (f form) transport() edge.Transport {
	switch f {
	case events, eventsStill:
		return edge.SSE
	case collected:
		return edge.LongPoll
	}
	return edge.WebSocket
}

// formFor is the form of events of up to so many bytes. What is compressed for
// everybody may refer back as far as an event is long: a client with a smaller
// window gets longer ones as they are.
func formFor(c *conn, longest int) form {
	if c.form == compressed && longest > 1<<c.windowBits {
		return plain
	}
	return c.form
}

func (s *frameSet) formOf(c *conn) form { return formFor(c, s.longest) }

// bytesOf is a frame in a form.
func (l *loop) bytesOf(f *edge.Frame, form form) []byte {
	if form == compressed {
		if b := f.Deflated(l.compress); b != nil {
			return b
		}
	}
	return f.WS()
}

// compressMinBytes is the length from which events are compressed: of shorter ones
// little is saved.
const compressMinBytes = 512

// compressEvent makes an event's compressed frame, nil when it does not pay.
func (l *loop) compressEvent(json []byte) []byte {
	if len(json) < compressMinBytes {
		return nil
	}
	l.scratch = l.deflater.Append(l.scratch[:0], json, deflate.MaxWindowBits)
	l.stats.Deflated++
	l.stats.DeflatedFrom += uint64(len(json))
	l.stats.DeflatedTo += uint64(len(l.scratch))
	if len(l.scratch) >= len(json) {
		return nil
	}
	return append(wsframe.AppendHeader(make([]byte, 0, len(l.scratch)+10), wsframe.Text, true, len(l.scratch)), l.scratch...)
}

// stopCompressing counts a connection out.
func (l *loop) stopCompressing(c *conn) {
	if c.windowBits != 0 {
		c.form, c.windowBits = plain, 0
		l.stats.Compressed--
	}
}

// inflate makes a compressed message what it was, within the same limits as
// others have.
func (l *loop) inflate(item *wsframe.Item) *wsframe.Error {
	var grow func([]byte) int
	if item.Op == wsframe.Text {
		grow = l.resumeBytes
	}
	text, bad := l.inflater.Inflate(item.Payload, l.frameLimits[compressed].MaxMessage, grow)
	if bad != nil {
		return bad
	}
	if item.Op == wsframe.Text && !utf8.Valid(text) {
		return wsframe.ErrBadUTF8
	}
	l.stats.Inflated++
	item.Payload, item.Compressed = text, false
	return nil
}

// allowResume is how long a text may become that begins like this.
func (l *loop) allowResume(sofar []byte) int {
	if session.LooksLikeResume(sofar[:min(len(sofar), wsframe.PeekBytes)]) {
		return l.frameLimits[compressed].MaxLarge
	}
	return 0
}

// echo returns a message as it came.
func (l *loop) echo(slot uint32, c *conn, op wsframe.Op, payload []byte) {
	if c.windowBits != 0 {
		l.scratch = l.deflater.Append(l.scratch[:0], payload, c.windowBits)
		payload = l.scratch
	}
	buf := wsframe.AppendHeader(l.pool.Get(len(payload)+10), op, c.windowBits != 0, len(payload))
	l.enqueueOwn(slot, c, append(buf, payload...))
}

// appendExtensions puts the agreement into an answer, before the empty line that
// ends it.
func appendExtensions(answer []byte, p deflate.Params) []byte {
	answer = append(answer[:len(answer)-2], "Sec-WebSocket-Extensions: "...)
	return append(p.AppendAnswer(answer), "\r\n\r\n"...)
}
