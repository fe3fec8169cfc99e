package blob_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/blob/blobtest"
)

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	blobtest.Run(t, open(t, dir))
}

func open(t *testing.T, dir string) *blob.Files {
	t.Helper()
	f := blob.NewFiles(dir)
	if err := f.Prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// filesIn are all files below dir.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestADiscardedDraftLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	d, err := f.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = d.Write([]byte("half of"))
	d.Discard()
	d.Discard()
	if left := filesIn(t, dir); len(left) > 0 {
		t.Fatal(left)
	}
}

func TestWhatAKilledProcessLeftIsCleanedUp(t *testing.T) {
	dir := t.TempDir()
	dead, alive := open(t, dir), open(t, dir)
	d, err := dead.Create(t.Context()) // and its process is no more
	if err != nil {
		t.Fatal(err)
	}
	_, _ = d.Write([]byte("half of"))
	if n, err := alive.Clean(t.Context(), time.Hour); n != 0 || err != nil {
		t.Fatalf("%d drafts removed under somebody's hands, %v", n, err)
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filesIn(t, dir)[0], long, long); err != nil {
		t.Fatal(err)
	}
	if n, err := alive.Clean(t.Context(), time.Hour); n != 1 || err != nil {
		t.Fatalf("%d drafts removed, %v", n, err)
	}
	if left := filesIn(t, dir); len(left) > 0 {
		t.Fatal(left)
	}
}

func TestAnIDIsNoPath(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, filepath.Join(dir, "blobs"))
	for _, id := range []string{"", ".", "..", "../secret", "drafts", "../../../../../../secret", "/etc/passwd", secret, "AA\x00", "aaaaaaaaaaaaaaaaaaaaaaaaaa", "../AAAAAAAAAAAAAAAAAAAAAAA"} {
		if _, err := f.Open(t.Context(), id, 6); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("open %q: %v", id, err)
		}
		if err := f.Delete(t.Context(), id); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("delete %q: %v", id, err)
		}
		d, err := f.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(t.Context(), id); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("commit %q: %v", id, err)
		}
		d.Discard()
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Fatal(got, err)
	}
}

func TestAFileOfAnotherSizeIsNotServed(t *testing.T) {
	f := open(t, t.TempDir())
	id := blobtest.Put(t, f, []byte("hello"))
	if _, err := f.Open(t.Context(), id, 4); err == nil || errors.Is(err, blob.ErrNotFound) {
		t.Fatalf("opened, or not found: %v", err)
	}
}

// TestNoDescriptorsLeft: for a process that has too many clients, the store of files
// is away for a while and not broken.
func TestNoDescriptorsLeft(t *testing.T) {
	f := open(t, t.TempDir())
	id := blobtest.Put(t, f, []byte("hello"))
	d, err := f.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, creating := f.Create(t.Context())
	_, opening := f.Open(t.Context(), id, 5)
	committing := d.Commit(t.Context(), blob.NewID())
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"create": creating, "open": opening, "commit": committing} {
		if !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestADirectoryThatCannotBeWrittenToIsToldAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := blob.NewFiles(file).Prepare(); err == nil {
		t.Fatal("a file was taken for a directory")
	}
}
