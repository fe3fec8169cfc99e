package sender

import (
	"strconv"
	"time"

	"github.com/madang-chat/madang/loadtest/answer"
	"github.com/madang-chat/madang/loadtest/target"
)

// Some sends carry a file: it is uploaded first, on the same connection, and then
// named in the message. The upload is timed by itself, from when the send was due;
// the message is due when its file is there. A file that could not be uploaded is
// counted, and its message goes without it: the schedule of the messages is what
// is measured first.

// file is what all uploads send: a picture, as far as its first bytes say.
func file(size int) []byte {
	const start = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
	b := append(make([]byte, 0, size), start[:min(size, len(start))]...)
	for len(b) < size {
		b = append(b, byte(len(b)*7))
	}
	return b
}

// uploader is the dialect's, nil when it has none or nothing is to be uploaded.
func uploader(cfg Config) target.Uploader {
	u, ok := cfg.Dialect.(target.Uploader)
	if !ok || cfg.UploadShare <= 0 {
		return nil
	}
	return u
}

// carries decides whether a send is to carry a file.
func (s *Sender) carries() bool { return s.uploader != nil && s.rng.Float64() < s.cfg.UploadShare }

// uploaded is called with the answer to an upload; the connection is idle again.
// The message goes next.
func (s *Sender) uploaded(j job, h answer.Head, body []byte) {
	j.carries = false
	id, ok := s.uploader.Uploaded(body)
	switch {
	case h.Status/100 != 2:
		s.stats.NotUploaded.Count(refusal(h, body))
	case !ok:
		s.stats.NotUploaded.Count("answered " + strconv.Itoa(h.Status) + " without the file's ID")
	default:
		s.stats.Uploads++
		s.meters.upload.Record(s.now - j.due)
		j.file = string(id)
	}
	j.due, j.tries = s.now, 0
	s.attempt(j)
}

// notUploaded is called when the connection of an upload broke. Whether the file
// was stored is not known; nobody asks for one that no message names.
func (s *Sender) notUploaded(j job, reason string) {
	s.stats.NotUploaded.Count(reason)
	j.carries, j.due, j.tries = false, s.now, 0
	s.hold(j, s.rng.Int64N(int64(20*time.Millisecond)), reason)
}
