package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/blob/s3"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/config"
)

// quotaTime is how long --upload-quota counts.
const quotaTime = 24 * time.Hour

// newAttachments opens the store of files; nil when there is to be none.
func newAttachments(p *process, c config.Files, swept func(int)) (*api.Attachments, error) {
	if !c.On() {
		return nil, nil
	}
	blobs, err := openBlobs(p, c)
	if err != nil {
		return nil, err
	}
	p.also = append(p.also, (&attachmentSweeper{known: p.store, blobs: blobs, log: p.log, swept: swept}).asPart())
	return &api.Attachments{
		Blobs:    blobs,
		MaxBytes: int64(c.MaxAttachment),
		Types:    c.AttachmentTypes,
		Times:    chat.AttachmentTimes{Pending: c.AttachmentPending, Kept: c.AttachmentKeep},
		Quota:    chat.Quota{Bytes: int64(c.UploadQuota), In: quotaTime},
		Uploads:  c.MaxUploads,
		Timeout:  c.UploadTimeout,
	}, nil
}

func openBlobs(p *process, c config.Files) (blob.Store, error) {
	if c.S3Endpoint == "" {
		files := blob.NewFiles(c.BlobDir)
		p.also = append(p.also, filesPart(files.Prepare, files.Close))
		return files, nil
	}
	secret, err := c.S3SecretKey()
	if err != nil {
		return nil, err
	}
	store, err := s3.New(s3.Options{
		Endpoint: c.S3Endpoint, Bucket: c.S3Bucket, Region: c.S3Region, Prefix: c.S3Prefix,
		AccessKey: c.S3AccessKey, SecretKey: secret, Spool: c.BlobDir,
	})
	if err != nil {
		return nil, fmt.Errorf("--blob-s3-endpoint: %w", err)
	}
	p.also = append(p.also, filesPart(store.Prepare, func() error { return nil }))
	return store, nil
}

func filesPart(prepare, end func() error) part {
	return part{
		name: "files",
		start: func(context.Context) error {
			if err := prepare(); err != nil {
				return fmt.Errorf("--blob-dir: %w", err)
			}
			return nil
		},
		stop: func(context.Context) error { return end() },
	}
}

const (
	// attachmentSweepEvery is how often attachments that are due are looked for, by
	// one process of all.
	attachmentSweepEvery = time.Minute
	// attachmentSweepPage is how many of each partition go at a time.
	attachmentSweepPage = 100
	// forgetTimeout is for one call to Redis.
	forgetTimeout = 10 * time.Second
	// draftsIdle is how long a draft is left alone: longer than any upload takes.
	draftsIdle = 2 * time.Hour
)

// attachmentSweeper deletes the bytes of attachments that nobody can ask for any
// more. It goes by what Redis says is due, and never by what Redis does not know:
// a Redis that lost its data loses no files.
type attachmentSweeper struct {
	known chat.Attachments
	blobs blob.Store
	log   *slog.Logger
	swept func(int)
	rounds
}

func (s *attachmentSweeper) asPart() part {
	return part{"attachments", s.start, func(context.Context) error { s.stop(); return nil }}
}

func (s *attachmentSweeper) start(ctx context.Context) error {
	s.begin(ctx, attachmentSweepEvery, func(ctx context.Context) {
		if err := s.sweep(ctx, attachmentSweepEvery); err != nil && ctx.Err() == nil {
			s.log.Warn("sweeping attachments", "err", err)
		}
	})
	return nil
}

// sweep deletes first and forgets then: what a crash leaves in between is due
// again.
func (s *attachmentSweeper) sweep(ctx context.Context, every time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	// A part of Redis that is away keeps only what it knows of itself.
	due, err := s.known.DueAttachments(ctx, every/2, attachmentSweepPage)
	swept := 0
	for some := range slices.Chunk(due, attachmentSweepPage) {
		n, deleteErr := s.delete(ctx, some)
		swept, err = swept+n, errors.Join(err, deleteErr)
		if ctx.Err() != nil {
			break
		}
	}
	if swept > 0 {
		s.log.Info("attachments that were not sent, or are past their time, are deleted", "attachments", swept)
	}
	_, cleanErr := s.blobs.Clean(ctx, draftsIdle)
	return errors.Join(err, cleanErr)
}

// delete deletes some attachments. What is deleted is forgotten even when the time
// is over: or the next turn would begin with the same ones. One that can't be deleted
// (its object is locked, say) keeps no other; of several errors the first is told.
func (s *attachmentSweeper) delete(ctx context.Context, ids []string) (n int, err error) {
	var gone []string
	for _, id := range ids {
		if deleteErr := s.blobs.Delete(ctx, id); deleteErr == nil {
			gone = append(gone, id)
		} else if err == nil {
			err = deleteErr
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(gone) == 0 {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTimeout)
	defer cancel()
	if forgetErr := s.known.ForgetAttachments(ctx, gone); forgetErr != nil {
		return 0, errors.Join(err, forgetErr)
	}
	s.swept(len(gone))
	return len(gone), err
}
