package auth

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

// Pace and bounds of fetching keys.
const (
	jwksEvery    = 2 * time.Second  // a key that is withdrawn works so long
	jwksGap      = 10 * time.Second // between two fetches, whatever kids the tokens name, unless every is less
	jwksRetryMin = time.Second      // after a failure, doubled up to jwksRetryMax
	jwksRetryMax = 10 * time.Second // also how late a withdrawal is noticed after an outage
	jwksTimeout  = 10 * time.Second
	maxJWKSBytes = 1 << 20
	maxJWKSKeys  = 100
)

// JWKSOptions are what a JWKS is made of.
type JWKSOptions struct {
	URL    string
	Logger *slog.Logger // nil: slog.Default()
	Client *http.Client // nil: one with a time-out that never goes from https to http
	// Every is how often the issuer is asked; default 2 s. It is asked with
	// If-None-Match, so that the answer is short as long as nothing has changed.
	Every time.Duration
	// OnWithdrawn is called, by one goroutine, when keys are no longer published:
	// what was believed because of them should be forgotten (Cache.Purge). May be
	// nil.
	OnWithdrawn func(keys []KeyTag)

	gap, retry time.Duration // of tests; 0: the constants
}

// JWKS is a KeySource with the keys that an issuer publishes. It fetches them in
// a goroutine of its own, every few seconds, so that one that is withdrawn is
// noticed, and goes on with the last ones while the issuer can't be reached. It
// never lets a Verify wait: the first token of a new key is refused, the fetch
// is started, and a retry a moment later is good. (keyfunc, the usual choice,
// fetches inside Verify, which would stop an event loop.)
type JWKS struct {
	opt    JWKSOptions
	where  string                         // URL for the log: without user, password and query
	keys   atomic.Pointer[[]publishedKey] // nil until the first fetch
	wanted chan struct{}                  // a token named an unknown key
	last   published                      // the goroutine's own

	mu     sync.Mutex
	cancel context.CancelFunc // guarded by mu; nil until Start
	done   chan struct{}      // closed when the goroutine has ended
}

// published is what the issuer answered last, to tell whether it says anything
// new.
type published struct {
	text []byte
	etag string // "": none was told
}

type publishedKey struct {
	kid, alg string // may be empty: any
	Key
}

func newPublishedKey(kid, alg string, key crypto.PublicKey) (publishedKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return publishedKey{}, err
	}
	// With what it is published as: under another name it is another key to those
	// who have tokens of it.
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", kid, alg, der))
	tag := max(1, KeyTag(binary.BigEndian.Uint64(sum[:])))
	return publishedKey{kid, alg, Key{key, tag}}, nil
}

// NewJWKS checks the options; it starts nothing.
func NewJWKS(o JWKSOptions) (*JWKS, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("auth: the JWKS URL must be http(s)://host/path")
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone() // its own: run closes connections
		o.Client = &http.Client{Timeout: jwksTimeout, CheckRedirect: noDowngrade, Transport: transport}
	}
	if o.OnWithdrawn == nil {
		o.OnWithdrawn = func([]KeyTag) {}
	}
	o.Every = cmp.Or(o.Every, jwksEvery)
	if o.gap == 0 {
		o.gap, o.retry = jwksGap, jwksRetryMin
	}
	where := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	return &JWKS{opt: o, where: where, wanted: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

func noDowngrade(req *http.Request, via []*http.Request) error {
	if len(via) > 3 || via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("too many redirects, or one from https to http")
	}
	return nil
}

// Start begins to fetch. It is called once.
func (j *JWKS) Start() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	j.cancel = cancel
	go j.run(ctx) // Stop cancels ctx and waits for done
}

// Stop ends the fetching; the keys stay. Calling it again, or before Start, is
// harmless.
func (j *JWKS) Stop() {
	j.mu.Lock()
	cancel := j.cancel
	j.mu.Unlock()
	if cancel != nil {
		cancel()
		<-j.done
	}
}

// Ready says whether there have been keys.
func (j *JWKS) Ready() bool { return j.keys.Load() != nil }

// PublicKeys implements KeySource.
func (j *JWKS) PublicKeys(kid, alg string) (keys []Key) {
	if known := j.keys.Load(); known != nil {
		for _, k := range *known {
			if (kid == "" || k.kid == "" || k.kid == kid) && (k.alg == "" || k.alg == alg) && fits(k.Public, alg) && len(keys) < maxKeysTried {
				keys = append(keys, k.Key)
			}
		}
	}
	if len(keys) == 0 {
		j.want()
	}
	return keys
}

