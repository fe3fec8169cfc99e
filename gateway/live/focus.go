package live

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json" // a long list of users in a quarter of encoding/json's time

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

const (
	typingForMs     = 5_000 // a typing event is valid
	typingEveryMs   = 2_000 // a connection may send one
	typingPerSecond = 10    // that a room sends, and its focused connections hear, in a gateway
)

// room is a room that somebody here looks at, or typed in a moment ago.
type room struct {
	name    string
	num     edge.RoomNum
	focused []*conn

	typing bucket // events sent from here
	heard  bucket // typing events passed on to focused connections

	moved bool // its head moved: markers of who looks at it are to follow
}

func (c *Core) roomOf(name string) *room {
	r := c.focused[name]
	if r == nil {
		r = &room{name: name, num: edge.NoRoom}
		c.focused[name] = r
	}
	return r
}

// setFocus makes room what a connection looks at; "" is none. What is there to be
// read in it counts as read.
func (c *Core) setFocus(now int64, cn *conn, name string, num edge.RoomNum) {
	if cn.focus != nil && cn.focus.name == name {
		c.renumber(cn.focus, num)
		return
	}
	if cn.focus == nil && name == "" {
		return
	}
	c.unfocus(now, cn)
	if name != "" {
		r := c.roomOf(name)
		c.renumber(r, num)
		cn.focus, cn.focusAt = r, len(r.focused)
		r.focused = append(r.focused, cn)
		c.stats.Focused++
		id, n := c.rooms.Head(num)
		c.advance(chat.ReadMarker, cn.user, name, id, n, 0)
	}
	c.refocused(now, cn.user)
}

// renumber keeps a room findable by the number follow has for it now.
func (c *Core) renumber(r *room, num edge.RoomNum) {
	if r.num == num {
		return
	}
	if r.num != edge.NoRoom && c.byNum[r.num] == r {
		delete(c.byNum, r.num)
	}
	r.num = num
	if num != edge.NoRoom {
		c.byNum[num] = r
	}
}

func (c *Core) unfocus(now int64, cn *conn) {
	r := cn.focus
	if r == nil {
		return
	}
	last := r.focused[len(r.focused)-1]
	r.focused[cn.focusAt], last.focusAt = last, cn.focusAt
	r.focused[len(r.focused)-1] = nil
	r.focused = r.focused[:len(r.focused)-1]
	cn.focus, cn.muted, cn.away, cn.missed = nil, false, false, false
	c.stats.Focused--
	if len(r.focused) == 0 {
		c.renumber(r, edge.NoRoom)
		c.idle.Push(now+typingForMs, r.name)
	}
}

// Moved takes in that a message of a followed room is delivered from here.
func (c *Core) Moved(num edge.RoomNum) {
	if r := c.byNum[num]; r != nil && !r.moved {
		r.moved = true
		c.marks.moved = append(c.marks.moved, r)
	}
}

// Dropped takes in that a room is not followed any more: nobody here is a member, but
// perhaps who is between two polls.
func (c *Core) Dropped(now int64, num edge.RoomNum) {
	r := c.byNum[num]
	if r == nil {
		return
	}
	c.renumber(r, edge.NoRoom)
	for i := len(r.focused) - 1; i >= 0; i-- {
		if cn := r.focused[i]; !cn.away {
			c.unfocus(now, cn)
			c.refocused(now, cn.user)
		}
	}
}

// Detached takes in that a connection's user is no member of a room any more.
func (c *Core) Detached(now int64, id edge.ConnID, num edge.RoomNum) {
	cn := c.conns[id]
	if cn == nil || cn.focus == nil || cn.focus.num != num {
		return
	}
	// It may be back in a moment, when it was asked again and answered "member":
	// then the focus stands. Until then it hears nothing.
	cn.muted = true
	c.later.Push(now+postponeMs, postponed{ev: edge.Event{Kind: edge.EvFocus, Conn: id, Room: cn.focus.name}, recheck: true})
}

// recheck ends the focus on a room that a connection may not look at any more.
func (c *Core) recheck(now int64, cn *conn, name string) {
	if cn.focus == nil || cn.focus.name != name || c.rooms.Away(cn.id) {
		return
	}
	switch num, member, deciding := c.rooms.Membership(cn.id, name); {
	case member:
		c.renumber(cn.focus, num)
		if cn.away || cn.missed { // what came meanwhile comes with its poll, or has come
			head, n := c.rooms.Head(num)
			c.advance(chat.ReadMarker, cn.user, name, head, n, 0)
		}
		cn.muted, cn.away, cn.missed = false, false, false
	case deciding:
		c.later.Push(now+postponeMs, postponed{ev: edge.Event{Kind: edge.EvFocus, Conn: cn.id, Room: name}, recheck: true})
	default:
		c.setFocus(now, cn, "", edge.NoRoom)
	}
}

