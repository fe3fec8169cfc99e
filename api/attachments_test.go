package api_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/testkit"
)

// yard is a world in which files can be attached.
type yard struct {
	*world
	dir string
}

func newYard(t *testing.T, url string, change func(*api.Attachments)) *yard {
	t.Helper()
	dir := t.TempDir()
	files := blob.NewFiles(dir)
	if err := files.Prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	o := &api.Attachments{Blobs: files, MaxBytes: 1 << 20, Quota: chat.Quota{Bytes: 1 << 30, In: time.Hour}}
	if change != nil {
		change(o)
	}
	return &yard{newWorld(t, redisStore(t, url), func(all *api.Options) { all.Attachments = o }), dir}
}

// files are what is stored, whole or not.
func (y *yard) files() (names []string) {
	y.t.Helper()
	err := filepath.WalkDir(y.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		y.t.Fatal(err)
	}
	return names
}

func (y *yard) wantFiles(n int) {
	y.t.Helper()
	if names := y.files(); len(names) != n {
		y.t.Fatalf("%d files are stored, want %d: %v", len(names), n, names)
	}
}

const boundary = "a-boundary-of-ours"

// form is a body with the given parts, each a head and a content.
func form(parts ...string) string {
	var b strings.Builder
	for i := 0; i < len(parts); i += 2 {
		fmt.Fprintf(&b, "--%s\r\n%s\r\n\r\n%s\r\n", boundary, parts[i], parts[i+1])
	}
	fmt.Fprintf(&b, "--%s--\r\n", boundary)
	return b.String()
}

// fileHead is the head of a form's file.
func fileHead(name string) string {
	return fmt.Sprintf(`Content-Disposition: form-data; name="file"; filename="%s"`, name)
}

func (p *person) uploads(name, content string) *answer {
	return p.uploadsForm(form(fileHead(name)+"\r\nContent-Type: text/html", content))
}

func (p *person) uploadsForm(body string) *answer {
	return p.with("Content-Type", "multipart/form-data; boundary="+boundary).post("/v1/attachments", body)
}

func (p *person) attaches(room string, ids ...string) *answer {
	return p.post("/v1/rooms/"+room+"/messages", jsonOf(map[string]any{"attachments": ids}))
}

func (p *person) gets(id string) *answer { return p.get("/v1/attachments/" + id) }

// onEmbeddedAndReal plays a scenario on the two kinds of Redis.
func onEmbeddedAndReal(t *testing.T, scenario func(t *testing.T, y *yard)) {
	for name, url := range map[string]func(t *testing.T) string{
		"embedded": func(t *testing.T) string { return testkit.Mini(t).URL() },
		"redis":    func(t *testing.T) string { return testkit.Redis(t).URL() },
	} {
		t.Run(name, func(t *testing.T) { scenario(t, newYard(t, url(t), nil)) })
	}
}

const pixel = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"

func TestAFileFromHandToHand(t *testing.T) {
	onEmbeddedAndReal(t, func(t *testing.T, y *yard) {
		alice, bob, eve := y.as("alice"), y.as("bob"), y.as("eve")
		alice.post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
		eve.post("/v1/rooms", `{"id":"hers"}`).want(201)
		sum := sha256.Sum256([]byte(pixel))

		up := alice.uploads("a photo.png", pixel).want(201)
		id := up.field("id")
		up.wantField("name", "a photo.png").wantField("size", fmt.Sprint(len(pixel))).wantField("content_type", "image/png").
			wantField("sha256", hex.EncodeToString(sum[:]))
		if up.header.Get("Location") != "/v1/attachments/"+id {
			t.Error(up.header)
		}
		alice.gets(id).want(200)
		bob.gets(id).wantCode(403, "forbidden")
		// What one may not see one may not send, and sees it no better for trying.
		bob.attaches("r", id).wantCode(403, "forbidden")
		eve.attaches("hers", id).wantCode(403, "forbidden")
		eve.attaches("r", id).wantCode(403, "forbidden")
		eve.gets(id).wantCode(403, "forbidden")

		alice.attaches("r", id).want(201).wantField("body.attachments.0", id)
		got := bob.gets(id).want(200)
		if got.body != pixel {
			t.Errorf("%q", got.body)
		}
		for name, want := range map[string]string{
			"Content-Type": "image/png", "Content-Disposition": `inline; filename="a photo.png"`, "Content-Length": fmt.Sprint(len(pixel)),
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
			"ETag": `"` + hex.EncodeToString(sum[:]) + `"`, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes",
		} {
			if got.header.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
			}
		}
		eve.gets(id).wantCode(403, "forbidden")
		y.nobody().gets(id).wantCode(401, "unauthorized")
		y.server("").gets(id).want(200)

		// A member that is removed sees no more of it, who uploaded it does.
		alice.delete("/v1/rooms/r/members/bob").want(204)
		bob.gets(id).wantCode(403, "forbidden")
		alice.delete("/v1/rooms/r/members/alice").want(204)
		alice.gets(id).want(200)
	})
}

