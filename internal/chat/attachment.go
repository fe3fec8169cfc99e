package chat

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Outcomes of what is done with attachments.
var (
	// ErrNoAttachment: it was never uploaded, or is gone.
	ErrNoAttachment = errors.New("no such attachment")
	// ErrAttachmentHidden: it is somebody else's, and in no room of the one who asks.
	ErrAttachmentHidden = errors.New("the attachment is not the user's to see")
	// ErrAttachmentRooms: it was sent to as many rooms as one may be.
	ErrAttachmentRooms = errors.New("the attachment was sent to the most rooms")
)

// QuotaError: the user has uploaded as much as one may for now.
type QuotaError struct{ Again time.Duration }

func (e *QuotaError) Error() string {
	return fmt.Sprintf("the user's quota of uploads is used up for another %v", e.Again)
}

// Attachment is what is known of an uploaded file besides its bytes.
type Attachment struct {
	ID          string
	By          string // who uploaded it
	Name        string // safe to show, not to open
	Size        int64
	ContentType string // as its first bytes say, not as the client did
	SHA256      string // in hexadecimal
}

// AttachmentTimes are how long attachments are kept.
type AttachmentTimes struct {
	// Pending is for one that no message names.
	Pending time.Duration
	// Kept is from the last send of one that messages name. 0: for good.
	Kept time.Duration
}

// Quota is how much a user may upload in a time. Zero Bytes: anything.
type Quota struct {
	Bytes int64
	In    time.Duration
}

// Attachments is what Redis knows of uploaded files: whose they are, and the rooms
// they were sent to, whose members may see them. The bytes are elsewhere.
//
// Nothing is lost track of: an ID is announced before its first byte is stored,
// and is among the Due ones until it was sent to a room for good.
type Attachments interface {
	// AnnounceUpload notes the ID, and takes most bytes off by's quota, which a
	// server key does not have. A *QuotaError when there are not so many.
	AnnounceUpload(ctx context.Context, by Actor, id string, most int64, q Quota, pending time.Duration) error
	// GiveBack returns to by's quota what an upload did not need.
	GiveBack(ctx context.Context, by Actor, bytes int64) error
	// KeepUpload makes an announced upload an attachment, until pending has passed
	// or it is sent. ErrNoAttachment when it took so long that it was given up.
	KeepUpload(ctx context.Context, a Attachment, pending time.Duration) error

	// Attachment is for who uploaded it and for members of a room that it was sent
	// to: ErrNoAttachment, ErrAttachmentHidden.
	Attachment(ctx context.Context, by Actor, id string) (Attachment, error)
	// Attach lets a room's members see what by is about to send there, and keeps
	// it: all of it, or an error. by must be a member of the room and be allowed to
	// see each. It comes before the send, so that no acknowledged message names
	// what its readers can't have; of a send that fails, what was attached stays.
	Attach(ctx context.Context, by Actor, room string, ids []string, kept time.Duration) error

	// DueAttachments returns attachments that nobody can ask for any more, at most
	// limit of each partition: their bytes are to be deleted, and they forgotten.
	// Of all processes, one is told at a time. Partitions that do not answer are an
	// error; what is due in the others is returned with it.
	DueAttachments(ctx context.Context, every time.Duration, limit int) (ids []string, err error)
	// ForgetAttachments makes IDs never have been announced. Their bytes must be
	// gone, or never have come.
	ForgetAttachments(ctx context.Context, ids []string) error
}
