package api

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/api/openapi"
	"github.com/madang-chat/madang/internal/chat"
)

func renderSpec() (spec, docs []byte, err error) {
	if spec, err = openapi.JSON(); err != nil {
		return nil, nil, err
	}
	docs, err = openapi.Page()
	return spec, docs, err
}

// GET /openapi.json
func (a *API) serveSpec(_ context.Context, c *gin.Context, _ chat.Actor) error {
	c.Writer.Header().Set("Cache-Control", "public, max-age=60") // nothing of anybody's
	write(c, http.StatusOK, contentJSON, a.spec)
	return nil
}

// GET /docs
func (a *API) serveDocs(_ context.Context, c *gin.Context, _ chat.Actor) error {
	h := c.Writer.Header()
	h.Set("Cache-Control", "public, max-age=60")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	write(c, http.StatusOK, "text/html; charset=utf-8", a.docs)
	return nil
}
