package meter_test

import (
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/meter"
)

func TestMergingIsAsIfRecordedInOne(t *testing.T) {
	a, b, all, merged := meter.New(), meter.New(), meter.New(), meter.New()
	for i := range int64(10_000) {
		ns := i * i * 100
		all.Record(ns)
		if i%3 == 0 {
			a.Record(ns)
		} else {
			b.Record(ns)
		}
	}
	for _, m := range []*meter.Meter{&a, &b} {
		if err := merged.Merge(m.Detach().Encode()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := merged.Dist(), all.Dist(); got != want {
		t.Errorf("merged %+v, at once %+v", got, want)
	}
	if a.Detach().Encode() != nil {
		t.Error("a detached meter is not empty")
	}
}

func TestExtremesAreKept(t *testing.T) {
	m := meter.New()
	m.Record(-5)
	m.Record(int64(time.Hour)) // what waits for a Redis that was away is so late
	if d := m.Dist(); d.Count != 2 || d.Max < 3_599_000 || d.Max > 3_610_000 {
		t.Errorf("%+v", d)
	}
	m.Record(int64(1000 * time.Hour))
	if d := m.Dist(); d.Count != 3 || d.Max < 86_300_000 {
		t.Errorf("%+v", d)
	}
}

func TestGarbageIsRefused(t *testing.T) {
	if err := meter.New().Merge([]byte("no histogram")); err == nil {
		t.Error("merged")
	}
}
