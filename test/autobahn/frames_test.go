package autobahn

import (
	"fmt"
	"strings"
)

// Groups 1 to 5: framing, pings and pongs, reserved bits, opcodes,
// fragmentation.

const (
	hello   = "Hello, world!"
	binary8 = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
)

func framing() (all []script) {
	for i, op := range []byte{opText, opBinary} {
		fill := "*"
		if op == opBinary {
			fill = "\xfe"
		}
		for j, n := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
			chop := 0
			if j == 7 {
				chop = 997
			}
			all = append(all, echoes(fmt.Sprintf("1.%d.%d", i+1, j+1), chop, step{first: fin | op, payload: strings.Repeat(fill, n)}))
		}
	}
	return all
}

func pings() (all []script) {
	ping := func(payload string) step { return step{first: fin | opPing, payload: payload} }
	pong := func(payload string) step { return step{first: fin | opPong, payload: payload} }
	long := strings.Repeat("\xfe", 125)
	var ten []step
	for i := range 10 {
		ten = append(ten, ping(fmt.Sprintf("payload-%d", i)))
	}
	return []script{
		echoes("2.1", 0, ping("")),
		echoes("2.2", 0, ping(hello)),
		echoes("2.3", 0, ping(binary8)),
		echoes("2.4", 0, ping(long)),
		fails("2.5", 1002, 0, nil, ping(long+"\xfe")),
		echoes("2.6", 1, ping(long)),
		echoes("2.7", 0, pong("")),
		echoes("2.8", 0, pong("unsolicited pong payload")),
		echoes("2.9", 0, pong("unsolicited pong payload"), ping("ping payload")),
		echoes("2.10", 0, ten...),
		echoes("2.11", 1, append([]step(nil), ten...)...),
	}
}

func reserved() []script {
	text := step{first: fin | opText, payload: hello}
	with := func(rsv, op byte, payload string) step { return step{first: fin | rsv<<4 | op, payload: payload} }
	ping := step{first: fin | opPing}
	echoed := []event{{opText, hello}}
	return []script{
		fails("3.1", 1002, 0, nil, with(1, opText, hello)),
		fails("3.2", 1002, 0, echoed, text, with(2, opText, hello), ping),
		fails("3.3", 1002, 1<<20, echoed, text, with(3, opText, hello), ping), // a write for each
		fails("3.4", 1002, 1, echoed, text, with(4, opText, hello), ping),
		fails("3.5", 1002, 0, nil, with(5, opBinary, binary8)),
		fails("3.6", 1002, 0, nil, with(6, opBinary, hello)),
		fails("3.7", 1002, 0, nil, with(7, opClose, "")),
	}
}

func opcodes() (all []script) {
	for i, from := range []byte{3, 11} {
		for j := range byte(5) {
			frames := []step{{first: fin | from + j}}
			if j == 1 || j > 2 {
				frames[0].payload = "reserved opcode payload"
			}
			var want []event
			chop := 0
			if j >= 2 {
				frames = []step{{first: fin | opText, payload: hello}, frames[0], {first: fin | opPing}}
				want = []event{{opText, hello}}
			}
			if j == 4 {
				chop = 1
			}
			all = append(all, fails(fmt.Sprintf("4.%d.%d", i+1, j+1), 1002, chop, want, frames...))
		}
	}
	return all
}

func fragmentation() (all []script) {
	begin := func(payload string) step { return step{first: opText, payload: payload} }
	more := func(payload string) step { return step{first: opContinuation, payload: payload} }
	end := func(payload string) step { return step{first: fin | opContinuation, payload: payload} }
	text := func(payload string) step { return step{first: fin | opText, payload: payload} }
	ping := func(payload string) step { return step{first: fin | opPing, payload: payload} }

	all = append(all,
		fails("5.1", 1002, 0, nil, step{first: opPing, payload: "fragment1"}, end("fragment2")),
		fails("5.2", 1002, 0, nil, step{first: opPong, payload: "fragment1"}, end("fragment2")))
	for i, chop := range []int{0, 1 << 20, 1} {
		all = append(all,
			echoes(fmt.Sprintf("5.%d", 3+i), chop, begin("fragment1"), end("fragment2")),
			echoes(fmt.Sprintf("5.%d", 6+i), chop, begin("fragment1"), ping("ping payload"), end("fragment2")),
			fails(fmt.Sprintf("5.%d", 9+i), 1002, chop, nil, end("non-continuation payload"), text(hello)),
			fails(fmt.Sprintf("5.%d", 12+i), 1002, chop, nil, more("non-continuation payload"), text(hello)))
	}
	all = append(all,
		fails("5.15", 1002, 0, []event{{opText, "fragment1fragment2"}}, begin("fragment1"), end("fragment2"), more("fragment3"), text("fragment4")),
		fails("5.16", 1002, 0, nil, more("fragment1"), begin("fragment2"), end("fragment3"), more("fragment1"), begin("fragment2"), end("fragment3")),
		fails("5.17", 1002, 0, nil, end("fragment1"), begin("fragment2"), end("fragment3"), end("fragment1"), begin("fragment2"), end("fragment3")),
		fails("5.18", 1002, 0, nil, begin("fragment1"), text("fragment2")))
	for i, chop := range []int{0, 1 << 20} {
		first, second := ping("pongme 1!"), ping("pongme 2!")
		first.then = answers // at once, before the message is complete
		s := echoes(fmt.Sprintf("5.%d", 19+i), chop, begin("fragment1"), more("fragment2"), first, more("fragment3"), more("fragment4"), second, end("fragment5"))
		all = append(all, s)
	}
	return all
}