func TestWhatIsUnknown(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	alice := y.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	for _, id := range []string{blob.NewID(), "a1", "..", "%2e%2e%2f%2e%2e%2fsecret", strings.Repeat("A", 25), strings.Repeat("a", 26)} {
		alice.gets(id).wantCode(404, "attachment_not_found")
		alice.do("HEAD", "/v1/attachments/"+id, "").want(404)
	}
	mine := alice.uploads("a", "a").want(201).field("id")
	for _, ids := range [][]string{{blob.NewID()}, {"a1"}, {mine, blob.NewID()}} {
		alice.attaches("r", ids...).wantCode(404, "attachment_not_found")
	}
	alice.attaches("none", mine).wantCode(404, "room_not_found")
	alice.get("/v1/rooms/r").wantField("n", "0")
}

func TestAServerKeyUploadsForItsUsers(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.Quota.Bytes = 1 })
	y.server("").uploads("a", "a").want(400)
	y.as("alice").post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
	id := y.server("alice").uploads("a", "a").want(201).field("id")
	y.server("alice").uploads("b", "bb").want(201) // without a quota
	y.as("alice").gets(id).want(200)
	y.server("bob").attaches("r", id).want(201) // may do all
	y.as("bob").gets(id).want(200)
}

func TestARetryIsAnsweredWhateverBecameOfTheAttachment(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	alice := y.as("alice").with("Idempotency-Key", "k")
	alice.post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
	id := y.as("alice").uploads("a", "a").want(201).field("id")
	first := alice.attaches("r", id).want(201)
	y.as("alice").delete("/v1/rooms/r/members/alice").want(204)
	again := alice.attaches("r", id).want(200)
	if again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s\n%s", first.body, again.body)
	}
	alice.with("Idempotency-Key", "k").attaches("r", blob.NewID()).want(400) // two keys
	y.as("alice").with("Idempotency-Key", "k2").attaches("r", id).wantCode(403, "forbidden")
	y.as("bob").with("Idempotency-Key", "k3").attaches("r", blob.NewID()).wantCode(404, "attachment_not_found")
}

func TestASendThatIsRefusedForItsKeySharesNothing(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	alice := y.as("alice")
	alice.post("/v1/rooms", `{"id":"r","members":["bob"]}`).want(201)
	alice.with("Idempotency-Key", "k").sends("r", "hello").want(201)
	id := alice.uploads("a", "a").want(201).field("id")
	alice.with("Idempotency-Key", "k").attaches("r", id).wantCode(409, "idempotency_key_reuse")
	y.as("bob").gets(id).wantCode(403, "forbidden")
	alice.with("Idempotency-Key", "k2").attaches("r", id).want(201)
	y.as("bob").gets(id).want(200)
}

// Browsers send the control characters of a file's name as they are.
func TestControlCharactersOfAFilesNameAreDropped(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	alice := y.as("alice")
	const content = "\x01\r\n\x02\n\x7f"
	for _, head := range []string{fileHead("a\x01\x7f.txt"), "X-\x1fY: \x02\r\n" + fileHead("\x1b\x02a.txt\x7f")} {
		for _, body := range []string{form(head, content), strings.Replace(strings.ReplaceAll(form(head, "!"), "\r\n", "\n"), "!", content, 1)} {
			a := alice.uploadsForm(body).want(201)
			if got := a.field("name"); got != "a.txt" {
				t.Errorf("%q is called %q", head, got)
			}
			if got := alice.gets(a.field("id")).want(200); got.body != content {
				t.Errorf("the file became %q", got.body)
			}
		}
	}
}

