package api

import (
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
)

// Content types. problem+json is RFC 9457's.
const (
	contentJSON    = "application/json"
	contentProblem = "application/problem+json"
)

// write answers with bytes. A client that has gone away is no error of ours.
func write(c *gin.Context, status int, contentType string, body []byte) {
	h := c.Writer.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.Writer.WriteHeader(status)
	_, _ = c.Writer.Write(body)
}

// writeJSON answers with a value. Message events are not encoded here but
// assembled from the log's bytes.
func writeJSON(c *gin.Context, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	write(c, status, contentJSON, body)
	return nil
}

// timeFormat is RFC 3339 with milliseconds, in UTC.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }
