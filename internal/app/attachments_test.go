package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/blob/blobtest"
	"github.com/madang-chat/madang/internal/chat"
)

// dueList is what Redis says is due.
type dueList struct {
	chat.Attachments
	due, forgotten []string
	err            error
}

func (d *dueList) DueAttachments(context.Context, time.Duration, int) ([]string, error) {
	return slices.Clone(d.due), d.err
}

func (d *dueList) ForgetAttachments(_ context.Context, ids []string) error {
	d.forgotten = append(d.forgotten, ids...)
	return nil
}

// stubborn does not delete one of its blobs.
type stubborn struct {
	blob.Store
	keeps string
}

func (s *stubborn) Delete(ctx context.Context, id string) error {
	if id == s.keeps {
		return blob.ErrUnavailable
	}
	return s.Store.Delete(ctx, id)
}

func TestOnlyWhatIsDueIsDeleted(t *testing.T) {
	files := blob.NewFiles(t.TempDir())
	if err := files.Prepare(); err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	var ids []string
	for range 4 {
		ids = append(ids, blobtest.Put(t, files, []byte("hello")))
	}
	there := func() (n int) {
		for _, id := range ids {
			if r, err := files.Open(t.Context(), id, 5); err == nil {
				_, _ = io.Copy(io.Discard, r)
				r.Close()
				n++
			}
		}
		return n
	}
	known, swept := &dueList{}, 0
	store := &stubborn{Store: files}
	s := &attachmentSweeper{known: known, blobs: store, log: slog.New(slog.DiscardHandler), swept: func(n int) { swept += n }}

	// A Redis that knows of nothing, or does not answer, deletes nothing.
	known.err = errors.New("away")
	if err := s.sweep(t.Context(), time.Second); err == nil {
		t.Error("no error")
	}
	known.err = nil
	if err := s.sweep(t.Context(), time.Second); err != nil || there() != 4 {
		t.Fatal(err, there())
	}
	// What could not be deleted is not forgotten.
	known.due, store.keeps = ids[:2], ids[1]
	if err := s.sweep(t.Context(), time.Second); !errors.Is(err, blob.ErrUnavailable) {
		t.Fatal(err)
	}
	if there() != 3 || !slices.Equal(known.forgotten, ids[:1]) || swept != 1 {
		t.Fatal(there(), known.forgotten, swept)
	}
	known.due, store.keeps = ids[1:2], ""
	if err := s.sweep(t.Context(), time.Second); err != nil || there() != 2 || !slices.Equal(known.forgotten, ids[:2]) || swept != 2 {
		t.Fatal(err, there(), known.forgotten, swept)
	}
	// One part of Redis that does not answer keeps nothing of the others.
	known.due, known.err = ids[2:3], errors.New("away")
	if err := s.sweep(t.Context(), time.Second); !errors.Is(err, known.err) {
		t.Fatal(err)
	}
	if there() != 1 || !slices.Equal(known.forgotten, ids[:3]) || swept != 3 {
		t.Fatal(there(), known.forgotten, swept)
	}
}

// One blob that can't be deleted (a lock on the object, say) must not keep all others for ever.
func TestOneBlobThatStaysKeepsNoOther(t *testing.T) {
	files := blob.NewFiles(t.TempDir())
	if err := files.Prepare(); err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	var ids []string
	for range 5 {
		ids = append(ids, blobtest.Put(t, files, []byte("hello")))
	}
	known, swept := &dueList{due: ids}, 0
	s := &attachmentSweeper{known: known, blobs: &stubborn{Store: files, keeps: ids[0]}, log: slog.New(slog.DiscardHandler), swept: func(n int) { swept += n }}
	if err := s.sweep(t.Context(), time.Second); err == nil || swept != 4 {
		t.Errorf("%d of the 4 others are deleted, %v", swept, err)
	}
}