func TestBadUploads(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.MaxBytes = 100_000 })
	alice := y.as("alice")
	file := fileHead("a.txt")
	whole := form(file, "hello")
	for _, tt := range []struct {
		name, body string
		status     int
		code, says string
	}{
		{"no file", form(), 400, "malformed", "one field"},
		{"a field that is no file", form(`Content-Disposition: form-data; name="file"`, "hello"), 400, "malformed", "one field"},
		{"no disposition", form(`Content-Type: text/plain`, "hello"), 400, "malformed", "one field"},
		{"not form-data", form(`Content-Disposition: attachment; name="file"; filename="a"`, "hello"), 400, "malformed", "one field"},
		{"two names", form(`Content-Disposition: form-data; name="file"; name="x"; filename="a"`, "hello"), 400, "malformed", "one field"},
		{"two files", form(file, "hello", file, "again"), 400, "malformed", "nothing but"},
		{"a field behind it", form(file, "hello", `Content-Disposition: form-data; name="x"`, "y"), 400, "malformed", "nothing but"},
		{"a field before it", form(`Content-Disposition: form-data; name="x"`, "y", file, "hello"), 400, "malformed", "one field"},
		{"empty", form(file, ""), 400, "invalid", "empty"},
		{"too large", form(file, strings.Repeat("x", 100_001)), 413, "too_large", "100000"},
		{"far too large", form(file, strings.Repeat("x", 1_000_000)), 413, "too_large", "100000"},
		{"base64", form(file+"\r\nContent-Transfer-Encoding: base64", "aGVsbG8="), 400, "malformed", "Transfer"},
		{"quoted-printable", form(file+"\r\nContent-Transfer-Encoding: quoted-printable", "hello"), 400, "malformed", "Transfer"},
		{"another boundary", strings.ReplaceAll(whole, boundary, "another"), 400, "malformed", "boundary"},
		{"no form at all", strings.Repeat("hello\n", 100), 400, "malformed", "boundary"},
		{"a long line of nothing", strings.Repeat("x", 90_000), 400, "malformed", ""},
		{"a long preamble", strings.Repeat("x\n", 45_000) + whole, 400, "malformed", "too long"},
		{"a long head", form(file+"\r\nX: "+strings.Repeat("x", 50_000), "hello"), 400, "malformed", "too long"},
		{"many heads", form(file+strings.Repeat("\r\nX: x", 20_000), "hello"), 400, "malformed", "too long"},
		{"a long head behind it", form(file, "hello", file+"\r\nX: "+strings.Repeat("x", 50_000), "x"), 400, "malformed", "behind"},
		{"much behind the form", whole + strings.Repeat("x\n", 10_000), 400, "malformed", "behind"},
		{"another form behind it", whole + form(file, strings.Repeat("y", 20_000)), 400, "malformed", "behind"},
		{"no head", "--" + boundary + "\r\n\r\nhello\r\n--" + boundary + "--\r\n", 400, "malformed", "one field"},
		{"a bad head", form("hello", "hello"), 400, "malformed", ""},
		{"cut off in the head", whole[:40], 400, "malformed", ""},
		{"cut off in the file", whole[:strings.Index(whole, "hello")+3], 400, "malformed", "ends before"},
		{"cut off before the boundary", whole[:strings.Index(whole, "hello")+5], 400, "malformed", "ends before"},
		{"cut off in the boundary", whole[:len(whole)-6], 400, "malformed", "ends before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := alice.uploadsForm(tt.body).wantCode(tt.status, tt.code)
			if !strings.Contains(a.field("detail"), tt.says) {
				t.Errorf("says %s", a.body)
			}
			y.wantFiles(0)
		})
	}
	for _, contentType := range []string{
		"", "application/json", "multipart/form-data", "multipart/mixed; boundary=" + boundary, "multipart/form-data; boundary=",
		"multipart/form-data; boundary=" + strings.Repeat("x", 71), `multipart/form-data; boundary="`,
	} {
		alice.with("Content-Type", contentType).post("/v1/attachments", whole).wantCode(415, "unsupported_media_type")
	}
	alice.with("Content-Encoding", "gzip").uploadsForm(whole).wantCode(415, "unsupported_media_type")
	y.nobody().uploadsForm(whole).want(401)
	y.wantFiles(0)
	// What went wrong took nothing off anybody's quota or places.
	alice.uploadsForm(form(file, strings.Repeat("x", 100_000))).want(201)
	y.wantFiles(1)
}

