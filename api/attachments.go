package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// Attachments is what uploads and downloads need. The Store must then be a
// chat.Attachments, too. A zero field but Blobs takes its default.
type Attachments struct {
	Blobs blob.Store
	// MaxBytes is the largest file. Larger lets a user fill the store faster.
	MaxBytes int64
	// Types are the content types that are taken: "image/png", "image/*". Empty:
	// all.
	Types []string
	// Times are how long files are kept.
	Times chat.AttachmentTimes
	// Quota is what one user may upload; server keys are not limited.
	Quota chat.Quota
	// Uploads is how many may be under way in this process; a user may have four of
	// them. More cost a file descriptor and 50 KB each.
	Uploads int
	// IdleTimeout is how long nothing may come of a body, Timeout how long it may
	// take in all, and the store to take it.
	IdleTimeout, Timeout time.Duration
}

// Defaults of Attachments.
const (
	defaultMaxBytes    = 25 << 20
	defaultPending     = 24 * time.Hour
	defaultUploads     = 64
	defaultIdleTimeout = 15 * time.Second
	defaultTimeout     = 10 * time.Minute
	// leastCharge is what the smallest file takes off a quota: each takes half a
	// kilobyte of Redis, and a block of a disk, however small it is.
	leastCharge = 16 << 10
	// uploadsPerUser keeps one user from taking all places.
	uploadsPerUser = 4
)

func (o Attachments) withDefaults() Attachments {
	o.MaxBytes = cmp.Or(o.MaxBytes, defaultMaxBytes)
	o.Times.Pending = cmp.Or(o.Times.Pending, defaultPending)
	o.Uploads = cmp.Or(o.Uploads, defaultUploads)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, defaultIdleTimeout)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	return o
}

// attachments is the part of an API that deals with files.
type attachments struct {
	Attachments
	store  chat.Attachments
	places *held // uploads under way
}

var (
	errUploadsFull = &problem{status: http.StatusServiceUnavailable, code: protocol.ErrUnavailable, detail: "too many uploads are under way here; retry", retryAfter: 1}
	errUserUploads = &problem{status: http.StatusTooManyRequests, code: protocol.ErrRateLimited, detail: "too many uploads of this user are under way", retryAfter: 1}
)

func newAttachments(o *Attachments, store chat.Attachments) (*attachments, error) {
	if o == nil {
		return nil, nil
	}
	if o.Blobs == nil {
		return nil, errors.New("api: attachments need Blobs")
	}
	if o.MaxBytes < 0 || o.Times.Pending < 0 || o.Times.Kept < 0 || o.Quota.Bytes < 0 || o.Uploads < 0 {
		return nil, fmt.Errorf("api: a negative limit of attachments: %+v", *o)
	}
	a := &attachments{Attachments: o.withDefaults(), store: store}
	a.places = newHeld(int64(a.Uploads), uploadsPerUser)
	return a, nil
}

var errAttachmentsOff = &problem{
	status: http.StatusNotFound, code: protocol.ErrAttachmentsOff,
	detail: "this deployment takes no attachments (--blob-dir or --blob-s3-endpoint would)",
}

// attach lets the members of a room see what a message is about to name.
func (a *API) attach(ctx context.Context, by chat.Actor, room string, ids []string) error {
	if a.files == nil {
		return errAttachmentsOff
	}
	for _, id := range ids {
		if !blob.ValidID(id) {
			return chat.ErrNoAttachment
		}
	}
	return a.files.store.Attach(ctx, by, room, ids, a.files.Times.Kept)
}

// attachmentView is an attachment as its uploader is told of it.
type attachmentView struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Size        int64  `json:"size"`
	ContentType string `json:"content_type"`
	SHA256      string `json:"sha256"`
}

// POST /v1/attachments. A repeated request makes another attachment; the one that
// no message names goes by itself.
func (a *API) upload(_ context.Context, c *gin.Context, by chat.Actor) error {
	if a.files == nil {
		a.abandonBody(c)
		return errAttachmentsOff
	}
	began := time.Now()
	body := &bounded{from: c.Request.Body}
	kept, err := a.files.receive(c, by, body, a.limits.StoreTimeout)
	a.observer.Upload(uploadOutcome(err), kept.Size, time.Since(began))
	if err != nil {
		// Behind the body net/http only looks whether the client is there still. A
		// deadline would end that as if it were not, and who went away is not logged.
		if !body.whole() {
			a.abandonBody(c)
		}
		return err
	}
	c.Writer.Header().Set("Location", "/v1/attachments/"+kept.ID)
	return writeJSON(c, http.StatusCreated, attachmentView{kept.ID, kept.Name, kept.Size, kept.ContentType, kept.SHA256})
}

