package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"
)

// Files is a Store in a directory: blobs by the first two characters of their
// IDs, so that no folder gets huge, and drafts in one of their own on the same
// file system, from where they are renamed.
type Files struct {
	dir  string
	root *os.Root // from Prepare on; whatever a path says, it leads nowhere else
}

var _ Store = (*Files)(nil)

const (
	draftsDir = "drafts"
	dirMode   = 0o750
	fileMode  = 0o640
)

// NewFiles is a store in dir; Prepare comes before anything else.
func NewFiles(dir string) *Files { return &Files{dir: dir} }

// Prepare makes the directory if there is none, and checks that it can be written
// to.
func (f *Files) Prepare() error {
	if err := os.MkdirAll(f.dir, dirMode); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	f.root = root
	if err = f.mkdir(draftsDir); err == nil {
		var d Draft
		if d, err = f.Create(context.Background()); err == nil {
			d.Discard()
			return nil
		}
	}
	return errors.Join(fmt.Errorf("blob: %s: %w", f.dir, err), root.Close())
}

// Close ends the use of the directory.
func (f *Files) Close() error { return f.root.Close() }

// Create implements Store.
func (f *Files) Create(context.Context) (Draft, error) {
	name := path.Join(draftsDir, NewID())
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, Explain(err)
	}
	return &fileDraft{in: f, file: file, name: name}, nil
}

// Open implements Store.
func (f *Files) Open(_ context.Context, id string, size int64) (io.ReadSeekCloser, error) {
	if err := check(id); err != nil {
		return nil, err
	}
	file, err := f.root.Open(placeOf(id))
	if err != nil {
		return nil, Explain(err)
	}
	info, err := file.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("%s has %d bytes, where %d were stored", id, info.Size(), size)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("blob: %w", err)
	}
	return file, nil
}

// Delete implements Store.
func (f *Files) Delete(_ context.Context, id string) error {
	if err := check(id); err != nil {
		return err
	}
	if err := f.root.Remove(placeOf(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Explain(err)
	}
	return nil
}

// Clean implements Store.
func (f *Files) Clean(ctx context.Context, idle time.Duration) (removed int, err error) {
	drafts, err := f.root.Open(draftsDir)
	if err != nil {
		return 0, Explain(err)
	}
	defer drafts.Close()
	before := time.Now().Add(-idle)
	for ctx.Err() == nil {
		entries, err := drafts.ReadDir(100)
		for _, e := range entries {
			// One that is gone meanwhile was another process's to remove.
			if info, err := e.Info(); err == nil && info.ModTime().Before(before) && f.root.Remove(path.Join(draftsDir, e.Name())) == nil {
				removed++
			}
		}
		if err == io.EOF { //nolint:errorlint // ReadDir returns EOF itself
			return removed, nil
		}
		if err != nil {
			return removed, Explain(err)
		}
	}
	return removed, ctx.Err()
}

// placeOf is where a blob is; id was checked.
func placeOf(id string) string { return path.Join(id[:2], id) }

// mkdir makes a folder, durably; one that is there is as good.
func (f *Files) mkdir(name string) error {
	if err := f.root.Mkdir(name, dirMode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return f.sync(".")
}

// sync makes what happened to a folder's entries durable.
func (f *Files) sync(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Explain sorts an error of a file system, for stores that use one.
func Explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w (%w)", ErrFull, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		// Until some of those who have them are through.
		return fmt.Errorf("%w (%w)", ErrUnavailable, err)
	}
	return fmt.Errorf("blob: %w", err)
}

// fileDraft is a file among the drafts.
type fileDraft struct {
	in   *Files
	file *os.File // nil: closed
	name string   // "": renamed or removed
}

func (d *fileDraft) Write(b []byte) (int, error) {
	n, err := d.file.Write(b)
	if err != nil {
		err = Explain(err)
	}
	return n, err
}

// Commit implements Draft: the content first, then the name, then the folder that
// has it.
func (d *fileDraft) Commit(_ context.Context, id string) error {
	if err := check(id); err != nil {
		return err
	}
	if err := d.file.Sync(); err != nil {
		return Explain(err)
	}
	err := d.file.Close()
	d.file = nil
	if err != nil {
		return Explain(err)
	}
	place := placeOf(id)
	if err := d.in.mkdir(path.Dir(place)); err != nil {
		return Explain(err)
	}
	if err := d.in.root.Rename(d.name, place); err != nil {
		return Explain(err)
	}
	d.name = ""
	if err := d.in.sync(path.Dir(place)); err != nil {
		return Explain(err)
	}
	return nil
}

// Discard implements Draft. What it can't remove, Clean will.
func (d *fileDraft) Discard() {
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
	if d.name != "" {
		_ = d.in.root.Remove(d.name)
		d.name = ""
	}
}
