package test

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// Files go through one API and come back through another, on every kind of Redis;
// members alone get them.
func TestAFileGoesThroughAFleet(t *testing.T) {
	onRedises(t, func(t *testing.T, url string) {
		files := fleet.Flags("api", "--blob-dir", t.TempDir(), "--partitions=16")
		f := fleet.StartProcesses(t, url, 2, 1, files, fleet.Flags("gateway", "--partitions=16"))
		alice, bob, eve := f.User("alice", fleet.OnAPI(0)), f.User("bob", fleet.OnAPI(1)), f.User("eve", fleet.OnAPI(1))
		alice.CreatesRoom("yard", "bob")
		bob.Connects()
		content := strings.Repeat("It is a file. ", 50_000)
		id := alice.Uploads("notes.txt", content)
		sent := alice.Attaches("yard", id)
		if m := bob.WantMessage("yard", ""); m.ID != sent.ID || !strings.Contains(string(m.Raw), `"attachments":["`+id+`"]`) {
			t.Errorf("bob got %s", m.Raw)
		}
		if res, err := bob.Requests(http.MethodGet, "/v1/attachments/"+id, nil); err != nil || res.Status != http.StatusOK || string(res.Body) != content {
			t.Errorf("bob: %d, %d bytes, %v", res.Status, len(res.Body), err)
		}
		if res, err := eve.Requests(http.MethodGet, "/v1/attachments/"+id, nil); err != nil || res.Status != http.StatusForbidden {
			t.Errorf("eve: %d, %d bytes, %v", res.Status, len(res.Body), err)
		}
		alice.Removes("yard", "bob")
		if res, err := bob.Requests(http.MethodGet, "/v1/attachments/"+id, nil); err != nil || res.Status != http.StatusForbidden {
			t.Errorf("bob, removed: %d, %v", res.Status, err)
		}
	})
}

// An API that is killed in the middle of an upload leaves no blob, only a draft
// that nobody can ask for, and takes nothing of what was stored before with it.
func TestAnAPIKilledInAnUpload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 2, 1, fleet.Flags("api", "--blob-dir", dir))
	alice := f.User("alice", fleet.OnAPI(1))
	alice.CreatesRoom("yard", "bob")
	kept := alice.Uploads("kept.txt", "kept")
	alice.Attaches("yard", kept)

	conn, err := net.Dial("tcp", f.APIs[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /v1/attachments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+alice.Token+
		"\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 10000000\r\n\r\n"+
		"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"+strings.Repeat("x", 1_000_000))
	if err != nil {
		t.Fatal(err)
	}
	fleet.Await(t, "the upload is under way", func() bool { return len(filesIn(t, filepath.Join(dir, "drafts"))) == 1 })
	f.APIs[0].Kill()
	if all, drafts := filesIn(t, dir), filesIn(t, filepath.Join(dir, "drafts")); len(all) != 2 || len(drafts) != 1 {
		t.Errorf("%d files, %d drafts", len(all), len(drafts))
	}
	bob := f.User("bob", fleet.OnAPI(1))
	if res, err := bob.Requests(http.MethodGet, "/v1/attachments/"+kept, nil); err != nil || string(res.Body) != "kept" {
		t.Errorf("%d %s %v", res.Status, res.Body, err)
	}
	alice.Attaches("yard", alice.Uploads("again.txt", "again"))
}

// While Redis is away uploads and downloads are 503, and nothing is left of them;
// afterwards all is as it was.
func TestUploadsWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	redis := testkit.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	f := fleet.StartProcesses(t, redis.URL(), 1, 1, fleet.Flags("api", "--blob-dir", dir, "--redis-timeout", "500ms"))
	alice := f.User("alice")
	alice.CreatesRoom("yard")
	id := alice.Uploads("kept.txt", "kept")
	alice.Attaches("yard", id)
	redis.Kill()
	for what, ask := range map[string]func() (fleet.Response, error){
		"upload":   func() (fleet.Response, error) { return alice.TryUpload("a.txt", "a") },
		"download": func() (fleet.Response, error) { return alice.Requests(http.MethodGet, "/v1/attachments/"+id, nil) },
	} {
		if res, err := ask(); err != nil || res.Status != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s %v", what, res.Status, res.Body, err)
		}
	}
	if all := filesIn(t, dir); len(all) != 1 {
		t.Errorf("%d files", len(all))
	}
	if err := redis.Restart(); err != nil {
		t.Fatal(err)
	}
	fleet.Await(t, "an upload", func() bool {
		res, err := alice.TryUpload("b.txt", "b")
		return err == nil && res.Status == http.StatusCreated
	})
	if res, err := alice.Requests(http.MethodGet, "/v1/attachments/"+id, nil); err != nil || string(res.Body) != "kept" {
		t.Errorf("%d %s %v", res.Status, res.Body, err)
	}
}

// filesIn are all files below a directory.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // a draft that is gone
		}
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(fmt.Errorf("looking for files: %w", err))
	}
	return names
}
