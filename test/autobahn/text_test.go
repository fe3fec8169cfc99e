package autobahn

import (
	"fmt"
	"strings"
	"testing"
)

// Group 6: UTF-8. The sequences are those of Markus Kuhn's "UTF-8 decoder
// capability and stress test", in the public suite's order.

const (
	kosme    = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5" // κόσμε
	umlauts1 = "Hello-\u00b5@\u00df\u00f6\u00e4"
	umlauts2 = "\u00fc\u00e0\u00e1-UTF-8!!"
)

func utf8Handling() []script {
	text := func(payload string) step { return step{first: fin | opText, payload: payload} }
	inFragments := func(payload string, size int) []step {
		var frames []step
		for first := byte(opText); ; first = opContinuation {
			part := payload[:min(size, len(payload))]
			if payload = payload[len(part):]; payload == "" {
				return append(frames, step{first: fin | first, payload: part})
			}
			frames = append(frames, step{first: first, payload: part})
		}
	}
	bad := kosme + "\xed\xa0\x80edited"
	all := []script{
		echoes("6.1.1", 0, text("")),
		echoes("6.1.2", 0, step{first: opText}, step{first: opContinuation}, step{first: fin | opContinuation}),
		echoes("6.1.3", 0, step{first: opText}, step{first: opContinuation, payload: "middle frame payload"}, step{first: fin | opContinuation}),
		echoes("6.2.1", 0, text(umlauts1+umlauts2)),
		echoes("6.2.2", 0, step{first: opText, payload: umlauts1}, step{first: fin | opContinuation, payload: umlauts2}),
		echoes("6.2.3", 0, inFragments(umlauts1+umlauts2, 1)...),
		echoes("6.2.4", 0, inFragments(kosme, 1)...),
		fails("6.3.1", 1007, 0, nil, text(bad)),
		fails("6.3.2", 1007, 0, nil, inFragments(bad, 1)...),
	}
	for i, group := range sequences() {
		for j, s := range group {
			id := fmt.Sprintf("6.%d.%d", 5+i, 1+j)
			if s.valid {
				all = append(all, echoes(id, 0, text(s.text)))
			} else {
				all = append(all, fails(id, 1007, 0, nil, text(s.text)))
			}
		}
	}
	return all
}

// failFast are the cases in which the message is never completed: what shows that
// it can't be UTF-8 has come, and that has to be enough.
func failFast() []play {
	const beyond = "\xf4\x90\x80\x80" // the second byte leads beyond U+10FFFF
	whole := kosme + beyond + "edited"
	fragments := func(first, second string) func(*testing.T, string) {
		return script{code: 1007, steps: []step{
			{first: opText, payload: first, then: quiet}, {first: opContinuation, payload: second},
		}}.play
	}
	pieces := func(first, second int) func(*testing.T, string) { // of one frame
		return func(t *testing.T, addr string) {
			p := dial(t, addr, "")
			f := p.frame(fin|opText, []byte(whole))
			at := len(f) - len(whole) + first
			p.sends(f[:at], 0)
			p.wantNothing()
			p.sends(f[at:at+second], 0)
			p.wantEnd(1007)
		}
	}
	return []play{
		{"6.4.1", fragments(kosme, beyond)},
		{"6.4.2", fragments(whole[:12], whole[12:13])},
		{"6.4.3", pieces(len(kosme), len(beyond))},
		{"6.4.4", pieces(12, 1)},
	}
}

type sequence struct {
	text  string
	valid bool
}

func sequences() (groups [][]sequence) {
	add := func(valid bool, texts ...string) {
		var g []sequence
		for _, text := range texts {
			g = append(g, sequence{text, valid})
		}
		groups = append(groups, g)
	}
	also := func(valid bool, texts ...string) {
		for _, text := range texts {
			groups[len(groups)-1] = append(groups[len(groups)-1], sequence{text, valid})
		}
	}
	add(true, "hello\x24world", "hello\u00a2world", "hello\u20acworld", "hello\U00024b62world", kosme)
	add(true) // every prefix of it: valid where a character ends
	for i := 1; i <= len(kosme); i++ {
		also(i == 2 || i == 5 || i == 7 || i == 9 || i == 11, kosme[:i])
	}
	add(true, "\x00", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80")
	add(false, "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80")
	add(true, "\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf")
	add(false, "\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf")
	add(true, "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf")
	also(false, "\xf4\x90\x80\x80")
	// Unexpected continuation bytes.
	add(false, "\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", bytesFromTo(0x80, 0xbf, ""))
	// Lonely start characters.
	add(false, bytesFromTo(0xc0, 0xdf, " "), bytesFromTo(0xe0, 0xef, " "), bytesFromTo(0xf0, 0xf7, " "), bytesFromTo(0xf8, 0xfb, " "), bytesFromTo(0xfc, 0xfd, " "))
	// The last continuation byte is missing.
	cut := []string{
		"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
	}
	add(false, cut...)
	add(false, strings.Join(cut, ""))
	add(false, "\xfe", "\xff", "\xfe\xfe\xff\xff")
	// Longer than they need be.
	add(false, "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf")
	add(false, "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf")
	add(false, "\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80")
	// Surrogates, alone and in pairs.
	add(false, "\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf")
	add(false)
	for _, high := range []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf"} {
		also(false, high+"\xed\xb0\x80", high+"\xed\xbf\xbf")
	}
	// Code points that are no characters are valid all the same.
	add(true, "\ufffe", "\uffff")
	for plane := rune(1); plane <= 16; plane++ {
		also(true, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	add(true, "\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff")
	return groups
}

// bytesFromTo is all bytes from the first up to, but without, the last, each with
// what comes after it.
func bytesFromTo(first, last byte, after string) string {
	var b strings.Builder
	for c := first; c < last; c++ {
		b.WriteByte(c)
		b.WriteString(after)
	}
	return b.String()
}
