package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/blob/blobtest"
	"github.com/madang-chat/madang/internal/blob/s3"
)

// bucket is as much of S3 as is used, in memory: there is no S3 where tests run.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
	puts    int
	fail    int // status of every answer; 0: none
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=key/") {
		http.Error(w, "", http.StatusForbidden)
		return
	}
	name := r.URL.Path
	switch {
	case b.fail != 0:
		w.WriteHeader(b.fail)
		fmt.Fprint(w, `<Error><Code>InternalError</Code></Error>`)
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // broken off: S3 has nothing then
		}
		if strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
			body = unchunk(body)
		}
		b.puts++
		b.objects[name] = body
		w.Header().Set("ETag", `"x"`)
	case r.Method == http.MethodDelete:
		delete(b.objects, name)
		w.WriteHeader(http.StatusNoContent)
	case b.objects[name] == nil:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `<Error><Code>NoSuchKey</Code></Error>`)
	default:
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(b.objects[name]))
	}
}

// unchunk takes "size;chunk-signature=…\r\n", content, "\r\n" apart.
func unchunk(b []byte) (content []byte) {
	for {
		head, rest, _ := bytes.Cut(b, []byte("\r\n"))
		var size int
		if _, err := fmt.Sscanf(string(head), "%x", &size); err != nil || size == 0 {
			return content
		}
		content = append(content, rest[:size]...)
		b = rest[size+2:]
	}
}

func open(t *testing.T) (*s3.Store, *bucket, string) {
	t.Helper()
	b := &bucket{objects: map[string][]byte{}}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	spool := t.TempDir()
	s, err := s3.New(s3.Options{
		Endpoint: server.URL, Bucket: "files", Region: "r", Prefix: "chat/", AccessKey: "key", SecretKey: "secret", Spool: spool,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	return s, b, spool
}

func TestS3(t *testing.T) {
	s, _, _ := open(t)
	blobtest.Run(t, s)
}

// TestASpoolThatCannotBeWrittenToIsToldAtOnce, as in a container with a read-only file
// system; not when the first upload comes.
func TestASpoolThatCannotBeWrittenToIsToldAtOnce(t *testing.T) {
	const readOnly = "/proc/self" // for root, too
	if _, err := os.Stat(readOnly); err != nil {
		t.Skip("no folder that nobody can write to: ", err)
	}
	s, err := s3.New(s3.Options{Endpoint: "http://127.0.0.1:1", Bucket: "files", Spool: readOnly})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(); err == nil {
		t.Error("it was taken for one that can")
	}
}

func TestOnePieceUnderItsPrefix(t *testing.T) {
	s, b, spool := open(t)
	id := blobtest.Put(t, s, bytes.Repeat([]byte("0123456789"), 3<<20))
	if b.puts != 1 || len(b.objects["/files/chat/"+id]) != 30<<20 {
		t.Fatalf("%d puts", b.puts)
	}
	if left, _ := os.ReadDir(spool); len(left) > 0 {
		t.Fatalf("%d files are left", len(left))
	}
}

func TestADiscardedDraftNeverReachesTheBucket(t *testing.T) {
	s, b, spool := open(t)
	d, err := s.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = d.Write([]byte("half of"))
	if left, _ := os.ReadDir(spool); len(left) > 0 {
		t.Fatal("a file with a name outlives its process")
	}
	d.Discard()
	if b.puts != 0 {
		t.Fatal("the bucket has it")
	}
}

func TestS3Away(t *testing.T) {
	s, b, _ := open(t)
	id := blobtest.Put(t, s, []byte("hello"))
	b.fail = http.StatusInternalServerError
	r, err := s.Open(t.Context(), id, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 5)); !errors.Is(err, blob.ErrUnavailable) {
		t.Fatalf("read: %v", err)
	}
	if err := s.Delete(t.Context(), id); !errors.Is(err, blob.ErrUnavailable) {
		t.Fatalf("delete: %v", err)
	}
	d, err := s.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	_, _ = d.Write([]byte("more"))
	if err := d.Commit(t.Context(), blob.NewID()); !errors.Is(err, blob.ErrUnavailable) {
		t.Fatalf("commit: %v", err)
	}
}

func TestBadEndpoints(t *testing.T) {
	for _, endpoint := range []string{"", "s3.example.com", "ftp://s3.example.com", "https://", "https://s3.example.com/bucket", "https://key:secret@s3.example.com/bucket"} {
		if _, err := s3.New(s3.Options{Endpoint: endpoint, Bucket: "b"}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}
