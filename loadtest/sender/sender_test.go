package sender_test

import (
	"context"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/internal/fakechat"
	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/loadtest/meter"
	"github.com/madang-chat/madang/loadtest/mint"
	"github.com/madang-chat/madang/loadtest/sender"
	"github.com/madang-chat/madang/loadtest/target"
)

// stage is a fake server with 3 rooms of 4 and a sender for them.
type stage struct {
	t       *testing.T
	server  *fakechat.Server
	sender  *sender.Sender
	acks    []ledger.Ack
	acked   meter.Meter
	service meter.Meter
}

func newStage(t *testing.T, change func(*sender.Config)) *stage {
	t.Helper()
	c, err := crowd.New(crowd.Shape{Prefix: "t", Users: 12, Rooms: 3, Each: 4})
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{t: t, server: fakechat.New(t), acked: meter.New(), service: meter.New()}
	for room := range c.Rooms() {
		var members []string
		for k := range c.Size(room) {
			members = append(members, c.User(c.Member(room, k)))
		}
		st.server.Create(c.Room(room), members...)
	}
	m, err := mint.New(fakechat.Secret, mint.Claims{Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := sender.Config{
		Dialect: target.Madang{}, Clock: clock.New(clock.Offset()), APIs: []netip.AddrPort{st.server.Addr()},
		Mint: m, Crowd: c, Conns: 4,
	}
	if change != nil {
		change(&cfg)
	}
	if st.sender, err = sender.New(cfg); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- st.sender.Run(context.Background()) }()
	t.Cleanup(func() {
		st.sender.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return st
}

func (st *stage) wait(what string, cond func(sender.Stats) bool) sender.Stats {
	st.t.Helper()
	var last sender.Stats
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		snap, ok := st.sender.Snapshot(5 * time.Second)
		if !ok {
			st.t.Fatal("the loop does not answer")
		}
		last = snap.Stats
		st.acks = append(st.acks, snap.Acks...)
		_ = st.acked.Merge(snap.Acked.Encode())
		_ = st.service.Merge(snap.Service.Encode())
		if cond(last) {
			return last
		}
	}
	st.t.Fatalf("%s: not so after 10 s: %+v", what, last)
	return last
}

// finish ends the schedule and waits until every send's fate is known.
func (st *stage) finish() sender.Stats {
	st.t.Helper()
	st.sender.End()
	return st.wait("finished", func(s sender.Stats) bool { return s.InFlight == 0 && s.Held == 0 && s.Behind == 0 })
}

func TestTheScheduleIsKeptAndEverySendIsRecorded(t *testing.T) {
	st := newStage(t, nil)
	st.sender.Begin(200)
	began := time.Now()
	st.wait("100 sent", func(s sender.Stats) bool { return s.Acked >= 100 })
	if took := time.Since(began); took < 450*time.Millisecond || took > 2*time.Second {
		t.Errorf("100 sends at 200/s took %v", took)
	}
	s := st.finish()
	if s.Acked != s.Issued || len(st.acks) != int(s.Acked) || s.Unsent != 0 || len(s.Failed)+len(s.Broken)+len(s.Refused) != 0 {
		t.Errorf("%+v with %d acks", s, len(st.acks))
	}
	seen := map[ledger.Send]bool{}
	for _, a := range st.acks {
		if seen[a.Send] || a.Pos == 0 || a.Room != uint32(a.Send-1)%3 {
			t.Errorf("ack %+v", a)
		}
		seen[a.Send] = true
	}
}

func TestASlowServersDelayIsInTheLatency(t *testing.T) {
	st := newStage(t, func(c *sender.Config) { c.Conns = 1 })
	var once atomic.Bool
	st.server.Answer(func(http.ResponseWriter, *http.Request) bool {
		if once.CompareAndSwap(false, true) {
			time.Sleep(500 * time.Millisecond)
		}
		return false
	})
	st.sender.Begin(100)
	st.wait("100 sent", func(s sender.Stats) bool { return s.Acked >= 100 })
	st.finish()
	// The one slow answer held up the 49 that were due meanwhile: a quarter or
	// more of the first hundred were late by a tenth of a second.
	if p50, p90 := st.acked.Dist().P50, st.acked.Dist().P90; p90 < 200 {
		t.Errorf("p50 %v ms, p90 %v ms: the delay was omitted", p50, p90)
	}
	if p90 := st.service.Dist().P90; p90 > 100 {
		t.Errorf("time per answer, p90 %v ms: only one was slow", p90)
	}
}

func TestRefusedSendsAreTriedAgainWhenTheServerSays(t *testing.T) {
	st := newStage(t, nil)
	var refusals atomic.Int32
	st.server.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		if refusals.Add(1) > 3 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(`{"code":"room_busy"}`))
		return true
	})
	began := time.Now()
	st.sender.Begin(50)
	st.wait("some sent", func(s sender.Stats) bool { return s.Acked >= 5 })
	s := st.finish()
	if s.Refused["429 room_busy"] != 3 || s.Acked != s.Issued || time.Since(began) < time.Second {
		t.Errorf("after %v: %+v", time.Since(began), s)
	}
}

