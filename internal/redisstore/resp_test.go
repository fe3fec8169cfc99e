package redisstore

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestPushesAreRead(t *testing.T) {
	in := "+OK\r\n" +
		"*3\r\n$10\r\nssubscribe\r\n$3\r\nabc\r\n:1\r\n" +
		"*3\r\n$7\r\nmessage\r\n$3\r\nabc\r\n$5\r\nhe\r\no\r\n" +
		"*3\r\n$8\r\nsmessage\r\n$3\r\nxyz\r\n$0\r\n\r\n" +
		"*2\r\n$4\r\npong\r\n$0\r\n\r\n" +
		"*3\r\n$12\r\nsunsubscribe\r\n$3\r\nxyz\r\n:0\r\n" +
		"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n" +
		"-MOVED 1 127.0.0.1:1\r\n"
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "by bytes": iotest.OneByteReader(strings.NewReader(in))} {
		p := newPushReader(r)
		for i, want := range []struct {
			kind             pushKind
			channel, payload string
		}{
			{pushOther, "", ""}, {pushSubscribe, "abc", ""}, {pushMessage, "abc", "he\r\no"}, {pushMessage, "xyz", ""},
			{pushOther, "", ""}, {pushUnsubscribe, "xyz", ""}, {pushUnsubscribe, "", ""},
		} {
			kind, payload, err := p.next()
			if err != nil || kind != want.kind || string(payload) != want.payload || kind != pushOther && string(p.channel) != want.channel {
				t.Fatalf("%s, push %d: %v %q %q %v", name, i, kind, p.channel, payload, err)
			}
		}
		if _, _, err := p.next(); err == nil || !strings.Contains(err.Error(), "MOVED") {
			t.Fatalf("%s: an error of the server passed as %v", name, err)
		}
		if _, _, err := p.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("%s: at the end %v", name, err)
		}
	}
}

func TestWhatIsNoPushIsRefused(t *testing.T) {
	for _, in := range []string{
		"\r\n", ":1\r\n", "*4\r\n", "*-1\r\n", "*x\r\n", "*3\r\n:1\r\n", "*3\r\n$3\r\nfoo\r\n",
		"*3\r\n$7\r\nmessage\r\n$99999999999999999999\r\n", "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$16777217\r\n",
		"*3\r\n$7\r\nmessage\r\n$-2\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n$1\r\nb\r\n", strings.Repeat("a", 100_000),
	} {
		if _, _, err := newPushReader(strings.NewReader(in)).next(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
}

func FuzzPushReader(f *testing.F) {
	f.Add([]byte("*3\r\n$7\r\nmessage\r\n$3\r\nabc\r\n$5\r\nhello\r\n"))
	f.Add([]byte("*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n+OK\r\n-ERR x\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := newPushReader(bytes.NewReader(in))
		for {
			if _, payload, err := p.next(); err != nil {
				return
			} else if len(payload) > len(in) {
				t.Fatalf("a payload of %d bytes out of %d", len(payload), len(in))
			}
		}
	})
}

// endless repeats a push for ever.
type endless struct {
	push []byte
	at   int
}

func (e *endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		c := copy(b[n:], e.push[e.at:])
		n += c
		e.at = (e.at + c) % len(e.push)
	}
	return n, nil
}

func BenchmarkPushReader(b *testing.B) {
	push := appendBulk(appendBulk(appendBulk([]byte("*3\r\n"), "message"), "{1a}:room:01J000000000000000000000"), strings.Repeat("x", 200))
	p := newPushReader(&endless{push: push})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.next(); err != nil {
			b.Fatal(err)
		}
	}
}
