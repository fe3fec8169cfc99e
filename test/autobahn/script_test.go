package autobahn

import "testing"

// A script is a case whose frames are few: what is sent, what must come back,
// and how it ends.
type script struct {
	id    string
	steps []step
	want  []event
	code  uint16 // of the server's close frame
	// closes: the client closes, with 1000, once all has come. Otherwise the
	// server does by itself, or because a close frame is among the steps.
	closes bool
}

// step is a frame, sent in chops of so many bytes (0: at once).
type step struct {
	first   byte
	payload string
	chop    int
	then    pause
}

// pause is what is waited for after a step.
type pause int

const (
	goOn    pause = iota
	quiet         // nothing may come for a while
	answers       // all that is wanted so far: one more event per such pause
)

type event struct {
	op      byte
	payload string
}

func (s script) play(t *testing.T, addr string) {
	p := dial(t, addr, "")
	want := s.want
	var together []byte // frames without a chop size leave in one segment
	flush := func() {
		p.sends(together, 0)
		together = nil
	}
	for _, st := range s.steps {
		f := p.frame(st.first, []byte(st.payload))
		if st.chop > 0 {
			flush()
			p.sends(f, st.chop)
		} else {
			together = append(together, f...)
		}
		switch st.then {
		case quiet:
			flush()
			p.wantNothing()
		case answers:
			flush()
			p.want(want[0].op, []byte(want[0].payload))
			want = want[1:]
		}
	}
	flush()
	for _, ev := range want {
		p.want(ev.op, []byte(ev.payload))
	}
	if s.closes {
		p.closes()
		return
	}
	p.wantEnd(s.code)
}

// echoes is a script whose messages all come back.
func echoes(id string, chop int, frames ...step) script {
	s := script{id: id, closes: true}
	message, op := "", byte(0)
	for i := range frames {
		if frames[i].chop == 0 {
			frames[i].chop = chop
		}
		first := frames[i].first
		switch first & 0x0f {
		case opText, opBinary:
			message, op = frames[i].payload, first&0x0f
		case opContinuation:
			message += frames[i].payload
		case opPing:
			s.want = append(s.want, event{opPong, frames[i].payload})
			continue
		default: // an unsolicited pong
			continue
		}
		if first&fin != 0 {
			s.want = append(s.want, event{op, message})
		}
	}
	s.steps = frames
	return s
}

// fails is a script that ends with the server's code; what is wanted comes
// first.
func fails(id string, code uint16, chop int, want []event, frames ...step) script {
	for i := range frames {
		frames[i].chop = chop
	}
	return script{id: id, steps: frames, want: want, code: code}
}
