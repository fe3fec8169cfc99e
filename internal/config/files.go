package config

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"time"
)

// Files is about attachments: where their bytes are, and what is taken.
type Files struct {
	BlobDir           string        `name:"blob-dir" help:"Directory for the files that people attach, the same one for all APIs (on a file system that they share); with --blob-s3-endpoint it is where uploads wait until they are whole, and need not be shared.${blob_note}" placeholder:"DIR" type:"path"`
	S3Endpoint        string        `name:"blob-s3-endpoint" help:"URL of S3, or of what speaks like it, to keep files in instead of a directory: https://s3.eu-central-1.amazonaws.com for instance." placeholder:"URL"`
	S3Bucket          string        `name:"blob-s3-bucket" help:"Bucket for the files; it must be there. Nothing but APIs should write to it." placeholder:"NAME"`
	S3Region          string        `name:"blob-s3-region" help:"Region of the bucket. Empty: S3 is asked." placeholder:"REGION"`
	S3Prefix          string        `name:"blob-s3-prefix" help:"What stands before the name of each object, for a bucket that holds other things too." placeholder:"PREFIX"`
	S3AccessKey       string        `name:"blob-s3-access-key" help:"ID of the key that may read, write and delete objects there. Empty: requests are not signed." placeholder:"ID"`
	S3SecretKeyFile   string        `name:"blob-s3-secret-key-file" help:"File with that key's secret." placeholder:"FILE" type:"path"`
	MaxAttachment     Bytes         `name:"max-attachment-bytes" help:"Largest file. Larger fills the store faster, and keeps an upload's place longer." default:"25MiB"`
	AttachmentTypes   []string      `help:"Content types that are taken, by what is in a file and not by what its sender says: image/png, image/*. Empty: all." placeholder:"TYPE"`
	AttachmentPending time.Duration `help:"How long an uploaded file is kept that no message names. Longer keeps more of what nobody will see; shorter loses what somebody is still writing about." default:"24h"`
	AttachmentKeep    time.Duration `help:"How long a file is kept from the last time it was sent. 0: for good. Shorter than messages are kept, it leaves messages that name files which are gone." default:"0"`
	UploadQuota       Bytes         `help:"How much one user may upload in 24 hours, over all APIs; a file counts as 16 KiB at least. 0: anything. Server keys have no quota." default:"1GiB"`
	MaxUploads        int           `help:"Uploads that may be under way in one process; a user may have four of them. More cost a descriptor, a connection and 50 KB each; over it, 503." default:"64"`
	UploadTimeout     time.Duration `help:"How long an upload may take. Nothing for 15 s ends it sooner. Longer lets slow clients keep a place; shorter cuts off large files on slow lines." default:"10m"`
}

// maxAttachment is as much as S3 takes in one piece.
const maxAttachment Bytes = 5 << 30

// On says whether attachments are taken.
func (c Files) On() bool { return c.BlobDir != "" || c.S3Endpoint != "" }

// S3SecretKey is the secret in its file; "" when none is given.
func (c Files) S3SecretKey() (string, error) {
	if c.S3SecretKeyFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.S3SecretKeyFile)
	if err != nil {
		return "", fmt.Errorf("--blob-s3-secret-key-file: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return "", fmt.Errorf("--blob-s3-secret-key-file: %s is empty", c.S3SecretKeyFile)
	}
	return string(b), nil
}

// contentType is a type as --attachment-types has it: one, or all of a family.
var contentType = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]*/([a-z0-9][a-z0-9!#$&^_.+-]*|\*)$`)

func (c Files) check(p *problems) {
	p.pair("blob-s3-endpoint", c.S3Endpoint, "blob-s3-bucket", c.S3Bucket)
	p.pair("blob-s3-access-key", c.S3AccessKey, "blob-s3-secret-key-file", c.S3SecretKeyFile)
	if c.S3Endpoint != "" {
		p.httpURL("blob-s3-endpoint", c.S3Endpoint)
	}
	if _, err := c.S3SecretKey(); err != nil {
		*p = append(*p, err)
	}
	p.size("max-attachment-bytes", c.MaxAttachment, 1)
	if c.MaxAttachment > maxAttachment {
		p.add("max-attachment-bytes", "%s is more than %s", c.MaxAttachment, maxAttachment)
	}
	for _, t := range c.AttachmentTypes {
		if !contentType.MatchString(t) {
			p.add("attachment-types", "%q is not a content type such as image/png or image/*", t)
		}
	}
	p.duration("attachment-pending", c.AttachmentPending, time.Hour, 365*24*time.Hour)
	if c.AttachmentKeep != 0 {
		p.duration("attachment-keep", c.AttachmentKeep, c.AttachmentPending, 100*365*24*time.Hour)
	}
	p.atLeast("max-uploads", int64(c.MaxUploads), 1)
	p.duration("upload-timeout", c.UploadTimeout, time.Second, 50*time.Minute) // what is known of an upload outlives it by an hour
}