// Publishes says whether what a key signed is still good. Like PublicKeys it does
// not wait: a key that another process knows already is fetched, and good a moment
// later.
func (j *JWKS) Publishes(tag KeyTag) bool {
	if tag == 0 {
		return true
	}
	if known := j.keys.Load(); known != nil {
		for i := range *known {
			if (*known)[i].Tag == tag {
				return true
			}
		}
	}
	j.want()
	return false
}

// want has the keys fetched sooner, if they may be.
func (j *JWKS) want() {
	select {
	case j.wanted <- struct{}{}:
	default: // is wanted already
	}
}

func (j *JWKS) run(ctx context.Context) {
	defer close(j.done)
	defer j.opt.Client.CloseIdleConnections()
	retry := j.opt.retry
	for {
		wait := j.opt.Every
		if err := j.fetch(ctx); ctx.Err() != nil {
			return
		} else if err != nil {
			// HTTP/2 would go on with a connection whose other end is gone without a
			// word for as long as TCP does.
			j.opt.Client.CloseIdleConnections()
			wait = retry
			retry = min(2*retry, jwksRetryMax)
			j.opt.Logger.Warn("fetching the JWT keys failed; the last ones stay", "url", j.where, "err", err, "again_in", wait)
		} else {
			retry = j.opt.retry
		}
		if !j.pause(ctx, wait) {
			return
		}
	}
}

// pause waits, shorter when a key is wanted, but never so short that tokens with
// made-up kids could drive it.
func (j *JWKS) pause(ctx context.Context, wait time.Duration) bool {
	gap := time.NewTimer(min(j.opt.gap, wait))
	defer gap.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-gap.C:
	}
	rest := time.NewTimer(wait - min(j.opt.gap, wait))
	defer rest.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-j.wanted:
	case <-rest.C:
	}
	return true
}

func (j *JWKS) fetch(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.opt.URL, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if j.last.etag != "" { // Last-Modified would miss the second of two changes in a second
		req.Header.Set("If-None-Match", j.last.etag)
	}
	resp, err := j.opt.Client.Do(req)
	if err != nil {
		if told := (*url.Error)(nil); errors.As(err, &told) {
			err = told.Err // without the URL, whose query may be a secret
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && j.last.etag != "" {
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKSBytes+1))
	if err != nil {
		return err
	}
	if len(text) > maxJWKSBytes {
		return fmt.Errorf("more than %d bytes", maxJWKSBytes)
	}
	answer := published{text, resp.Header.Get("ETag")}
	if bytes.Equal(text, j.last.text) {
		j.last = answer
		return nil
	}
	keys, err := parseJWKS(text, j.opt.Logger)
	if err != nil {
		return err
	}
	j.last = answer
	var old []publishedKey
	if was := j.keys.Swap(&keys); was != nil {
		old = *was
	}
	added, withdrawn := without(keys, old), without(old, keys)
	if len(added) > 0 || len(withdrawn) > 0 {
		j.opt.Logger.Info("the issuer's JWT keys have changed", "url", j.where, "added", len(added), "withdrawn", len(withdrawn))
	}
	if len(withdrawn) > 0 {
		j.opt.OnWithdrawn(withdrawn)
	}
	return nil
}

// without are the tags of keys that others do not have, in whatever order they are.
func without(keys, others []publishedKey) (tags []KeyTag) {
	for _, k := range keys {
		if !slices.ContainsFunc(others, func(other publishedKey) bool { return other.Tag == k.Tag }) {
			tags = append(tags, k.Tag)
		}
	}
	return tags
}

// parseJWKS takes the keys that can verify one of our algorithms. Others are
// left out, not an error: issuers publish keys for many purposes. Symmetric keys
// are never taken, whoever publishes one.
func parseJWKS(text []byte, log *slog.Logger) ([]publishedKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("not a JWK set: %w", err)
	}
	if len(set.Keys) > maxJWKSKeys {
		return nil, fmt.Errorf("%d keys, more than %d", len(set.Keys), maxJWKSKeys)
	}
	var keys []publishedKey
	for i, raw := range set.Keys {
		// Without GetX5U nothing else is fetched, without Private symmetric and
		// private keys are not read.
		jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err == nil {
			err = usable(jwk.Key())
		}
		m := jwk.Marshal()
		if err == nil && m.USE != "" && m.USE != jwkset.UseSig {
			err = fmt.Errorf("its use is %q", m.USE)
		}
		var key publishedKey
		if err == nil {
			key, err = newPublishedKey(m.KID, m.ALG.String(), jwk.Key())
		}
		if err != nil {
			log.Debug("a key of the JWK set is left out", "index", i, "err", err)
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key for RS256, ES256 or EdDSA")
	}
	return keys, nil
}
