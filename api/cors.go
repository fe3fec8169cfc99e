package api

import (
	"net/http"

	"github.com/gin-gonic/gin"
)

// CORS: which headers a page of another origin may send and read.
const (
	corsMethods = "GET, HEAD, POST, PUT, DELETE"
	corsHeaders = "Authorization, Content-Type, Idempotency-Key, If-None-Match, If-Range, Range, Traceparent, Tracestate, X-Request-Id"
	corsExposed = "Content-Disposition, Content-Range, Etag, Idempotent-Replayed, Location, Retry-After, X-Request-Id"
	corsMaxAge  = "600" // seconds a browser keeps the answer to a preflight
)

// cors lets pages of the configured origins read the answers. Credentials are
// never allowed: tokens travel in a header that pages set themselves, so there
// is no cookie for a foreign page to ride on. Other origins' requests are
// answered as any; the browser keeps the answer from the page.
func (a *API) cors(c *gin.Context) {
	origin := c.Request.Header.Get("Origin")
	if origin == "" || len(a.origins) == 0 {
		return
	}
	h := c.Writer.Header()
	h.Add("Vary", "Origin")
	allowed := a.origins[origin]
	if a.origins["*"] {
		allowed, origin = true, "*"
	}
	if allowed {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", corsExposed)
	}
	if c.Request.Method != http.MethodOptions || c.Request.Header.Get("Access-Control-Request-Method") == "" {
		return
	}
	if !allowed {
		a.fail(c, forbidden("this origin is not among the configured ones"))
		return
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", corsMaxAge)
	c.AbortWithStatus(http.StatusNoContent)
}
