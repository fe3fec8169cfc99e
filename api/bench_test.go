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
type sink struct {
	h      http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

// oneSend returns a function that sends one message through the whole handler.
func oneSend(tb testing.TB) func() {
	a, err := api.New(api.Options{Store: instant{newMemory()}, Verifier: verifier(tb), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/v1/rooms/r/messages", nil)
	r.Header.Set("Authorization", "Bearer "+tokenOf(tb, "alice"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", "01M82APC7EP7TQCTKZR7EBDN0R")
	r.ContentLength = int64(len(benchBody))
	body := strings.NewReader("")
	r.Body = io.NopCloser(body)
	w := &sink{h: http.Header{}}
	return func() {
		body.Reset(benchBody)
		clear(w.h)
		a.Handler().ServeHTTP(w, r)
		if w.status != http.StatusCreated {
			tb.Fatalf("status %d", w.status)
		}
	}
}

// BenchmarkSend is what a send costs in this package: no network, no Redis.
func BenchmarkSend(b *testing.B) {
	send := oneSend(b)
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}

// A send has 35 µs of CPU for everything; what this package allocates is
// watched, because it creeps up unseen.
func TestSendAllocatesLittle(t *testing.T) {
	send := oneSend(t)
	if n := testing.AllocsPerRun(200, send); n > 16 {
		t.Errorf("%v allocations in a send, at most 16 are meant to be", n)
	}
}
