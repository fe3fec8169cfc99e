package redisstore_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
)

// lingering is a store whose writes linger, with a room: what sends to it, and how many
// round trips that took.
func lingering(t *testing.T, linger time.Duration) (send func() error, trips *atomic.Int64) {
	t.Helper()
	trips = &atomic.Int64{}
	s := open(t, servers.url(t, "standalone"), func(o *redisstore.Options) {
		o.Linger = linger
		o.Observer.Pipeline = func(lane string, _ int, _ time.Duration) {
			if lane == "writes" {
				trips.Add(1)
			}
		}
	})
	r, key := room(t, s, "alice"), name("key")
	var sent atomic.Int64
	return func() error {
		_, err := s.Send(background, chat.Send{
			Room: r, By: as("alice"), Key: fmt.Sprintf("%s-%d", key, sent.Add(1)), Hash: "0123456789abcdef0123456789abcdef", Tail: tail("x"),
		})
		return err
	}, trips
}

func TestSendsThatComeTogetherShareARoundTrip(t *testing.T) {
	const linger, rounds, together = time.Second / 4, 40, 16
	send, trips := lingering(t, linger)
	round := func() int64 {
		before := trips.Load()
		var sends sync.WaitGroup
		for range together {
			sends.Go(func() {
				if err := send(); err != nil {
					t.Error(err)
				}
			})
		}
		sends.Wait()
		return trips.Load() - before
	}
	// What made the room came alone: for a while nothing lingers.
	for end := time.Now().Add(20 * time.Second); round() > 1; {
		if time.Now().After(end) {
			t.Fatalf("%d sends at once never share a round trip", together)
		}
	}
	var sum int64
	start := time.Now()
	for range rounds {
		sum += round()
	}
	if sum > rounds*3/2 {
		t.Errorf("%d times %d sends at once took %d round trips", rounds, together, sum)
	}
	if took := time.Since(start); took > rounds*linger/2 {
		t.Errorf("%d times %d sends at once took %v: they are enough, and were to go at once", rounds, together, took)
	}
}

// Who waits for an answer before the next send would only be made slower.
func TestOneSendAfterTheOtherDoesNotLinger(t *testing.T) {
	const linger, sends = time.Second / 4, 60
	send, _ := lingering(t, linger)
	late := 0
	for range sends {
		start := time.Now()
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > linger/2 {
			late++
		}
	}
	if late > sends/4 {
		t.Errorf("%d of %d sends waited, with nobody there to join them", late, sends)
	}
}