func TestNamesAreMadeSafe(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	alice := y.as("alice")
	for sent, want := range map[string]string{
		`../../etc/passwd`:                 "passwd",
		`C:\Users\bob\a.txt`:               "a.txt",
		`..`:                               "file",
		``:                                 "file",
		`.htaccess`:                        "htaccess",
		` a.txt . `:                        "a.txt",
		"a\x01b\x7f\u0085.txt":             "ab.txt",
		"a\r\nSet-Cookie: b.txt":           "aSet-Cookie: b.txt",
		"gpj.\u202etxt.exe":                "gpj.txt.exe",
		"a\u2028b\u00a0c\u200b.txt":        "ab c.txt",
		`a"b;c.txt`:                        `a"b;c.txt`,
		"사진 1.png":                         "사진 1.png",
		"\xff\xfe.txt":                     "__.txt",
		strings.Repeat("가", 200) + ".jpeg": strings.Repeat("가", 83) + ".jpeg",
		strings.Repeat("x", 300):           strings.Repeat("x", 255),
		"x." + strings.Repeat("y", 300):    "x." + strings.Repeat("y", 253),
		`<script>alert(1)</script>.html`:   "script>.html",
		`=?utf-8?q?x?=`:                    "=?utf-8?q?x?=",
		`%0d%0aSet-Cookie: a=b`:            "%0d%0aSet-Cookie: a=b",
		strings.Repeat(".", 300):           "file",
		"con\u0000/\u0000":                 "file",
	} {
		// As RFC 8187 has it, so that anything may be in it; then as browsers do.
		up := alice.uploadsForm(form(`Content-Disposition: form-data; name="whatever"; filename*=UTF-8''`+strings.ReplaceAll(url.QueryEscape(sent), "+", "%20"), "hello")).
			want(201).wantField("name", want)
		header := alice.gets(up.field("id")).want(200).header.Get("Content-Disposition")
		kind, params, err := mime.ParseMediaType(header)
		if err != nil || kind != "attachment" || params["filename"] != want {
			t.Errorf("%q is served as %q: %v", sent, header, err)
		}
		if !strings.ContainsAny(sent, "\r\n") { // browsers send them as %0D and %0A
			alice.uploads(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(sent), "hello").want(201).wantField("name", want)
		}
	}
}

func TestWhatIsInAFileCounts(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	alice := y.as("alice")
	for content, want := range map[string]struct{ kind, shown string }{
		pixel:                          {"image/png", "inline"},
		"\xff\xd8\xff\xe0\x00\x10JFIF": {"image/jpeg", "inline"},
		"GIF89a\x01\x00\x01\x00":       {"image/gif", "inline"},
		"<!doctype html><script>alert(1)</script>":                                {"text/html; charset=utf-8", "attachment"},
		`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`: {"image/svg+xml", "attachment"},
		"%PDF-1.7\n":   {"application/pdf", "attachment"},
		"hello":        {"text/plain; charset=utf-8", "attachment"},
		"\x00\x01\x02": {"application/octet-stream", "attachment"},
	} {
		// The sender says that it is a picture.
		up := alice.uploadsForm(form(fileHead("a.png")+"\r\nContent-Type: image/png", content)).want(201).wantField("content_type", want.kind)
		got := alice.gets(up.field("id")).want(200)
		if got.header.Get("Content-Type") != want.kind || !strings.HasPrefix(got.header.Get("Content-Disposition"), want.shown+";") {
			t.Errorf("%q: %v", content, got.header)
		}
	}
}

func TestOnlyTheTypesThatAreTaken(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.Types = []string{"image/*", "text/plain"} })
	alice := y.as("alice")
	alice.uploads("a", pixel).want(201)
	alice.uploads("a", "hello").want(201)
	for _, content := range []string{"<!doctype html>", "%PDF-1.7\n", "\x00\x01"} {
		alice.uploads("a.png", content+strings.Repeat(" ", 100_000)).wantCode(415, "file_type_not_allowed")
	}
	y.wantFiles(2)
}

func TestPartsOfAFile(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	alice := y.as("alice")
	content := strings.Repeat("0123456789", 10_000)
	up := alice.uploads("a", content).want(201)
	path := "/v1/attachments/" + up.field("id")
	etag := `"` + up.field("sha256") + `"`
	for _, tt := range []struct {
		header, value string
		status        int
		body          string
	}{
		{"Range", "bytes=0-4", 206, "01234"},
		{"Range", "bytes=99995-", 206, "56789"},
		{"Range", "bytes=-3", 206, "789"},
		{"Range", "bytes=99998-200000", 206, "89"},
		{"Range", "bytes=-200000", 206, content},
		{"Range", "bytes=5-2", 200, content},
		{"Range", "bytes=0-1,5-6", 200, content},
		{"Range", "bytes=" + strings.Repeat("0-0,", 1000) + "1-1", 200, content},
		{"Range", "lines=1-2", 200, content},
		{"Range", "bytes=", 200, content},
		{"Range", "bytes=-", 200, content},
		{"Range", "bytes=a-b", 200, content},
		{"Range", "bytes=99999999999999999999-", 200, content},
		{"If-None-Match", etag, 304, ""},
		{"If-None-Match", `"another"`, 200, content},
		{"If-Match", `"another"`, 200, content},
	} {
		a := alice.with(tt.header, tt.value).get(path).want(tt.status)
		if a.body != tt.body {
			t.Errorf("%s: %s: %d bytes, want %d", tt.header, tt.value, len(a.body), len(tt.body))
		}
	}
	beyond := alice.with("Range", "bytes=100000-").get(path).wantCode(416, "range_not_satisfiable")
	if beyond.header.Get("Content-Range") != "bytes */100000" || beyond.header.Get("Content-Disposition") != "" {
		t.Error(beyond.header)
	}
	for _, nothing := range []string{"bytes=-0", "bytes=-000"} {
		none := alice.with("Range", nothing).get(path).wantCode(416, "range_not_satisfiable")
		if none.header.Get("Content-Range") != "bytes */100000" {
			t.Error(nothing, none.header)
		}
	}
	head := alice.do("HEAD", path, "").want(200)
	if head.body != "" || head.header.Get("Content-Length") != "100000" || head.header.Get("ETag") != etag {
		t.Errorf("%q %v", head.body, head.header)
	}
	half := alice.with("Range", "bytes=0-9").do("HEAD", path, "").want(206)
	if half.header.Get("Content-Range") != "bytes 0-9/100000" {
		t.Error(half.header)
	}
	alice.with("Range", "bytes=100000-").do("HEAD", path, "").want(416)
}

