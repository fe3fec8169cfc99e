package metrics

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// API counts what the API does. It is an api.Observer.
type API struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	children sync.Map // requestKey → requestChild

	sends                       map[string]outcomeChild // by outcome; never changed
	uploads                     map[string]outcomeChild // likewise
	uploaded, downloaded, swept prometheus.Counter
}

type requestKey struct {
	method, route string
	status        int
}

type requestChild struct {
	count prometheus.Counter
	took  prometheus.Observer
}

type outcomeChild struct {
	count prometheus.Counter
	took  prometheus.Observer
}

// NewAPI registers the API's collectors. The outcomes are all that Send and Upload
// are told.
func NewAPI(r prometheus.Registerer, outcomes, uploadOutcomes []string) *API {
	m := &API{
		sends:   make(map[string]outcomeChild, len(outcomes)),
		uploads: make(map[string]outcomeChild, len(uploadOutcomes)),
		uploaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "madang_upload_bytes_total", Help: "Bytes of files that were stored.",
		}),
		downloaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "madang_download_bytes_total", Help: "Bytes of files that were sent to clients.",
		}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "madang_attachments_swept_total", Help: "Files deleted because no message named them in time, or because their time was over.",
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "madang_http_requests_total",
			Help: "HTTP requests answered, by method, route and status.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(
			histogram("madang_http_request_duration_seconds", "Time from a request's head to the end of its answer, by route.", requestBuckets),
			[]string{"method", "route"}),
	}
	sends := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "madang_sends_total",
		Help: "Messages that were sent, by what became of them: accepted, replayed, refused, limited, unavailable, failed.",
	}, []string{"outcome"})
	sendTimes := prometheus.NewHistogramVec(
		histogram("madang_send_duration_seconds", "Time from a send's head to its outcome, Redis included.", requestBuckets),
		[]string{"outcome"})
	for _, o := range outcomes {
		m.sends[o] = outcomeChild{sends.WithLabelValues(o), sendTimes.WithLabelValues(o)}
	}
	uploads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "madang_uploads_total",
		Help: "Files that were uploaded, by what became of them: stored, refused, limited, cut, unavailable, failed.",
	}, []string{"outcome"})
	uploadTimes := prometheus.NewHistogramVec(
		histogram("madang_upload_duration_seconds", "Time from an upload's head to its outcome, the client's line included.", uploadBuckets),
		[]string{"outcome"})
	for _, o := range uploadOutcomes {
		m.uploads[o] = outcomeChild{uploads.WithLabelValues(o), uploadTimes.WithLabelValues(o)}
	}
	r.MustRegister(m.requests, m.duration, sends, sendTimes, uploads, uploadTimes, m.uploaded, m.downloaded, m.swept)
	return m
}

// Request implements api.Observer.
func (m *API) Request(method, route string, status int, took time.Duration) {
	if route == "" {
		method, route = knownMethod(method), "none"
	}
	key := requestKey{method, route, status}
	child, ok := m.children.Load(key)
	if !ok {
		child, _ = m.children.LoadOrStore(key, requestChild{
			count: m.requests.WithLabelValues(method, route, strconv.Itoa(status)),
			took:  m.duration.WithLabelValues(method, route),
		})
	}
	c := child.(requestChild)
	c.count.Inc()
	c.took.Observe(took.Seconds())
}

// knownMethod keeps clients from inventing label values: where no route
// matched, the method is theirs.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// Send implements api.Observer.
func (m *API) Send(outcome string, took time.Duration) {
	c, ok := m.sends[outcome]
	if !ok {
		panic("BUG: metrics: an outcome of a send that nobody announced: " + outcome)
	}
	c.count.Inc()
	c.took.Observe(took.Seconds())
}

// Upload implements api.Observer.
func (m *API) Upload(outcome string, bytes int64, took time.Duration) {
	c, ok := m.uploads[outcome]
	if !ok {
		panic("BUG: metrics: an outcome of an upload that nobody announced: " + outcome)
	}
	c.count.Inc()
	c.took.Observe(took.Seconds())
	m.uploaded.Add(float64(bytes))
}

// Download implements api.Observer.
func (m *API) Download(bytes int64) { m.downloaded.Add(float64(bytes)) }

// Swept counts files that were deleted.
func (m *API) Swept(files int) { m.swept.Add(float64(files)) }
