// Package blob keeps the bytes of attachments, one blob for each, under an ID that
// this package made. Who may read one, what it is called and when it goes is
// decided elsewhere, from what is known in Redis: a store of blobs is never asked
// what there is.
//
// Invariants: a blob is there whole or not at all, and on disk (or as safe as S3
// makes it) when Commit has returned; it never changes; nothing of its path comes
// from outside, as an ID that is not of ours' form is an ID of nothing. All APIs
// of a deployment share one store: package s3, or a directory that all of them
// have mounted.
package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"
)

var (
	// ErrNotFound: there is no such blob.
	ErrNotFound = errors.New("blob: not found")
	// ErrFull: the disk, or a quota of it, has no room.
	ErrFull = errors.New("blob: no room")
	// ErrUnavailable: the store does not answer, or the process has no descriptor
	// left to ask it with.
	ErrUnavailable = errors.New("blob: the store does not answer")
)

// Store keeps blobs. It is safe for concurrent use.
type Store interface {
	// Create begins a blob that nobody sees before Commit.
	Create(ctx context.Context) (Draft, error)
	// Open reads a blob from any place in it. size is its length, which the caller
	// knows. ErrNotFound when there is none, now or at the first Read; ctx is for
	// as long as it is read.
	Open(ctx context.Context, id string, size int64) (io.ReadSeekCloser, error)
	// Delete removes a blob; one that is not there is no error.
	Delete(ctx context.Context, id string) error
	// Clean removes what drafts left that have not been written to for so long:
	// their process was killed.
	Clean(ctx context.Context, idle time.Duration) (removed int, err error)
}

// Draft is a blob that is being written. It is used by one goroutine.
type Draft interface {
	io.Writer
	// Commit makes it a blob under id, durably.
	Commit(ctx context.Context, id string) error
	// Discard leaves nothing of a draft that was not committed; after Commit it
	// does nothing.
	Discard()
}

// idLen is the length of rand.Text: 130 bits that nobody guesses.
const idLen = 26

// NewID makes an ID.
func NewID() string { return rand.Text() }

// ValidID says whether id has the form of ours.
func ValidID(id string) bool {
	if len(id) != idLen {
		return false
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// check is ValidID as an error.
func check(id string) error {
	if !ValidID(id) {
		return fmt.Errorf("%w: %q is not one of our IDs", ErrNotFound, id)
	}
	return nil
}