func TestAttachmentsOff(t *testing.T) {
	w := newWorld(t, redisStore(t, testkit.Mini(t).URL()), nil)
	alice := w.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	alice.uploads("a", "hello").wantCode(404, "attachments_off")
	alice.gets(blob.NewID()).wantCode(404, "attachments_off")
	alice.attaches("r", blob.NewID()).wantCode(404, "attachments_off")
	alice.sends("r", "hi").want(201)
	if _, err := api.New(api.Options{Store: newMemory(), Verifier: verifier(t), Attachments: &api.Attachments{}}); err == nil {
		t.Error("attachments without a place for them were taken")
	}
}

func TestAUserHasAQuotaOfUploads(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.Quota.Bytes = 100_000 })
	alice := y.as("alice")
	alice.uploads("a", strings.Repeat("x", 60_000)).want(201)
	over := alice.uploads("b", strings.Repeat("x", 60_000)).wantCode(429, "upload_quota_exceeded")
	if over.header.Get("Retry-After") != "3600" {
		t.Error(over.header)
	}
	for range 3 { // what went wrong, and what a form takes besides, is given back
		alice.uploadsForm(form(fileHead("c"), strings.Repeat("x", 30_000), "", "")).want(400)
	}
	alice.uploads("c", strings.Repeat("x", 22_000)).want(201)
	alice.uploads("c", "x").want(201) // counts as 16 KiB
	alice.uploads("c", "x").wantCode(429, "upload_quota_exceeded")
	y.as("bob").uploads("d", strings.Repeat("x", 60_000)).want(201)
	y.wantFiles(4)
}

// line is an upload over a connection of its own, of which the test decides when
// what goes.
type line struct {
	t    *testing.T
	conn net.Conn
}

func (y *yard) dial(t *testing.T, addr, user, framing string) *line {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	l := &line{t, conn}
	l.says("POST /v1/attachments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + tokenOf(t, user) +
		"\r\nContent-Type: multipart/form-data; boundary=" + boundary + "\r\n" + framing + "\r\n\r\n")
	return l
}

func (l *line) says(s string) {
	l.t.Helper()
	if _, err := io.WriteString(l.conn, s); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) wantStatus(status int) {
	l.t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(l.conn), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != status {
		l.t.Fatalf("%d %s, want %d", res.StatusCode, body, status)
	}
}

func TestWhoBreaksOffLeavesNothing(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), nil)
	addr := y.start()
	whole := form(fileHead("a"), strings.Repeat("x", 500_000))
	for _, framing := range []string{fmt.Sprintf("Content-Length: %d", len(whole)), "Transfer-Encoding: chunked"} {
		l := y.dial(t, addr, "alice", framing)
		half := whole[:len(whole)/2]
		if strings.HasPrefix(framing, "Transfer") {
			half = fmt.Sprintf("%x\r\n%s", len(whole), half)
		}
		l.says(half)
		testkit.Soon(t, 20*time.Second, "the upload under way", func() bool { return len(y.files()) == 1 })
		l.conn.Close()
		testkit.Soon(t, 20*time.Second, "nothing left of it", func() bool { return len(y.files()) == 0 })
	}
}

