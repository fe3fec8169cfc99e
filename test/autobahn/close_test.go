package autobahn

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Group 7: closing.
func closeHandling() []script {
	text := step{first: fin | opText, payload: hello}
	ping := step{first: fin | opPing}
	says := func(payload []byte) step { return step{first: fin | opClose, payload: string(payload)} }
	normal := says(closing(1000, ""))
	all := []script{
		echoes("7.1.1", 0, text),
		// What comes after a close frame is not looked at.
		{id: "7.1.2", steps: []step{normal, says(nil)}, code: 1000},
		{id: "7.1.3", steps: []step{normal, ping}, code: 1000},
		{id: "7.1.4", steps: []step{normal, text}, code: 1000},
		{id: "7.1.5", steps: []step{{first: opText, payload: "fragment1"}, normal, {first: fin | opContinuation, payload: "fragment2"}}, code: 1000},
		// What came before it is still answered; the public suite leaves it open.
		{id: "7.1.6", steps: []step{{first: fin | opText, payload: strings.Repeat("BAsd7&jh23", 26215)[:256<<10]}, text, normal, ping},
			want: []event{{opText, strings.Repeat("BAsd7&jh23", 26215)[:256<<10]}, {opText, hello}}, code: 1000},

		{id: "7.3.1", steps: []step{says(nil)}, code: 0},
		{id: "7.3.2", steps: []step{says([]byte("a"))}, code: 1002},
		{id: "7.3.3", steps: []step{normal}, code: 1000},
		{id: "7.3.4", steps: []step{says(closing(1000, hello))}, code: 1000},
		{id: "7.3.5", steps: []step{says(closing(1000, strings.Repeat("*", 123)))}, code: 1000},
		{id: "7.3.6", steps: []step{says(closing(1000, strings.Repeat("*", 124)))}, code: 1002},

		{id: "7.5.1", steps: []step{says(closing(1000, kosme+"\xed\xa0\x80edited"))}, code: 1007},

		{id: "7.13.1", steps: []step{says(closing(5000, ""))}, code: 1002},
		{id: "7.13.2", steps: []step{says(closing(65535, ""))}, code: 1002},
	}
	for i, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		all = append(all, script{id: fmt.Sprintf("7.7.%d", 1+i), steps: []step{says(closing(code, ""))}, code: code})
	}
	for i, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		all = append(all, script{id: fmt.Sprintf("7.9.%d", 1+i), steps: []step{says(closing(code, ""))}, code: 1002})
	}
	return all
}

// limits is group 9: long messages, in one frame, in fragments and in small
// writes, and many short ones.
func limits() (all []play) {
	once := func(id string, op byte, n, fragment, chop int) {
		all = append(all, play{id, func(t *testing.T, addr string) {
			p := dial(t, addr, "")
			payload := bytes.Repeat([]byte("BAsd7&jh23"), n/10+1)[:n]
			if fragment == 0 {
				fragment = n
			}
			go p.sends(p.fragments(op, payload, fragment), chop)
			p.want(op, payload)
			p.closes()
		}})
	}
	many := func(id string, op byte, n int) {
		all = append(all, play{id, func(t *testing.T, addr string) {
			p := dial(t, addr, "")
			payload := []byte(strings.Repeat("*", n))
			for range 1000 {
				p.sends(p.frame(fin|op, payload), 0)
				p.want(op, payload)
			}
			p.closes()
		}})
	}
	const k, m = 1 << 10, 1 << 20
	for i, op := range []byte{opText, opBinary} {
		for j, n := range []int{64 * k, 256 * k, m, 4 * m, 8 * m, 16 * m} {
			once(fmt.Sprintf("9.%d.%d", 1+i, 1+j), op, n, 0, 0)
		}
		for j, fragment := range []int{64, 256, k, 4 * k, 16 * k, 64 * k, 256 * k, m, 4 * m} {
			once(fmt.Sprintf("9.%d.%d", 3+i, 1+j), op, 4*m, fragment, 0)
		}
		for j, chop := range []int{64, 128, 256, 512, k, 2 * k} {
			once(fmt.Sprintf("9.%d.%d", 5+i, 1+j), op, m, 0, chop)
		}
		for j, n := range []int{0, 16, 64, 256, k, 4 * k} {
			many(fmt.Sprintf("9.%d.%d", 7+i, 1+j), op, n)
		}
	}
	return all
}

// autoFragmentation is group 10.
func autoFragmentation(t *testing.T, addr string) {
	p := dial(t, addr, "")
	payload := []byte(strings.Repeat("*", 65536))
	p.sends(p.fragments(opText, payload, 1300), 0)
	p.want(opText, payload)
	p.closes()
}