func TestARefusalForGoodIsAFailure(t *testing.T) {
	st := newStage(t, nil)
	st.server.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"type":"about:blank","code": "forbidden"}`))
		return true
	})
	st.sender.Begin(200)
	s := st.wait("refused", func(s sender.Stats) bool { return s.Failed["403 forbidden"] >= 3 })
	if s.Acked != 0 {
		t.Errorf("%+v", s)
	}
}

func TestABrokenConnectionsSendIsSettledByItsKey(t *testing.T) {
	st := newStage(t, nil)
	var cuts atomic.Int32
	st.server.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		if cuts.Add(1) != 5 {
			return false
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return false
		}
		conn.Close()
		return true
	})
	st.sender.Begin(200)
	st.wait("20 sent", func(s sender.Stats) bool { return s.Acked >= 20 })
	s := st.finish()
	if s.Acked != s.Issued || s.Attempts != s.Issued+1 {
		t.Errorf("%+v", s)
	}
}

func TestASendThatIsNeverAnsweredIsTriedAgain(t *testing.T) {
	st := newStage(t, func(c *sender.Config) { c.Timeout = 100 * time.Millisecond })
	var stuck atomic.Int32
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	st.server.Answer(func(http.ResponseWriter, *http.Request) bool {
		if stuck.Add(1) == 3 {
			<-release
			return true
		}
		return false
	})
	st.sender.Begin(200)
	st.wait("20 sent", func(s sender.Stats) bool { return s.Acked >= 20 })
	s := st.finish()
	if s.Acked != s.Issued || s.Broken["answer: none in time"] == 0 {
		t.Errorf("%+v", s)
	}
}

func TestFlatOutKeepsSoManyInFlight(t *testing.T) {
	st := newStage(t, nil)
	var now, most atomic.Int32
	st.server.Answer(func(http.ResponseWriter, *http.Request) bool {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(time.Millisecond)
		now.Add(-1)
		return false
	})
	st.sender.Begin(0)
	st.wait("100 sent", func(s sender.Stats) bool { return s.Acked >= 100 })
	s := st.finish()
	if most.Load() > 4 || s.Acked != s.Issued {
		t.Errorf("%d at once, %+v", most.Load(), s)
	}
}

func TestAnUnreachableServerEndsInFailuresNotInAHang(t *testing.T) {
	st := newStage(t, func(c *sender.Config) {
		c.APIs = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
		c.Tries = 2
	})
	st.sender.Begin(200)
	s := st.wait("failures", func(s sender.Stats) bool {
		return s.Failed["given up after all attempts, the last: connect: connection refused"] > 0
	})
	st.sender.End()
	st.sender.Abandon()
	s = st.wait("nothing left", func(s sender.Stats) bool { return s.InFlight == 0 && s.Held == 0 })
	var failed uint64
	for _, n := range s.Failed {
		failed += n
	}
	if failed != s.Issued || s.Acked != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsDueAtTheEndIsStillSent(t *testing.T) {
	st := newStage(t, func(c *sender.Config) { c.Conns = 1 })
	var slow atomic.Bool
	st.server.Answer(func(http.ResponseWriter, *http.Request) bool {
		if slow.CompareAndSwap(false, true) {
			time.Sleep(300 * time.Millisecond)
		}
		return false
	})
	st.sender.Begin(100)
	st.wait("behind", func(s sender.Stats) bool { return s.Behind >= 10 })
	if s := st.finish(); s.Acked < 10 || s.Acked != s.Issued || s.Unsent != 0 {
		t.Errorf("%+v", s)
	}
}

// A step of a capacity run that broke is followed by others, on the same connections.
func TestConnectionsWhoseSendsWereGivenUpSendAgain(t *testing.T) {
	st := newStage(t, nil)
	var stuck atomic.Int32
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	st.server.Answer(func(http.ResponseWriter, *http.Request) bool {
		if stuck.Add(1) <= 4 {
			<-release
			return true
		}
		return false
	})
	st.sender.Begin(200)
	st.wait("all wait", func(s sender.Stats) bool { return s.InFlight == 4 })
	st.sender.End()
	st.sender.Abandon()
	st.wait("given up", func(s sender.Stats) bool { return s.InFlight == 0 })
	st.sender.Begin(200)
	st.wait("20 sent", func(s sender.Stats) bool { return s.Acked >= 20 })
	st.finish()
}

// The lulls and bursts of a chat follow each other without an end between them.
func TestWhatWasDueWhenAnotherScheduleBeginsIsNotForgotten(t *testing.T) {
	st := newStage(t, func(c *sender.Config) { c.Conns = 1 })
	var once atomic.Bool
	release := make(chan struct{})
	st.server.Answer(func(http.ResponseWriter, *http.Request) bool {
		if once.CompareAndSwap(false, true) {
			<-release
		}
		return false
	})
	st.sender.Begin(100)
	behind := st.wait("behind", func(s sender.Stats) bool { return s.Behind >= 20 }).Behind
	st.sender.Begin(10)
	close(release)
	st.wait("all that was due sent", func(s sender.Stats) bool { return s.Acked > behind })
	if s := st.finish(); s.Acked != s.Issued || s.Unsent != 0 {
		t.Errorf("%+v", s)
	}
	if late := st.acked.Dist().Max; late < 150 {
		t.Errorf("the latest was acknowledged %v ms after it was due: the wait for the schedule's end was left out", late)
	}
}

// The time of a send that is due in three hundred years is beyond what a clock counts to.
func TestAVeryLowRateIsNoFlood(t *testing.T) {
	for _, poisson := range []bool{false, true} {
		st := newStage(t, func(c *sender.Config) { c.Poisson = poisson })
		st.sender.Begin(1e-12)
		st.wait("the first sent", func(s sender.Stats) bool { return s.Acked >= 1 })
		if s := st.finish(); s.Issued != 1 {
			t.Errorf("%d sends at one in 30,000 years", s.Issued)
		}
	}
}

func TestSomeSendsCarryAFile(t *testing.T) {
	st := newStage(t, func(c *sender.Config) { c.UploadShare, c.UploadBytes = 0.3, 10_000 })
	st.server.TakeFiles()
	st.sender.Begin(500)
	st.wait("100 sent", func(s sender.Stats) bool { return s.Acked >= 100 })
	s := st.finish()
	sizes, named := st.server.Files()
	if s.Acked != s.Issued || s.Attempts != s.Issued || len(s.NotUploaded)+len(s.Failed)+len(s.Broken) > 0 {
		t.Errorf("%+v", s)
	}
	if share := float64(s.Uploads) / float64(s.Issued); share < 0.1 || share > 0.6 || int(s.Uploads) != len(sizes) {
		t.Errorf("%d uploads of %d sends, the server has %d", s.Uploads, s.Issued, len(sizes))
	}
	for id, size := range sizes {
		if size != 10_000 || named[id] != 1 {
			t.Errorf("%s has %d bytes and is named by %d messages", id, size, named[id])
		}
	}
}

func TestAFileThatIsNotTakenIsCountedAndItsMessageGoesWithout(t *testing.T) {
	st := newStage(t, func(c *sender.Config) { c.UploadShare, c.UploadBytes = 1, 100 })
	st.server.TakeFiles()
	var uploads atomic.Int32
	st.server.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/attachments" {
			return false
		}
		switch uploads.Add(1) {
		case 2:
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusInsufficientStorage)
			_, _ = w.Write([]byte(`{"code":"storage_full"}`))
			return true
		case 4:
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
			return true
		}
		return false
	})
	st.sender.Begin(200)
	st.wait("20 sent", func(s sender.Stats) bool { return s.Acked >= 20 })
	s := st.finish()
	var failed uint64
	for _, n := range s.NotUploaded {
		failed += n
	}
	// An end of a connection that was used before may be an idle time-out: tried again.
	if s.Acked != s.Issued || s.NotUploaded["507 storage_full"] != 1 || failed > 2 || s.Uploads+failed != s.Issued {
		t.Errorf("%+v", s)
	}
}

func TestAMessageIsDueWhenItsFileIsThere(t *testing.T) {
	st := newStage(t, func(c *sender.Config) { c.UploadShare, c.UploadBytes = 1, 100 })
	st.server.TakeFiles()
	st.server.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/attachments" {
			time.Sleep(150 * time.Millisecond)
		}
		return false
	})
	st.sender.Begin(15)
	st.wait("10 sent", func(s sender.Stats) bool { return s.Acked >= 10 })
	s := st.finish()
	if p50 := st.acked.Dist().P50; p50 > 100 || s.Uploads != s.Issued {
		t.Errorf("due → acknowledged, p50 %v ms: the upload is in it; %+v", p50, s)
	}
}