func TestASlowBodyMayTakeItsTimeAndAStuckOneMayNot(t *testing.T) {
	t.Parallel() // it waits, mostly
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.IdleTimeout = 2 * time.Second })
	y.api.SetTimeouts(time.Second, time.Second)
	addr := y.start()
	whole := form(fileHead("a"), strings.Repeat("x", 20))

	slow := y.dial(t, addr, "alice", fmt.Sprintf("Content-Length: %d", len(whole)))
	began := time.Now()
	for i := 0; i < len(whole); i += 10 { // longer in all than any time-out but that of uploads
		slow.says(whole[i:min(i+10, len(whole))])
		time.Sleep(170 * time.Millisecond)
	}
	slow.wantStatus(201)
	if took := time.Since(began); took < 2*time.Second {
		t.Fatalf("it was not slow: %v", took)
	}

	stuck := y.dial(t, addr, "alice", fmt.Sprintf("Content-Length: %d", len(whole)))
	stuck.says(whole[:30])
	stuck.wantStatus(408)
	y.wantFiles(1)
}

func TestAnUploadHasATimeInAll(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.IdleTimeout, o.Timeout = time.Minute, 300*time.Millisecond })
	l := y.dial(t, y.start(), "alice", "Content-Length: 100000")
	l.says(form(fileHead("a"), "x")[:40])
	l.wantStatus(408)
}

func TestAUserHasFourPlaces(t *testing.T) {
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.Uploads = 5 })
	addr := y.start()
	whole := form(fileHead("a"), "hello")
	var waiting []*line
	begin := func(user string) {
		t.Helper()
		l := y.dial(t, addr, user, fmt.Sprintf("Content-Length: %d", len(whole)))
		l.says(whole[:20])
		waiting = append(waiting, l)
		testkit.Soon(t, 20*time.Second, "the upload under way", func() bool { return len(y.files()) == len(waiting) })
	}
	for range 4 {
		begin("alice")
	}
	y.as("alice").uploads("b", "hello").wantCode(429, "rate_limited")
	begin("bob")
	y.as("carol").uploads("c", "hello").wantCode(503, "unavailable")
	for _, l := range waiting {
		l.says(whole[20:])
		l.wantStatus(201)
	}
	y.as("alice").uploads("b", "hello").want(201)
	y.as("carol").uploads("c", "hello").want(201)
}

// brittle is a store of blobs that fails as it is told.
type brittle struct {
	blob.Store
	create, write, commit, open, read error
}

func (b *brittle) Create(ctx context.Context) (blob.Draft, error) {
	if b.create != nil {
		return nil, b.create
	}
	d, err := b.Store.Create(ctx)
	return &brittleDraft{d, b}, err
}

type brittleDraft struct {
	blob.Draft
	of *brittle
}

func (d *brittleDraft) Write(p []byte) (int, error) {
	if d.of.write != nil {
		return 0, d.of.write
	}
	return d.Draft.Write(p)
}

func (d *brittleDraft) Commit(ctx context.Context, id string) error {
	if d.of.commit != nil {
		return d.of.commit
	}
	return d.Draft.Commit(ctx, id)
}

func (b *brittle) Open(ctx context.Context, id string, size int64) (io.ReadSeekCloser, error) {
	if b.open != nil {
		return nil, b.open
	}
	r, err := b.Store.Open(ctx, id, size)
	return &brittleReader{r, b}, err
}

type brittleReader struct {
	io.ReadSeekCloser
	of *brittle
}

func (r *brittleReader) Read(p []byte) (int, error) {
	if r.of.read != nil {
		return 0, r.of.read
	}
	return r.ReadSeekCloser.Read(p)
}

func TestAStoreThatFails(t *testing.T) {
	var b *brittle
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) {
		b = &brittle{Store: o.Blobs}
		o.Blobs = b
	})
	alice := y.as("alice")
	id := alice.uploads("a", "hello").want(201).field("id")
	for err, want := range map[error]struct {
		status int
		code   string
	}{
		blob.ErrFull:               {507, "storage_full"},
		blob.ErrUnavailable:        {503, "unavailable"},
		errors.New("disk on fire"): {500, "internal"},
	} {
		for _, step := range []*error{&b.create, &b.write, &b.commit} {
			*step = fmt.Errorf("on the way: %w", err)
			alice.uploads("b", "hello").wantCode(want.status, want.code)
			*step = nil
			y.wantFiles(1)
		}
		for _, step := range []*error{&b.open, &b.read} {
			*step = fmt.Errorf("on the way: %w", err)
			got := alice.gets(id).wantCode(want.status, want.code)
			if got.header.Get("ETag") != "" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("a problem looks like the file: %v", got.header)
			}
			*step = nil
		}
	}
	// A file that is missing is our trouble, and not one that never was.
	b.open = blob.ErrNotFound
	alice.gets(id).wantCode(500, "internal")
	b.open = nil
	alice.gets(id).want(200)
}

