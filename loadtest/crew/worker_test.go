package crew

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
)

// A worker is looked at by the clock and by order, at once if it must be. Each report
// says what happened since the one before: none may overtake another, or what it has
// is judged too late.
func TestReportsComeInTheOrderOfWhatTheySay(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"id":"1-0"}`))
	}))
	defer api.Close()
	s, err := Job{
		Common: Common{
			Target: "madang", Shape: crowd.Shape{Prefix: "t", Users: 2, Rooms: 1, Each: 2},
			APIs: []netip.AddrPort{netip.MustParseAddrPort(api.Listener.Addr().String())},
		},
		Send: &Send{Conns: 4},
	}.sender()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	s.Begin(0)

	var out bytes.Buffer
	w := &worker{clock: clock.New(0), sender: s, out: gob.NewEncoder(&out)}
	var looks sync.WaitGroup
	for range 4 {
		looks.Go(func() {
			for range 15 {
				if err := w.look(0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	looks.Wait()
	s.Stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	var acks, last uint64
	for in := gob.NewDecoder(&out); ; {
		var r Report
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		acks, last = acks+uint64(len(r.Senders.Acks)), r.Senders.Stats.Acked
		if acks != last {
			t.Fatalf("%d acknowledgements were told up to a report that counts %d", acks, last)
		}
	}
	if last == 0 {
		t.Error("nothing was sent")
	}
}
