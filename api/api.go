package api

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
)

// Options are what an API is made of. Store and Verifier are needed; everything
// else has a default.
type Options struct {
	Store    Store
	Verifier auth.Verifier
	Logger   *slog.Logger // nil: slog.Default()
	Observer Observer     // nil: nobody counts
	// OnAnswered is told of every request once it was answered, for traces; it must
	// be quick and must not block. nil: nobody.
	OnAnswered func(Answered)
	Limits     Limits
	// Attachments: nil when there are none.
	Attachments *Attachments

	// Origins are the web pages (scheme://host[:port], exact, or "*") that may
	// use the API from a browser besides those of its own origin.
	Origins []string
	// ShowFocus tells everybody which rooms a user is looking at. Otherwise only
	// server keys are told.
	ShowFocus bool
	// TrustedProxies are the CIDRs whose X-Forwarded-For is believed in the
	// access log. Empty: none, the peer's address is the client's.
	TrustedProxies []string
	// Extra are routes of others, served beside the table's own, without
	// authentication: the demo page of `madang dev`.
	Extra []Extra
	// TLS makes Start serve HTTPS; GetCertificate in it allows to exchange
	// certificates without a restart. nil: plain HTTP.
	TLS *tls.Config
}

// Store is what the API asks of Redis.
type Store interface {
	chat.Store
	chat.Live
	chat.Retainer
	chat.Revoker
	chat.Attachments
}

// Extra is a route of somebody else. Path is a Gin pattern.
type Extra struct {
	Method, Path string
	Handler      http.Handler
}

// Limits bound what a request may cost. A zero field takes its default.
type Limits struct {
	// BodyBytes is the largest JSON body. Larger lets one request hold more
	// memory.
	BodyBytes int
	// TextChars is the longest text of a message, in Unicode code points.
	TextChars int
	// StoreTimeout is how long a request may wait for Redis, from when its body has
	// come. Longer piles up senders while Redis is slow; shorter turns slowness
	// into 503.
	StoreTimeout time.Duration
	// SendsPerSecond and SendBurst bound what one user may send through this
	// process; server keys are not limited. Larger lets one user load rooms
	// more; smaller cuts off scripts and fast typists. SendsPerSecond 0: no limit.
	SendsPerSecond float64
	SendBurst      int
	// AnswerBytes is what answers to reads may take while their clients take them;
	// an eighth of it, those of one user. Larger lets slow clients hold more memory;
	// smaller refuses reads when many are slow.
	AnswerBytes int64
}

// Defaults of Limits.
const (
	defaultBodyBytes    = 64 << 10
	defaultTextChars    = 8_000
	defaultStoreTimeout = 3 * time.Second
	defaultSendBurst    = 100
	defaultAnswerBytes  = 128 << 20
)

func (l Limits) withDefaults() Limits {
	l.BodyBytes = cmp.Or(l.BodyBytes, defaultBodyBytes)
	l.TextChars = cmp.Or(l.TextChars, defaultTextChars)
	l.StoreTimeout = cmp.Or(l.StoreTimeout, defaultStoreTimeout)
	l.SendBurst = cmp.Or(l.SendBurst, defaultSendBurst)
	l.AnswerBytes = cmp.Or(l.AnswerBytes, defaultAnswerBytes)
	return l
}

// API serves the routes. Make one with New.
type API struct {
	store     Store
	showFocus bool
	verifier  auth.Verifier
	log       *slog.Logger
	observer  Observer
	answered  func(Answered) // nil: nobody asks
	limits    Limits
	origins   map[string]bool
	sends     *rateLimit   // nil: no limit
	reads     *reads       // those under way
	bodies    *held        // those that have not come whole
	files     *attachments // nil: none are taken
	spec      []byte       // openapi.json
	docs      []byte       // the page of /docs
	engine    *gin.Engine
	server    server
}

// Gin's mode is global, and this is the only package that uses Gin: it prints
// nothing and leaves logging to us.
func init() { gin.SetMode(gin.ReleaseMode) }

// New builds an API. It listens to nothing and starts nothing: see Start, or use
// Handler.
func New(o Options) (*API, error) {
	if o.Store == nil || o.Verifier == nil {
		return nil, errors.New("api: Store and Verifier are needed")
	}
	if o.Limits.BodyBytes < 0 || o.Limits.TextChars < 0 || o.Limits.StoreTimeout < 0 || o.Limits.AnswerBytes < 0 {
		return nil, fmt.Errorf("api: a negative limit: %+v", o.Limits)
	}
	a := &API{
		store: o.Store, verifier: o.Verifier, log: cmp.Or(o.Logger, slog.Default()), observer: o.Observer, answered: o.OnAnswered,
		limits: o.Limits.withDefaults(), origins: make(map[string]bool),
	}
	a.showFocus = o.ShowFocus
	if a.observer == nil {
		a.observer = nobody{}
	}
	if a.limits.SendsPerSecond > 0 && a.limits.SendBurst > 0 {
		a.sends = newRateLimit(a.limits.SendsPerSecond, a.limits.SendBurst)
	}
	a.reads = newReads(a.limits.AnswerBytes)
	a.bodies = newHeld(maxBodies, userBodies)
	for _, origin := range o.Origins {
		a.origins[strings.ToLower(origin)] = true // as browsers write it, and as gateways compare
	}
	var err error
	if a.files, err = newAttachments(o.Attachments, o.Store); err != nil {
		return nil, err
	}
	if a.spec, a.docs, err = renderSpec(); err != nil {
		return nil, err
	}
	if err := a.build(o); err != nil {
		return nil, err
	}
	a.server.init(a.engine, a.log, o.TLS, a.limits.StoreTimeout)
	return a, nil
}

// build makes the engine. Gin panics on routes that contradict each other.
func (a *API) build(o Options) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("api: routes: %v", p)
		}
	}()
	e := gin.New()
	if err := e.SetTrustedProxies(o.TrustedProxies); err != nil {
		return fmt.Errorf("api: trusted proxies: %w", err)
	}
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false // one path, one meaning; and a redirected POST loses its body
	// User names are percent-encoded in paths and may hold slashes. Gin would
	// decode values as in a query ('+' as a blank): pathValue does it instead.
	e.UseRawPath = true
	e.UnescapePathValues = false

	e.Use(a.enter, a.cors)
	e.NoRoute(func(c *gin.Context) { a.fail(c, errNoRoute) })
	e.NoMethod(func(c *gin.Context) { a.fail(c, errNoMethod) })
	for _, r := range routes {
		addRoute(e, r.method, r.path, a.endpoint(r))
	}
	for _, x := range o.Extra {
		addRoute(e, x.Method, x.Path, gin.WrapH(x.Handler))
	}
	a.engine = e
	return nil
}

// addRoute adds a route. What is served to GET is to HEAD (RFC 9110, section 9.1); net/http leaves
// the body out.
func addRoute(e *gin.Engine, method, path string, h gin.HandlerFunc) {
	e.Handle(method, path, h)
	if method == http.MethodGet {
		e.Handle(http.MethodHead, path, h)
	}
}

// Handler is the whole API as an http.Handler, for tests and for embedding.
func (a *API) Handler() http.Handler { return a.engine }
