package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzUpload: whatever a form is, reading it ends, stores no more than it may, and
// answers with a problem of the client's or with what is in the file.
func FuzzUpload(f *testing.F) {
	head := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n"
	for _, seed := range []string{
		head + "hello\r\n--b--\r\n", head + "hello\r\n--b\r\n", head + "hello", head + "\r\n--b--", "--b--", "", "\r\n--b\r\n\r\n\r\n--b--\r\n",
		"preamble\r\n" + head + "x\r\n--b--\r\nepilogue", head + "a\r\n--b\r\n" + head + "b\r\n--b--\r\n", strings.Repeat("x", 20_000),
	} {
		f.Add([]byte(seed), 7)
	}
	const most = 1000
	f.Fuzz(func(t *testing.T, body []byte, step int) {
		var stored bytes.Buffer
		from := &bounded{from: &stepped{body, max(1, step%5000)}, progress: func() {}}
		got, err := readUpload(from, "b", &stored, most, func(string) bool { return true })
		if stored.Len() > most {
			t.Fatalf("%d bytes were stored", stored.Len())
		}
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || p.status/100 != 4 {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if int64(stored.Len()) != got.size || got.size == 0 || !bytes.Contains(body, stored.Bytes()) || len(got.sha256) != 64 || got.contentType == "" || got.name == "" {
			t.Fatalf("%q became %+v with %q", body, got, stored.Bytes())
		}
	})
}

// stepped gives its bytes a few at a time.
type stepped struct {
	rest []byte
	step int
}

func (s *stepped) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(len(s.rest), s.step)])
	s.rest = s.rest[n:]
	return n, nil
}

// FuzzFileName: whatever a file is called, its name is safe, stays so, and comes
// through a header.
func FuzzFileName(f *testing.F) {
	for _, seed := range []string{"a.txt", "../a", "", "..", "\x00", "a\u202eb", "\xff", strings.Repeat("가", 100) + ".x", `a"b\c`, "  . ", "a\r\nb: c", "~$가", "é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		name := safeName(sent)
		if name == "" || len(name) > maxFileName || !utf8.ValidString(name) || strings.ContainsAny(name, `/\`) || name == "." || name == ".." ||
			strings.ContainsFunc(name, unicode.IsControl) || safeName(name) != name {
			t.Fatalf("%q became %q, then %q", sent, name, safeName(name))
		}
		header := disposition("attachment", name)
		kind, params, err := mime.ParseMediaType(header)
		if err != nil || kind != "attachment" || params["filename"] != name || strings.ContainsAny(header, "\r\n") {
			t.Fatalf("%q as a header: %q, %v, %q", name, header, err, params["filename"])
		}
	})
}
