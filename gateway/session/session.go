// Package session is what a connection *is*, apart from its socket: what a client
// may say and when, what it gets in return, and when it has gone too far. It is
// pure: no I/O, no goroutine, no clock (now is an argument). A Session is a few
// plain bytes that live in a loop's table; a loop feeds it what it has decoded
// and does what the Verdict says.
package session

import (
	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/wsframe"
	"github.com/madang-chat/madang/protocol"
)

// Limits bounds what one connection may say. It is shared and not changed.
type Limits struct {
	// FrameBurst frames may come at once, FramesPerSecond after that; control
	// frames and small fragments count. Zero FramesPerSecond: no limit.
	FrameBurst, FramesPerSecond int
	// MaxMessageBytes is the longest message; MaxResumeBytes the longest resume.
	MaxMessageBytes, MaxResumeBytes int
	// Echo returns every message instead of reading it, and lets everybody in at
	// any path. It is for conformance tests of the loops, never for clients.
	Echo bool
}

// DefaultLimits are the limits of the wire contract.
var DefaultLimits = Limits{
	FrameBurst: 40, FramesPerSecond: 20,
	MaxMessageBytes: 16 << 10, MaxResumeBytes: 256 << 10,
}

// positions says how far a resume has come.
type positions uint8

const (
	notAsked positions = iota // no `?resume` in the URL
	awaited                   // room events are held back for them
	complete
)

// Session is one connection's state, without pointers.
type Session struct {
	// tatUs is the theoretical arrival time of the frame rate's cell algorithm
	// (GCRA): one number instead of a bucket and a time. In microseconds, because a
	// frame may be worth less than a millisecond.
	tatUs     int64
	positions positions
}

// Open begins a session; resume says that the URL asked for it.
func (s *Session) Open(resume bool) {
	*s = Session{}
	if resume {
		s.positions = awaited
	}
}

// AwaitsPositions says whether room events are held back until the client has
// sent its positions; it has a deadline for every frame of them.
func (s *Session) AwaitsPositions() bool { return s.positions == awaited }

// Action is what a Verdict asks for.
type Action uint8

// Actions.
const (
	Ignore   Action = iota
	Post            // Event goes to the hub
	Pong            // answer a `ping` with protocol.Pong
	WSPong          // answer a WebSocket ping with Payload
	Renew           // verify Token; same user: its expiry is the new one
	Refuse          // send an `error` (Code, Detail), stay open
	Kick            // send an `error` (Code, Detail), then close with Close
	Fail            // close with Close, Detail is the reason
	PeerLeft        // the client closes: echo Close
	Echo            // return Payload as it came
)

// Verdict is what a frame leads to. What it refers to is valid as long as the
// frame's payload, except for Event, which owns its contents.
type Verdict struct {
	Do      Action
	Close   protocol.CloseCode
	Code    protocol.ErrorCode
	Detail  string
	Event   edge.Event // Post: all but Conn
	Token   []byte
	Payload []byte
	Op      wsframe.Op // Echo
}

// Receive takes one thing the client sent, but for pongs that it was asked for: they
// are none of its own. nowMs is any clock that does not go back.
func (s *Session) Receive(item wsframe.Item, nowMs int64, l *Limits) Verdict {
	if counts(&item) && !s.Allow(nowMs, l) {
		return Verdict{Do: Fail, Close: protocol.CloseRateLimit, Detail: "too many frames"}
	}
	switch item.Op {
	case wsframe.Text, wsframe.Binary:
		if l.Echo {
			return Verdict{Do: Echo, Op: item.Op, Payload: item.Payload}
		}
		if item.Op == wsframe.Binary {
			return Verdict{Do: Fail, Close: protocol.CloseUnsupported, Detail: "binary messages are not part of " + protocol.Subprotocol}
		}
		return s.receiveText(item.Payload, l)
	case wsframe.Ping:
		return Verdict{Do: WSPong, Payload: item.Payload}
	case wsframe.Close:
		code, err := wsframe.ParseClose(item.Payload)
		if err != nil {
			return Verdict{Do: Fail, Close: err.Code, Detail: err.Reason}
		}
		return Verdict{Do: PeerLeft, Close: code}
	}
	return Verdict{} // a fragment, or a pong that nobody waits for (RFC 6455 section 5.5.3)
}

// smallFragmentBytes is the length from which a fragment is a part of its message
// rather than a frame of its own. Clients send a long message in as many as their
// buffer makes of it, 4 KiB a piece as a rule, which is no more work than one frame;
// and there are not many, because a message is bounded. Smaller ones are an attack,
// or near one.
const smallFragmentBytes = 512

// counts says whether something is a frame of those that a client may send.
func counts(item *wsframe.Item) bool {
	switch item.Op {
	case wsframe.Close: // who leaves anyway gets its answer
		return false
	case wsframe.Fragment:
		return item.Length < smallFragmentBytes
	}
	return true
}

// Hurried says whether the client has used up half of its burst.
func (s *Session) Hurried(nowMs int64, l *Limits) bool {
	return l.FramesPerSecond > 0 && s.tatUs-nowMs*1000 > int64(l.FrameBurst)*l.frameUs()/2
}

// Allow says whether the client may do one thing more that counts as a frame does.
// It is GCRA: a frame costs interval, and the session may be ahead of time by a burst.
func (s *Session) Allow(nowMs int64, l *Limits) bool {
	if l.FramesPerSecond <= 0 {
		return true
	}
	interval, now := l.frameUs(), nowMs*1000
	tat := max(s.tatUs, now)
	if tat+interval-now > int64(l.FrameBurst)*interval {
		return false
	}
	s.tatUs = tat + interval
	return true
}

// frameUs is what a frame costs of a client's time.
func (l *Limits) frameUs() int64 { return max(1, 1_000_000/int64(l.FramesPerSecond)) }

// receiveText reads a message and applies the rules that need no knowledge of
// rooms; those that do are the hub's.
func (s *Session) receiveText(text []byte, l *Limits) Verdict {
	msg, bad := parseUpward(text)
	if bad != nil {
		if bad.stays {
			return Verdict{Do: Refuse, Code: bad.code, Detail: bad.detail}
		}
		return Verdict{Do: Kick, Code: bad.code, Detail: bad.detail, Close: protocol.CloseMalformed}
	}
	if len(text) > l.MaxMessageBytes && msg.kind != kindResume {
		return Verdict{Do: Kick, Code: protocol.ErrTooLarge, Detail: wsframe.ErrTooLarge.Reason, Close: protocol.CloseTooLarge}
	}
	switch msg.kind {
	case kindPing:
		return Verdict{Do: Pong}
	case kindAuth:
		return Verdict{Do: Renew, Token: msg.token}
	case kindResume:
		return s.receivePositions(&msg)
	}
	ev := edge.Event{Kind: msg.kind.event(), Room: msg.room, ID: msg.id, Users: msg.users}
	return Verdict{Do: Post, Event: ev}
}

func (s *Session) receivePositions(msg *upward) Verdict {
	switch s.positions {
	case notAsked:
		return Verdict{Do: Refuse, Code: protocol.ErrInvalid, Detail: "resume needs ?resume in the URL"}
	case complete:
		return Verdict{Do: Refuse, Code: protocol.ErrInvalid, Detail: "positions are complete already"}
	}
	if !msg.more {
		s.positions = complete
	}
	return Verdict{Do: Post, Event: edge.Event{Kind: edge.EvPositions, Positions: msg.positions, More: msg.more}}
}
