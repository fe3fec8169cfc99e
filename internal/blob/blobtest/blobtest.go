// Package blobtest is what every blob.Store must do, as a test for each of them.
package blobtest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/madang-chat/madang/internal/blob"
)

// Put stores content as a new blob.
func Put(tb testing.TB, s blob.Store, content []byte) (id string) {
	tb.Helper()
	d, err := s.Create(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Discard()
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 1+rand.IntN(40_000))
		if k, err := d.Write(rest[:n]); k != n || err != nil {
			tb.Fatal(k, err)
		}
		rest = rest[n:]
	}
	id = blob.NewID()
	if err := d.Commit(tb.Context(), id); err != nil {
		tb.Fatal(err)
	}
	return id
}

// Run tests a store.
func Run(t *testing.T, s blob.Store) {
	t.Run("what was written is read", func(t *testing.T) {
		for _, size := range []int{1, 100, 200_000} {
			content := random(size)
			id := Put(t, s, content)
			r, err := s.Open(t.Context(), id, int64(size))
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(r, content); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("nothing is there that was not committed, or was deleted", func(t *testing.T) {
		wantNone(t, s, blob.NewID())
		id := Put(t, s, []byte("hello"))
		for range 2 {
			if err := s.Delete(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		wantNone(t, s, id)
	})
	t.Run("many at once", func(t *testing.T) {
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				content := random(50_000)
				id := Put(t, s, content)
				r, err := s.Open(t.Context(), id, int64(len(content)))
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
		all.Wait()
	})
}

// wantNone wants that there is no such blob, when it is opened or read.
func wantNone(t *testing.T, s blob.Store, id string) {
	t.Helper()
	r, err := s.Open(t.Context(), id, 5)
	if err == nil {
		defer r.Close()
		_, err = r.Read(make([]byte, 5))
	}
	if !errors.Is(err, blob.ErrNotFound) {
		t.Fatalf("%v, want not found", err)
	}
}

func random(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}
