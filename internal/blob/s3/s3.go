// Package s3 keeps blobs in a bucket of S3, or of what speaks like it. An upload
// waits in a file of this machine, which has no name any more, until it is whole:
// the bucket never sees half of one, and no process holds one in memory.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/madang-chat/madang/internal/blob"
)

// Options say where the bucket is. Endpoint and Bucket are needed.
type Options struct {
	Endpoint  string // http or https URL without a path
	Bucket    string
	Region    string // empty: asked for
	Prefix    string // before each object's name
	AccessKey string // empty: the bucket is open to this machine
	SecretKey string
	Spool     string // directory in which uploads wait; empty: the system's for temporary files
}

// Store is a bucket.
type Store struct {
	client *minio.Client
	opt    Options
}

var _ blob.Store = (*Store)(nil)

const (
	// attempts of a request. More hold an upload's sender longer while S3 is away.
	attempts = 3
	// answerTimeout is how long S3 may take to begin its answer.
	answerTimeout = 30 * time.Second
)

// New checks the options; it does not talk to S3.
func New(o Options) (*Store, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" && u.Path != "/" {
		return nil, errors.New("s3: it is not an http or https URL without a path") // nor shown: it may hold a password
	}
	o.Spool = cmp.Or(o.Spool, os.TempDir())
	transport, err := minio.DefaultTransport(u.Scheme == "https")
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	transport.ResponseHeaderTimeout = answerTimeout
	client, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: u.Scheme == "https", Region: o.Region,
		Transport: transport, MaxRetries: attempts,
	})
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return &Store{client: client, opt: o}, nil
}

// Prepare makes the directory in which uploads wait, and checks that it can be
// written to.
func (s *Store) Prepare() error {
	if err := os.MkdirAll(s.opt.Spool, 0o750); err != nil {
		return fmt.Errorf("s3: %w", err)
	}
	d, err := s.Create(context.Background())
	if err != nil {
		return err
	}
	d.Discard()
	return nil
}

// Create implements blob.Store.
func (s *Store) Create(context.Context) (blob.Draft, error) {
	file, err := os.CreateTemp(s.opt.Spool, "madang-upload-")
	if err != nil {
		return nil, blob.Explain(err)
	}
	// Without a name it goes with its process, however that ends.
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, fmt.Errorf("s3: %w", err)
	}
	return &draft{in: s, file: file}, nil
}

// Open implements blob.Store: it asks for nothing before the first Read.
func (s *Store) Open(ctx context.Context, id string, size int64) (io.ReadSeekCloser, error) {
	if !blob.ValidID(id) {
		return nil, blob.ErrNotFound
	}
	return &reader{in: s, ctx: ctx, id: id, size: size}, nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !blob.ValidID(id) {
		return blob.ErrNotFound
	}
	return explain(s.client.RemoveObject(ctx, s.opt.Bucket, s.opt.Prefix+id, minio.RemoveObjectOptions{}))
}

// Clean implements blob.Store: there is nothing that a killed process leaves.
func (s *Store) Clean(context.Context, time.Duration) (int, error) { return 0, nil }

// explain sorts an error of S3.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w (s3: %w)", blob.ErrUnavailable, err)
	}
	switch {
	case answer.Code == "NoSuchKey":
		return fmt.Errorf("%w (s3: %w)", blob.ErrNotFound, err)
	case answer.StatusCode == http.StatusInsufficientStorage:
		return fmt.Errorf("%w (s3: %w)", blob.ErrFull, err)
	case answer.StatusCode >= http.StatusInternalServerError, answer.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w (s3: %w)", blob.ErrUnavailable, err)
	}
	return fmt.Errorf("s3: %w", err)
}

// draft is a file without a name.
type draft struct {
	in   *Store
	file *os.File // nil: closed
	size int64
}

func (d *draft) Write(b []byte) (int, error) {
	n, err := d.file.Write(b)
	d.size += int64(n)
	if err != nil {
		err = blob.Explain(err)
	}
	return n, err
}

// Commit implements blob.Draft: one PUT, which S3 takes whole or not.
func (d *draft) Commit(ctx context.Context, id string) error {
	if !blob.ValidID(id) {
		return blob.ErrNotFound
	}
	defer d.Discard()
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("s3: %w", err)
	}
	_, err := d.in.client.PutObject(ctx, d.in.opt.Bucket, d.in.opt.Prefix+id, d.file, d.size,
		minio.PutObjectOptions{ContentType: "application/octet-stream", DisableMultipart: true})
	return explain(err)
}

// Discard implements blob.Draft.
func (d *draft) Discard() {
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
}

// reader reads an object from where it was last sought to, by one request until it
// is sought again.
type reader struct {
	in   *Store
	ctx  context.Context // of the request that the object is read for
	id   string
	size int64
	at   int64
	body io.ReadCloser // nil: none asked for
}

func (r *reader) Read(b []byte) (int, error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	if r.body == nil {
		var o minio.GetObjectOptions
		if r.at > 0 {
			if err := o.SetRange(r.at, r.size-1); err != nil {
				return 0, fmt.Errorf("s3: %w", err)
			}
		}
		body, _, _, err := (&minio.Core{Client: r.in.client}).GetObject(r.ctx, r.in.opt.Bucket, r.in.opt.Prefix+r.id, o)
		if err != nil {
			return 0, explain(err)
		}
		r.body = body
	}
	n, err := r.body.Read(b)
	r.at += int64(n)
	if err == io.EOF && r.at < r.size { //nolint:errorlint // Readers return EOF itself
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("s3: sought before the beginning")
	}
	if offset != r.at {
		_ = r.Close()
		r.at = offset
	}
	return offset, nil
}

func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