func TestUploadsAreCounted(t *testing.T) {
	seen := &uploads{}
	y := newYard(t, testkit.Mini(t).URL(), nil)
	y.world = newWorld(t, y.store, func(o *api.Options) {
		files := blob.NewFiles(y.dir)
		if err := files.Prepare(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = files.Close() })
		o.Attachments, o.Observer = &api.Attachments{Blobs: files, MaxBytes: 100}, seen
	})
	alice := y.as("alice")
	id := alice.uploads("a", "hello").want(201).field("id")
	alice.uploads("a", "").want(400)
	whole := form(fileHead("a"), "hello")
	alice.uploadsForm(whole[:len(whole)-10]).want(400)
	alice.gets(id).want(200)
	alice.with("Range", "bytes=0-1").gets(id).want(206)
	if got := fmt.Sprint(seen.outcomes, seen.bytes, seen.down); got != "[stored refused cut] 5 7" {
		t.Error(got)
	}
}

type uploads struct {
	outcomes    []string
	bytes, down int64
}

func (u *uploads) Request(string, string, int, time.Duration) {}
func (u *uploads) Send(string, time.Duration)                 {}
func (u *uploads) Download(bytes int64)                       { u.down += bytes }
func (u *uploads) Upload(outcome string, bytes int64, _ time.Duration) {
	u.outcomes, u.bytes = append(u.outcomes, outcome), u.bytes+bytes
}

// What goes wrong again and again costs Redis nothing.
func TestARefusedUploadLeavesNoTraceInRedis(t *testing.T) {
	redis := testkit.Redis(t)
	y := newYard(t, redis.URL(), nil)
	alice := y.as("alice")
	alice.uploads("a", "hello").want(201)
	size := func() any {
		n, err := redis.Do("DBSIZE")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := size()
	for range 30 {
		alice.uploads("a", "").want(400)
	}
	if after := size(); after != before {
		t.Errorf("%v keys, %v before", after, before)
	}
}

func TestAFileIsNeverHeldInMemory(t *testing.T) {
	const size = 64 << 20
	y := newYard(t, testkit.Mini(t).URL(), func(o *api.Attachments) { o.MaxBytes = size })
	addr := y.start()
	allocated := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.TotalAlloc
	}
	before := allocated()
	body := io.MultiReader(strings.NewReader("--"+boundary+"\r\n"+fileHead("a")+"\r\n\r\n"), io.LimitReader(zeros{}, size), strings.NewReader("\r\n--"+boundary+"--\r\n"))
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/v1/attachments", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tokenOf(t, "alice"))
	req.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", res.StatusCode, answer)
	}
	req, err = http.NewRequest(http.MethodGet, "http://"+addr+res.Header.Get("Location"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tokenOf(t, "alice"))
	if res, err = http.DefaultTransport.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if n != size || err != nil {
		t.Fatal(n, err)
	}
	if both := allocated() - before; both > size/8 { // the client's part included
		t.Errorf("%d bytes were allocated for a file of %d", both, size)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestASentFileIsNotLookedAtByTheSweeper(t *testing.T) {
	redis := testkit.Redis(t)
	y := newYard(t, redis.URL(), nil)
	alice := y.as("alice")
	alice.post("/v1/rooms", `{"id":"r"}`).want(201)
	id := alice.uploads("a", "hello").want(201).field("id")
	due := func() int {
		keys, err := redis.Do("KEYS", "*attachments:due")
		if err != nil {
			t.Fatal(err)
		}
		return len(keys.([]any))
	}
	if due() != 1 {
		t.Error("an upload is not among what comes due")
	}
	alice.attaches("r", id).want(201)
	if due() != 0 {
		t.Error("a file that was sent for good is among what comes due")
	}
}

// disk takes some time to make a file durable, as disks and buckets do.
type disk struct{ blob.Store }

func (d disk) Create(ctx context.Context) (blob.Draft, error) {
	draft, err := d.Store.Create(ctx)
	return diskDraft{draft}, err
}

type diskDraft struct{ blob.Draft }

func (d diskDraft) Commit(ctx context.Context, id string) error {
	time.Sleep(20 * time.Millisecond)
	return d.Draft.Commit(ctx, id)
}

// What who hangs up behind the last byte has stored is charged.
func TestHangingUpIsNoWayAroundTheQuota(t *testing.T) {
	for name, wrap := range map[string]func(blob.Store) blob.Store{
		"a disk of 20 ms": func(s blob.Store) blob.Store { return disk{s} },
		"as it is":        func(s blob.Store) blob.Store { return s },
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, testkit.Redis(t).URL(), func(o *api.Attachments) { o.Quota.Bytes, o.Blobs = 100_000, wrap(o.Blobs) })
			addr := y.start()
			bob := y.as("bob")
			bob.post("/v1/rooms", `{"id":"r"}`).want(201)
			stop, busy := make(chan struct{}), sync.WaitGroup{}
			for range 8 { // others, who send
				busy.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							bob.post("/v1/rooms/r/messages", `{"text":"hi"}`)
						}
					}
				})
			}
			defer func() { close(stop); busy.Wait() }()
			whole := form(fileHead("a"), strings.Repeat("x", 60_000))
			for range 20 {
				l := y.dial(t, addr, "eve", fmt.Sprintf("Content-Length: %d", len(whole)))
				l.says(whole)
				l.conn.Close()
				time.Sleep(60 * time.Millisecond) // for the next not to come before this one's end
			}
			if n := len(y.files()); n > 1 {
				t.Errorf("%d files of 60,000 bytes are stored under a quota of 100,000", n)
			}
		})
	}
}