// typing tells a room that a user is typing.
func (c *Core) typing(now int64, cn *conn, name string) {
	if cn.typedAt != 0 && now-cn.typedAt < typingEveryMs {
		c.stats.TypingLimited++
		return
	}
	cn.typedAt = now
	r := c.roomOf(name)
	if len(r.focused) == 0 {
		c.idle.Push(now+typingForMs, name)
	}
	if !r.typing.allow(now, typingPerSecond) {
		c.stats.TypingLimited++
		return
	}
	c.stats.TypingSent++
	c.out.Publish(name, protocol.AppendTyping(nil, name, cn.user, typingForMs))
}

// live is what is read of a live event or a command.
type live struct {
	Type string      `json:"type"`
	Room string      `json:"room"`
	User string      `json:"user"`
	ID   protocol.ID `json:"id"`
	Conn string      `json:"conn"`
	Do   string      `json:"do"`

	Users []string `json:"users"`
}

// IsLive says whether a publication on a room's or user's channel is for live
// rather than for follow: not a message, joined, left or disconnect.
func IsLive(payload []byte) bool {
	rest, ok := bytes.CutPrefix(payload, []byte(`{"type":"`))
	if !ok {
		return false
	}
	kind, _, ok := bytes.Cut(rest[:min(len(rest), len(`delivered"`))], []byte{'"'})
	if !ok {
		return false
	}
	switch string(kind) { // does not allocate
	case "typing", "read", "delivered", "do":
		return true
	}
	return false
}

// RoomEvent takes in a live event on a room's channel and passes it on to those
// who look at the room, but not to the user it tells of.
func (c *Core) RoomEvent(now int64, name string, payload []byte) {
	r := c.focused[name]
	if r == nil || len(r.focused) == 0 {
		return
	}
	var ev live
	if json.Unmarshal(payload, &ev) != nil {
		return
	}
	if ev.Type == "typing" && !r.heard.allow(now, typingPerSecond) {
		c.stats.TypingLimited++
		return
	}
	var f *edge.Frame
	for _, cn := range r.focused {
		if cn.user == ev.User || cn.muted {
			continue
		}
		if f == nil {
			f = edge.FrameOf(payload)
		}
		c.stats.Receipts++
		c.out.Whisper(cn.id, f)
	}
}

// UserEvent takes in a live event on a user's own channel: a marker that moved,
// or a command that came over HTTP for one of the user's connections.
func (c *Core) UserEvent(now int64, user string, payload []byte) {
	if c.isForOthers(payload) {
		return
	}
	var ev live
	if json.Unmarshal(payload, &ev) != nil {
		return
	}
	if ev.Type == "do" {
		c.command(now, user, ev)
		return
	}
	var f *edge.Frame
	c.rooms.Connections(user, func(id edge.ConnID, greeted bool) {
		// Who looks at the room knows that it is read.
		if cn := c.conns[id]; !greeted || cn != nil && cn.focus != nil && cn.focus.name == ev.Room {
			return
		}
		if f == nil {
			f = edge.FrameOf(payload)
		}
		c.out.Whisper(id, f)
	})
}

// isForOthers says whether a command is for a connection of another gateway. All that
// have the user get it, and a long list of users takes long to read.
func (c *Core) isForOthers(payload []byte) bool {
	rest, is := bytes.CutPrefix(payload, []byte(`{"type":"do","do":"`))
	if !is {
		return false
	}
	_, rest, _ = bytes.Cut(rest, []byte{'"'}) // what to do
	conn, is := bytes.CutPrefix(rest, []byte(`,"conn":"`))
	return is && !bytes.HasPrefix(conn, []byte(c.cfg.ConnPrefix))
}

// command does what a client asked over HTTP, as if it had come on the socket.
func (c *Core) command(now int64, user string, ev live) {
	hex, ours := strings.CutPrefix(ev.Conn, c.cfg.ConnPrefix)
	if !ours || len(hex) != 16 {
		return
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return
	}
	conn := edge.ConnID(id)
	if of, _ := c.rooms.Connection(conn); of != user || user == "" {
		return
	}
	switch chat.CommandKind(ev.Do) {
	case chat.CommandFocus:
		c.Said(now, edge.Event{Kind: edge.EvFocus, Conn: conn, Room: ev.Room})
	case chat.CommandTyping:
		if ev.Room != "" {
			c.Said(now, edge.Event{Kind: edge.EvTyping, Conn: conn, Room: ev.Room})
		}
	case chat.CommandDelivered:
		if ev.Room != "" {
			c.Said(now, edge.Event{Kind: edge.EvDelivered, Conn: conn, Room: ev.Room, ID: ev.ID})
		}
	case chat.CommandWatch:
		c.Said(now, edge.Event{Kind: edge.EvWatch, Conn: conn, Users: ev.Users})
	}
}