// receive takes an upload in. What goes wrong leaves nothing, or, where it is not
// known whether the blob is there, an ID that comes due.
func (f *attachments) receive(c *gin.Context, by chat.Actor, body *bounded, storeTimeout time.Duration) (_ chat.Attachment, err error) {
	boundary, err := f.boundaryOf(c.Request)
	if err != nil {
		return chat.Attachment{}, err
	}
	owner := chat.Actor{User: by.User} // whose upload it is, whoever brings it
	switch all, user := f.places.take(owner, 1); {
	case user:
		return chat.Attachment{}, errUserUploads
	case all:
		return chat.Attachment{}, errUploadsFull
	}
	defer f.places.add(owner, -1)

	asking, asked := context.WithTimeout(c.Request.Context(), storeTimeout)
	defer asked()
	id := blob.NewID()
	most := f.MaxBytes
	if c.Request.ContentLength > 0 {
		most = min(most, c.Request.ContentLength)
	}
	most = max(most, leastCharge)
	if err := f.store.AnnounceUpload(asking, by, id, most, f.Quota, f.Times.Pending); err != nil {
		return chat.Attachment{}, overQuota(err)
	}
	charge, begun := int64(0), false
	defer func() {
		// Of whoever went away, too. Should it fail, time heals it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request.Context()), storeTimeout)
		defer cancel()
		if f.Quota.Bytes > 0 && charge < most {
			_ = f.store.GiveBack(ctx, by, most-charge)
		}
		if !begun {
			_ = f.store.ForgetAttachments(ctx, []string{id})
		}
	}()

	draft, err := f.Blobs.Create(c.Request.Context())
	if err != nil {
		return chat.Attachment{}, err
	}
	defer draft.Discard()
	body.progress = patienceFor(c.Writer, f.IdleTimeout, f.Timeout, storeTimeout)
	got, err := readUpload(body, boundary, draft, f.MaxBytes, f.takes)
	if err != nil {
		return chat.Attachment{}, err
	}
	begun = true
	// It has come whole: whoever hangs up now has it stored, and charged, all the same.
	staying := context.WithoutCancel(c.Request.Context())
	committing, committed := context.WithTimeout(staying, f.Timeout)
	defer committed()
	if err := draft.Commit(committing, id); err != nil {
		return chat.Attachment{}, err
	}
	charge = max(got.size, leastCharge)
	kept := chat.Attachment{ID: id, By: by.User, Name: got.name, Size: got.size, ContentType: got.contentType, SHA256: got.sha256}
	keeping, done := context.WithTimeout(staying, storeTimeout)
	defer done()
	if err := f.store.KeepUpload(keeping, kept, f.Times.Pending); err != nil {
		if errors.Is(err, chat.ErrNoAttachment) { // Redis has lost what was announced
			err = fmt.Errorf("%w: the upload is not known any more", chat.ErrUnavailable)
		}
		return chat.Attachment{}, err
	}
	return kept, nil
}

// takes says whether files of a content type are taken.
func (f *attachments) takes(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	for _, allowed := range f.Types {
		family, any := strings.CutSuffix(allowed, "/*")
		if kind == allowed || any && strings.HasPrefix(kind, family+"/") {
			return true
		}
	}
	return len(f.Types) == 0
}

// overQuota is what a user is told who has uploaded enough.
func overQuota(err error) error {
	var quota *chat.QuotaError
	if !errors.As(err, &quota) {
		return err
	}
	return &problem{
		status: http.StatusTooManyRequests, code: protocol.ErrQuota, detail: "the user has uploaded as much as one may for now",
		retryAfter: int((quota.Again + time.Second - 1) / time.Second),
	}
}

// Outcomes of an upload, as a metric's label.
const (
	UploadStored      = "stored"
	UploadRefused     = "refused"     // the client's doing: 4xx
	UploadLimited     = "limited"     // 429
	UploadCut         = "cut"         // the client broke off, or was too slow
	UploadUnavailable = "unavailable" // Redis or the blobs' store did not answer, or is full: 503, 507
	UploadFailed      = "failed"      // our doing: 500
)

// UploadOutcomes are all there are.
var UploadOutcomes = []string{UploadStored, UploadRefused, UploadLimited, UploadCut, UploadUnavailable, UploadFailed}

func uploadOutcome(err error) string {
	if err == nil {
		return UploadStored
	}
	switch p, _ := problemFor(err); {
	case p == errBodyLate, p == errBodyCut, p == errFormCut, errors.Is(err, context.Canceled):
		return UploadCut
	case p.status == http.StatusTooManyRequests:
		return UploadLimited
	case p.status < http.StatusInternalServerError:
		return UploadRefused
	case p == errInternal:
		return UploadFailed
	}
	return UploadUnavailable
}

// GET and HEAD /v1/attachments/{id}
func (a *API) download(ctx context.Context, c *gin.Context, by chat.Actor) error {
	if a.files == nil {
		return errAttachmentsOff
	}
	id := c.Param("id")
	if !blob.ValidID(id) {
		return chat.ErrNoAttachment
	}
	known, err := a.files.store.Attachment(ctx, by, id)
	if err != nil {
		return err
	}
	content, err := a.files.Blobs.Open(c.Request.Context(), id, known.Size)
	if err != nil {
		return missing(err)
	}
	defer content.Close()
	sent, cut, err := serve(c, known, content)
	a.observer.Download(sent)
	if cut { // half of it is out: the client must not take it for whole
		if c.Request.Context().Err() == nil {
			a.log.LogAttrs(c.Request.Context(), slog.LevelWarn, "a download was cut off", slog.String("request_id", requestID(c)), slog.Any("err", err))
		}
		panic(http.ErrAbortHandler)
	}
	return missing(err)
}

// missing keeps a blob that should be there from being taken for one that never
// was: that is for operators to hear of.
func missing(err error) error {
	if errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("the bytes of an attachment are missing; do all APIs share one store? %w", err)
	}
	return err
}

// boundaryOf checks the head of an upload's request.
func (f *attachments) boundaryOf(r *http.Request) (string, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return "", errEncoding
	}
	boundary, err := multipartBoundary(r.Header["Content-Type"])
	if err != nil {
		return "", err
	}
	if r.ContentLength > f.MaxBytes+maxUploadHead+maxUploadEnd {
		return "", fileTooLarge(f.MaxBytes)
	}
	return boundary, nil
}

func fileTooLarge(most int64) *problem {
	return &problem{status: http.StatusRequestEntityTooLarge, code: protocol.ErrTooLarge, detail: "a file may have " + strconv.FormatInt(most, 10) + " bytes"}
}
