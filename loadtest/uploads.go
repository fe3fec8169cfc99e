package loadtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"time"

	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/target"
)

// tryUpload finds out whether the target takes files, before sends are to carry
// any. Where it does not, the run goes on without, and says so.
func (r *run) tryUpload() error {
	s := &r.spec
	if s.UploadShare == 0 || !s.sends() {
		return nil
	}
	without := func(why string) {
		s.UploadShare = 0
		note := "no uploads: " + why
		r.result.Notes = append(r.result.Notes, note)
		r.result.Settings["uploads"] = "none"
		r.status.say("%s", note)
	}
	dialect, err := target.ByName(s.Target, s.options())
	if err != nil {
		return err
	}
	if _, ok := dialect.(target.Uploader); !ok {
		without(dialect.Name() + " is not spoken to about files")
		return nil
	}
	status, body, err := r.uploadOnce()
	switch {
	case err != nil:
		return fmt.Errorf("trying an upload: %w", err)
	case status == http.StatusUnauthorized:
		return errWrongSecret
	case status == http.StatusNotFound:
		without("the target takes no attachments (--blob-dir of the APIs)")
	case status != http.StatusCreated:
		return fmt.Errorf("trying an upload: the API answered %d: %s", status, bytes.TrimSpace(body))
	}
	return nil
}

// uploadOnce uploads a small file as the first user.
func (r *run) uploadOnce() (status int, body []byte, err error) {
	m, err := mint.New(r.spec.Secret, r.common.Claims)
	if err != nil {
		return 0, nil, err
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "try.txt")
	if err != nil {
		return 0, nil, err
	}
	if _, err := io.WriteString(part, "a try"); err != nil {
		return 0, nil, err
	}
	if err := w.Close(); err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.common.APIs[0].String()+"/v1/attachments", &form)
	if err != nil {
		return 0, nil, err
	}
	if r.spec.Host != "" {
		req.Host = r.spec.Host
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	req.Header.Set("Authorization", "Bearer "+string(m.Append(nil, r.crowd.User(0))))
	client := &http.Client{}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, 1<<16))
	return res.StatusCode, body, err
}
