package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// instant accepts every send and does nothing else.
type instant struct{ *memory }

func (instant) Send(_ context.Context, s chat.Send) (chat.Sent, error) {
	return chat.Sent{ID: protocol.ID{Ms: 1_800_000_000_000}, N: 1, Tail: s.Tail, Durability: chat.Accepted}, nil
}

const benchBody = `{"type":"text","text":"a message of usual length, as people type them all day"}`

// sink is a ResponseWriter that keeps its header map.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}

// BenchmarkSend is what a send costs in this package: no network, no Redis.
func BenchmarkSend(b *testing.B) {
	a, err := api.New(api.Options{Store: instant{newMemory()}, Verifier: verifier(b), Logger: slog.New(slog.DiscardHandler), Limits: api.Limits{SendsPerSecond: -1}})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/v1/rooms/r/messages", nil)
	r.Header.Set("Authorization", "Bearer "+tokenOf(b, "alice"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", "01M82APC7EP7TQCTKZR7EBDN0R")
	r.ContentLength = int64(len(benchBody))
	body := strings.NewReader("")
	r.Body = io.NopCloser(body)
	w := &sink{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(benchBody)
		clear(w.h)
		a.Handler().ServeHTTP(w, r)
	}
}
