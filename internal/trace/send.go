package trace

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// newClient is the exporter. What it is not told here it takes from the variables
// that OpenTelemetry names: OTEL_EXPORTER_OTLP_HEADERS for a collector that wants
// to know who sends, OTEL_EXPORTER_OTLP_COMPRESSION.
func newClient(endpoint string, transport *http.Transport) otlptrace.Client {
	if u, err := url.Parse(endpoint); err == nil && (u.Path == "" || u.Path == "/") {
		u.Path = "/v1/traces"
		endpoint = u.String()
	}
	return otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(endpoint),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: transport, Timeout: uploadTimeout}),
		otlptracehttp.WithMaxResponseSize(maxAnswer),
		// While one batch is tried again, the queue overflows with what is newer.
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
	)
}

// Start begins to send. A collector that is not there is no error.
func (t *Tracer) Start(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.client.Start(ctx); err != nil {
		return err
	}
	t.started.Store(true)
	go t.run() // Stop waits for it
	return nil
}

// Stop sends what is queued, if the collector takes it within moments, and ends.
// It is idempotent.
func (t *Tracer) Stop(ctx context.Context) error {
	if t == nil || !t.started.Load() {
		return nil
	}
	t.once.Do(func() { close(t.quit) })
	<-t.done // stopTimeout after the upload that is under way, which quit calls off
	t.transport.CloseIdleConnections()
	return nil
}

func (t *Tracer) run() {
	defer close(t.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() { // ends with run
		select {
		case <-t.quit:
		case <-ended:
			return
		}
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ended:
		}
	}()
	ticker := time.NewTicker(sendEvery)
	defer ticker.Stop()
	batch := make([]*tracepb.Span, 0, mostBatch)
	taken := true // the collector took the last batch
	upload := func() {
		if len(batch) == 0 {
			return
		}
		taken = t.upload(ctx, batch, taken)
		clear(batch)
		batch = batch[:0]
	}
	for {
		select {
		case s := <-t.queue:
			if batch = append(batch, s); len(batch) == mostBatch {
				upload()
			}
		case <-ticker.C:
			upload()
		case <-t.quit:
			for {
				select {
				case s := <-t.queue:
					if batch = append(batch, s); len(batch) < mostBatch {
						continue
					}
				default:
				}
				if len(batch) == 0 {
					return
				}
				upload()
			}
		}
	}
}

// upload sends a batch and says whether the collector took it. It logs when that
// changes.
func (t *Tracer) upload(ctx context.Context, batch []*tracepb.Span, before bool) bool {
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	err := t.client.UploadTraces(ctx, []*tracepb.ResourceSpans{{
		Resource:   t.resource,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: t.scope, Spans: batch}},
	}})
	if err != nil {
		t.refused.Add(uint64(len(batch)))
		if before {
			t.log.Warn("the collector does not take traces: they are dropped until it does", "err", err)
		}
		return false
	}
	t.exported.Add(uint64(len(batch)))
	if !before {
		t.log.Info("the collector takes traces again")
	}
	return true
}