// failing is a store that takes its time to find out that it can't.
type failing struct {
	blob.Store
	after time.Duration
}

func (f failing) Create(ctx context.Context) (blob.Draft, error) {
	d, err := f.Store.Create(ctx)
	return failingDraft{d, f.after}, err
}

type failingDraft struct {
	blob.Draft
	after time.Duration
}

func (d failingDraft) Commit(context.Context, string) error {
	time.Sleep(d.after)
	return errors.New("disk on fire")
}

// Whoever is told that the log knows more finds it there, however an upload ended
// that had come whole.
func TestAnUploadThatCanNotBeStoredIsLogged(t *testing.T) {
	t.Parallel() // it waits, mostly
	const idle = 2 * time.Second
	for name, after := range map[string]time.Duration{"at once": 0, "after longer than a body may pause": 2 * idle} {
		t.Run(name, func(t *testing.T) {
			var log testkit.Log
			y := newYard(t, testkit.Mini(t).URL(), nil)
			files := blob.NewFiles(y.dir)
			if err := files.Prepare(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = files.Close() })
			y.world = newWorld(t, y.store, func(o *api.Options) {
				o.Attachments = &api.Attachments{Blobs: failing{files, after}, IdleTimeout: idle}
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			addr := y.start()
			whole := form(fileHead("a"), strings.Repeat("x", 100_000))
			const times = 8
			var all sync.WaitGroup
			for i := range times {
				all.Go(func() {
					l := y.dial(t, addr, fmt.Sprint("user", i), fmt.Sprintf("Content-Length: %d", len(whole)))
					l.says(whole[:len(whole)-1])
					time.Sleep(idle / 8) // so that the end is progress
					l.says(whole[len(whole)-1:])
					l.wantStatus(500)
				})
			}
			all.Wait()
			if n := strings.Count(log.String(), "disk on fire"); n != times {
				t.Errorf("%d of %d failures are in the log", n, times)
			}
		})
	}
}

// half is a store whose files can be read to their middle.
type half struct{ blob.Store }

func (h half) Open(ctx context.Context, id string, size int64) (io.ReadSeekCloser, error) {
	r, err := h.Store.Open(ctx, id, size)
	return &halfReader{r, size / 2}, err
}

type halfReader struct {
	io.ReadSeekCloser
	left int64
}

func (r *halfReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, errors.New("disk on fire")
	}
	n, err := r.ReadSeekCloser.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	return n, err
}

// A download that the store breaks off is no whole file to its client, and no secret
// to operators.
func TestADownloadThatBreaksOffIsLogged(t *testing.T) {
	var log testkit.Log
	seen := &uploads{}
	y := newYard(t, testkit.Mini(t).URL(), nil)
	id := y.as("alice").uploads("a", strings.Repeat("x", 100_000)).want(201).field("id")
	files := blob.NewFiles(y.dir)
	if err := files.Prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	y.world = newWorld(t, y.store, func(o *api.Options) {
		o.Attachments, o.Observer, o.Logger = &api.Attachments{Blobs: half{files}}, seen, slog.New(slog.NewTextHandler(&log, nil))
	})
	req, err := http.NewRequest(http.MethodGet, "http://"+y.start()+"/v1/attachments/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tokenOf(t, "alice"))
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err == nil || n > 50_000 {
		t.Errorf("%d bytes came, %v", n, err)
	}
	if said := log.String(); !strings.Contains(said, "disk on fire") || !strings.Contains(said, res.Header.Get("X-Request-Id")) {
		t.Errorf("the log has %q", said)
	}
	if seen.down != 50_000 {
		t.Errorf("%d bytes were counted", seen.down)
	}
}
